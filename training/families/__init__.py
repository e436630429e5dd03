"""Which architecture of transformers a config is, its ``config.json``, and the names of its weights there.

No torch here: recipes are checked against it. An architecture is a file of this folder and an entry of FAMILIES.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dataeng.cli import UserError
from training.families.architecture import Family, Place
from training.families.bert import BERT
from training.families.gpt2 import GPT2
from training.families.llama import LLAMA, QWEN3
from training.families.modernbert import MODERNBERT
from training.families.t5 import T5
from training.model.config import ModelConfig

NATIVE = "millrace"  # model_type of a config that transformers has no architecture for
FAMILIES = (LLAMA, QWEN3, GPT2, BERT, MODERNBERT, T5)


def _misfits(family: Family, config: ModelConfig) -> list[str]:
    """What an architecture would have otherwise, as settings of ours."""
    wrong = [
        f"{key} = {_toml(allowed[0])}" for key, allowed in family.wants.items() if getattr(config, key) not in allowed
    ]
    if family.heads != "any" and config.key_heads != config.heads:
        wrong.append(f"kv_heads = {config.heads}")
    if family.heads == "plain" and config.head_width * config.heads != config.width:
        wrong.append(f"head_size = {config.width // config.heads}")
    return wrong + family.lacks(config)


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def family_of(config: ModelConfig) -> Family | None:
    """The architecture of transformers that a config is, None where there is none."""
    return next((family for family in FAMILIES if not _misfits(family, config)), None)


def check_export(config: ModelConfig) -> None:
    """Raise ValueError, naming the nearest one, where no architecture of transformers is this config."""
    if family_of(config) is None:
        nearest = min(FAMILIES, key=lambda family: len(_misfits(family, config)))
        wanted = ", ".join(_misfits(nearest, config))
        raise ValueError(
            f"transformers has no architecture of that model; the nearest, {nearest.model_type}, wants {wanted}: set "
            "that, or false to keep our own format"
        )


def by_type(kind: object) -> Family | None:
    """The architecture that a ``model_type`` names, None for our own format and for what is not known."""
    return next((family for family in FAMILIES if family.model_type == kind), None)


def place(family: Family | None, config: ModelConfig, name: str) -> Place:
    """Where the family keeps our tensor ``name``; under its own name in our own format."""
    if family is None:
        return Place(name)
    names = family.names(config)
    number = next(iter(re.findall(r"(?<=layers\.)\d+", name)), "")
    general = re.sub(r"(?<=layers\.)\d+", "#", name)
    if general in names:  # of the parameter itself
        module, kind = general, ""
    else:
        module, _, kind = general.rpartition(".")
    found = names.get(module)
    if found is None:  # a whole sub-tree of equal names
        star = next(key for key in names if key.endswith("*") and module.startswith(key[:-1]))
        found = str(names[star])[:-1] + module.removeprefix(star[:-1])
    where = found if isinstance(found, Place) else Place(found)
    title = ".".join(part for part in (where.name.replace("#", number), kind) if part)
    return where._replace(name=title, transposed=where.transposed and kind == "weight")


def config_json(config: ModelConfig, vocabulary: int, ids: Mapping[str, int], head: str = "model") -> dict[str, Any]:
    """``config.json`` with ``ids`` of the end of a turn (`end`) and of padding (`pad`); ``head`` "model" or "score"."""
    family = family_of(config)
    about: dict[str, Any] = {
        "vocab_size": vocabulary,
        "bos_token_id": None,
        "eos_token_id": ids["end"],
        "pad_token_id": ids["pad"],
    }
    about["torch_dtype"] = "float32"
    if family is None:
        return {"model_type": NATIVE, "model": config.model_dump(mode="json"), **about}
    if config.kind == "encoder_decoder":
        about["decoder_start_token_id"] = ids["pad"]
    if head == "score":
        about |= {"num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return {"architectures": [family.classes[head]], "model_type": family.model_type, **about, **family.write(config)}


def model_config(values: Mapping[str, Any], where: str) -> tuple[ModelConfig, int]:
    """The model and its vocabulary from a ``config.json``; raises UserError for what we have no blocks for."""
    try:
        kind = values.get("model_type")
        if kind == NATIVE:
            return ModelConfig.model_validate(values["model"]), int(values["vocab_size"])
        if (family := by_type(kind)) is None:
            known = ", ".join(family.model_type for family in FAMILIES)
            raise ValueError(f"model_type {kind!r}: {known} are known")
        return ModelConfig.model_validate(family.read(values)), int(values["vocab_size"])
    except KeyError as error:
        raise UserError(f"{where}: has no {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{where}: {error}") from None
