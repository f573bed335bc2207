"""Has the model learnt nothing? The question earlier work did not ask of its 64 % accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.floors import floors
from wastelens.evaluation.metrics import (
    BoolArray,
    FloatArray,
    checked_labels,
    checked_probabilities,
    macro_average_precision,
)

CONSTANT_SPREAD = 0.01
SAME_DECISIONS_SHARE = 0.99
_CENTRE = (0.01, 0.99)
_CHANCE_LEVEL = 0.975


@dataclass(frozen=True)
class Collapse:
    """The diagnosis.

    Attributes:
        collapsed: whether any of the reasons holds.
        reasons: plain sentences with their numbers; empty for a sound model.
        constant_materials: materials whose probability hardly depends on the photo; no collapse while they
            are no more than half of all.
    """

    collapsed: bool
    reasons: tuple[str, ...]
    constant_materials: tuple[str, ...]


def diagnose(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    decisions: npt.ArrayLike,
    rng: np.random.Generator,
    materials: Sequence[str] | None = None,
    *,
    shuffles: int = 1000,
) -> Collapse:
    """Look for the three ways of saying nothing about a photo.

    1. Near-constant probabilities: for more than half of the materials, the standard deviation over photos or
       the range of the middle 98 % of photos is below 0.01.
    2. The same decisions for at least 99 % of the photos, where the labels vary more than that.
    3. Macro AP no higher than chance: at or below the 97.5 % quantile of what the same probabilities score
       when they are dealt to the photos at random (a permutation test, exact for any n: Good 2005, §3). A
       bootstrap against the prevalence is no substitute: AP of few photos is biased upwards, and it lets
       random scores pass in half of all cases (290 TACO photos, 300 trials; the permutation test in 3 of
       100).

    Args:
        labels, decisions: 0 or 1, (n, m).
        probabilities: in [0, 1], (n, m).
        rng: for the shuffles.
        materials: the m names; numbers where not given.
        shuffles: how many.

    Raises:
        ValueError: shapes that do not fit, or values other than they may be.
    """
    truth, numbers = checked_probabilities(labels, probabilities)
    claimed = checked_labels(decisions)
    if claimed.shape != truth.shape:
        raise ValueError(f"labels are {truth.shape}, decisions {claimed.shape}")
    names = [f"material {j}" for j in range(truth.shape[1])] if materials is None else list(materials)
    constant = tuple(name for name, flat in zip(names, _is_constant(numbers), strict=True) if flat)
    found = (
        _constant_reason(constant, len(names)),
        _decisions_reason(truth, claimed, names),
        _chance_reason(truth, numbers, rng, shuffles),
    )
    reasons = tuple(reason for reason in found if reason)
    return Collapse(bool(reasons), reasons, constant)


def _is_constant(probabilities: FloatArray) -> BoolArray:
    """(n, m) → (m,). The middle range too: one stray photo lifts a standard deviation above the limit."""
    low, high = np.quantile(probabilities, _CENTRE, axis=0)
    flat: BoolArray = (probabilities.std(axis=0) < CONSTANT_SPREAD) | (high - low < CONSTANT_SPREAD)
    return flat


def _constant_reason(constant: tuple[str, ...], materials: int) -> str:
    if 2 * len(constant) <= materials:
        return ""
    return (
        f"The probabilities are near-constant for {len(constant)} of {materials} materials "
        f"({', '.join(constant)}): they spread by less than {CONSTANT_SPREAD:g} over the photos."
    )


def _decisions_reason(truth: BoolArray, claimed: BoolArray, names: list[str]) -> str:
    combinations, copies = np.unique(claimed, axis=0, return_counts=True)
    share = copies.max() / len(claimed)
    if share < SAME_DECISIONS_SHARE or floors(truth).subset_accuracy >= SAME_DECISIONS_SHARE:
        return ""
    said = [name for name, on in zip(names, combinations[copies.argmax()], strict=True) if on]
    return f"{copies.max()} of {len(claimed)} photos get the same decision: {', '.join(said) or 'no material'}."


def _chance_reason(truth: BoolArray, numbers: FloatArray, rng: np.random.Generator, shuffles: int) -> str:
    reached = float(macro_average_precision(truth, numbers))
    if np.isnan(reached):
        return "No photo shows any material, so nothing can be told from these photos."
    # dealing out the labels is dealing out the scores; whole rows, so that materials stay together
    dealt = [float(macro_average_precision(truth[rng.permutation(len(truth))], numbers)) for _ in range(shuffles)]
    chance = float(np.quantile(dealt, _CHANCE_LEVEL))
    if reached > chance:
        return ""
    return (
        f"Macro AP {reached:.3f} cannot be told from chance: the same probabilities dealt to the photos at "
        f"random reach up to {chance:.3f} (constant ones {floors(truth).macro_ap:.3f})."
    )
