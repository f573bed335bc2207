"""Has the model learnt nothing? Earlier work never asked this about its accuracy of 64 %."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.metrics import checked_decisions, checked_probabilities, floors, macro_average_precision
from wastelens.system.arrays import BoolArray, FloatArray

CONSTANT_SPREAD = 0.01
SAME_DECISIONS_SHARE = 0.99
_CENTRE = (0.01, 0.99)
_CHANCE_LEVEL = 0.975
FEWEST_PHOTOS = 30
FEWEST_POSITIVES = 5


@dataclass(frozen=True)
class Collapse:
    """Whether a model has collapsed, and why.

    Attributes:
        reasons: sentences with their numbers; empty for a sound model.
        too_few: why the photos are too few to tell whether the model is better than chance; "" where they suffice.
    """

    reasons: tuple[str, ...]
    too_few: str = ""

    @property
    def collapsed(self) -> bool:
        """Whether there is any reason."""
        return bool(self.reasons)


def diagnose(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    decisions: npt.ArrayLike,
    rng: np.random.Generator,
    materials: Sequence[str],
    *,
    shuffles: int = 1000,
) -> Collapse:
    """Check predictions for the three ways of saying nothing about a photo.

    1. Near-constant probabilities: for more than half of the materials, the standard deviation over photos or the
       range of the middle 98 % of photos is below 0.01.
    2. The same decisions for at least 99 % of the photos, although the labels vary more than that.
    3. Macro AP no better than chance: at or below the 97.5 % quantile of the scores of the same probabilities
       shuffled among the photos (a permutation test, exact for any n: Good 2005, §3). A bootstrap against the
       prevalence is no substitute: AP is biased upwards on few photos, so random scores pass in half of all cases
       (290 TACO photos, 300 trials; 3 of 100 pass the permutation test).

    Fewer than 30 photos, or five positives of half of the materials, cannot tell 2 and 3: then only 1 is checked.

    Args:
        labels, decisions: 0 or 1, (n, m).
        probabilities: in [0, 1], (n, m).
        rng: for the shuffles.
        materials: the m names.
        shuffles: number of shuffles for the permutation test.

    Raises:
        ValueError: the shapes differ, labels or decisions are not 0 or 1, or probabilities are not within [0, 1].
    """
    truth, numbers = checked_probabilities(labels, probabilities)
    _, predicted = checked_decisions(labels, decisions)
    constant = _constant_reason(numbers, materials)
    if len(truth) < FEWEST_PHOTOS:
        return _found(constant, too_few=f"There are only {len(truth)} photos; {FEWEST_PHOTOS} or more are needed.")
    rare = [name for name, count in zip(materials, truth.sum(axis=0), strict=True) if count < FEWEST_POSITIVES]
    few_show = f"Fewer than {FEWEST_POSITIVES} photos show {', '.join(rare)}."
    if 2 * len(rare) > len(materials):
        return _found(constant, too_few=few_show)
    same, no_better = _decisions_reason(truth, predicted, materials), _chance_reason(truth, numbers, rng, shuffles)
    if rare and no_better:  # one rare material can bring a good model down to chance
        return _found(constant, same, too_few=few_show)
    return _found(constant, same, no_better)


def _found(*reasons: str, too_few: str = "") -> Collapse:
    return Collapse(tuple(reason for reason in reasons if reason), too_few)


def _constant_reason(probabilities: FloatArray, materials: Sequence[str]) -> str:
    # the middle range too, since a single outlier lifts the standard deviation above the limit
    low, high = np.quantile(probabilities, _CENTRE, axis=0)
    is_flat = (probabilities.std(axis=0) < CONSTANT_SPREAD) | (high - low < CONSTANT_SPREAD)
    constant = [name for name, flat in zip(materials, is_flat, strict=True) if flat]
    if 2 * len(constant) <= len(materials):
        return ""
    return (
        f"The probabilities are near-constant for {len(constant)} of {len(materials)} materials "
        f"({', '.join(constant)}): they vary by less than {CONSTANT_SPREAD:g} over the photos."
    )


def _decisions_reason(truth: BoolArray, predicted: BoolArray, materials: Sequence[str]) -> str:
    combinations, copies = np.unique(predicted, axis=0, return_counts=True)
    share = copies.max() / len(predicted)
    if share < SAME_DECISIONS_SHARE or floors(truth).subset_accuracy >= SAME_DECISIONS_SHARE:
        return ""
    said = [name for name, on in zip(materials, combinations[copies.argmax()], strict=True) if on]
    return f"{copies.max()} of {len(predicted)} photos get the same decision: {', '.join(said) or 'no material'}."


def _chance_reason(truth: BoolArray, numbers: FloatArray, rng: np.random.Generator, shuffles: int) -> str:
    reached = float(macro_average_precision(truth, numbers))
    # shuffling the labels is the same as shuffling the scores; whole rows keep the materials together
    shuffled = [float(macro_average_precision(truth[rng.permutation(len(truth))], numbers)) for _ in range(shuffles)]
    chance = float(np.quantile(shuffled, _CHANCE_LEVEL))
    if reached > chance:
        return ""
    return (
        f"Macro AP {reached:.3f} is no better than chance: shuffling the model's answers among the photos scores up "
        f"to {chance:.3f} (constant answers score {floors(truth).macro_ap:.3f})."
    )
