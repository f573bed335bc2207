"""A network in ONNX Runtime, without TensorFlow. A served model takes this file along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

_ERRORS_ONLY = 3


class OnnxNetwork:
    """A network from photos to answers; any number of threads may call it at once."""

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (self._photos,) = self._session.get_inputs()
        self.image_side_px = int(self._photos.shape[1])

    def __call__(self, photos_0_255: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the answers for photos, uint8 (n, side, side, 3) → float32 (n, …)."""
        (answers,) = self._session.run(None, {self._photos.name: photos_0_255.astype(np.float32)})
        return np.asarray(answers, dtype=np.float32)
