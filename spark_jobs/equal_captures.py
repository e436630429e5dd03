"""Captures of equal contents in any files of a slice are extracted once.

A first, cheap reading gives each capture's id, key (``key_of``) and place: about 150 bytes shuffled a capture,
by id and by key. Each file's task is then told which of its captures lead others and which wait for
another's result; it reads its file from end to end either way, so nothing is fetched by offset. Rows meet by
route: the key of what is shared, else the id. Rows of one id always have one route, so that equal ids are
found in one partition afterwards. At most ``MEMBERS`` ids share a leader, so that no task is made large by a
page that stands a million times. Memory of a task: a row for each of its file's captures that share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from dataeng.document import ROW, to_batch
from dataeng.extract.captures import Part, Shared
from dataeng.extract.repeats import PARTED, PLACED, fill

MEMBERS = 1000
Look = Callable[[str, str], Iterator[dict[str, Any]]]
Read = Callable[[str, str, Shared], Iterator[dict[str, Any]]]
_BATCH = 64  # rows that are handed over at once while a file is read
_TASKED = pa.schema([*PLACED, ("task", pa.int32())])


def parts_of(files: DataFrame, look: Look) -> DataFrame:
    """(task, offset, index, route, leads) of every capture that shares its contents.

    ``files`` has ``task`` (a number of each file's own), ``path`` and ``file``. An id that occurs with other contents
    as well, or also damaged, shares nothing.
    """

    def placed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for file in batch.to_pylist():
                rows = look(file["path"], file["file"])
                while some := [row | {"task": file["task"]} for row in islice(rows, 4096)]:
                    yield pa.RecordBatch.from_pylist(some, schema=_TASKED)

    of_id = Window.partitionBy("id")
    one_key = F.min("key").over(of_id) == F.max("key").over(of_id)
    all_keyed = F.count("key").over(of_id) == F.count("*").over(of_id)
    able = files.mapInArrow(placed, from_arrow_schema(_TASKED)).withColumn("able", one_key & all_keyed).filter("able")
    group = F.floor((F.dense_rank().over(Window.partitionBy("key").orderBy("id")) - 1) / MEMBERS)
    of_group = Window.partitionBy("key", "group")
    first = F.row_number().over(of_group.orderBy("id", "task", "offset", "index")) == 1
    grouped = able.withColumn("group", group).withColumns({"size": F.count("*").over(of_group), "leads": first})
    route = F.concat_ws(".", "key", "group").alias("route")
    return grouped.filter("size > 1").select("task", "offset", "index", route, "leads")


def shared_rows(files: DataFrame, count: int, parts: DataFrame, read: Read, partitions: int) -> DataFrame:
    """ROW rows of ``count`` files, all rows of an id in one of so many partitions; each capture extracted once."""

    def read_told(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        heads, shared = [], defaultdict[int, dict[tuple[int, int], Part]](dict)
        for batch in batches:
            for row in batch.to_pylist():
                if row["path"] is not None:
                    heads.append(row)
                else:
                    shared[row["task"]][row["offset"], row["index"]] = Part(row["route"], row["leads"])
        for head in heads:
            rows = read(head["path"], head["file"], shared[head["task"]])
            while some := [{"route": row["id"], "leads": None} | row for row in islice(rows, _BATCH)]:
                yield to_batch(some, PARTED)

    told = files.unionByName(parts, allowMissingColumns=True).repartitionById(count, "task")
    rows = told.mapInArrow(read_told, from_arrow_schema(PARTED)).repartition(partitions, "route")
    leaders_first = rows.sortWithinPartitions(F.col("leads").isNull(), "route", F.desc("leads"))
    return leaders_first.mapInArrow(fill, from_arrow_schema(ROW))
