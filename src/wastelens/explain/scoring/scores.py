"""Scores of the maps: one row per photo, material and method, and a summary over all photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
import pandas as pd

from wastelens.config.explanation_methods import METHODS, method_names
from wastelens.evaluation.bootstrap import interval, multiplicities
from wastelens.explain.scoring.localisation import COVERED_TOO_MUCH
from wastelens.system.arrays import FloatArray

Outcome = Literal["right", "missed", "false_alarm"]

OUTCOMES: tuple[Outcome, ...] = ("right", "missed", "false_alarm")
CONTROL = "centre"
# Scores against the outlines, in the order of tables; below, all scores.
LOCALISATION_SCORES = (
    "energy",
    "energy_over_centre",
    "above_chance",
    "pointing",
    "pointing_chance",
    "iou",
    "right_label_wrong_place",
)
SCORES = (*LOCALISATION_SCORES, "insertion", "deletion", "randomised", "additivity_error", "empty")
FEWEST_PHOTOS = 10  # with fewer, intervals contain the true value too rarely to be worded as findings
_DECIMALS = 6
_KEYS = ["file_name", "material"]  # of a pair


def method_titles() -> dict[str, str]:
    """Return name → title of every explanation method and of the control, in the order of tables."""
    return {name: METHODS[name].title for name in method_names()} | {CONTROL: "centre of the photo (control)"}


def outcome_of(*, label: bool, decision: bool) -> Outcome:
    """Return the outcome of a material that is annotated (label), predicted (decision), or both.

    Raises:
        ValueError: neither annotated nor predicted.
    """
    if not (label or decision):
        raise ValueError("a material that is neither annotated nor predicted has no outcome")
    if not decision:
        return "missed"
    return "right" if label else "false_alarm"


@dataclass(frozen=True)
class PairScores:
    """How well one method explains one material in one photo: a row of scores.csv. NaN where a score is not defined.

    Attributes:
        method: the method's name, or ``CONTROL``.
        outcome: right (label and decision), missed (label only) or false_alarm (decision only).
        label, decision: whether the material is annotated, and whether the model predicts it.
        threshold: smallest probability that counts as a decision.
        area_share: the outlines' share of the photo; NaN without a usable outline.
        outlines, boxes: how many usable outlines the material has, and how many of these are boxes.
        localised: whether the row counts for the scores against the outlines.
        empty: whether the map is the same everywhere.
        energy, pointing, iou, iou_threshold: see ``Localisation``.
        pointing_chance: the expected pointing of a random place.
        insertion, deletion: see ``perturbation.areas``.
        randomised: absolute rank correlation with the map of random weights.
        additivity_error: distance of a SHAP map's sum from the logit it should explain.
    """

    file_name: str
    material: str
    method: str
    outcome: Outcome
    label: bool
    decision: bool
    probability: float
    threshold: float
    area_share: float
    localised: bool
    empty: bool
    outlines: int = 0
    boxes: int = 0
    energy: float = float("nan")
    pointing: float = float("nan")
    pointing_chance: float = float("nan")
    iou: float = float("nan")
    iou_threshold: float = float("nan")
    insertion: float = float("nan")
    deletion: float = float("nan")
    randomised: float = float("nan")
    additivity_error: float = float("nan")


COLUMNS = tuple(field.name for field in fields(PairScores))
_FLAGS = ["label", "decision", "localised", "empty"]
_COUNTS = ["outlines", "boxes"]
_NUMBERS = [name for name in COLUMNS[COLUMNS.index("probability") :] if name not in {*_FLAGS, *_COUNTS}]


def score_frame(rows: Sequence[PairScores]) -> pd.DataFrame:
    """Return the table of scores.csv: a row per photo, material and method; flags as 0/1, numbers with 6 decimals."""
    frame = pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS))
    kinds = dict.fromkeys([*_FLAGS, *_COUNTS], "int64") | dict.fromkeys(_NUMBERS, "float64")
    return frame.astype(kinds).round(dict.fromkeys(_NUMBERS, _DECIMALS))


@dataclass(frozen=True)
class MeanScore:
    """A mean over pairs of photo and material, its 95 % interval by bootstrap over photos, and the numbers of both."""

    estimate: float
    low: float
    high: float
    pairs: int
    photos: int

    def against(self, value: float, above: str, below: str, neither: str) -> str:
        """Return the words for where the interval lies, or that there are too few photos to tell."""
        if self.photos < FEWEST_PHOTOS:
            return f"from too few photos to tell ({self.photos})"
        return above if self.low > value else below if self.high < value else neither


@dataclass(frozen=True)
class Summary:
    """Mean scores of a model's explanations.

    Attributes:
        frame: scores.csv.
        methods: in the order of tables.
        means: (method, score) → mean over the pairs for which the score is defined; missing where there are none.
    """

    frame: pd.DataFrame
    methods: tuple[str, ...]
    means: Mapping[tuple[str, str], MeanScore]

    def metrics(self) -> dict[str, float]:
        """Return MLflow's metrics: ``explain/<method>/<score>``, with bounds for the energy, and counts.

        The bounds of the others, and the scores per material, are on the page.
        """
        metrics = {f"explain/{name}": float(count) for name, count in self.counts.items()}
        for (method, score), mean in self.means.items():
            name = f"explain/{method}/{score}"
            metrics[name] = mean.estimate
            if score == "energy":
                metrics |= {f"{name}_low": mean.low, f"{name}_high": mean.high}
        return metrics

    @property
    def scored_methods(self) -> tuple[str, ...]:
        """The methods with at least one score: without outlines, the control has none."""
        scored = {method for method, _ in self.means}
        return tuple(method for method in self.methods if method in scored)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of photos and pairs, of pairs left out of localisation by reason, and of outlines and boxes.

        Outlines and boxes are those of the pairs that count for localisation.
        """
        pairs = self.frame.drop_duplicates(_KEYS)
        area_share = pairs.loc[pairs["label"] == 1, "area_share"]
        return {
            "photos": pairs["file_name"].nunique(),
            "pairs": len(pairs),
            "covered_too_much": int((area_share > COVERED_TOO_MUCH).sum()),
            "without_outline": int(area_share.isna().sum()),
            **{name: int(pairs.loc[pairs["localised"] == 1, name].sum()) for name in _COUNTS},
        }

    def sentences(self) -> list[str]:
        """Return the finding on each method in a sentence, the control last."""
        needed = ("energy", "pointing", "pointing_chance")
        shown = [method for method in self.methods if all((method, score) in self.means for score in needed)]
        if shown:
            return [self._sentence(method) for method in sorted(shown, key=lambda method: method == CONTROL)]
        if self.counts["covered_too_much"]:
            return ["No outlines that leave half of their photo free: localisation scores are left out."]
        return ["No outlines of litter here: localisation scores are left out."]

    def _sentence(self, method: str) -> str:
        title = method_titles().get(method, method)
        energy, pointing = self.means[method, "energy"], self.means[method, "pointing"]
        chance = self.means[method, "pointing_chance"].estimate
        chance_in_words = energy.against(1, "more than chance", "less than chance", "which chance may explain")
        return (
            f"{title[0].upper()}{title[1:]}: {energy.estimate:.2f} [{energy.low:.2f}, {energy.high:.2f}] times the "
            f"energy that chance would put on the litter, {chance_in_words}"
            f"{self._against_centre(method)}; points at it in "
            f"{100 * pointing.estimate:.0f} % of {pointing.pairs:,} {'case' if pointing.pairs == 1 else 'cases'} "
            f"(chance {100 * chance:.0f} %)."
        )

    def _against_centre(self, method: str) -> str:
        """Return the comparison with the control in words that the interval allows; empty where there is none."""
        gain, control = self.means.get((method, "energy_over_centre")), self.means.get((CONTROL, "energy"))
        if gain is None or control is None or gain.photos < FEWEST_PHOTOS:
            return ""
        words = gain.against(0, "more than", "less than", "not distinguishable from")
        return (
            f", {words} a blob in the middle of the photo that ignores its content ({control.estimate:.2f}; difference "
            f"{gain.estimate:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}])"
        )


