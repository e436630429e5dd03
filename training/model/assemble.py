"""From a config to the model of its kind."""

from __future__ import annotations

import torch
from torch import nn

from training.model.config import ModelConfig
from training.model.decoder import Decoder
from training.model.encoder import Encoder
from training.model.encoder_decoder import EncoderDecoder


def assemble(config: ModelConfig, vocabulary: int) -> nn.Module:
    """The decoder, encoder or encoder–decoder that a config describes; weights are not set yet."""
    kinds = {"decoder": Decoder, "encoder": Encoder, "encoder_decoder": EncoderDecoder}
    return kinds[config.kind](config, vocabulary)


def shapes(config: ModelConfig, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by name; nothing is allocated."""
    with torch.device("meta"):
        model = assemble(config, vocabulary)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
