"""Weights of Hugging Face folders, tensor by tensor: read from safetensors where they lie, written in several files."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dataeng import storage
from dataeng.cli import UserError
from training import stages
from training.families.architecture import Place

# Mapping's own `in` would read the tensor: each class here answers it from its names.
SHARD_BYTES = 5_000_000_000  # of one file of an export, as the Hub's own tools cut
_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Stored(Mapping[str, Tensor]):
    """The tensors of a folder under their own names, each read when it is asked for.

    Only headers are read beforehand. Raises UserError for a folder without safetensors, or with a damaged file.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.entries: dict[str, tuple[str, int, dict[str, Any]]] = {}  # file, where its data begins, header's entry
        for file in self._files():
            self._open(storage.join(folder, file))

    def _files(self) -> list[str]:
        if storage.stat(storage.join(self.folder, _ONE)):
            return [_ONE]
        try:
            index = json.loads(storage.read_bytes(storage.join(self.folder, _INDEX)))
            return sorted(set(index["weight_map"].values()))
        except FileNotFoundError:
            raise UserError(f"{self.folder}: has neither {_ONE} nor {_INDEX}: is it a model's folder?") from None
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UserError(f"{self.folder}: {_INDEX} cannot be read") from None

    def _open(self, path: str) -> None:
        size = getattr(storage.stat(path), "size", None)
        if size is None:
            raise UserError(f"{path}: is missing, though the index names it")
        try:
            length = int.from_bytes(storage.read_bytes(path, 0, 8), "little")
            header = json.loads(storage.read_bytes(path, 8, length)) if 0 < length < size else {}
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            ends = []
        if not ends or 8 + length + max(ends) != size:
            raise UserError(f"{path}: is damaged or cut short: its {size} bytes are not those that its header names")
        self.entries |= {n: (path, 8 + length, entry) for n, entry in header.items() if n != "__metadata__"}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from its header."""
        return tuple(self.entries[name][2]["shape"])

    def check_type(self, name: str) -> None:
        """Raise UserError where a tensor's numbers are of a type that cannot be read."""
        path, _, entry = self.entries[name]
        if entry["dtype"] not in _TYPES:
            raise UserError(f"{path}: {name} is of type {entry['dtype']}: convert it to BF16 or F32")

    def __getitem__(self, name: str) -> Tensor:
        return self.rows(name, 0, None)

    def rows(self, name: str, start: int, stop: int | None) -> Tensor:
        """Rows ``start`` to ``stop`` of a tensor; no others are read."""
        path, data, entry = self.entries[name]
        self.check_type(name)
        kind, shape = _TYPES[entry["dtype"]], list(entry["shape"])
        row = math.prod(shape[1:]) * kind.itemsize
        if shape:
            stop = shape[0] if stop is None else min(stop, shape[0])
            shape[0] = stop - start
        size = shape[0] * row if shape else row
        if not size:
            return torch.empty(shape, dtype=kind)
        read = bytearray(storage.read_bytes(path, data + entry["data_offsets"][0] + start * row, size))
        return torch.frombuffer(read, dtype=kind).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries


