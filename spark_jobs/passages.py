"""Passages: lines that a site repeats and long substrings that stand elsewhere are cut, outside their first occurrence.

For a corpus of W words in D documents and L lines, with windows of k = 50 tokens: units of about 100 bytes, for each
document one, each line one, and 2 / (k / 2 + 2) of all words (7 %); they are written once and shuffled as
``repeats`` says. Windows are made of texts that have a run in common with another, one for each word that stands
within k of such a run: on a deduplicated corpus a few per cent of W, at worst W. Texts are shuffled twice at most, by
id: of those documents that share a run, and of all when the cuts are made; before that ids with 60 bytes each, to see
whether one comes twice (the first counts). Memory of a task: a batch of texts, and one document's repeats (80 bytes
each). Nothing comes to the driver.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.document import DOCUMENT
from dataeng.passages import Config, cut, units
from dataeng.passages.spans import REPEATS, SPANS, spans
from dataeng.recipe import Recipe
from dataeng.stage import Attempt, Manifest
from spark_jobs import stages
from spark_jobs.clusters import PLACE, with_places
from spark_jobs.repeats import repeated
from spark_jobs.scratch import Scratch, joined
from spark_jobs.session import Engine, job


def _repeats(documents: DataFrame, scratch: Scratch, config: Config) -> DataFrame:
    """REPEATS of all documents: common lines with their sites, and windows that occur twice."""
    minimum = {units.SITE: 1, units.RUN: 2}
    if "lines" in config.rules:
        minimum[units.LINE] = config.rule("lines").minimum_documents
    texts = documents.select("id", "url", "source", "text")
    rows = scratch.keep(stages.map_rows(texts, partial(units.units, config=config), units.UNITS))
    found = scratch.keep(repeated(rows, minimum))
    if "substrings" in config.rules:
        found = found.filter(F.col("kind") != units.RUN).unionByName(_windows(texts, found, scratch, config))
    first = [F.col("first.id").alias("first_id"), F.col("first.place").alias("first_place")]
    return found.select("id", "kind", "place", "end", "words", "holders", *first)


def _windows(texts: DataFrame, found: DataFrame, scratch: Scratch, config: Config) -> DataFrame:
    """The windows that occur twice, of those that are stood for by runs that do (among ``found``)."""
    shared = found.filter(F.col("kind") == units.RUN).groupBy("id").agg(F.collect_list("place").alias("places"))
    some = texts.join(shared, "id").select("id", "url", "text", "places")
    windows = scratch.keep(stages.map_rows(some, partial(units.windows, config=config), units.UNITS))
    return repeated(windows, {units.WINDOW: 2})


def _once(documents: DataFrame, scratch: Scratch) -> tuple[DataFrame, DataFrame | None]:
    """The first row of each id, the same that `dedup` takes for it, and the others; None where there are none."""
    placed = with_places(documents)
    of_id = Window.partitionBy("id").orderBy("file", "offset", "row_hash", *PLACE)
    facts = placed.select("id", "file", "offset", "row_hash", *PLACE).withColumn("number", F.row_number().over(of_id))
    later = scratch.keep(facts.filter("number > 1").select(PLACE))
    if later.isEmpty():
        return documents, None
    return placed.join(later, PLACE, "left_anti"), placed.join(later, PLACE, "left_semi")


def _rows(
    session: SparkSession, attempt: Attempt, files: list[str], scratch: Scratch
) -> tuple[DataFrame, dict[str, Any]]:
    config: Config = attempt.config  # type: ignore[assignment]
    documents, again = _once(stages.read_files(session, files, [*DOCUMENT.names, "row_hash"]), scratch)
    repeats = _repeats(documents, scratch, config).select(REPEATS.names)
    sorted_repeats = repeats.repartition("id").sortWithinPartitions("id", "kind", "place")
    rows = stages.map_rows(sorted_repeats, partial(spans, config=config), SPANS)
    attempt.also += (paths := stages.write(rows, f"{attempt.data_folder}.spans"))
    schema = from_arrow_schema(SPANS)
    found = session.read.schema(schema).parquet(*paths) if paths else session.createDataFrame([], schema)
    span = F.sort_array(F.collect_list(F.struct("start", "end", "rule")))
    needed = found.select(F.col("first_id").alias("id"), F.lit(True).alias("needed")).distinct()
    with_spans = documents.join(found.groupBy("id").agg(span.alias("spans")), "id", "left").join(needed, "id", "left")
    rows = stages.map_rows(with_spans, partial(cut.decide, config=config))
    return (rows if again is None else rows.unionByName(stages.map_rows(again, cut.repeated))), {}


def step(engine: Engine, recipe: Recipe) -> Manifest:
    """Cut repeats out of what the input stages kept; publishes tables kept, dropped and spans."""
    config: Config = recipe.step("passages")
    return joined(engine, recipe, "passages", config.input, _rows)


if __name__ == "__main__":
    job(step)
