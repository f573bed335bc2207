"""Trained networks as files: for MLflow's pyfunc, and as architecture plus weights for any Keras."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.models.card import CARD, ModelCard
from wastelens.models.onnx_export import NotExportedError, write_onnx
from wastelens.models.requests import IMAGE, PATH, Limits, answer_frame
from wastelens.system.arrays import PhotoArray
from wastelens.system.console import warn
from wastelens.system.decision_rule import DecisionRule, read_rule
from wastelens.system.digests import file_digest
from wastelens.tracking.tracker import PyfuncModel

ONNX, DECISION_RULE = "network.onnx", "decision_rule.json"
SERVED_CODE = Path(__file__).with_name("served.py")
# Not as the signature's inputs: MLflow would make a frame of whatever it is given, and drop photos in lists and arrays.
SERVED_INPUTS = {
    IMAGE: "a photo: the bytes of its file, their base64 text, or {'b64': text}; in Python also uint8 (height, width, "
    "3) or Pillow's image, alone or in a list",
    PATH: "instead of it, with allow_paths in model_config: a file that the model opens; in Python also a "
    "pathlib.Path, alone or in a list",
}
SERVED_SETTINGS = {"allow_paths": False, **asdict(Limits())}
_SERVED_MODULES = (
    "__init__.py",
    "data/__init__.py",
    "data/photos/__init__.py",
    "data/photos/decode.py",
    "data/photos/deep.py",
    "data/photos/jpeg.py",
    "models/__init__.py",
    "models/card.py",
    "models/onnx_network.py",
    "models/requests.py",
    "models/server_requests.py",
    "system/__init__.py",
    "system/borrowed.py",
    "system/decision_rule.py",
    "system/digests.py",
    "system/standard_error.py",
)
# mlflow-skinny: all that serving needs of MLflow, without the 400 MB of its tracking server and of other models.
SERVED_PACKAGES = ("mlflow-skinny", "numpy", "pandas", "pydantic", "pillow", "opencv-python-headless", "simplejpeg")
SERVED_BY = {"onnx": ("onnxruntime",), "keras": ("tensorflow", "keras")}


def export(model: Any, folder: Path, *, rule: DecisionRule, image_side_px: int) -> dict[str, Path]:
    """Write a network and its decision rule into a folder.

    Args:
        rule: what becomes of the network's probabilities.

    Returns:
        ``network``: all of it, ``.keras``; ``architecture``: its layers as JSON; ``weights`` as HDF5;
        ``decision_rule``: materials, thresholds, calibration, bands and input side as JSON.
    """
    files = {
        "network": folder / "network.keras",
        "architecture": folder / "architecture.json",
        "weights": folder / "model.weights.h5",
        "decision_rule": folder / DECISION_RULE,
    }
    model.save(files["network"])
    files["architecture"].write_text(model.to_json(indent=2), encoding="utf-8")
    model.save_weights(files["weights"])
    written = {"image_side_px": image_side_px, **rule.as_json()}
    files["decision_rule"].write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
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
    network: Any, files: Mapping[str, Path], photos_0_255: PhotoArray, folder: Path, card: ModelCard | None = None
) -> PyfuncModel:
    """Return a network as a model for MLflow, which takes photos.

    It runs in ONNX Runtime, without TensorFlow, where the network can be exported; otherwise a warning says why not.

    Args:
        network: of Keras.
        files: ``network``, its ``.keras`` file, and for a classifier its ``decision_rule`` and ``test_predictions``.
        photos_0_255: for which ONNX and Keras must answer alike, uint8 (n, side, side, 3); the first is the example.
        folder: where the package that travels with the model is written, and the ONNX file.
        card: of a classifier; the files' digests are added to it.
    """
    package = SERVED_CODE.parent.parent  # a copy of it, of only the modules that a served model imports
    for name in _SERVED_MODULES:
        (folder / package.name / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / name, folder / package.name / name)
    onnx = folder / ONNX
    about: dict[str, object] = {"inputs": dict(SERVED_INPUTS)}
    try:
        about |= {"served_by": "onnx", "onnx_difference": write_onnx(network, onnx, photos_0_255)}
        files = {**files, "onnx": onnx}
    except NotExportedError as error:
        warn(f"The model is served by Keras, with TensorFlow, as ONNX cannot stand in for it: {error}.")
        about |= {"served_by": "keras"}
    digests = {file.name: file_digest(file) for file in files.values()}
    rule = read_rule(files["decision_rule"]) if "decision_rule" in files else None
    needed = (*SERVED_PACKAGES, *SERVED_BY[str(about["served_by"])])
    return PyfuncModel(
        code=SERVED_CODE,
        files=files,
        settings=SERVED_SETTINGS,
        input_example=pd.DataFrame({IMAGE: [_png_text(photos_0_255[0])]}),
        output_example=answer_frame(network.predict_on_batch(photos_0_255[:1]), rule),
        packages=folder / package.name,
        requirements=[f"{name}=={importlib.metadata.version(name)}" for name in needed],
        metadata={
            CARD: card.model_copy(update={"files": digests}).metadata() if card else {"files": digests},
            **about,
        },
    )


def _png_text(photo_0_255: PhotoArray) -> str:
    """Return a photo as the base64 text of a file, as a caller of the server sends it."""
    from PIL import Image

    photo = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(photo_0_255)).save(photo, format="PNG")
    return base64.b64encode(photo.getvalue()).decode()
