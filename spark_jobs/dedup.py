"""Deduplication: equal ids, equal texts, then near-duplicates; one survivor a cluster.

Shuffled, a document: about 300 bytes of ids and hashes and a signature twice (by id, by exact hash), the
bands and sets of ``candidates``, about 150 bytes of decisions, and its text once at most, in the last join.
Nothing that grows with the data comes to the driver. Where all sets fit one task (``IN_ONE_TASK``), it does what
``candidates`` and ``components`` do by joins (``dedup.whole``): the same tables, from fewer jobs. With
`dedup.against` see ``against`` too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dataeng.cli import Conflict
from dataeng.dedup import Config, decide, scores, whole
from dataeng.dedup.against import earlier_runs, inputs
from dataeng.document import DOCUMENT
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs import against, stages
from spark_jobs.candidates import Sets, between_survivors, links
from spark_jobs.clusters import PLACE, clusters, decided, light, sign, with_places
from spark_jobs.components import components
from spark_jobs.scratch import WHOLE_BYTES, Scratch, joined
from spark_jobs.session import Engine, job

IN_ONE_TASK = 8_000_000  # shingles of a corpus whose near-duplicates one task finds: 64 MB, some ten thousand pages


def _in_one_task(candidates: DataFrame, sets: DataFrame, config: Config) -> DataFrame:
    """The clusters of documents whose sets fit a task, a row of nulls for each band cut off."""
    columns = [F.col(name) for name in whole.CANDIDATES.names]
    together = candidates.join(sets, "id").select(*columns).repartition(1)
    return stages.map_rows(together, partial(whole.near_duplicates, config=config), whole.NEAR)


def _by_joins(scratch: Scratch, candidates: DataFrame, sets_of: Sets, config: Config) -> tuple[DataFrame, int, int]:
    """The clusters, the number of bands cut off, and the rounds that the components took."""
    found, cut_off, larger = links(scratch, candidates, sets_of, config)
    stars, rounds = components(scratch, found.select(F.col("id").alias("node"), "root"))
    if larger is not None:
        gone = clusters(candidates, found, stars).filter("representative != survivor").select("representative")
        survivors = candidates.join(gone, "representative", "left_anti")
        more = between_survivors(scratch, survivors, larger, sets_of, config)
        found, edges = found.unionByName(more), more.select(F.col("id").alias("node"), "root")
        stars, again = components(scratch, stars.unionByName(edges))
        rounds += again
    return clusters(candidates, found, stars), cut_off, rounds


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
    candidates = known.filter("first AND id = representative AND size(bands) > 0")

    def sets_of(ids: DataFrame) -> DataFrame:
        places = candidates.join(ids, "id", "left_semi").select("id", *PLACE)
        texts = documents.select("text", *PLACE).join(places, PLACE).select("id", "text")
        new = stages.map_rows(texts, decide.sets_of(config.shingle_words), decide.SETS)
        old = against.sets(session, runs, ids.filter(against.is_earlier()), config.shingle_words)
        return new if old is None else new.unionByName(old)

    [size] = candidates.agg(F.coalesce(F.sum("shingles"), F.lit(0))).first()  # type: ignore[misc]
    if size <= IN_ONE_TASK:
        near = scratch.keep(_in_one_task(candidates, sets_of(candidates.select("id")), config), WHOLE_BYTES)
        cut_off, rounds = near.filter("representative IS NULL").count(), 0
        done = against.only_new(decided(known, near))
    else:
        near, cut_off, rounds = _by_joins(scratch, candidates, sets_of, config)
        done = scratch.keep(against.only_new(decided(known, near)), WHOLE_BYTES)
    signatures = done.filter("first").withColumn("exact", F.col("text_hash"))
    rows = stages.map_rows(signatures, decide.signatures, decide.SIGNATURES)
    attempt.also += stages.write(rows, f"{attempt.data_folder}.signatures")
    chosen = done.select(*PLACE, "first", "representative", "survivor", "cluster", "matched", "similarity")
    details = {"parameters": config.parameters(), "component_rounds": rounds, "bands_cut_off": cut_off}
    return stages.map_rows(documents.join(chosen, PLACE), partial(decide.decide, config=config)), details


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Deduplicate what the input stages kept; publishes tables kept, dropped and signatures."""
    config: Config = recipe.step("dedup")
    scores.check(recipe, "dedup", config.keep, config.input)
    earlier = inputs(earlier_runs(config, recipe.root))
    return joined(engine, recipe, "dedup", config.input, partial(_rows, root=recipe.root), earlier)


if __name__ == "__main__":
    job(step)
