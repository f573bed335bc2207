"""The model as MLflow serves it (models-from-code): photo files in; probabilities and decisions, or features, out.

MLflow runs this file on loading; of Wastelens it needs only the photo decoder and the form of requests and answers,
which travel with it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_STATE

from wastelens.models.card import CARD
from wastelens.models.requests import Limits, Request, RequestError, answer_frame, rows_of
from wastelens.models.server_requests import check_content_type, frame_of
from wastelens.system.borrowed import guard_mlflow_server
from wastelens.system.decision_rule import read_rule
from wastelens.system.digests import changed_file
from wastelens.system.standard_error import standard_error_held


class ServedNetwork(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Takes photos, and returns a frame with one row for each.

    Photos are rows of a frame with ``image`` (a photo file's bytes, their base64 text, or ``{"b64": text}``), or in
    Python also a list of bytes, arrays, uint8 (height, width, 3), or Pillow's images. A classifier, which comes with a
    decision rule, answers with ``probability_<material>``, calibrated, and ``decision_<material>``, None where it is
    unsure; an encoder answers with ``features``. A row that is no usable photo has only its ``problem``.

    A row may give ``path`` instead of ``image``, or in Python be a ``pathlib.Path``, but only where the model was
    loaded with ``model_config={"allow_paths": True}``: otherwise anyone who can call a served model could open the
    server's files. :class:`Limits` has the other settings.
    """

    def load_context(self, context: Any) -> None:
        """Load the network and, if there is one, the decision rule, of the files that were logged.

        Raises:
            MlflowException: a file is missing, or another one.
            ValueError: a limit is no positive number.
        """
        _check_files([Path(file) for file in context.artifacts.values()])
        settings = context.model_config or {}
        self._limits, self._allow_paths = Limits.of(settings), settings.get("allow_paths") is True
        onnx, rule = context.artifacts.get("onnx"), context.artifacts.get("decision_rule")
        self._network, self._side_px = _by_onnx(onnx) if onnx else _by_keras(context.artifacts["network"])
        self._rule = read_rule(Path(rule)) if rule else None
        _guard_server(self._limits)

    # MLflow warns of a predict without type hints, and takes this one for no promise: it takes all that rows_of does.
    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row per photo.

        Raises:
            MlflowException: the request has no rows, or too many.
        """
        with _refusals():
            photos, problems = Request(rows_of(model_input), self._side_px, self._limits, self._allow_paths).photos()
        return answer_frame(self._network(photos), self._rule, problems)


def _check_files(files: list[Path]) -> None:
    """Compare a model's files with the digests among its metadata: this finds damage and exchanged files, not malice.

    Raises:
        MlflowException: one is missing, another one, or has no digest.
    """
    folder = files[0].parent
    about = mlflow.models.Model.load(str(folder.parent)).metadata or {}
    digests = about.get(CARD, {}).get("files", {})
    unknown = [f"{file.name} has no digest in MLmodel" for file in files if file.name not in digests]
    if problem := (*unknown, changed_file(folder, digests))[0]:
        raise mlflow.exceptions.MlflowException(
            f"{folder}: {problem}. Do not use this model: get it again from where it was trained.",
            error_code=INVALID_STATE,
        )


def _by_onnx(file: str) -> tuple[Callable[[Any], Any], int]:
    """Return a network and the side of the photos that it takes, in pixels."""
    from wastelens.models.onnx_network import OnnxNetwork

    network = OnnxNetwork(Path(file))
    return network, network.image_side_px


def _by_keras(file: str) -> tuple[Callable[[Any], Any], int]:
    """Return a network as a graph, which any number of threads may call at once, and the side of its photos."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one among the model's requirements
    with standard_error_held():  # TensorFlow's notices
        import keras
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        network = keras.saving.load_model(file, compile=False, safe_mode=True)
        tf.zeros(1)
    shape = (None, *network.input_shape[1:])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)  # type: ignore[untyped-decorator]
    def graph(photos: Any) -> Any:
        return tf.cast(network(photos, training=False), tf.float32)

    return lambda photos: graph(photos.astype(np.float32)).numpy(), int(shape[1])


def _guard_server(limits: Limits) -> None:
    """In a process of MLflow's scoring server, refuse all but JSON, and read it by :func:`frame_of`.

    MLflow reads ``inputs`` and ``instances`` into NumPy arrays of texts, which take four bytes a letter and give every
    row the room of the longest: a request of 200 kB can ask for 13 GB. Parquet of 150 kB can ask for 9 GB.
    """

    @_refusals()
    def read(body: bytes | str) -> pd.DataFrame:
        return frame_of(body, limits)

    guard_mlflow_server(_refusals()(check_content_type), read)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn a RequestError into the one that MLflow's server answers with status 400."""
    try:
        yield
    except RequestError as error:
        raise mlflow.exceptions.MlflowException(str(error), error_code=BAD_REQUEST) from None


mlflow.models.set_model(ServedNetwork())
