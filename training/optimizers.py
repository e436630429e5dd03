"""Optimisers that torch lacks, or has only for plain tensors: Muon (with AdamW for the rest) and LAMB.

State is kept as tensors like the parameters, so that checkpoints can be loaded in another layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steep at 0, so that few steps suffice
_STEPS = 5
_AT_ONCE = 1 << 26  # elements of matrices that are orthogonalised together
_MATCH = 0.2  # the root mean square of AdamW's updates: one learning rate serves both (arXiv:2502.16982)


def orthogonalise(matrices_NRC: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrix to each of N matrices (R, C), roughly: singular values in about 0.7 to 1.2.

    Five Newton–Schulz steps of Muon's quintic (Jordan et al. 2024), in ``dtype``.
    """
    tall = matrices_NRC.shape[1] > matrices_NRC.shape[2]
    x = (matrices_NRC.mT if tall else matrices_NRC).to(dtype).contiguous()  # products of transposed views are slower
    x = x / (torch.linalg.vector_norm(x.flatten(1), dim=1) + 1e-7)[:, None, None]
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices_NRC.dtype)


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _norm(tensor: Tensor) -> Tensor:
    """The norm of the whole tensor, on every rank."""
    norm = torch.linalg.vector_norm(tensor)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


class _Moments(Optimizer):
    """What Adam, LAMB and the rest under Muon share: first and second moments, corrected for their start at 0."""

    def _moments(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """The update m / (√v + ε) on this rank's shard; the state moves on."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step, (first, second) = float(state["step"]), group["betas"]
        mean, square, shard = local(state["exp_avg"]), local(state["exp_avg_sq"]), local(gradient)
        mean.lerp_(shard, 1 - first)
        square.mul_(second).addcmul_(shard, shard, value=1 - second)
        divisor = (square / (1 - second**step)).sqrt_().add_(group["eps"])
        return (mean / (1 - first**step)).div_(divisor)


class Sgd(torch.optim.SGD):
    """SGD with momentum whose decay is apart from it: SGDW (arXiv:1711.05101, algorithm 1)."""

    def __init__(self, groups: Iterable[dict[str, Any]], rate: float, momentum: float) -> None:
        apart = [group | {"decay": group["weight_decay"], "weight_decay": 0.0} for group in groups]
        super().__init__(apart, lr=rate, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update; weights shrink first."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    local(parameter).mul_(1 - group["lr"] * group["decay"])
        return super().step(closure)


class Muon(_Moments):
    """Muon (Jordan et al. 2024) for groups marked ``hidden``, AdamW for the others, under one learning rate.

    A matrix (R, C) moves by rate · 0.2 √max(R, C) times its orthogonalised momentum (arXiv:2502.16982), and decays
    as in AdamW. Of matrices sharded by rows each rank is sent some whole, orthogonalises them and sends the shards
    back: a step sends twice a rank's own part of the hidden weights, in ``dtype``. Matrices laid out in other
    ways are gathered by all, a few at a time.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        rate: float,
        betas: tuple[float, float] = (0.9, 0.95),
        epsilon: float = 1e-8,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(groups, {"lr": rate, "betas": betas, "eps": epsilon, "momentum": momentum, "hidden": False})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters with a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["hidden"]:
                self._step_hidden(parameters, group)
                continue
            for parameter in parameters:
                update = self._moments(parameter, group)
                local(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])

    def _step_hidden(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        for shape, alike in by_shape.items():
            directions = [self._direction(parameter, group["momentum"]) for parameter in alike]
            updates = _updates(directions, self.dtype)
            rate = group["lr"] * _MATCH * max(shape) ** 0.5
            for parameter, update in zip(alike, updates, strict=True):
                local(parameter).mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov's momentum of a matrix, laid out like it, in the type that it is orthogonalised in."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum).to(self.dtype)


def _updates(directions: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    """This rank's shards of matrices of one shape, orthogonalised; split by rows each rank does some."""
    mesh = directions[0].device_mesh if isinstance(directions[0], DTensor) else None
    if mesh is None:
        return [update for some in _batches(directions) for update in orthogonalise(torch.stack(some), dtype)]
    if (group := _rows_group(directions[0])) is not None:
        shards = torch.stack([local(direction) for direction in directions])
        return _exchanged(shards, group, dtype).unbind()
    found: list[Tensor] = []
    for some in _batches(directions):
        full = [direction.full_tensor() for direction in some if isinstance(direction, DTensor)]
        made = orthogonalise(torch.stack(full), dtype)
        found += [shard_of(update, direction) for update, direction in zip(made, some, strict=True)]
    return found


def _batches(matrices: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Matrices of one shape, as many at a time as have ``_AT_ONCE`` elements: what is made of them is short-lived."""
    size = max(1, _AT_ONCE // matrices[0].numel())
    for start in range(0, len(matrices), size):
        yield list(matrices[start : start + size])


def _rows_group(matrix: Tensor) -> dist.ProcessGroup | None:
    """The processes that share a matrix's rows evenly, each copy of it its own; None where it is split otherwise."""
    if not isinstance(matrix, DTensor):
        return None
    split = [dim for dim, placement in enumerate(matrix.placements) if not placement.is_replicate()]
    if [matrix.placements[dim] for dim in split] != [Shard(0)] or matrix.shape[0] % matrix.device_mesh.size(split[0]):
        return None
    return matrix.device_mesh.get_group(split[0])


def _exchanged(shards_NSC: Tensor, group: dist.ProcessGroup, dtype: torch.dtype) -> Tensor:
    """This rank's shards (N, S, C) of N orthogonalised matrices, of which each rank takes as many, whole."""
    count, rows, columns = shards_NSC.shape
    world = group.size()
    each = -(-count // world)
    own = torch.cat((shards_NSC, shards_NSC.new_zeros(each * world - count, rows, columns)))
    every = torch.empty_like(own)
    dist.all_to_all_single(every, own, group=group)
    whole = every.view(world, each, rows, columns).transpose(0, 1).reshape(each, world * rows, columns)
    made = (
        torch.cat([orthogonalise(torch.stack(some), dtype) for some in _batches(whole.unbind())])
        .view(each, world, rows, columns)
        .transpose(0, 1)
        .contiguous()
    )
    dist.all_to_all_single(every, made, group=group)
    return every[:count]


def shard_of(full: Tensor, like: Tensor) -> Tensor:
    """This rank's shard of a full tensor that every rank has."""
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None).to_local()


class Lamb(_Moments):
    """LAMB (arXiv:1904.00962): Adam's update with decay, scaled to each parameter's own norm."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(groups, {"lr": rate, "betas": betas, "eps": epsilon, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters with a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                shard = local(parameter)
                update = self._moments(parameter, group).add_(shard, alpha=group["weight_decay"])
                whole = (
                    DTensor.from_local(
                        update,
                        parameter.device_mesh,
                        parameter.placements,
                        shape=parameter.shape,
                        stride=parameter.stride(),
                    )
                    if isinstance(parameter, DTensor)
                    else update
                )
                weight, step = float(_norm(parameter)), float(_norm(whole))
                trust = weight / step if weight > 0 and step > 0 else 1.0
                shard.add_(update, alpha=-group["lr"] * trust)
