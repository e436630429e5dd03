"""A sentence-transformers folder as embedding: its own pooling; folders that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dataeng.cli import UserError
from dataeng.recipe import Recipe
from dataeng.semantic import Config, model
from dataeng.semantic.vectors import cosines

transformers = pytest.importorskip("transformers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "query", ":", "one", "two", "three", "four"]


def save(folder, mode="mean", more=()):
    """A tiny BERT of random weights, saved as sentence-transformers saves one."""
    from torch import manual_seed

    manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **sizes)
    (folder / "1_Pooling").mkdir(parents=True)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"), *more]
    modules = [
        {"idx": n, "path": path, "type": f"sentence_transformers.models.{kind}"} for n, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    names = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    (folder / "1_Pooling/config.json").write_text(json.dumps({name: key == mode for key, name in names.items()}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6}))
    return str(folder)


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_vectors_are_the_models(tmp_path, mode):
    folder = save(tmp_path / mode, mode)
    model.check(folder)
    found = {text: model.embed(text, folder) for text in ("one two", "two one", "one two three four one two", "one")}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bert = transformers.AutoModel.from_pretrained(folder)
    states = bert(**tokenizer("one two", return_tensors="pt")).last_hidden_state[0].detach().numpy()
    wanted = {"mean": states.mean(0), "cls": states[0], "max": states.max(0)}[mode]
    assert np.abs(found["one two"] - wanted * 127 / np.abs(wanted).max()).max() <= 0.51
    assert model.embed("one two three four two two", folder).tolist() == found["one two three four one two"].tolist()
    assert cosines(found["one two"][None], found["two one"][None])[0, 0] < 1
    assert model.embed("two", folder, "one ").tolist() == found["one two"].tolist()
    assert model.embed(" \n", folder) is None


def test_a_models_files_enter_the_fingerprint(tmp_path):
    folder = save(tmp_path / "m")
    config = Config(model=folder)
    assert {path.rpartition("/")[2] for path in config.files()} >= {"modules.json", "model.safetensors", "vocab.txt"}
    assert config.results()["model"] == 1
    assert "transformers" in config.results()
    assert "transformers" not in Config().results()


def test_folders_that_are_none_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="is no sentence-transformers folder"):
        model.check(str(tmp_path))
    dense = save(tmp_path / "dense", more=[("3_Dense", "Dense")])
    with pytest.raises(UserError, match="needs the package sentence-transformers"):
        model.check(dense)
    recipe = Recipe("r.toml", str(tmp_path), 0, {"semantic": {"model": str(tmp_path / "none")}})
    with pytest.raises(UserError, match="there is no such file"):
        recipe.check_files()


@pytest.mark.parametrize("values", [{"threshold": 0}, {"threshold": 1.1}, {"keep": "highest:"}, {"keep": "first"},
                                    {"dimensions": 100}, {"model": "s3://models/x"}, {"input": []}])  # fmt: skip
def test_values_that_make_no_sense_are_told(values):
    with pytest.raises(UserError, match=rf"r\.toml: semantic\.{next(iter(values))}"):
        Recipe("r.toml", "unused", 0, {"semantic": values}).step("semantic")
