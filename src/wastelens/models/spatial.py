"""Spatial layers: those for which a class activation map can be drawn."""

from __future__ import annotations

from typing import Any

from wastelens.errors import ConfigError, did_you_mean

AUTO = "auto"


def spatial_layers(model: Any) -> list[str]:
    """Return the layers whose output is a map (batch, height, width, channels) larger than 1 × 1, from input to output.

    Only from the first convolution on: earlier layers hold the photo itself, scaled.
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
    """Return the layer to draw maps for: the last spatial one, or the named one.

    Raises:
        ConfigError: the network has no such layer.
    """
    layers = spatial_layers(model)
    if not layers:
        raise ConfigError(
            f"The network {model.name} has no convolution with a map larger than 1 × 1, so there is no layer to draw a "
            "class activation map for. Use methods=shap, which works with every network."
        )
    if name == AUTO:
        return layers[-1]
    if name in layers:
        return name
    if name in (layer.name for layer in model.layers):
        raise ConfigError(
            f"layer={name} of {model.name} is not spatial: its output is no feature map. Use layer=auto, which is "
            f"{layers[-1]}."
        )
    hint = did_you_mean(name, layers) or f" Its last map is {layers[-1]}."
    raise ConfigError(f"The network {model.name} has no layer '{name}'.{hint}")
