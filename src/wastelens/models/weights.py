"""Weights trained elsewhere: check that they are available, read them without running any code, load them."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from wastelens.errors import ConfigError
from wastelens.models.backbones import BACKBONES
from wastelens.models.freezing import backbone_layers
from wastelens.system import borrowed
from wastelens.system.arrays import Float32Array
from wastelens.system.text import reason_of

SUFFIXES = (".h5", ".keras")  # .weights.h5 ends in .h5 too
ARCHIVED_WEIGHTS = "model.weights.h5"
LARGEST_EXPANSION = 100  # of a file in an archive: weights hardly compress, zip bombs do

Stored = Mapping[str, Sequence[Any]]  # a layer's name → its h5py datasets, in Keras' order


def check_weights_available(backbone: str, weights: str) -> None:
    """Find out before any long work whether weights are available; give up on the network after 5 seconds.

    ``weights`` are ``none``, ``imagenet``, or a file: .h5, .weights.h5 or .keras.

    Raises:
        ConfigError: there is no such file, or it has no weights; or ImageNet's are neither on this machine nor
            available from their address or package.
    """
    if weights == "imagenet":
        BACKBONES[backbone].check_imagenet()
    elif weights != "none":
        with stored_layers(Path(weights)):
            pass


def load_backbone_weights(model: Any, backbone: str, weights: str) -> str:
    """Load weights into the backbone of a flat network, all or none of them, and return :func:`backbone_digest`.

    Files are Keras' own: weights (.weights.h5, and the .h5 of Keras 2), whole models (.h5, .keras) with or without
    a top, and files that a run exported. Layers are found by name; arrays are read as numbers, and no code is run.

    ``weights`` are ``none`` (changes nothing), ``imagenet``, or a file.

    Raises:
        ConfigError: the weights are unavailable, cannot be read or do not fit; names the first layer that does not.
    """
    if weights == "imagenet":
        arrays = BACKBONES[backbone].imagenet_arrays()
    elif weights != "none":
        path = Path(weights)
        with stored_layers(path) as stored:
            arrays = _fitting_arrays(model, stored, path)
    if weights != "none":
        for layer in _flat(model):
            layer.set_weights(arrays[layer.name])
    return backbone_digest(model)


def backbone_digest(model: Any) -> str:
    """Return the BLAKE2b digest of a backbone's layer names, shapes and weights: 128 bits, in hexadecimal."""
    digest = blake2b(digest_size=16)
    for layer in _flat(model):
        for number, weight in enumerate(layer.get_weights()):
            digest.update(f"{layer.name}/{number} {weight.dtype.str} {weight.shape}\n".encode())
            digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _flat(model: Any) -> list[Any]:
    """Return the layers of the backbone; not a second one inside it, whose weights are copied from the first."""
    return [layer for layer in backbone_layers(model) if not hasattr(layer, "layers")]


def _fitting_arrays(model: Any, stored: Stored, path: Path) -> dict[str, list[Float32Array]]:
    """Return a file's arrays for each layer of the backbone, once all of them fit."""
    places = _places(model)
    chosen = {}
    for layer in _flat(model):
        datasets = stored.get(layer.name, stored.get(places[layer.name], ()))
        wanted, given = [tuple(weight.shape) for weight in layer.weights], [dataset.shape for dataset in datasets]
        if wanted != given:
            raise ConfigError(
                f"The weights in {path} do not fit {model.name}: layer '{layer.name}' {_difference(wanted, given)}. "
                f"Give weights of {model.name}, or choose the model that they belong to."
            )
        chosen[layer.name] = datasets
    return {name: [_array(dataset, name, path) for dataset in datasets] for name, datasets in chosen.items()}


def _difference(wanted: Sequence[tuple[int, ...]], given: Sequence[tuple[int, ...]]) -> str:
    if not given:
        return "is missing from the file"
    if len(wanted) != len(given):
        return f"has {len(given)} arrays in the file and {len(wanted)} in the network"
    theirs, ours = next((theirs, ours) for theirs, ours in zip(given, wanted, strict=True) if theirs != ours)
    return f"has shape {theirs} in the file and {ours} in the network"


def _array(dataset: Any, layer_name: str, path: Path) -> Float32Array:
    if dataset.dtype.kind != "f":
        raise ConfigError(f"{path} has no numbers for layer '{layer_name}': give a file of weights.")
    try:
        array = np.asarray(dataset[()], dtype=np.float32)
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from None
    if not np.isfinite(array).all():
        raise ConfigError(f"Layer '{layer_name}' in {path} has numbers that are not finite: give another file.")
    return array


