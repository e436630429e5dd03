"""Weights are read where they lie: over S3 as from a disk, of sharded parameters only a process's own rows."""

import json
import os
from collections.abc import Iterator

import pytest
import torch
from moto.server import ThreadedMotoServer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from dataeng import s3, storage
from dataeng.recipe import Recipe
from dataeng.tokens import chat
from tests.training.test_huggingface import GPT2, SMALL, exported, made
from training import huggingface, weights
from training.board import Board
from training.context import Context
from training.model.assemble import assemble
from training.model.config import ModelConfig
from training.parallel import load_full

CONFIG = ModelConfig(**SMALL | GPT2 | {"width": 36})


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    values = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for key, value in (values | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(key, value)
    s3._client.cache_clear()
    s3.client().create_bucket(Bucket="models")
    yield "s3://models/gpt2"
    server.stop()
    s3._client.cache_clear()


def test_a_folder_on_object_storage_is_written_checked_and_read(bucket, small_tokenizer, small):
    vocabulary = small.get_vocab_size()
    model = exported(bucket, CONFIG, small_tokenizer, vocabulary, shard_bytes=60_000)
    assert len([e for e in storage.list_files(bucket) if e.path.endswith(".safetensors")]) > 2
    huggingface.check_weights(bucket)
    huggingface.check_tokenizer(bucket)
    assert huggingface.is_folder(bucket)
    again = assemble(CONFIG, vocabulary)
    load_full(again, huggingface.state_of(bucket))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    before = huggingface.folder_inputs(bucket)
    assert huggingface.folder_inputs(bucket + "/") == before
    storage.write_bytes(f"{bucket}/config.json", b"{}")
    assert huggingface.folder_inputs(bucket) != before


def worker(rank, world, store, folder, vocabulary, wanted):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    read = []
    whole = storage.read_bytes
    storage.read_bytes = lambda path, *more: (read.append(more[1] if more else 0), whole(path, *more))[1]
    try:
        model = assemble(CONFIG, vocabulary)
        mesh = init_device_mesh("cpu", (world,))
        fully_shard(model, mesh=mesh)
        state = huggingface.state_of(folder)
        read.clear()
        load_full(model, weights.Grown(state, vocabulary))
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.full_tensor(), wanted[name], atol=0, rtol=0)
        straight = [n for n, place in state.places.items() if not place.transposed]
        mine = sum(p.to_local().numel() for n, p in model.named_parameters() if n in straight)
        turned = sum(wanted[n].numel() * state.places[n].parts for n in state.places if n not in straight)
        assert sum(read) == 4 * (mine + turned)
    finally:
        dist.destroy_process_group()


def test_each_process_reads_its_own_rows_alone(tmp_path, small_tokenizer, small):
    vocabulary = small.get_vocab_size()
    model = exported(tmp_path / "model", CONFIG, small_tokenizer, vocabulary)
    wanted = {name: value.detach() for name, value in model.named_parameters()}
    mp.spawn(worker, (3, str(tmp_path / "store"), str(tmp_path / "model"), vocabulary, wanted), nprocs=3)


def test_new_tokens_begin_as_the_mean_of_all_others():
    state = {"embed_tokens.weight": torch.tensor([[1.0, 2.0], [3.0, 6.0]]), "norm.weight": torch.ones(2)}
    grown = weights.Grown(state, 4)
    assert grown["embed_tokens.weight"].tolist() == [[1, 2], [3, 6], [2, 4], [2, 4]]
    assert weights.rows_of(grown, "embed_tokens.weight", 1, 3).tolist() == [[3, 6], [2, 4]]
    assert weights.shape_of(grown, "embed_tokens.weight") == (4, 2)
    assert weights.Grown(state, 1)["embed_tokens.weight"].shape == (2, 2)
    assert list(grown) == list(state)


@pytest.mark.parametrize("values", [GPT2, {"qk_norm": True, "tied": False, "kv_heads": 2}, {"kv_heads": 1}])
def test_a_reward_model_scores_alike_in_transformers(values, tmp_path, small_tokenizer, small):
    transformers = pytest.importorskip("transformers")
    config, vocabulary = ModelConfig(**SMALL | values), small.get_vocab_size()
    model = made(config, vocabulary)
    state = {name: value.detach() for name, value in model.named_parameters() if not name.startswith("lm_head")}
    state["score.weight"] = torch.randn(1, config.width, generator=torch.Generator().manual_seed(1))
    huggingface.write(str(tmp_path), state, config, small_tokenizer)
    theirs, info = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert theirs.config.num_labels == 1
    pad = chat.token_id(small, chat.PAD)
    tokens = torch.tensor([[30, 40, 50, 60], [31, 41, pad, pad]])
    with torch.no_grad():
        hidden = model(tokens, segments_BL=(tokens != pad).long(), return_hidden=True)
        ours = hidden[[0, 1], [3, 1]] @ state["score.weight"].T
        torch.testing.assert_close(
            theirs(tokens, attention_mask=(tokens != pad).long()).logits, ours, atol=1e-4, rtol=0
        )
    assert "lm_head.weight" not in huggingface.state_of(str(tmp_path))


def test_a_copy_of_a_folder_is_the_same_model_whenever_it_was_made(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
        os.utime(tmp_path / name / "config.json", (1, len(name) + ord(name)))
    first, second = (huggingface.folder_inputs(str(tmp_path / name)) for name in "ab")
    assert first == second
    (tmp_path / "b" / "model.safetensors").write_bytes(b"Weights")
    assert huggingface.folder_inputs(str(tmp_path / "b")) != first


def test_tensorboards_parts_on_object_storage_are_read_in_their_order(bucket, tmp_path):
    board = Board(
        Context(Recipe("r.toml", "s3://models/run", 1, {}), "pretrain", None),
        [json.dumps({"step": step, "loss": float(step)}) + "\n" for step in range(1, 2501)],
    )
    board.write({"step": 2501, "loss": 0.5})
    board.close()
    parts = storage.list_files("s3://models/run/pretrain/tensorboard")
    assert len(parts) > 10
    for part in parts:
        (tmp_path / part.path.rpartition("/")[2]).write_bytes(storage.read_bytes(part.path))
    found = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    found.Reload()
    assert [event.step for event in found.Scalars("loss")] == list(range(1, 2502))
