"""Feeds a worker: Ray Data reads the worker's own ranges ahead of it, in exactly the order asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np

_SLOT = 0.25  # logical CPUs of a reading task: it waits more than it computes
_READERS = 2  # of a worker at once, each a process that costs seconds of a core to start: more delay its first step
_KEYS = 64  # of one dataset: all its blocks are made before the first is read, milliseconds for each
Read = Callable[[Any], dict[str, np.ndarray]]


class _Read:
    def __init__(self, read: Read) -> None:
        self.read = read

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        key = row["key"]
        return self.read(tuple(key) if isinstance(key, list | np.ndarray) else key)


def feed(read: Read, keys: Sequence[Any]) -> Iterator[dict[str, np.ndarray]]:
    """``read(key)`` for each key in order: datasets of this worker alone, one block for each key.

    While the second half of a dataset is used, the next one is already read.
    """
    parts = [keys[at : at + _KEYS] for at in range(0, len(keys), _KEYS)]
    with ThreadPoolExecutor(1, "feed") as pool:
        coming = [pool.submit(_begun, read, part) for part in parts[:1]]
        for index, part in enumerate(parts):
            values = coming.pop().result()
            for place, value in enumerate(values):
                if place == len(part) // 2 and index + 1 < len(parts):
                    coming.append(pool.submit(_begun, read, parts[index + 1]))
                yield value


def _begun(read: Read, keys: Sequence[Any]) -> Iterator[dict[str, np.ndarray]]:
    """A dataset of the keys, being read: its first value is there."""
    import ray.data

    from ray_jobs.cluster import quiet_data

    quiet_data()
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    rows = [{"key": list(key) if isinstance(key, tuple) else key} for key in keys]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    readers = ray.data.TaskPoolStrategy(size=_READERS)
    values = iter(data.map(_Read(read), compute=readers, num_cpus=_SLOT).iter_rows())
    return chain([next(values)], values)