def summarise(frame: pd.DataFrame, *, methods: Sequence[str], seed: int, resamples: int) -> Summary:
    """Average the scores over pairs, with intervals; the order of the rows does not matter.

    Photos are resampled with all their pairs, since the pairs of a photo are alike, and all methods share the same
    resamples.

    Args:
        frame: scores.csv, as made by ``score_frame`` or read from the file.
        methods: to average, in the order of tables.
        seed, resamples: of the bootstrap.
    """
    scores = _defined_scores(frame)
    means = _means(frame, scores.to_numpy(), methods, seed, resamples) if len(frame) else {}
    return Summary(frame, tuple(methods), means)


def _defined_scores(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns ``SCORES``, float64, NaN where a row does not count; shares become means of 0 and 1."""
    energy = frame["energy"]
    right = (frame["label"] == 1) & (frame["decision"] == 1)
    scores = frame.reindex(columns=list(SCORES)).astype(np.float64)
    scores["above_chance"] = (energy > 1).astype(np.float64).where(energy.notna())
    # each row's pair has the control's energy beside it; the control's own rows have none
    control = frame[frame["method"] == CONTROL].set_index(_KEYS)["energy"]
    beside = control.reindex(pd.MultiIndex.from_frame(frame[_KEYS])).to_numpy(dtype=np.float64)
    scores["energy_over_centre"] = (energy - beside).where(frame["method"] != CONTROL)
    scores["right_label_wrong_place"] = (energy < 1).astype(np.float64).where(energy.notna() & right)
    scores["empty"] = scores["empty"].where(frame["method"] != CONTROL)  # a blob is never empty
    localised = list(LOCALISATION_SCORES)
    scores[localised] = scores[localised].where(frame["localised"] == 1)
    return scores


def _means(
    frame: pd.DataFrame, scores: FloatArray, methods: Sequence[str], seed: int, resamples: int
) -> dict[tuple[str, str], MeanScore]:
    photos, photo_of = np.unique(frame["file_name"].to_numpy(dtype=str), return_inverse=True)
    drawn = multiplicities(len(photos), resamples, np.random.default_rng(seed)).astype(np.float64)
    means = {}
    for method in methods:
        rows = (frame["method"] == method).to_numpy(dtype=bool)
        defined = ~np.isnan(scores[rows])
        # per photo: the sum of its pairs' defined scores, and their number, both (photos, scores)
        sums, counts = np.zeros((2, len(photos), scores.shape[1]))
        np.add.at(sums, photo_of[rows], np.where(defined, scores[rows], 0.0))
        np.add.at(counts, photo_of[rows], defined)
        pairs = counts.sum(axis=0)
        drawn_sums, drawn_counts = drawn @ sums, drawn @ counts
        resampled = np.divide(drawn_sums, drawn_counts, out=np.full(drawn_sums.shape, np.nan), where=drawn_counts > 0)
        for column in np.flatnonzero(pairs):
            low, high = interval(resampled[:, column])
            estimate, photos_with = float(sums[:, column].sum() / pairs[column]), np.count_nonzero(counts[:, column])
            means[method, SCORES[column]] = MeanScore(estimate, low, high, int(pairs[column]), int(photos_with))
    return means
