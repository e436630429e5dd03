"""Deduplication: equal ids, equal texts, then near-duplicates; one survivor a cluster.

Shuffled, a document: about 300 bytes of ids and hashes and a signature twice (by id, by exact hash), the
bands and sets of ``candidates``, about 150 bytes of decisions, and its text once at most, in the last join.
Nothing that grows with the data comes to the driver. With `dedup.against` see ``against`` too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dataeng.cli import Conflict
from dataeng.dedup import Config, decide
from dataeng.dedup.against import earlier_runs, inputs
from dataeng.document import DOCUMENT
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs import against, stages
from spark_jobs.candidates import between_survivors, links
from spark_jobs.clusters import PLACE, clusters, decided, light, sign, with_places
from spark_jobs.components import components
from spark_jobs.scratch import WHOLE_BYTES, Scratch, joined
from spark_jobs.session import Engine, job


def _rows(
    session: SparkSession, attempt: Attempt, files: list[str], scratch: Scratch, root: str
) -> tuple[DataFrame, dict[str, Any]]:
    config: Config = attempt.config  # type: ignore[assignment]
    documents = with_places(stages.read_files(session, files, [*DOCUMENT.names, "row_hash"]))
    runs = earlier_runs(config, root)
    if any(entry not in attempt.inputs for entry in inputs(runs)):
        raise Conflict("dedup: a run that dedup.against names was published anew meanwhile: run it again")
    signed, earlier = sign(documents, config), against.signatures(session, runs)
    if earlier is not None:
        signed = scratch.keep(signed)
        signed = signed.unionByName(against.meeting(earlier, signed))
    known = scratch.keep(light(signed), WHOLE_BYTES)
    firsts = known.filter("first")

    def sets_of(ids: DataFrame) -> DataFrame:
        texts = documents.select("text", *PLACE).join(firsts.join(ids, "id", "left_semi").select("id", *PLACE), PLACE)
        new = stages.map_rows(texts.select("id", "text"), decide.sets_of(config.shingle_words), decide.SETS)
        old = against.sets(session, runs, ids.filter(against.is_earlier()), config.shingle_words)
        return new if old is None else new.unionByName(old)

    candidates = firsts.filter((F.col("id") == F.col("representative")) & (F.size("bands") > 0))
    found, cut_off, larger = links(scratch, candidates, sets_of, config)
    stars, rounds = components(scratch, found.select(F.col("id").alias("node"), "root"))
    if larger is not None:
        gone = clusters(firsts, found, stars).filter("representative != survivor").select("representative")
        survivors = candidates.join(gone, "representative", "left_anti")
        more = between_survivors(scratch, survivors, larger, sets_of, config)
        found, edges = found.unionByName(more), more.select(F.col("id").alias("node"), "root")
        stars, again = components(scratch, stars.unionByName(edges))
        rounds += again
    done = scratch.keep(against.only_new(decided(known, clusters(firsts, found, stars))), WHOLE_BYTES)
    signatures = done.filter("first").withColumn("exact", F.col("text_hash"))
    rows = stages.map_rows(signatures, decide.signatures, decide.SIGNATURES)
    attempt.also += stages.write(rows, f"{attempt.data_folder}.signatures")
    chosen = done.select(*PLACE, "first", "representative", "survivor", "cluster", "matched", "similarity")
    details = {"parameters": config.parameters(), "component_rounds": rounds, "bands_cut_off": cut_off}
    return stages.map_rows(documents.join(chosen, PLACE), partial(decide.decide, config=config)), details


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Deduplicate what the input stages kept; publishes tables kept, dropped and signatures."""
    config: Config = recipe.step("dedup")
    earlier = inputs(earlier_runs(config, recipe.root))
    return joined(engine, recipe, "dedup", config.input, partial(_rows, root=recipe.root), earlier)


if __name__ == "__main__":
    job(step)
