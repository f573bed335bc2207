"""A network in ONNX Runtime, without TensorFlow. A served model takes this file along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

PROBABILITIES = "probabilities"  # the output of a network that has several
_ERRORS_ONLY = 3


class OnnxNetwork:
    """A network from photos to answers; any number of threads may call it at once.

    Attributes:
        image_side_px: of the photos that it takes.
        outputs: name → shape, with None for the number of photos.
        main_output: the name of the probabilities, or of the only output.
    """

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        # A thread that waits for work by spinning takes the core from those that decode photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (self._photos,) = self._session.get_inputs()
        self.image_side_px = int(self._photos.shape[1])
        self.outputs = {
            one.name: tuple(side if isinstance(side, int) else None for side in one.shape)
            for one in self._session.get_outputs()
        }
        self.main_output = PROBABILITIES if PROBABILITIES in self.outputs else next(iter(self.outputs))

    def __call__(self, photos_0_255: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the probabilities of photos, uint8 (n, side, side, 3) → float32 (n, …), or the only output."""
        return self._run(photos_0_255, [self.main_output])[self.main_output]

    def all_outputs(self, photos_0_255: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """Return every output for photos, uint8 (n, side, side, 3) → float32 (n, …), by name."""
        return self._run(photos_0_255, list(self.outputs))

    def _run(self, photos_0_255: npt.NDArray[np.uint8], names: list[str]) -> dict[str, npt.NDArray[np.float32]]:
        found = self._session.run(names, {self._photos.name: photos_0_255.astype(np.float32)})
        return {name: np.asarray(one, dtype=np.float32) for name, one in zip(names, found, strict=True)}
