"""When to say "unsure": bands of probabilities, chosen on val for a wished precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wastelens.data.prepared.tables import LabelTable, ValTable
from wastelens.evaluation.bootstrap import interval
from wastelens.system.arrays import Array, BoolArray, FloatArray
from wastelens.system.decision_rule import NEVER, NO, UNSURE, YES, DecisionRule


@dataclass(frozen=True)
class Wish:
    """The precision and recall that answers must reach.

    Attributes:
        precision: share of the photos with the answer yes that show the material; 0: no answer is ever unsure.
        recall: share of the photos that show the material whose answer is not no, as the mean over groups of photos.
    """

    precision: float
    recall: float


@dataclass(frozen=True)
class Band:
    """A material's band.

    Attributes:
        no_below, yes_from: calibrated probabilities.
        groups: of val that show the material.
        guaranteed: whether there are enough groups for the recall to hold on average over new ones.
    """

    no_below: float
    yes_from: float
    groups: int
    guaranteed: bool


def choose_bands(table: LabelTable, probabilities: FloatArray, wish: Wish) -> dict[str, Band]:
    """Choose the bands on val; none where none are wished for.

    Where both wishes can be met without a band, one threshold remains.

    Args:
        table: of val.
        probabilities: calibrated, (n, materials).
        wish: for all materials.

    Raises:
        TypeError: the table holds another split.
    """
    if not isinstance(table, ValTable):
        raise TypeError(f"bands are chosen on a ValTable only, not on a {type(table).__name__}")
    if not wish.precision:
        return {}
    bands, groups = {}, np.asarray(table.groups)
    for place, material in enumerate(table.materials):
        shown, numbers = table.labels[:, place].astype(bool), probabilities[:, place]
        yes_from = lowest_yes(shown, numbers, wish.precision)
        no_below, guaranteed = highest_no(numbers[shown], groups[shown], wish.recall)
        no_below = min(yes_from, no_below)
        bands[material] = Band(no_below, yes_from, len(set(groups[shown])), guaranteed)
    return bands


def lowest_yes(shown: BoolArray, probabilities: FloatArray, precision: float) -> float:
    """Return the lowest threshold at which hits / (answers + 1) reach a precision; 2 where none does.

    The one answer more counts as wrong: without it, a single right answer at the top would promise a precision of 1.

    Args:
        shown: of val, (n,).
        probabilities: (n,).
        precision: wished.
    """
    order = np.argsort(-probabilities, kind="stable")
    distinct = probabilities[order]
    ends = np.append(np.flatnonzero(np.diff(distinct)), len(distinct) - 1)
    hits, answers = np.cumsum(shown[order])[ends], ends + 1
    reached = np.flatnonzero(hits / (answers + 1) >= precision)
    if not len(reached):
        return NEVER
    last = reached[-1]
    below = distinct[ends[last] + 1] if ends[last] + 1 < len(distinct) else 0.0
    return float((distinct[ends[last]] + below) / 2)


def highest_no(positives: FloatArray, groups: Array, recall: float) -> tuple[float, bool]:
    """Return the highest threshold below which a photo with the material falls with at most probability 1 - recall.

    Split conformal prediction, with groups as the units: a photo drawn from a new group falls below t with at most the
    probability (1 + Σ over the G groups of the share of their photos below t) / (G + 1), if new groups are like those
    of val (Lee, Barber & Willett 2023, "Distribution-free inference with hierarchical data", §3; the same for each
    material by itself: Vovk 2012). Each group counts alike, however many photos it has. It holds whatever the model, if
    val did not choose it too. It takes 1 / (1 - recall) - 1 groups; where there are fewer, photos are the units
    instead, and nothing is said about new groups.

    Args:
        positives: probabilities of val's photos with the material, (k,).
        groups: of these photos, (k,).
        recall: wished.

    Returns:
        The threshold, 0 where even photos are too few; and whether it holds for photos of new groups.
    """
    for units, guaranteed in ((groups, True), (np.arange(len(positives)), False)):
        names, member, sizes = np.unique(units, return_inverse=True, return_counts=True)
        room = (1 - recall) * (len(names) + 1) - 1
        if room >= -1e-9:
            order = np.argsort(positives, kind="stable")
            share_below = np.cumsum(1 / sizes[member[order]])
            inside = np.flatnonzero(share_below > room + 1e-9)
            return float(positives[order[inside[0]]]), guaranteed
    return 0.0, False


def band_table(
    labels: BoolArray, probabilities: FloatArray, rule: DecisionRule, groups: Sequence[str], weights: Array
) -> pd.DataFrame:
    """Return bands.csv: what the bands reach on test, for all pairs of photo and material and for each material.

    Args:
        labels, probabilities: of test, calibrated, (n, materials).
        rule: with the bands.
        groups: of the photos, (n,).
        weights: counts of photos in resamples, (resamples, n).

    Returns:
        ``coverage`` (share of pairs with an answer), ``precision`` (of the answer yes) and ``recall`` (share of the
        positives whose answer is not no), each with ``_low`` and ``_high``, and ``recall_of_groups``, the mean of the
        groups' recalls; NaN where there is none to count.
    """
    answers = rule.answers(probabilities)
    of_group = np.unique(np.asarray(groups), return_inverse=True)[1]
    overall = _reached(labels, answers, of_group, weights)
    rows = [{"material": "all", "no_below": np.nan, "yes_from": np.nan, **overall}]
    for place, (name, (no_below, yes_from)) in enumerate(rule.bands.items()):
        reached = _reached(labels[:, [place]], answers[:, [place]], of_group, weights)
        never = {"yes_from": np.nan} if yes_from >= NEVER else {}
        rows.append({"material": name, "no_below": no_below, "yes_from": yes_from, **never, **reached})
    return pd.DataFrame(rows)


def _reached(labels: BoolArray, answers: Array, of_group: Array, weights: Array) -> dict[str, float]:
    """Return coverage, precision and recall of pairs (n, k), with intervals over photos."""
    every = np.ones_like(labels)
    counted = {
        "coverage": (answers != UNSURE, every),
        "precision": (labels & (answers == YES), answers == YES),
        "recall": (labels & (answers != NO), labels),
    }
    found: dict[str, float] = {}
    for name, (part, whole) in counted.items():
        above, below = (one.sum(axis=1).astype(np.float64) for one in (part, whole))
        if not below.any():
            found |= {f"{name}{end}": np.nan for end in ("", "_low", "_high")}
            continue
        estimate = float(above.sum() / below.sum())
        totals = weights @ below
        with np.errstate(invalid="ignore", divide="ignore"):  # resamples without any
            low, high = interval(np.where(totals > 0, (weights @ above) / totals, np.nan), estimate=estimate)
        found |= {name: estimate, f"{name}_low": max(low, 0.0), f"{name}_high": min(high, 1.0)}
    shown, kept = (np.bincount(of_group, one.sum(axis=1)) for one in (labels, labels & (answers != NO)))
    with_some = shown > 0
    found["recall_of_groups"] = float((kept[with_some] / shown[with_some]).mean()) if with_some.any() else np.nan
    return found


def why_no_guarantee(bands: dict[str, Band], recall: float, *, val_chose_weights: bool) -> str:
    """Return a sentence on the materials whose recall is not guaranteed for new groups; "" where all are.

    Args:
        bands: of all materials; none without a wish.
        recall: wished.
        val_chose_weights: whether val also chose the epoch, so that the model suits val better than other photos.
    """
    lacking = [name for name, band in bands.items() if not band.guaranteed]
    if bands and val_chose_weights:
        return (
            "No guarantee of the recall on photos of new groups: val also chose the epoch whose weights were kept. A "
            "linear head that is solved at once, as that of model=probe, needs no such choice."
        )
    if not lacking:
        return ""
    needed = int(np.ceil(1 / (1 - recall) - 1 - 1e-9))
    most = max(bands[name].groups for name in lacking)
    return (
        f"No guarantee of the recall on photos of new groups for {', '.join(lacking)}: a recall of {recall:g} takes "
        f"{needed} groups of val that show the material; there are {most} at most."
    )
