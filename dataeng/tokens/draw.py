"""A sample of a table too large for one process: in two passes over blocks of rows, whatever the blocks are.

The first pass sums the bytes of texts by the first characters of ids, which says up to where ids are wanted; the second
keeps those rows. (Ids are hashes, so documents whose ids come first are drawn at random.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ["id", "text", "language"]
_FIRST = 4  # characters of an id: 65,536 parts of a table


def weighed(block: pa.Table) -> pa.Table:
    """The bytes of a block's texts by the first characters of their ids: `first` and `bytes`."""
    first = pc.utf8_slice_codeunits(block["id"], 0, _FIRST)
    sizes = pc.cast(pc.binary_length(block["text"]), pa.int64())
    found: Counter[str] = Counter()
    for key, size in zip(first.to_pylist(), sizes.to_pylist(), strict=True):
        found[key] += size
    return pa.table({"first": list(found), "bytes": pa.array(found.values(), pa.int64())})


def last_first(totals: Mapping[str, int], limit_bytes: int) -> str:
    """The first characters of ids up to which texts have ``limit_bytes``, or all there are; "" of an empty table."""
    held, last = 0, ""
    for last in sorted(totals):
        held += totals[last]
        if held >= limit_bytes:
            break
    return last


def up_to(block: pa.Table, last: str) -> pa.Table:
    """The rows of a block whose ids begin with ``last`` or what comes before it."""
    return block.filter(pc.less_equal(pc.utf8_slice_codeunits(block["id"], 0, _FIRST), last))
