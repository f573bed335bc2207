"""The interface of an explanation method: maps of evidence for pairs of photo and material."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wastelens.system.arrays import Float32Array, FloatArray, IndexArray, PhotoArray


@dataclass(frozen=True)
class Evidence:
    """Maps of several pairs of photo and material.

    Attributes:
        maps: float32 (pairs, height, width), over the square photo at the method's own resolution; at least 0 for class
            activation maps, of both signs (for and against) for SHAP.
        additivity_error: float64 (pairs,), in logits: distance of a map's sum from the logit it should explain; NaN for
            methods whose maps have no defined sum.
    """

    maps: Float32Array
    additivity_error: FloatArray


class Method(Protocol):
    """An explanation method, ready for a network."""

    def __call__(self, photos: PhotoArray, pairs: IndexArray) -> Evidence:
        """Explain pairs of photo and material.

        Args:
            photos: uint8 (n, side, side, 3) in 0–255.
            pairs: (pairs, 2): index of the photo, index of the material.
        """
        ...


def without_sum(maps: Float32Array) -> Evidence:
    """Return the evidence of a method whose maps have no defined sum."""
    return Evidence(maps, np.full(len(maps), np.nan))
