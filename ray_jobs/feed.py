"""Feeds a worker: Ray Data reads the worker's own ranges ahead of it, in exactly the order asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

_SLOT = 0.25  # logical CPUs of a reading task: it waits more than it computes


class _Read:
    def __init__(self, read: Callable[[Any], dict[str, np.ndarray]]) -> None:
        self.read = read

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        key = row["key"]
        return self.read(tuple(key) if isinstance(key, list | np.ndarray) else key)


def feed(read: Callable[[Any], dict[str, np.ndarray]], keys: Sequence[Any]) -> Iterator[dict[str, np.ndarray]]:
    """``read(key)`` for each key in order: a dataset of this worker alone, one block for each key."""
    import ray.data

    from ray_jobs.cluster import quiet_data

    quiet_data()
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    rows = [{"key": list(key) if isinstance(key, tuple) else key} for key in keys]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    yield from data.map(_Read(read), num_cpus=_SLOT).iter_rows()
