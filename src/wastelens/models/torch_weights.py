"""Read weights in PyTorch's legacy format as numbers: without PyTorch, and without running what a pickle asks for.

The file is a row of pickles (a magic number, the version, the machine's sizes, the state dict, and the names of its
storages), followed by the storages: for each a count, int64, and the raw elements, all little-endian.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from wastelens.errors import ConfigError
from wastelens.system.arrays import Array
from wastelens.system.text import reason_of

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    """A run of elements in the file, which several tensors may share."""

    key: str
    dtype: np.dtype[Any]
    elements: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage: offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, elements: Array) -> Array:
        """Return a copy of the view as a C-contiguous array.

        Raises:
            ValueError: the view leaves the storage.
        """
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, self.offset), default=0) < 0:
            raise ValueError("a tensor's shape and strides do not fit")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= len(elements):
            raise ValueError("a tensor leaves its storage")
        steps = tuple(stride * elements.itemsize for stride in self.strides)
        view = np.lib.stride_tricks.as_strided(elements[self.offset :], self.shape, steps, writeable=False)
        return np.array(view, order="C")


def read_torch_weights(path: Path, digest: str) -> dict[str, Array]:
    """Return name → array of a file of weights.

    Args:
        path: of the file.
        digest: SHA-256 that the file must have, in hexadecimal.

    Raises:
        ConfigError: the file cannot be read, its digest differs, or its pickle asks for anything but tensors.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Install its package again.") from None
    if (found := sha256(content).hexdigest()) != digest:
        raise ConfigError(
            f"{path} is not the file of weights that was published: its SHA-256 is {found[:16]}…, not {digest[:16]}…. "
            "Install its package again."
        )
    return parse_torch_weights(content, path)


def parse_torch_weights(content: bytes, path: Path) -> dict[str, Array]:
    """Return name → array of a file's content; ``path`` is named in messages.

    Raises:
        ConfigError: it is no such file, or its pickle asks for anything but tensors.
    """
    try:
        return _parsed(io.BytesIO(content))
    except pickle.UnpicklingError as error:
        raise ConfigError(f"{path} is refused: {error}.") from None
    except Exception as error:  # a damaged pickle raises anything
        raise ConfigError(
            f"{path} cannot be read as PyTorch's weights ({reason_of(error)}). Install its package again."
        ) from None


def _parsed(file: io.BytesIO) -> dict[str, Array]:
    magic, _, machine, state, keys = (_TensorUnpickler(file).load() for _ in range(5))
    if magic != _MAGIC or not machine["little_endian"]:
        raise ValueError("it does not begin as PyTorch's little-endian files do")
    return _arrays(state, [str(key) for key in keys], file)


def _arrays(state: Mapping[str, _Tensor], keys: Sequence[str], file: io.BytesIO) -> dict[str, Array]:
    known = {tensor.storage.key: tensor.storage for tensor in state.values()}
    elements = {}
    for key in keys:
        storage = known[key]
        count = int.from_bytes(file.read(8), "little")
        if count != storage.elements:
            raise ValueError(f"storage {key} has {count} elements, not {storage.elements}")
        elements[key] = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)
    return {str(name): tensor.of(elements[tensor.storage.key]) for name, tensor in state.items()}


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _TensorUnpickler(pickle.Unpickler):
    """Builds dictionaries of tensors, and nothing else: no other name is looked up, so no code is run."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], type | Callable[..., Any] | str] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch", "FloatStorage"): "FloatStorage",
            ("torch", "LongStorage"): "LongStorage",
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which is no part of a tensor")
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, elements, view = pid
        if kind != "storage" or view is not None or dtype not in _DTYPES:
            raise pickle.UnpicklingError("its pickle asks for something that is no plain storage")
        return _Storage(str(key), _DTYPES[dtype], int(elements))
