"""What every method of explanation gives: for a photo and a material, a map of the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Photos = npt.NDArray[np.uint8]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Evidence:
    """Maps of some pairs of photo and material.

    Attributes:
        maps: float32 (pairs, height, width), over the square photo at the method's own resolution; at least 0 for class
            activation maps, of both signs (for and against) for SHAP.
        additivity_error: float64 (pairs,), in logits: how far a map's sum is from what it should explain; NaN for
            methods that promise no sum.
    """

    maps: npt.NDArray[np.float32]
    additivity_error: npt.NDArray[np.float64]


class Method(Protocol):
    """A method of explanation, ready for a network."""

    def __call__(self, photos: Photos, pairs: Index) -> Evidence:
        """Explain.

        Args:
            photos: uint8 (n, side, side, 3) in 0–255.
            pairs: (pairs, 2): which photo, and which material.
        """
        ...


def without_sum(maps: npt.NDArray[np.float32]) -> Evidence:
    """Evidence of a method that promises no sum."""
    return Evidence(maps, np.full(len(maps), np.nan))
