"""Which methods of explanation fit a network, and how they are made ready for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wastelens.config.explain import ExplainConfig
from wastelens.errors import ConfigError
from wastelens.explain.methods.evidence import Method, Photos
from wastelens.explain.methods.gradcam import GRADCAM, GRADCAM_PLUS_PLUS, GradientMaps, ScoreCam
from wastelens.explain.methods.shap_gradients import ExpectedGradients
from wastelens.explain.methods.shap_partition import PartitionShap
from wastelens.models.spatial import AUTO, choose_layer, spatial_layers

SCORECAM, SHAP, SHAP_PARTITION = "scorecam", "shap", "shap_partition"
CLASS_ACTIVATION = (GRADCAM, GRADCAM_PLUS_PLUS, SCORECAM)
SIGNED = frozenset({SHAP, SHAP_PARTITION})  # maps of what speaks for and what speaks against
_PARTITION_BATCH = 50


def fitting_methods(model: Any, wanted: str | Sequence[str]) -> tuple[str, ...]:
    """The methods that ``wanted`` means for this network: ``auto``, or names."""
    if isinstance(wanted, str):
        return (GRADCAM, SHAP) if spatial_layers(model) else (SHAP,)
    return tuple(wanted)


def layer_of(model: Any, methods: Sequence[str], name: str) -> str:
    """The layer that class activation maps are drawn of; nothing where no method draws any.

    Raises:
        ConfigError: the network has none that knows places, or none of that name, or no method draws the named one.
    """
    if set(methods) & set(CLASS_ACTIVATION):
        return choose_layer(model, name)
    if name != AUTO:
        raise ConfigError(
            f"layer={name}, but methods={','.join(methods)} draws the map of no layer. Add one of "
            f"{', '.join(CLASS_ACTIVATION)}, or leave layer=auto."
        )
    return ""


def build_methods(
    model: Any, names: Sequence[str], config: ExplainConfig, *, layer: str, background: Photos
) -> dict[str, Method]:
    """Each method by its name, ready for this network.

    Args:
        model: flat, as ``models.registry`` makes it.
        names: of the methods.
        config: their settings.
        layer: whose map class activation methods draw.
        background: uint8 (background photos, side, side, 3), for ``shap``.
    """
    makers: dict[str, Callable[[], Method]] = {
        GRADCAM: lambda: GradientMaps(model, layer, GRADCAM),
        GRADCAM_PLUS_PLUS: lambda: GradientMaps(model, layer, GRADCAM_PLUS_PLUS),
        SCORECAM: lambda: ScoreCam(model, layer, channels=config.channels),
        SHAP: lambda: ExpectedGradients(model, background, samples=config.samples, seed=config.seed),
        SHAP_PARTITION: lambda: PartitionShap(model, evaluations=config.evaluations, batch_size=_PARTITION_BATCH),
    }
    return {name: makers[name]() for name in names}
