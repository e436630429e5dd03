"""What is kept while tokens are generated: a static key–value cache; memory is taken once, shapes stay few."""

from __future__ import annotations

import torch
from torch import Tensor

from training.model.config import ModelConfig

# B batch, K key heads, M slots of the cache, L new tokens, E head width
_BUCKET = 64


class KVCache:
    """Keys and values of every block for ``length`` slots, filled from the left.

    ``segments_BM`` says which segment a slot belongs to (0 padding, -1 not filled yet), so
    left-padded prompts need no mask of their own: a query sees slots of its segment only.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        shape = (batch, config.key_heads, length, config.head_width)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.segments_BM = torch.full((batch, length), -1, device=device, dtype=torch.int32)
        self.slots = length
        self.filled = 0

    def begin(self, segments_BL: Tensor) -> int:
        """Take in the segments of the next L tokens; back comes M, the slots that attention looks at.

        M is the end of the filled part rounded up, so that shapes stay few. Raises ValueError where
        the cache is full.
        """
        end = self.filled + segments_BL.shape[1]
        if end > self.slots:
            raise ValueError(f"the cache has {self.slots} slots: {end} tokens do not fit")
        self.segments_BM[:, self.filled : end] = segments_BL
        return min(self.slots, -(-end // _BUCKET) * _BUCKET)

    def put(self, layer: int, key_BKLE: Tensor, value_BKLE: Tensor, visible: int) -> tuple[Tensor, Tensor]:
        """Store a block's new keys and values; all visible ones come back."""
        end = self.filled + key_BKLE.shape[2]
        self.keys[layer][:, :, self.filled : end] = key_BKLE
        self.values[layer][:, :, self.filled : end] = value_BKLE
        return self.keys[layer][:, :, :visible], self.values[layer][:, :, :visible]

    def widened(self, samples: int, slots: int) -> KVCache:
        """A cache of ``slots`` with each of the filled rows ``samples`` times."""
        first, filled = self.keys[0], self.filled
        wide = KVCache(self.config, first.shape[0] * samples, slots, first.device, first.dtype)
        for old, new in zip([*self.keys, *self.values], [*wide.keys, *wide.values], strict=True):
            new[:, :, :filled] = old[:, :, :filled].repeat_interleave(samples, 0)
        wide.segments_BM[:, :filled] = self.segments_BM[:, :filled].repeat_interleave(samples, 0)
        wide.filled = filled
        return wide


class AnswerCache:
    """What an encoder–decoder keeps while it answers: what it read, with each block's keys and values of that, and
    the keys and values of the answer so far (``own``)."""

    def __init__(self, own: KVCache) -> None:
        self.own = own
        self.memory_BMD: Tensor | None = None  # set by the first call
        self.segments_BM: Tensor | None = None
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}  # by layer

    def widened(self, samples: int, slots: int) -> AnswerCache:
        """The same with ``samples`` answers to each row, of at most ``slots`` tokens."""
        wide = AnswerCache(self.own.widened(samples, slots))
        if self.memory_BMD is not None and self.segments_BM is not None:
            wide.memory_BMD = self.memory_BMD.repeat_interleave(samples, 0)
            wide.segments_BM = self.segments_BM.repeat_interleave(samples, 0)
        for layer, (keys, values) in self.kept.items():
            wide.kept[layer] = keys.repeat_interleave(samples, 0), values.repeat_interleave(samples, 0)
        return wide
