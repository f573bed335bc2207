"""Which layers learn: freeze a backbone, find where the frozen part ends, and split the network there."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from wastelens.errors import ConfigError, did_you_mean
from wastelens.models.head import is_head


def backbone_layers(model: Any) -> list[Any]:
    """The layers with weights that are not of the head, from the input on."""
    return [layer for layer in model.layers if layer.weights and not is_head(layer.name)]


def freeze(model: Any, what: float | str) -> int:
    """Freeze a backbone from the input on, let all the rest learn, and count the frozen layers with weights.

    A frozen part computes the same in training as in prediction (Kornblith, Shlens & Le 2019, §3, "fixed features"):
    Keras runs its batch normalisation on the stored statistics, and the dropout of its residual branches (stochastic
    depth, Huang et al. 2016) is switched off here until it is thawed. Compile after, not before.

    Args:
        model: flat, with a head as ``models.head`` makes it.
        what: the share, in [0, 1], of the backbone's layers with weights, half a layer counting as one; or the name
            of the last frozen layer or block (``block4``: all of ``block4_…``, or of ``block4a_…``, ``block4b_…``).

    Raises:
        ConfigError: the backbone has no layer or block of that name.
    """
    backbone = backbone_layers(model)
    frozen = _frozen_by_name(model, what) if isinstance(what, str) else math.floor(what * len(backbone) + 0.5)
    for number, layer in enumerate(backbone):
        layer.trainable = number >= frozen
    for layer in model.layers:
        if is_head(layer.name):
            layer.trainable = True
    _switch_dropout(model.layers, backbone, frozen)
    return frozen


def frozen_cut(model: Any) -> str | None:
    """The layer whose output can stand for the photo: as late as can be with nothing before it that learns.

    Up to it, every layer with weights is frozen, no layer computes otherwise in training than in prediction, and all
    that later layers read of the earlier ones is its output (residual branches do not cross it). None where no layer
    with weights comes before.
    """
    cut: str | None = None
    weighted = False
    for layer, crossed in _layers_and_crossings(model):
        if is_head(layer.name) or _learns(layer) or _random_in_training(layer):
            break
        weighted = weighted or bool(getattr(layer, "weights", []))
        if weighted and not crossed and layer in model.layers:
            cut = layer.name
    return cut


def split_model(model: Any, layer_name: str) -> tuple[Any, Any]:
    """A network as two that share its layers: photos → that layer's output, and this → probabilities.

    Training the second trains ``model``. Take its logits from :func:`logits_tensor`: Keras' ``layer.output`` is of the
    whole network, whichever of the two the layer is asked of.

    Raises:
        ValueError: later layers read more than that layer's output; those of :func:`frozen_cut` can be split at.
    """
    import keras

    features = model.get_layer(layer_name).output
    return (
        keras.Model(model.input, features, name=f"{model.name}_features"),
        keras.Model(features, model.output, name=f"{model.name}_head"),
    )


def logits_tensor(model: Any) -> Any:
    """What goes into the last layer of this very network, float32 (batch, outputs): its ``logits``."""
    history = model.output._keras_history
    return history.operation._inbound_nodes[history.node_index].input_tensors[0]


def _frozen_by_name(model: Any, what: str) -> int:
    """How many layers with weights there are up to the last layer of a name or block."""
    names = list(takewhile(lambda name: not is_head(name), (layer.name for layer in model.layers)))
    of_block = re.compile(re.escape(what) + ("[a-z]?_" if what[-1:].isdigit() else "_"))
    matching = [number for number, name in enumerate(names) if name == what or of_block.match(name)]
    if not matching:
        raise ConfigError(f"{model.name} has no layer or block '{what}' to freeze up to.{_near(what, model, names)}")
    return sum(bool(layer.weights) for layer in model.layers[: matching[-1] + 1])


def _near(what: str, model: Any, names: Sequence[str]) -> str:
    parts = [layer.name.split("_")[0] for layer in backbone_layers(model)]
    blocks = list(dict.fromkeys(re.sub(r"(\d)[a-z]$", r"\1", part) for part in parts))
    if is_head(what):
        return f" The head always learns; give one of {', '.join(blocks)}, or a share such as 0.5."
    return (
        did_you_mean(what, [*blocks, *names]) or f" Give one of {', '.join(blocks)}, a layer, or a share such as 0.5."
    )


def _switch_dropout(layers: Sequence[Any], backbone: Sequence[Any], frozen: int) -> None:
    """Off before the first layer that learns, and as built after it; the head's own dropout is left alone."""
    import keras

    learning = layers.index(backbone[frozen]) if frozen < len(backbone) else len(layers)
    last = layers.index(backbone[-1]) if backbone else 0
    for number, layer in enumerate(layers[:last]):
        if isinstance(layer, keras.layers.Dropout):
            layer.built_rate = getattr(layer, "built_rate", layer.rate)
            layer.rate = 0.0 if number < learning else layer.built_rate


def _learns(layer: Any) -> bool:
    return bool(getattr(layer, "weights", [])) and layer.trainable


def _random_in_training(layer: Any) -> bool:
    """Whether a layer that is frozen still computes otherwise in training: dropout, noise, augmentation."""
    import keras

    if getattr(layer, "rate", None) == 0:
        return False
    # Frozen batch normalisation keeps to its statistics; the others take the argument and do nothing with it here.
    alike = (keras.layers.BatchNormalization, keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Resizing)
    return "training" in inspect.signature(layer.call).parameters and not isinstance(layer, alike)


def _layers_and_crossings(model: Any) -> Iterator[tuple[Any, bool]]:
    """Each operation in its turn, and whether a later one reads what an earlier one gave, past this one."""
    import keras

    operations = model.operations
    place = {id(operation): number for number, operation in enumerate(operations)}
    last_reader = [0] * len(operations)
    for number, operation in enumerate(operations):
        for tensor in keras.tree.flatten(operation.input):
            source = place[id(tensor._keras_history.operation)]
            last_reader[source] = max(last_reader[source], number)
    furthest = 0
    for number, operation in enumerate(operations):
        yield operation, furthest > number
        furthest = max(furthest, last_reader[number])
