"""Step `reward`: a reward model from comparisons (Bradley–Terry), scored at a chat's last token."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dataeng.cli import UserError
from dataeng.recipe import Recipe, runtime
from dataeng.tokens import chat
from training import huggingface, posttrain, validation, weights
from training.context import Context
from training.data.examples import EncodedPair, Example, collate, order, pair_of
from training.model.decoder import Decoder
from training.posttrain import Scored
from training.settings import TrainerConfig
from training.trainer import Batch, Step, fit

# B sequences (each pair's chosen one, then its rejected one), L tokens, D width


class PairConfig(TrainerConfig):
    """What every method on comparisons shares; ``batch`` and ``micro_batch`` count pairs."""

    libraries: ClassVar[tuple[str, ...]] = ("torch",)

    model: str = Field("sft", description="The training step whose model is taken")
    data: str | list[str] = runtime(
        "tasks",
        description="A stage with tables `preferences` and `preferences_test`, or JSONL files; "
        "their contents enter the fingerprint",
    )
    held_back: float = Field(0.1, gt=0, lt=1, description="Share of files' or drawn pairs that is held back, the last")
    batch: int = Field(32, ge=1, description="Pairs of one step")
    micro_batch: int = runtime(32, ge=1, description="Pairs that a worker takes at once")


class Config(PairConfig):
    """What to score with and from; the rest is every trainer's."""

    version: ClassVar[int] = 2


class Pairs(NamedTuple):
    """Pairs to train on, pairs held back, and how many were longer than the context and left out."""

    train: list[EncodedPair]
    held_back: list[EncodedPair]
    longer: int


class RewardModel(Scored):
    """A decoder's trunk with a score at the last token of each sequence."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder, "score")

    def forward(self, tokens_BL: Tensor, positions_BL: Tensor, segments_BL: Tensor) -> Tensor:
        """The score (B,) of each sequence, read where its last token stands (segment 0 is padding)."""
        hidden_BLD = self.decoder(tokens_BL, positions_BL, segments_BL, return_hidden=True)
        places_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        last_B = torch.where(segments_BL > 0, places_L, 0).amax(1)
        return self.scalars(hidden_BLD[torch.arange(len(last_B), device=last_B.device), last_B])


def pair_inputs(recipe: Recipe, name: str, *models: str) -> list[dict[str, Any]]:
    """The inputs of a step on comparisons: models and pairs."""
    tables = ["preferences", "preferences_test"]
    return [
        *posttrain.model_inputs(recipe, name, *models),
        *posttrain.data_inputs(recipe, name, recipe.step(name).data, tables),
    ]


def inputs(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """The inputs that enter the fingerprint: the model and the comparisons."""
    return pair_inputs(recipe, name, recipe.step(name).model)


def check(recipe: Recipe, name: str, coming: Collection[str] = ()) -> None:
    """Raise UserError for what cannot train; ``coming`` steps are made before this one in the same run."""
    config: Config = recipe.step(name)
    posttrain.check_inputs(recipe, name, coming, [config.model], config.data, ["preferences", "preferences_test"])


def _side(tokenizer: Any, messages: Sequence[chat.Message]) -> Example:
    """A side's ids, its mask on the last answer alone."""
    ids, _ = chat.encode_chat(tokenizer, messages)
    before = len(chat.encode_prompt(tokenizer, messages[:-1]))
    return Example(ids, [index >= before for index in range(len(ids))])


def _encode(tokenizer: Any, rows: Sequence[dict[str, Any]], context: int) -> tuple[list[EncodedPair], int]:
    made = [EncodedPair(*(_side(tokenizer, side) for side in pair_of(row))) for row in rows]
    kept = [pair for pair in made if max(len(pair.chosen.ids), len(pair.rejected.ids)) <= context]
    return kept, len(made) - len(kept)


