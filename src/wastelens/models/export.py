"""Trained networks as files: for MLflow's pyfunc, and as architecture plus weights for any Keras."""

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
import pandas as pd

from wastelens.system.arrays import Float32Array, PhotoArray
from wastelens.tracking.tracker import PyfuncModel

SERVED_CODE = Path(__file__).with_name("served.py")
SERVED_COLUMNS = {"image": "binary", "path": "string"}
SERVED_SETTINGS = {"allow_paths": False}
_SERVED_MODULES = (
    "__init__.py",
    "data/__init__.py",
    "data/photos/__init__.py",
    "data/photos/decode.py",
    "data/photos/requested.py",
    "models/__init__.py",
    "models/answer.py",
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
    """The files of a network.

    Attributes:
        network: all of it, ``.keras``.
        architecture: its layers as JSON.
        weights: its weights as HDF5.
        decision_rule: materials, thresholds and input side as JSON.
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


def served_model(
    files: Mapping[str, Path], photo_0_255: PhotoArray, answer: pd.DataFrame | Float32Array, folder: Path
) -> PyfuncModel:
    """Return a network as a model for MLflow, which takes photo files.

    Args:
        files: ``network``, a ``.keras`` file, and for a classifier its ``decision_rule``.
        photo_0_255: an example, uint8 (side, side, 3).
        answer: the model's answer to it.
        folder: where the package that travels with the model is written.
    """
    return PyfuncModel(
        code=SERVED_CODE,
        files=files,
        columns=SERVED_COLUMNS,
        settings=SERVED_SETTINGS,
        input_example=pd.DataFrame({"image": [_png_bytes(photo_0_255)]}),
        output_example=answer,
        packages=_served_package(folder),
        requirements=[f"{name}=={importlib.metadata.version(name)}" for name in SERVED_PACKAGES],
    )


def _served_package(folder: Path) -> Path:
    """Write a ``wastelens`` package of only the modules that a served model imports."""
    package = SERVED_CODE.parent.parent
    target = folder / "wastelens"
    for name in _SERVED_MODULES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, target / name)
    return target


def _png_bytes(photo_0_255: PhotoArray) -> bytes:
    """Encode a photo, uint8 (height, width, 3), as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo_0_255)).save(buffer, format="PNG")
    return buffer.getvalue()