def _places(model: Any) -> dict[str, str]:
    """Return where Keras 3 writes each layer: its class and its number in that class (before 3.7, without its name).

    The places are the same in a bare backbone and in ours: the head adds no layer of the backbone's classes before it.
    """
    places: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for layer in model.layers:
        kind = borrowed.keras_snake_case(type(layer).__name__)
        places[layer.name] = f"layers/{kind}_{counts[kind]}" if counts[kind] else f"layers/{kind}"
        counts[kind] += 1
    return places


@contextlib.contextmanager
def stored_layers(path: Path) -> Iterator[Stored]:
    """Open a file's layers for reading.

    Raises:
        ConfigError: it is missing, not a file of weights, damaged or empty.
    """
    import h5py

    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        fact = "is not a file" if os.path.exists(path) else "does not exist"
        raise ConfigError(f"weights={path} {fact}: give a {', '.join(SUFFIXES)} or .weights.h5 file, imagenet or none.")
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"weights={path} has an unknown file type: give a .h5, .weights.h5 or .keras file.")
    with contextlib.ExitStack() as stack:
        try:
            source = _archived(path) if path.suffix == ".keras" else path
            stored = _layers_in(stack.enter_context(h5py.File(source, "r")))
        except Exception as error:  # h5py and zipfile raise all kinds of exceptions for damaged files
            raise _unreadable(path, error) from None
        if not stored:
            raise ConfigError(f"{path} has no layers with weights: give a file that Keras saved.")
        yield stored


def _archived(path: Path) -> io.BytesIO:
    with zipfile.ZipFile(path) as archive:
        if ARCHIVED_WEIGHTS not in archive.namelist():
            raise ValueError(f"there is no {ARCHIVED_WEIGHTS} in the archive")
        member = archive.getinfo(ARCHIVED_WEIGHTS)
        if member.file_size > LARGEST_EXPANSION * max(member.compress_size, 1 << 20):
            raise ValueError(f"{ARCHIVED_WEIGHTS} unpacks to {member.file_size} bytes")
        return io.BytesIO(archive.read(member))


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} cannot be read as weights ({reason_of(error)}): give a file that Keras saved.")


def _layers_in(file: Any) -> Stored:
    """Return each layer's datasets, if they are in this very file: links to other files are not followed."""
    import h5py

    groups, datasets = {}, {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group):
            groups[name] = item
        elif not item.external and not item.is_virtual:
            datasets[name] = item

    file.visititems(note)
    root = "model_weights/" if "model_weights" in groups else ""
    attributes = groups["model_weights"].attrs if root else file.attrs
    if any(name.startswith("layer_names") for name in attributes):
        return _legacy_layers(root, attributes, groups, datasets)
    return _current_layers(groups, datasets)


def _legacy_layers(root: str, attributes: Any, groups: Mapping[str, Any], datasets: Mapping[str, Any]) -> Stored:
    """Read Keras 2: a group for each layer, whose attribute ``weight_names`` lists its arrays in order.

    A model nested as a layer has one group; its layers are told apart by the first part of their arrays' names.
    """
    layers: dict[str, list[Any]] = {}
    scopes: dict[str, list[Any]] = {}
    for layer in _texts(attributes, "layer_names"):
        group = groups[root + layer]
        for name in _texts(group.attrs, "weight_names"):
            dataset = datasets[f"{root}{layer}/{name}"]
            layers.setdefault(layer, []).append(dataset)
            scopes.setdefault(name.rpartition("/")[0].rpartition("/")[2], []).append(dataset)
    return {**scopes, **layers}


def _texts(attributes: Any, name: str) -> list[str]:
    """Read a list of texts; HDF5's attributes are small, so Keras splits long lists into ``name0``, ``name1`` …"""
    pieces = [name] if name in attributes else []
    while name not in attributes and f"{name}{len(pieces)}" in attributes:
        pieces.append(f"{name}{len(pieces)}")
    texts = [text for piece in pieces for text in attributes[piece]]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _current_layers(groups: Mapping[str, Any], datasets: Mapping[str, Any]) -> Stored:
    """Read Keras 3: ``layers/conv2d_1/vars/0`` …; the layer's name is an attribute of ``vars`` (absent before 3.7)."""
    layers: dict[str, list[Any]] = {}
    for path, group in groups.items():
        if path.rpartition("/")[2] != "vars" or path.startswith("optimizer"):
            continue
        arrays = [datasets[f"{path}/{number}"] for number in range(len(group)) if f"{path}/{number}" in datasets]
        if not arrays:
            continue
        place = path.rpartition("/")[0]
        layers[_text(group.attrs.get("name", place))] = arrays
        if "name" not in group.attrs:  # in the .keras files of Keras 2 the place may end in the name
            layers.setdefault(place.rpartition("/")[2], arrays)
    return layers


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
