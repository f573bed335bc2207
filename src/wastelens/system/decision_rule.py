"""From a network's probabilities to answers: calibrated; yes, no or unsure. A served model takes this file along."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NO, YES, UNSURE = 0, 1, -1
NEVER = 2.0  # a probability that none reaches
# The least float32 with all its digits; and a number between the largest float32 below 1 and 1.
_LEAST, _MOST = 1e-38, 1 - 2.0**-25


@dataclass(frozen=True)
class RisingMap:
    """A strictly rising map of log-odds: straight between its knots, and straight on beyond the outer ones.

    Attributes:
        x, y: log-odds before and after, at the knots, both rising; two knots or more.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, log_odds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the mapped log-odds, of the same shape."""
        x, y = np.asarray(self.x), np.asarray(self.y)
        slopes = np.diff(y) / np.diff(x)
        beyond = slopes[0] * np.minimum(log_odds - x[0], 0) + slopes[-1] * np.maximum(log_odds - x[-1], 0)
        return np.asarray(np.interp(log_odds, x, y) + beyond)


@dataclass(frozen=True)
class DecisionRule:
    """The way from a network's probabilities to answers.

    Attributes:
        thresholds: material → calibrated probability from which the answer is yes, in the order of the network's
            outputs.
        calibration: material → the map of its log-odds; empty: probabilities stay as they are.
        bands: material → the calibrated probabilities below which the answer is no, and from which it is yes; between
            them it is unsure. Empty: the thresholds decide, and no answer is unsure.
    """

    thresholds: Mapping[str, float]
    calibration: Mapping[str, RisingMap] = field(default_factory=dict)
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def calibrated(self, probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Calibrate a network's probabilities, (n, materials); their order over photos stays."""
        numbers = np.array(probabilities, dtype=np.float64)
        for place, material in enumerate(self.thresholds):
            if material in self.calibration:
                numbers[:, place] = sigmoid(self.calibration[material](log_odds(numbers[:, place])))
        return numbers

    def answers(self, calibrated: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """Return 1 for yes, 0 for no and -1 for unsure, int8 (n, materials), of calibrated probabilities."""
        numbers = np.asarray(calibrated, dtype=np.float64)
        bands = [self.bands.get(name, (threshold, threshold)) for name, threshold in self.thresholds.items()]
        no_below, yes_from = np.array(bands).reshape(-1, 2).T
        return np.where(numbers >= yes_from, YES, np.where(numbers < no_below, NO, UNSURE)).astype(np.int8)

    def of(self, materials: Sequence[str]) -> DecisionRule:
        """Return the rule for some of the materials, in this order."""
        return DecisionRule(
            {name: self.thresholds[name] for name in materials},
            {name: self.calibration[name] for name in materials if name in self.calibration},
            {name: self.bands[name] for name in materials if name in self.bands},
        )

    def as_json(self) -> dict[str, Any]:
        """Return the rule for a JSON file."""
        return {
            "thresholds": dict(self.thresholds),
            "calibration": {name: asdict(one) for name, one in self.calibration.items()},
            "bands": {name: list(band) for name, band in self.bands.items()},
        }


def read_rule(file: Path) -> DecisionRule:
    """Read a rule; a broken file raises KeyError, TypeError or ValueError."""
    found = json.loads(file.read_text(encoding="utf-8"))
    maps = {name: RisingMap(tuple(one["x"]), tuple(one["y"])) for name, one in found.get("calibration", {}).items()}
    bands = {name: (float(low), float(high)) for name, (low, high) in found.get("bands", {}).items()}
    return DecisionRule({name: float(one) for name, one in found["thresholds"].items()}, maps, bands)


def log_odds(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return ln(p / (1 - p)), p held within what float32 tells apart."""
    held = np.clip(np.asarray(probabilities, dtype=np.float64), _LEAST, _MOST)
    return np.asarray(np.log(held) - np.log1p(-held))


def sigmoid(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return 1 / (1 + exp(-v))."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(values, dtype=np.float64))))
