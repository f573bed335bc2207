"""The model as MLflow serves it (models-from-code): photo files in; probabilities and decisions, or features, out.

MLflow runs this file on loading; of Wastelens it needs only the photo decoder and the form of the answer, which travel
with it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from wastelens.models.requests import answer_frame, requested_photos


class ServedNetwork(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Takes rows with ``image`` (a photo file's bytes) and returns one row for each.

    A classifier, which comes with a decision rule, answers with ``probability_<material>`` and ``decision_<material>``;
    an encoder with its features, float32 (rows, features).

    A row may give ``path`` instead of ``image``, but only where the model was loaded with
    ``model_config={"allow_paths": True}``: otherwise anyone who can call a served model could open the server's files.
    """

    def load_context(self, context: Any) -> None:
        """Load the network and, if there is one, the decision rule."""
        if "keras" not in sys.modules:
            os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one among the model's requirements
        import keras

        self._network = keras.saving.load_model(context.artifacts["network"], compile=False)
        rule = context.artifacts.get("decision_rule")
        self._thresholds = json.loads(Path(rule).read_text(encoding="utf-8"))["thresholds"] if rule else None
        self._allow_paths = bool((context.model_config or {}).get("allow_paths", False))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Return one row per photo.

        Raises:
            ValueError: a row that is not a photo, or that gives a path where paths are not allowed.
        """
        photos = requested_photos(model_input, int(self._network.input.shape[1]), self._allow_paths)
        output = self._network.predict(photos, verbose=0)
        if self._thresholds is None:
            return np.asarray(output, dtype=np.float32)
        return answer_frame(output, self._thresholds)


mlflow.models.set_model(ServedNetwork())
