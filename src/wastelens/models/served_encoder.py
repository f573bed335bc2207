"""An encoder as MLflow serves it (models-from-code): image bytes in, what the encoder makes of each photo out.

MLflow runs this file on loading; it needs no more of Wastelens than the photo decoder, which travels with it.
"""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.photos.requested import requested_photos


class PhotoEncoder(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Rows with ``image`` (a photo file's bytes) → features, float32 (rows, features).

    A row may give ``path`` instead of ``image``, but only where the model was loaded with
    ``model_config={"allow_paths": True}``.
    """

    def load_context(self, context: Any) -> None:
        """Read the network."""
        import keras

        self._network = keras.saving.load_model(context.artifacts["network"], compile=False)
        self._allow_paths = bool((context.model_config or {}).get("allow_paths", False))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> npt.NDArray[np.float32]:
        """One row a photo.

        Raises:
            ValueError: a row that is no photo, or that gives a path where paths are not allowed.
        """
        photos = requested_photos(model_input, int(self._network.input.shape[1]), self._allow_paths)
        return np.asarray(self._network.predict(photos, verbose=0), dtype=np.float32)


mlflow.models.set_model(PhotoEncoder())
