"""A trained network as files: for MLflow's pyfunc, and as architecture plus weights for any Keras."""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SERVED_CODE = Path(__file__).with_name("served.py")
SERVED_ENCODER_CODE = Path(__file__).with_name("served_encoder.py")
SERVED_COLUMNS = {"image": "binary", "path": "string"}
SERVED_SETTINGS = {"allow_paths": False}
_SERVED_MODULES = (
    "__init__.py",
    "data/__init__.py",
    "data/photos/__init__.py",
    "data/photos/decode.py",
    "data/photos/requested.py",
)
SERVED_PACKAGES = (
    "mlflow",
    "tensorflow",
    "keras",
    "numpy",
    "pandas",
    "pillow",
    "opencv-python-headless",
    "simplejpeg",
)


@dataclass(frozen=True)
class ExportedModel:
    """A network's files.

    Attributes:
        network: the whole network, ``.keras``.
        architecture: its layers as json.
        weights: its weights as h5.
        decision_rule: materials, thresholds and input side as json.
    """

    network: Path
    architecture: Path
    weights: Path
    decision_rule: Path


def export(model: Any, folder: Path, *, thresholds: Mapping[str, float], image_side_px: int) -> ExportedModel:
    """Write a network and its decision rule (material → threshold, in the order of the outputs) into a folder."""
    files = ExportedModel(
        network=folder / "network.keras",
        architecture=folder / "architecture.json",
        weights=folder / "model.weights.h5",
        decision_rule=folder / "decision_rule.json",
    )
    model.save(files.network)
    files.architecture.write_text(model.to_json(indent=2), encoding="utf-8")
    model.save_weights(files.weights)
    rule = {"image_side_px": image_side_px, "thresholds": dict(thresholds)}
    files.decision_rule.write_text(json.dumps(rule, indent=2) + "\n", encoding="utf-8")
    return files


def served_package(folder: Path) -> Path:
    """A ``wastelens`` package of just what a served model imports: the photo decoder, and what finds a row's photo."""
    package = SERVED_CODE.parent.parent
    target = folder / "wastelens"
    for name in _SERVED_MODULES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, target / name)
    return target


def served_requirements() -> list[str]:
    """What a served model needs, pinned to what it was trained with."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in SERVED_PACKAGES]


def png_bytes(photo_0_255: npt.NDArray[np.uint8]) -> bytes:
    """A photo, uint8 (height, width, 3), as a PNG file's bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo_0_255)).save(buffer, format="PNG")
    return buffer.getvalue()
