"""Freeze a backbone, find where the frozen part ends, and split the network there."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from wastelens.errors import ConfigError, did_you_mean
from wastelens.models.layers import is_head
from wastelens.system import borrowed


def backbone_layers(model: Any) -> list[Any]:
    """Return the layers with weights before the head, from the input on."""
    return [layer for layer in model.layers if layer.weights and not is_head(layer.name)]


def freeze(model: Any, what: float | str, *, normalisation: bool = False) -> int:
    """Freeze a backbone from the input on, thaw the rest, and return the number of frozen layers with weights.

    A frozen part computes the same in training as in prediction (Kornblith, Shlens & Le 2019, §3, "fixed features"):
    Keras runs its batch normalisation on the stored statistics, and this function switches off the dropout of its
    residual branches (stochastic depth, Huang et al. 2016) until they are thawed. Compile afterwards, not before.

    Args:
        model: flat, with a head from ``models.layers``.
        what: the share, in [0, 1], of the backbone's layers with weights, half a layer rounded up; or the name of
            the last frozen layer or block (``block4``: all of ``block4_…``, or of ``block4a_…``, ``block4b_…``).
        normalisation: freeze the backbone's batch normalisation everywhere: a few small batches of other photos
            would replace the averages of millions.

    Raises:
        ConfigError: the backbone has no layer or block of that name.
    """
    import keras

    backbone = backbone_layers(model)
    frozen = _frozen_by_name(model, what) if isinstance(what, str) else math.floor(what * len(backbone) + 0.5)
    for number, layer in enumerate(backbone):
        kept = normalisation and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = number >= frozen and not kept
    layers = model.layers
    learning = layers.index(backbone[frozen]) if frozen < len(backbone) else len(layers)
    last = layers.index(backbone[-1]) if backbone else 0
    for number, layer in enumerate(layers):
        if is_head(layer.name):
            layer.trainable = True
        if number < last and isinstance(layer, keras.layers.Dropout):  # not the head's own dropout
            layer.built_rate = getattr(layer, "built_rate", layer.rate)
            layer.rate = 0.0 if number < learning else layer.built_rate
    return frozen


def layer_rates(model: Any, decay: float) -> dict[str, float]:
    """Return each layer's factor of the learning rate: 1 for the head, times ``decay`` for each block below it.

    Blocks are layers with the same first word in their names, such as ``block4a``. Early blocks see edges and colours,
    which serve all photos, and change least (Howard & Ruder 2018, §3.2, "discriminative fine-tuning"; Clark et al.
    2020, ELECTRA, Table 7).
    """
    blocks = list(dict.fromkeys(_block(layer) for layer in backbone_layers(model)))
    return {
        layer.name: 1.0 if is_head(layer.name) else decay ** (len(blocks) - blocks.index(_block(layer)))
        for layer in model.layers
        if layer.weights
    }


def _block(layer: Any) -> str:
    return str(layer.name).split("_")[0]


def frozen_cut(model: Any) -> str | None:
    """Return the last layer whose output can replace the photo as input, because nothing up to it learns.

    Up to it, every layer with weights is frozen, no layer computes differently in training than in prediction, and
    later layers read nothing of the earlier ones but its output (no residual branch crosses it). None if no layer with
    weights comes before.
    """
    cut: str | None = None
    weighted = False
    for layer, crossed in _layers_and_crossings(model):
        has_weights = bool(getattr(layer, "weights", []))
        if is_head(layer.name) or (has_weights and layer.trainable) or _random_in_training(layer):
            break
        weighted = weighted or has_weights
        if weighted and not crossed and layer in model.layers:
            cut = layer.name
    return cut


def split_model(model: Any, layer_name: str) -> tuple[Any, Any]:
    """Split a network into two that share its layers: photos → that layer's output, and that output → probabilities.

    Training the second trains ``model``. Get its logits from :func:`logits_tensor`: Keras' ``layer.output`` belongs to
    the whole network, whichever of the two the layer comes from.

    Raises:
        ValueError: later layers read more than that layer's output; the layer of :func:`frozen_cut` always works.
    """
    import keras

    features = model.get_layer(layer_name).output
    return (
        keras.Model(model.input, features, name=f"{model.name}_features"),
        keras.Model(features, model.output, name=f"{model.name}_head"),
    )


def logits_tensor(model: Any) -> Any:
    """Return the input of this very network's last layer, float32 (batch, outputs): its ``logits``."""
    return borrowed.inputs_of_maker(model.output)[0]


def _frozen_by_name(model: Any, what: str) -> int:
    """Count the layers with weights up to the last layer of a name or block."""
    names = list(takewhile(lambda name: not is_head(name), (layer.name for layer in model.layers)))
    of_block = re.compile(re.escape(what) + ("[a-z]?_" if what[-1:].isdigit() else "_"))
    matching = [number for number, name in enumerate(names) if name == what or of_block.match(name)]
    if not matching:
        parts = [layer.name.split("_")[0] for layer in backbone_layers(model)]
        blocks = list(dict.fromkeys(re.sub(r"(\d)[a-z]$", r"\1", part) for part in parts))
        hint = did_you_mean(what, [*blocks, *names]) or (
            f" Give one of {', '.join(blocks)}, a layer, or a share such as 0.5."
        )
        if is_head(what):
            hint = f" The head always learns; give one of {', '.join(blocks)}, or a share such as 0.5."
        raise ConfigError(f"{model.name} has no layer or block '{what}' to freeze up to.{hint}")
    return sum(bool(layer.weights) for layer in model.layers[: matching[-1] + 1])


def _random_in_training(layer: Any) -> bool:
    """Return whether a frozen layer still computes differently in training: dropout, noise, augmentation."""
    import keras

    if getattr(layer, "rate", None) == 0:
        return False
    # Frozen batch normalisation uses its statistics; the others accept the argument and ignore it.
    alike = (keras.layers.BatchNormalization, keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Resizing)
    return "training" in inspect.signature(layer.call).parameters and not isinstance(layer, alike)


def _layers_and_crossings(model: Any) -> Iterator[tuple[Any, bool]]:
    """Yield each operation in order, and whether a later one reads an earlier one's output, past this one."""
    import keras

    operations = model.operations
    place = {id(operation): number for number, operation in enumerate(operations)}
    last_reader = [0] * len(operations)
    for number, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            source = place[id(borrowed.keras_history(tensor).operation)]
            last_reader[source] = max(last_reader[source], number)
    furthest = 0
    for number, operation in enumerate(operations):
        yield operation, furthest > number
        furthest = max(furthest, last_reader[number])
