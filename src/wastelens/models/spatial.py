"""Layers that know places: of which a class activation map can be drawn."""

from __future__ import annotations

from typing import Any

from wastelens.errors import ConfigError, did_you_mean

AUTO = "auto"


def spatial_layers(model: Any) -> list[str]:
    """The layers whose output is a map (batch, height, width, channels) of more than one place, from input to output.

    From the first convolution on: what comes before it is the photo itself, scaled.
    """
    import keras

    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    found: list[str] = []
    for layer in model.layers:
        if not found and not isinstance(layer, convolutions):
            continue
        shape = layer.output.shape
        if len(shape) == 4 and shape[1] * shape[2] > 1:
            found.append(layer.name)
    return found


def choose_layer(model: Any, name: str = AUTO) -> str:
    """The layer to draw maps of: the last that knows places, or the named one.

    Raises:
        ConfigError: the network has none, or none of that name.
    """
    layers = spatial_layers(model)
    if not layers:
        raise ConfigError(
            f"The network {model.name} has no convolution whose map has more than one place, so there is no layer to "
            "draw a class activation map of. Use methods=shap, which fits every network."
        )
    if name == AUTO:
        return layers[-1]
    if name in layers:
        return name
    if name in (layer.name for layer in model.layers):
        raise ConfigError(
            f"layer={name} of {model.name} knows no places: no map of a convolution. Use layer=auto, which is "
            f"{layers[-1]}."
        )
    hint = did_you_mean(name, layers) or f" Its last map is {layers[-1]}."
    raise ConfigError(f"The network {model.name} has no layer '{name}'.{hint}")
