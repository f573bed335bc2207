"""Choose the explanation methods for a network, and build them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wastelens.config.explain import ExplainConfig
from wastelens.config.explanation_methods import METHODS, MethodInputs, method_names
from wastelens.errors import ConfigError
from wastelens.explain.methods.evidence import Method
from wastelens.models.features import AUTO, choose_layer, spatial_layers


def fitting_methods(network: Any, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Return the methods to use for this network; ``wanted`` is ``auto`` or names, which are returned unchanged."""
    if not isinstance(wanted, str):
        return tuple(wanted)
    has_layer = bool(spatial_layers(network))
    return tuple(name for name in _automatic() if has_layer or not METHODS[name].draws_layer)


def check_methods(config: ExplainConfig, training_photos: int, dataset: str) -> None:
    """Check, without a network, that the named dataset has enough training photos for the methods to use.

    Raises:
        ConfigError: a method needs more.
    """
    for name in _automatic() if config.methods == "auto" else config.methods:
        config.method(name).check(training_photos, dataset)


def chosen_layer(network: Any, methods: Sequence[str], name: str) -> str:
    """Return the layer whose map class activation methods draw; empty if no method draws one.

    Raises:
        ConfigError: the network has no such layer, or a layer was named that no method draws.
    """
    if any(METHODS[method].draws_layer for method in methods):
        return choose_layer(network, name)
    if name != AUTO:
        drawing = [method for method in method_names() if METHODS[method].draws_layer]
        raise ConfigError(
            f"layer={name}, but methods={','.join(methods)} draws the map of no layer. Add one of "
            f"{', '.join(drawing)}, or leave layer=auto."
        )
    return ""


def build_methods(network: Any, names: Sequence[str], config: ExplainConfig, inputs: MethodInputs) -> dict[str, Method]:
    """Return each named method, ready for this network."""
    return {name: config.method(name).build(network, inputs) for name in names}


def _automatic() -> list[str]:
    return [name for name in method_names() if METHODS[name].in_auto]
