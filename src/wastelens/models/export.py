"""Trained networks as files: for MLflow's pyfunc, and as architecture plus weights for any Keras."""

from __future__ import annotations

import importlib.metadata
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.models.card import CARD, ModelCard
from wastelens.system.arrays import Float32Array, PhotoArray
from wastelens.system.files import file_digest
from wastelens.tracking.tracker import PyfuncModel

SERVED_CODE = Path(__file__).with_name("served.py")
SERVED_COLUMNS = {"image": "binary", "path": "string"}
SERVED_SETTINGS = {"allow_paths": False}
_SERVED_MODULES = (
    "__init__.py",
    "data/__init__.py",
    "data/photos/__init__.py",
    "data/photos/decode.py",
    "data/photos/deep.py",
    "data/photos/jpeg.py",
    "models/__init__.py",
    "models/requests.py",
)
SERVED_PACKAGES = ("mlflow", "tensorflow", "keras", "numpy", "pandas", "pillow", "opencv-python-headless", "simplejpeg")


def export(model: Any, folder: Path, *, thresholds: Mapping[str, float], image_side_px: int) -> dict[str, Path]:
    """Write a network and its decision rule into a folder.

    Args:
        thresholds: material → threshold, in the order of the outputs.

    Returns:
        ``network``: all of it, ``.keras``; ``architecture``: its layers as JSON; ``weights`` as HDF5;
        ``decision_rule``: materials, thresholds and input side as JSON.
    """
    files = {
        "network": folder / "network.keras",
        "architecture": folder / "architecture.json",
        "weights": folder / "model.weights.h5",
        "decision_rule": folder / "decision_rule.json",
    }
    model.save(files["network"])
    files["architecture"].write_text(model.to_json(indent=2), encoding="utf-8")
    model.save_weights(files["weights"])
    rule = {"image_side_px": image_side_px, "thresholds": dict(thresholds)}
    files["decision_rule"].write_text(json.dumps(rule, indent=2) + "\n", encoding="utf-8")
    return files


def read_network(network: Path) -> Any:
    """Return the network in a ``.keras`` file, not compiled; a broken file raises any Exception."""
    import keras

    return keras.saving.load_model(network, compile=False, safe_mode=True)


def read_exported(architecture: Path, weights: Path) -> Any:
    """Return the network in two files of :func:`export`; broken ones raise as above."""
    import keras

    network = keras.models.model_from_json(architecture.read_text(encoding="utf-8"))
    if not isinstance(network, keras.Model):
        raise TypeError(f"{architecture.name} describes no network")
    network.load_weights(weights)
    return network


def served_model(
    files: Mapping[str, Path],
    photo_0_255: PhotoArray,
    answer: pd.DataFrame | Float32Array,
    folder: Path,
    card: ModelCard | None = None,
) -> PyfuncModel:
    """Return a network as a model for MLflow, which takes photo files.

    Args:
        files: ``network``, a ``.keras`` file, and for a classifier its ``decision_rule`` and ``test_predictions``.
        photo_0_255: an example, uint8 (side, side, 3).
        answer: the model's answer to it.
        folder: where the package that travels with the model is written.
        card: of a classifier; the files' digests are added to it.
    """
    from PIL import Image

    photo = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo_0_255)).save(photo, format="PNG")
    package = SERVED_CODE.parent.parent  # a copy of it, of only the modules that a served model imports
    for name in _SERVED_MODULES:
        (folder / package.name / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, folder / package.name / name)
    digests = {file.name: file_digest(file) for file in files.values()}
    about = card.model_copy(update={"files": digests}).metadata() if card else {"files": digests}
    return PyfuncModel(
        code=SERVED_CODE,
        files=files,
        columns=SERVED_COLUMNS,
        settings=SERVED_SETTINGS,
        input_example=pd.DataFrame({"image": [photo.getvalue()]}),
        output_example=answer,
        packages=folder / package.name,
        requirements=[f"{name}=={importlib.metadata.version(name)}" for name in SERVED_PACKAGES],
        metadata={CARD: about},
    )
