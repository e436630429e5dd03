"""Shards follow the order that `publish` recorded, whatever order documents are tokenised in."""

from __future__ import annotations

import copy
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from dataeng import stage, storage
from dataeng.tokens import Config, Spool, chat, encoder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    words = {chat.END_OF_TEXT: 0} | {str(number): number + 1 for number in range(10)}
    made = Tokenizer(models.WordLevel(words, unk_token=chat.END_OF_TEXT))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return str(path)


SCORES = [0.5, 0.1, None, 0.9, 0.1, math.nan]  # of documents 0 to 5; 1 is used twice


def written(tokenizer: str, folder: Path, order: dict[str, Any] | None) -> list[int]:
    """The numbers of the documents in the order of their shard."""
    encode = copy.deepcopy(encoder(tokenizer, order))  # as an engine sends it
    rows = []
    for number, score in enumerate(SCORES):
        pairs = [] if score is None else [("quality", score)]
        repeat = [("repeat", "2")] if number == 1 else None
        batch: dict[str, Any] = {"id": [f"{number:032x}"], "source": ["web"], "text": [str(number)]}
        rows.append({k: v[0] for k, v in encode(batch | {"metadata": [repeat], "scores": [pairs]}).items()})
    random.shuffle(rows)
    with Spool() as spool:
        for row in rows:
            spool.add("train", row)
        _, paths = spool.write("train", str(folder), Config(sample_tokens=8), "<u2")
    stream = np.frombuffer(storage.read_bytes(paths[0]), "<u2")
    return [int(token) - 1 for token in stream if token]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (None, [0, 1, 2, 3, 4, 5, 1]),
        ({"score": "quality", "descending": False}, [1, 4, 0, 3, 2, 5, 1]),
        ({"score": "quality", "descending": True}, [3, 0, 1, 4, 2, 5, 1]),
    ],
)
def test_shards_follow_the_order(
    tokenizer: str, tmp_path: Path, order: dict[str, Any] | None, expected: list[int]
) -> None:
    assert written(tokenizer, tmp_path, order) == expected


def test_a_document_that_comes_twice_is_found_in_any_order(tmp_path: Path) -> None:
    row = {"id": "a", "source": "s", "repeat": 1, "tokens": b"\1\0\0\0"}
    with Spool() as spool:
        for rank, name in ((0.1, "a"), (0.2, "b"), (0.3, "a")):
            spool.add("train", row | {"rank": rank, "id": name})
        with pytest.raises(stage.Broken, match="the document a came twice"):
            spool.write("train", str(tmp_path), Config(), "<u2")