def read_pairs(recipe: Recipe, name: str, tokenizer: Any, context: int) -> Pairs:
    """All comparisons of a step, of at most ``context`` tokens a side; raises UserError where none is left."""
    config: PairConfig = recipe.step(name)
    rows = posttrain.data_rows(recipe, name, config.data, "preferences")
    if posttrain.named_files(config.data):
        cut = len(rows) - max(1, round(len(rows) * config.held_back))
        rows, others = rows[:cut], rows[cut:]
    else:
        others = posttrain.data_rows(recipe, name, config.data, "preferences_test")
    (train, longer), (held_back, more) = (_encode(tokenizer, some, context) for some in (rows, others))
    if not train or not held_back:
        raise UserError(
            f"{name}: {len(train)} pairs to train on and {len(held_back)} held back fit into {context} tokens"
        )
    return Pairs(train, held_back, longer + more)


def pair_batch(pairs: Sequence[EncodedPair], width: int, pad: int, height: int) -> Batch:
    """``height`` pairs as 2 × height rows, chosen and rejected in turn; ``real`` (height,) says which are pairs."""
    sides = [side for pair in pairs for side in pair]
    batch = collate(sides, [[index] for index in range(len(sides))], width, pad, 2 * height)
    return {**batch, "real": torch.arange(height) < len(pairs)}


def pair_width(pairs: Pairs, context: int) -> int:
    """One width for all sequences, a multiple of 8 tokens: shapes stay the same."""
    longest = max(len(side.ids) for pair in (*pairs.train, *pairs.held_back) for side in pair)
    return min(context, -(-longest // 8) * 8)


def cut(context: Context, pairs: Sequence[EncodedPair], width: int, pad: int, micro_batch: int) -> list[Batch]:
    """This rank's micro-batches of a global list of pairs, as many and as high on every rank."""
    mine = context.share(len(pairs))
    most = -(-len(pairs) // context.world)
    turns = -(-most // micro_batch)
    height = -(-most // turns)
    parts = [mine[at * height : (at + 1) * height] for at in range(turns)]
    return [pair_batch([pairs[i] for i in part], width, pad, height) for part in parts]


def batches(
    context: Context, config: PairConfig, pairs: Sequence[EncodedPair], width: int, pad: int, position: int
) -> Iterator[Step]:
    """The steps from a position on, for ever."""
    while True:
        indices = order(context.seed, context.title, position, config.batch, len(pairs))
        position += config.batch
        micro = cut(context, [pairs[i] for i in indices], width, pad, config.micro_batch)
        yield Step(micro, float(config.batch), position)


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """−log σ(chosen − rejected) for each pair (Bradley and Terry, 1952); ln 2 where the scores are equal."""
    return -F.logsigmoid(chosen - rejected)


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Bradley–Terry's loss summed over pairs, and their number."""
    scores_B = model(batch["tokens"], batch["positions"], batch["segments"])
    chosen, rejected = scores_B[0::2], scores_B[1::2]
    real = batch["real"]
    total = torch.where(real, bradley_terry(chosen, rejected), 0.0).sum()
    logged = {
        "accuracy": ((chosen > rejected) & real).sum(),
        "margin": torch.where(real, chosen - rejected, 0.0).sum(),
    }
    return total, real.sum(), logged


def run(context: Context) -> None:
    """Train the reward model, export and publish ROOT/NAME, or find it done."""
    attempt = context.begin(inputs)
    if attempt is None:
        return
    config: Config = context.config
    begin = posttrain.start(context, config.model)
    longest = begin.architecture.context
    pairs = read_pairs(context.recipe, context.name, begin.tokenizer, longest)
    width, pad = pair_width(pairs, longest), chat.token_id(begin.tokenizer, chat.PAD)
    context.log("%d pairs, %d held back, %d too long", len(pairs.train), len(pairs.held_back), pairs.longer)
    state = posttrain.scored_state(begin.state, "score", begin.architecture.width)
    model = posttrain.filled(context, lambda: RewardModel(begin.decoder()), config, state)
    others = cut(context, pairs.held_back, width, pad, config.micro_batch)

    def validate(made: nn.Module) -> dict[str, float]:
        return validation.of_loss(context, made, others, loss, "accuracy")

    def steps(position: int) -> Iterator[Step]:
        return batches(context, config, pairs.train, width, pad, position)

    result = fit(context, model, steps, loss, config, validate)
    details = {"pairs": len(pairs.train), "held_back": len(pairs.held_back), "longer": pairs.longer}
    scored = posttrain.unscored(weights.Gathered(model), "score")
    huggingface.publish_state(context, attempt, scored, begin.architecture, begin.tokenizer_path, result, details)
