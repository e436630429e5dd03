"""What Ray Data reads for a worker: in order, from one dataset to the next."""

import time

import numpy as np
import pytest

from dataeng.recipe import Recipe
from ray_jobs import cluster, feed

pytestmark = pytest.mark.e2e


def test_keys_come_in_order_over_several_datasets(tmp_path, monkeypatch):
    def square(key):  # of this function, so that it travels whole
        return {"square": np.array([key[0] ** 2, key[1]])}

    def spell(_key):
        begin = time.monotonic()
        time.sleep(0.2)
        return {"spell": np.array([begin, time.monotonic()])}

    cluster.start(Recipe("feed.toml", str(tmp_path), 1, {"ray": {"cpus": 4}}))
    try:
        spells = [value["spell"] for value in feed.feed(spell, range(12))]
        at_once = [sum(first <= begin < last for first, last in spells) for begin, _ in spells]
        assert max(at_once) <= feed._READERS, "no more processes are started than read"
        monkeypatch.setattr(feed, "_KEYS", 3)
        for count in (0, 1, 3, 8):
            found = [value["square"].tolist() for value in feed.feed(square, [(n, 7) for n in range(count)])]
            assert found == [[n**2, 7] for n in range(count)]
    finally:
        cluster.stop()