class Gathered(Mapping[str, Tensor]):
    """A model's parameters in full on the CPU, each gathered when it is asked for: a collective, so all processes
    ask for the same ones in the same order. Those of other stages come from there."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters, self.stage = dict(model.named_parameters()), stages.of(model)
        self.names = list(self.stage.shapes if self.stage else self.parameters)

    def __getitem__(self, name: str) -> Tensor:
        parameter = self.parameters.get(name)
        full: Tensor | None = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if self.stage is not None:
            full = self.stage.shared(name, None if full is None else full.detach())
        if full is None:
            raise KeyError(name)
        return full.detach().cpu()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names


class Own(Mapping[str, Tensor]):
    """A folder's tensors under the names of our models: parts cut out, transposed, or summed as the family says."""

    def __init__(self, stored: Stored, names: Sequence[str], place: Callable[[str], Place]) -> None:
        self.stored = stored
        found = ((name, self._found(place(name))) for name in names)
        self.places = {name: where for name, where in found if where is not None}

    def _found(self, place: Place) -> Place | None:
        """The place under the name that the file has: without the outermost prefix in the Hub's oldest files, and
        with gamma and beta there for norms."""
        names = [place.name, place.name.partition(".")[2]]
        names += [old for name in names for old in (_old_norm(name),) if old]
        name = next((name for name in names if name in self.stored.entries), None)
        return None if name is None else place._replace(name=name)

    def check_type(self, name: str) -> None:
        """Raise UserError where a tensor's numbers are of a type that cannot be read."""
        self.stored.check_type(self.places[name].name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, from its header."""
        place = self.places[name]
        shape = list(self.stored.shape(place.name))
        if place.transposed:
            shape.reverse()
        if shape:
            shape[0] //= place.parts
        return tuple(shape)

    def __getitem__(self, name: str) -> Tensor:
        place = self.places[name]
        if place.transposed:
            return self.stored[place.name].T.chunk(place.parts)[place.part].contiguous()
        rows = self.shape(name)[0] if self.shape(name) else 1
        value = self.stored.rows(place.name, place.part * rows, (place.part + 1) * rows)
        if not place.plus:
            return value
        return value.float() + self.stored.rows(_sibling(place), 0, 1).float()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a tensor by our name; where the file holds them as they are, no others are read."""
        place = self.places[name]
        if place.transposed or place.plus:
            return self[name][start:stop]
        first = place.part * self.shape(name)[0]
        return self.stored.rows(place.name, first + start, first + stop)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places


def shape_of(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor of ``state``, from its header where it is not read yet."""
    if isinstance(state, Own | Grown | Renamed):
        return state.shape(name)
    return tuple(state[name].shape)


def rows_of(state: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    """Rows of a tensor of ``state``; where it lies in a file, no others are read if that can be."""
    if isinstance(state, Own | Grown | Renamed):
        return state.rows(name, start, stop)
    return state[name][start:stop]


class Grown(Mapping[str, Tensor]):
    """Weights whose vocabulary has ``vocabulary`` entries: new tokens begin as the mean of all others, the
    likeliest place of a token that nothing is known of. Reads nothing before it is asked to."""

    names = ("embed_tokens.weight", "lm_head.weight", "lm_head.bias")

    def __init__(self, state: Mapping[str, Tensor], vocabulary: int) -> None:
        self.state, self.vocabulary = state, vocabulary

    def __getitem__(self, name: str) -> Tensor:
        value = self.state[name]
        if name not in self.names or len(value) >= self.vocabulary:
            return value
        mean = value.float().mean(0, keepdim=True)
        return torch.cat((value.float(), mean.expand(self.vocabulary - len(value), *value.shape[1:])))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        shape = shape_of(self.state, name)
        return (max(shape[0], self.vocabulary), *shape[1:]) if name in self.names else shape

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a tensor; of one that grows all are read."""
        if self.shape(name) != shape_of(self.state, name):
            return self[name][start:stop]
        return rows_of(self.state, name, start, stop)

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)

    def __contains__(self, name: object) -> bool:
        return name in self.state


class Renamed(Mapping[str, Tensor]):
    """Weights under other names (``names``: new name, old name), and ``more`` beside them; read when asked for."""

    def __init__(self, state: Mapping[str, Tensor], names: Mapping[str, str], more: Mapping[str, Tensor]) -> None:
        self.state, self.names, self.more = state, names, more

    def __getitem__(self, name: str) -> Tensor:
        return self.more[name] if name in self.more else self.state[self.names[name]]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self.more[name].shape) if name in self.more else shape_of(self.state, self.names[name])

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows of a tensor."""
        if name in self.more:
            return self.more[name][start:stop]
        return rows_of(self.state, self.names[name], start, stop)

    def __iter__(self) -> Iterator[str]:
        return iter({**self.names, **self.more})

    def __len__(self) -> int:
        return len({**self.names, **self.more})

    def __contains__(self, name: object) -> bool:
        return name in self.names or name in self.more


def _sibling(place: Place) -> str:
    """The name of the tensor beside ``place``'s module whose first row is added."""
    return ".".join([*place.name.split(".")[:-2], place.plus])


def _old_norm(name: str) -> str | None:
    if "LayerNorm" not in name:
        return None
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


def _files_of(sizes: Mapping[str, int], limit_bytes: int) -> list[list[str]]:
    """Names cut into files of at most ``limit_bytes``, in their order; a larger tensor has a file of its own."""
    files: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if files[-1] and filled + size > limit_bytes:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += size
    return files


def save(
    folder: str,
    state: Mapping[str, Tensor],
    names: Mapping[str, Sequence[tuple[str, bool]]],
    shapes: Mapping[str, Sequence[int]],
    extra: Mapping[str, Tensor],
    limit_bytes: int,
    first: bool = True,
) -> list[str]:
    """Write weights in fp32 to ``folder``, in several files with an index past ``limit_bytes``; the paths come back.

    ``names``: for each tensor's name there, our tensors that it is made of, one below the other, and whether it is
    transposed. ``shapes``: of our tensors. Every process calls it (``state`` may gather); the ``first`` one writes.
    """
    sizes = {name: sum(4 * math.prod(shapes[own]) for own, _ in parts) for name, parts in names.items()}
    sizes |= {name: 4 * value.numel() for name, value in extra.items()}
    files = _files_of(sizes, limit_bytes)
    count = len(files)
    titles = [_ONE] if count == 1 else [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
    for title, inside in zip(titles, files, strict=True):
        tensors: dict[str, Tensor] = {}
        for name in inside:
            values = [state[own].to(torch.float32) for own, _ in names[name]] if name in names else [extra[name]]
            if first:
                value = torch.cat(values) if len(values) > 1 else values[0]
                turned = name in names and names[name][0][1]
                tensors[name] = (value.T if turned else value).contiguous()
        if first:
            with tempfile.TemporaryDirectory() as temporary:
                local = Path(temporary, title)
                safetensors.torch.save_file(tensors, local, metadata={"format": "pt"})
                storage.upload(local, storage.join(folder, title))
    if first and count > 1:
        where = {name: title for title, inside in zip(titles, files, strict=True) for name in inside}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        storage.write_bytes(storage.join(folder, _INDEX), (json.dumps(index, indent=2) + "\n").encode())
        titles = [*titles, _INDEX]
    if first:
        kept = {storage.join(folder, title) for title in titles}
        storage.delete([e.path for e in storage.list_files(folder) if _is_weights(e.path) and e.path not in kept])
    return [storage.join(folder, title) for title in titles]


def _is_weights(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name == _INDEX or (name.startswith("model") and name.endswith(".safetensors"))
