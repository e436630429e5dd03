"""Vectors by a sentence-transformers folder, run one text at a time: a batch's padding would move the last bits.

Folders of Transformer, Pooling (mean, cls, max) and Normalize are run by `transformers` itself; others need
`sentence-transformers`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataeng.cli import UserError
from dataeng.semantic.vectors import Vectors, quantised

Encode = Callable[[str], NDArray[Any]]
_POOLING = {"mean": "mean", "cls": "cls", "max": "max"}


def pooling(folder: str) -> tuple[str, str] | None:
    """The transformer's folder and how its tokens become one vector; None where sentence-transformers must run it.

    Raises UserError where the folder is none of a model.
    """
    try:
        modules = json.loads(Path(folder, "modules.json").read_text())
        paths = {str(module["type"]).rpartition(".")[2]: str(Path(folder, module["path"])) for module in modules}
        if "Transformer" not in paths or not paths.keys() <= {"Transformer", "Pooling", "Normalize"}:
            return None
        how = json.loads(Path(paths["Pooling"], "config.json").read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"semantic.model: {folder}: is no sentence-transformers folder: {error}") from None
    modes = [name.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
             for name, on in how.items() if name.startswith("pooling_mode_") and on is True]  # fmt: skip
    return (paths["Transformer"], modes[0]) if len(modes) == 1 and modes[0] in _POOLING else None


def check(folder: str) -> None:
    """Raise UserError where this machine cannot run the model."""
    needed = "transformers" if pooling(folder) else "sentence_transformers"
    from importlib.util import find_spec

    if find_spec(needed) is None:
        raise UserError(f"semantic.model: {folder}: needs the package {needed.replace('_', '-')}: install it")


def _most_tokens(folder: str, tokenizer: Any) -> int:
    path = Path(folder, "sentence_bert_config.json")
    most = json.loads(path.read_text()).get("max_seq_length") if path.exists() else None
    return int(most or min(tokenizer.model_max_length, 512))


@cache
def load(folder: str) -> Encode:
    """What makes vectors of texts; a text's tokens past the model's maximum are left out."""
    found = pooling(folder)
    if found is None:
        from sentence_transformers import SentenceTransformer

        whole = SentenceTransformer(folder, device="cpu")
        return lambda text: np.asarray(whole.encode([text])[0])
    from transformers import AutoModel, AutoTokenizer

    place, mode = found
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    model = AutoModel.from_pretrained(place, local_files_only=True).float().eval().requires_grad_(False)
    most = _most_tokens(folder, tokenizer)

    def encode(text: str) -> NDArray[Any]:
        tokens = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
        states = model(**tokens).last_hidden_state[0].numpy().astype(np.float64)
        return np.asarray(
            {"mean": lambda: states.mean(0), "cls": lambda: states[0], "max": lambda: states.max(0)}[mode]()
        )

    return encode


def embed(text: str, folder: str, prefix: str = "") -> Vectors | None:
    """A text's vector; None where it is blank."""
    return quantised(load(folder)(prefix + text)) if text.strip() else None
