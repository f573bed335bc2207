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

from wastelens.data.photos import BadPhotoError, decode, read_photo


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
        rows: list[Any] = model_input.to_dict(orient="records")
        if not rows:
            raise ValueError("There is no photo: give a row a photo, its file's bytes in the column 'image'.")
        side_px = int(self._rule["image_side_px"])
        photos = [decode_row(row, number, side_px, self._allow_paths) for number, row in enumerate(rows)]
        probabilities = np.asarray(self._network.predict(np.stack(photos), verbose=0), dtype=np.float64)
        answer = {}
        for column, (material, threshold) in enumerate(self._rule["thresholds"].items()):
            answer[f"probability_{material}"] = probabilities[:, column]
            answer[f"decision_{material}"] = probabilities[:, column] >= threshold
        return pd.DataFrame(answer)


def decode_row(row: dict[str, Any], number: int, side_px: int, allow_paths: bool) -> Any:
    """One row's photo, uint8 (side, side, 3) in 0–255."""
    content, path = row.get("image"), row.get("path")
    if isinstance(path, str) and path:
        if not allow_paths:
            raise ValueError(
                f"Row {number} gives a path. Send the photo's bytes in 'image', or load the model with "
                'model_config={"allow_paths": True} to let it open files.'
            )
        content = _file_bytes(path, number)
    if not isinstance(content, bytes) or not content:
        raise ValueError(f"Row {number} has no photo: give the file's bytes in the column 'image'.")
    try:
        return decode(content, side_px).pixels_0_255
    except BadPhotoError as error:
        raise ValueError(f"Row {number} is no usable photo: {error}.") from None


def _file_bytes(path: str, number: int) -> bytes:
    try:
        return read_photo(Path(path))
    except BadPhotoError as error:
        raise ValueError(f"Row {number}, '{path}': {error}.") from None


mlflow.models.set_model(LitterClassifier())
