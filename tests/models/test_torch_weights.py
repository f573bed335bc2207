"""PyTorch's legacy files: read as numbers, views and all; whatever else a pickle asks for is refused by name."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from wastelens.errors import ConfigError
from wastelens.models.torch_weights import parse_torch_weights, read_torch_weights

MAGIC = 0x1950A86A20F9469CFC6C
NAME = Path("weights.pth")


class Named:
    """Pickled as the global of this module and name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickled as a call of a global."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Writer(pickle._Pickler):
    """Writes globals that are not importable here, and storages by their persistent id."""

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Named):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


REBUILD = Named("torch._utils", "_rebuild_tensor_v2")
FLOATS = Named("torch", "FloatStorage")


def tensor(key, elements, shape, strides, offset=0, kind=FLOATS):
    storage = ("storage", kind, key, "cpu", elements, None)
    return Call(REBUILD, storage, offset, shape, strides, False, OrderedDict())


def written(state, storages, magic=MAGIC):
    """Return the bytes of a file with this state dict; storages: key → array."""
    file = io.BytesIO()
    for part in (magic, 1001, {"little_endian": True}, state, list(storages)):
        Writer(file, protocol=2).dump(part)
    for array in storages.values():
        file.write(len(array).to_bytes(8, "little") + array.tobytes())
    return file.getvalue()


def test_tensors_are_views_of_storages():
    numbers = np.arange(12, dtype="<f4")
    counts = np.array([7], dtype="<i8")
    state = OrderedDict(
        whole=tensor("2", 12, (3, 4), (4, 1)),
        transposed=tensor("2", 12, (4, 3), (1, 4)),
        part=tensor("2", 12, (2,), (5,), offset=1),
        count=tensor("1", 1, (), (), kind=Named("torch", "LongStorage")),
    )
    arrays = parse_torch_weights(written(state, {"1": counts, "2": numbers}), NAME)
    np.testing.assert_array_equal(arrays["whole"], numbers.reshape(3, 4))
    np.testing.assert_array_equal(arrays["transposed"], numbers.reshape(3, 4).T)
    np.testing.assert_array_equal(arrays["part"], [1, 6])
    assert arrays["count"] == 7
    assert arrays["transposed"].flags.c_contiguous


@pytest.mark.parametrize(
    ("module", "name"), [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("collections", "defaultdict")]
)
def test_other_names_are_refused_and_no_code_runs(module, name, tmp_path):
    planted = tmp_path / "planted"
    state = OrderedDict(weight=Call(Named(module, name), f"touch {planted}"))
    with pytest.raises(ConfigError, match=rf"asks for {module}\.{name}, which is no part of a tensor") as caught:
        parse_torch_weights(written(state, {}), NAME)
    assert "\n" not in str(caught.value)
    assert not planted.exists()


@pytest.mark.parametrize(
    "state",
    [
        OrderedDict(weight=tensor("1", 4, (5,), (1,))),
        OrderedDict(weight=tensor("1", 4, (2,), (-1,))),
        OrderedDict(weight=tensor("1", 4, (1,), (1,), offset=9)),
        OrderedDict(weight=tensor("1", 9, (1,), (1,))),
        OrderedDict(weight=3),
    ],
)
def test_a_view_that_leaves_its_storage_is_refused(state):
    with pytest.raises(ConfigError, match="cannot be read as PyTorch's weights"):
        parse_torch_weights(written(state, {"1": np.zeros(4, "<f4")}), NAME)


def test_another_digest_or_file_is_refused(tmp_path):
    content = written(OrderedDict(weight=tensor("1", 1, (1,), (1,))), {"1": np.ones(1, "<f4")})
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert read_torch_weights(path, sha256(content).hexdigest())["weight"] == 1
    with pytest.raises(ConfigError, match="is not the file of weights that was published"):
        read_torch_weights(path, sha256(b"").hexdigest())
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        read_torch_weights(tmp_path / "none.pth", "")


@pytest.mark.parametrize("cut", range(0, 400, 23))
def test_a_damaged_file_is_one_line(cut):
    content = written(OrderedDict(weight=tensor("1", 4, (4,), (1,))), {"1": np.ones(4, "<f4")})
    for damaged in (content[:cut], content[:cut] + b"\xff" + content[cut + 1 :]):
        try:
            parse_torch_weights(damaged, NAME)
        except ConfigError as error:
            assert "\n" not in str(error)
