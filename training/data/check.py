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


def check_vocabulary(root: str, layout: Layout, model_folder: str, wanted_by: str) -> None:
    """Raise UserError where a token of the shards means another, or nothing, to the model in a folder."""
    theirs = tokenizer.load(f"{model_folder}/tokenizer.json").get_vocab()
    path = tokenizer.path_of(root, layout.tokenizer, wanted_by)
    wrong = next((token for token, n in tokenizer.load(path).get_vocab().items() if theirs.get(token) != n), None)
    if wrong is not None:
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
    theirs = tokenizer.load(f"{folder}/tokenizer.json").get_vocab()
    path = tokenizer.path_of(root, layout.tokenizer, wanted_by)
    ours = tokenizer.load(path).get_vocab()
    wrong = next((token for token, number in theirs.items() if ours.get(token) != number), None)
    if wrong is not None:
        raise UserError(
            f"{wanted_by}: the shards' vocabulary is not that of {folder}: {wrong!r} is {theirs[wrong]} there and "
            f"{ours.get(wrong, 'missing')} in {path}: set tokenizer.file to {folder}/tokenizer.json, and run "
            "`tokenizer` and `tokens` again"
        )
