"""Whether token shards are there whole, and of the vocabulary that they are read with."""

from __future__ import annotations

from dataeng import stage
from dataeng.cli import UserError
from dataeng.tokens import tokenizer
from dataeng.tokens.shards import Layout


def check_shards(root: str, data: str, wanted_by: str) -> Layout:
    """The layout of the shards that the stage ``data`` published.

    Raises UserError where a file is missing or short, or the tokenizer published now is not theirs.
    """
    manifest, folder = stage.need_manifest(root, data, wanted_by), stage.folder_of(root, data)
    layout = Layout.model_validate(manifest.details)
    if wrong := stage.lacking(folder, manifest):
        raise UserError(f"{wanted_by}: {wrong}, as the manifest of `{data}` says: run `{data}` again")
    entry = stage.stage_inputs(root, layout.tokenizer, wanted_by)[0]
    if entry["hash"] != layout.tokenizer_hash:
        raise UserError(
            f"{wanted_by}: the shards in {folder} were made with another tokenizer than the one published now: "
            f"run `{data}` again"
        )
    return layout


def _first_other(tokens: dict[str, int], among: dict[str, int]) -> str | None:
    """The first token that has another id ``among`` others, or none."""
    return next((token for token, number in tokens.items() if among.get(token) != number), None)


def check_vocabulary(root: str, layout: Layout, model_folder: str, wanted_by: str) -> None:
    """Raise UserError where a token of the shards means another, or nothing, to the model in a folder."""
    path = tokenizer.path_of(root, layout.tokenizer, wanted_by)
    theirs = tokenizer.load(f"{model_folder}/tokenizer.json").get_vocab()
    if (wrong := _first_other(tokenizer.load(path).get_vocab(), theirs)) is not None:
        raise UserError(
            f"{wanted_by}: the vocabulary of {model_folder} is not that of the shards ({path}): {wrong!r} is "
            f"{theirs.get(wrong, 'missing')} in it: name the tokens that it was trained on"
        )


def check_start(root: str, layout: Layout, folder: str, wanted_by: str) -> None:
    """Raise UserError where the weights of a folder, or its tokenizer, do not fit the shards.

    Shards may have more entries than the folder's tokenizer (special tokens of chats), but none of another meaning.
    """
    from training import huggingface

    huggingface.check_weights(folder)
    path = tokenizer.path_of(root, layout.tokenizer, wanted_by)
    theirs, ours = (tokenizer.load(at).get_vocab() for at in (f"{folder}/tokenizer.json", path))
    if (wrong := _first_other(theirs, ours)) is not None:
        raise UserError(
            f"{wanted_by}: the shards' vocabulary is not that of {folder}: {wrong!r} is {theirs[wrong]} there and "
            f"{ours.get(wrong, 'missing')} in {path}: set tokenizer.file to {folder}/tokenizer.json, and run "
            "`tokenizer` and `tokens` again"
        )
