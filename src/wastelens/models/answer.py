"""The form of a classifier's answer. A served model takes this file along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def answer_frame(probabilities: Any, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Return ``probability_<material>`` and ``decision_<material>`` for each photo.

    Args:
        probabilities: (photos, materials).
        thresholds: material → threshold, in the order of the columns of ``probabilities``.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    answer: dict[str, Any] = {}
    for column, (material, threshold) in enumerate(thresholds.items()):
        answer[f"probability_{material}"] = probabilities[:, column]
        answer[f"decision_{material}"] = probabilities[:, column] >= threshold
    return pd.DataFrame(answer)
