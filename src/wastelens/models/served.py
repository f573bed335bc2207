"""The model as MLflow serves it (models-from-code): image bytes in, a probability and a decision a material out.

MLflow runs this file on loading; it needs no more of Wastelens than the photo decoder, which travels with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from wastelens.data.photos.requested import requested_photos


class LitterClassifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Rows with ``image`` (a photo file's bytes) → ``probability_<material>`` and ``decision_<material>``.

    A row may give ``path`` instead of ``image``, but only where the model was loaded with
    ``model_config={"allow_paths": True}``: otherwise whoever can call a served model could open the server's files.
    """

    def load_context(self, context: Any) -> None:
        """Read the network and the decision rule."""
        import keras

        self._network = keras.saving.load_model(context.artifacts["network"], compile=False)
        self._rule = json.loads(Path(context.artifacts["decision_rule"]).read_text(encoding="utf-8"))
        self._allow_paths = bool((context.model_config or {}).get("allow_paths", False))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row a photo.

        Raises:
            ValueError: a row that is no photo, or that gives a path where paths are not allowed.
        """
        photos = requested_photos(model_input, int(self._rule["image_side_px"]), self._allow_paths)
        probabilities = np.asarray(self._network.predict(photos, verbose=0), dtype=np.float64)
        answer = {}
        for column, (material, threshold) in enumerate(self._rule["thresholds"].items()):
            answer[f"probability_{material}"] = probabilities[:, column]
            answer[f"decision_{material}"] = probabilities[:, column] >= threshold
        return pd.DataFrame(answer)


mlflow.models.set_model(LitterClassifier())
