"""Connected components: the least id of each, whatever the shape, or an error."""

from __future__ import annotations

import itertools
import random

import pytest

from spark_jobs.components import NotConverged, components
from spark_jobs.scratch import Scratch

Edges = list[tuple[str, str]]


def plain_components(edges: Edges) -> dict[str, str]:
    """node → least node of its component, by union-find; roots left out."""
    parents: dict[str, str] = {}

    def find(node: str) -> str:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for one, other in edges:
        a, b = find(one), find(other)
        parents[max(a, b)] = min(a, b)
    return {node: find(node) for node in parents if find(node) != node}


def run(spark, folder, edges: Edges, max_rounds: int = 100) -> tuple[dict[str, str], int]:
    frame = spark.createDataFrame(edges, "node string, root string")
    stars, rounds = components(Scratch(spark, str(folder)), frame, max_rounds)
    return {row["node"]: row["root"] for row in stars.collect()}, rounds


def random_graph(seed: int) -> Edges:
    chance = random.Random(seed)
    return [(f"n{chance.randrange(300)}", f"n{chance.randrange(300)}") for _ in range(180)]


GRAPHS: list[Edges] = [
    [("b", "a")],
    [("a", "a")],
    [("a", "b"), ("b", "a"), ("a", "b")],
    [("c", "a"), ("c", "b")],
    [("a", "b"), ("b", "c"), ("c", "a"), ("x", "y")],
    random_graph(1),
    random_graph(2),
]


def test_components_are_those_of_union_find(spark, tmp_path) -> None:
    edges = [(f"{k}{one}", f"{k}{other}") for k, graph in enumerate(GRAPHS) for one, other in graph]
    assert run(spark, tmp_path / "s", edges)[0] == plain_components(edges)
    assert run(spark, tmp_path / "t", [("a", "a")]) == ({}, 0)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_chain_takes_a_logarithmic_number_of_rounds(spark, tmp_path, shuffled) -> None:
    names = [f"{number:05d}" for number in range(10_000)]
    if shuffled:
        random.Random(5).shuffle(names)
    found, rounds = run(spark, tmp_path / "s", list(itertools.pairwise(names)))
    assert found == dict.fromkeys(sorted(names)[1:], "00000")
    assert rounds <= 16


def test_too_few_rounds_are_an_error(spark, tmp_path) -> None:
    names = [f"{number:03d}" for number in range(200)]
    with pytest.raises(NotConverged, match="2 rounds"):
        run(spark, tmp_path / "s", list(itertools.pairwise(names)), 2)
