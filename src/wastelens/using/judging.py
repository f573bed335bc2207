"""The verdict on a finished model on other photos, and how far it falls below the model's own test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from wastelens.data.prepared.tables import TestTable
from wastelens.evaluation.bootstrap import Interval, interval, multiplicities, sampling_units
from wastelens.evaluation.controls import control_scores, cross_fitted_controls
from wastelens.evaluation.metrics import average_precision, decide, mean_of_defined, per_material_average_precision
from wastelens.evaluation.verdict import DECIMALS, TOO_FEW, Verdict, judge_finished
from wastelens.system.arrays import BoolArray, FloatArray
from wastelens.using.chosen_model import ChosenModel, TestPredictions
from wastelens.using.labelled_set import LabelledSet

FEWEST_PHOTOS = 50
FEWEST_SHOWING = 5  # photos with a material, and without it: fewer say nothing about it
Holds = Literal["yes", "partly", "no", "unknown"]


@dataclass(frozen=True)
class Answers:
    """Labels and the model's answers for the scored materials, on one side: its own test, or the other photos.

    Attributes:
        labels, decisions: bool (n, m).
        probabilities: float64 (n, m).
        groups: what is resampled as a whole, (n,): groups, or photos where there are too few.
    """

    labels: BoolArray
    probabilities: FloatArray
    decisions: BoolArray
    groups: Sequence[str]

    def take(self, columns: Sequence[int]) -> Answers:
        """Return these materials."""
        chosen = (self.labels[:, columns], self.probabilities[:, columns], self.decisions[:, columns])
        return Answers(*chosen, self.groups)


@dataclass(frozen=True)
class Drop:
    """The model's score on other photos, less that on its own test, on the same materials.

    The more photos show a material, the higher is its average precision, by chance alone. So the photos of the own test
    are weighted until each material is as frequent among them as here.

    Attributes:
        macro_ap: the difference; the interval is of independent bootstraps of both sides.
        own_macro_ap: on its own test as it is.
        own_macro_ap_here: the same, weighted.
        table: a row per material.
    """

    macro_ap: Interval
    own_macro_ap: float
    own_macro_ap_here: float
    table: pd.DataFrame

    def metrics(self) -> dict[str, float]:
        """Return the numbers by their MLflow names."""
        return {
            "own_test/macro_ap": self.own_macro_ap,
            "own_test/macro_ap_reweighted": self.own_macro_ap_here,
            "drop_macro_ap": self.macro_ap.estimate,
            "drop_macro_ap_low": self.macro_ap.low,
            "drop_macro_ap_high": self.macro_ap.high,
        }


@dataclass(frozen=True)
class Judgement:
    """Whether a model holds on other photos.

    Attributes:
        holds: yes, partly (above the controls, but worse than on its own test), no, or unknown.
        answer: one sentence.
        verdict: on the scored materials; None where there are too few photos for one.
        drop: None without a verdict, and on the model's own test.
        predictions: a row per photo, for all materials of the model.
        notes: sentences on what was decided.
    """

    holds: Holds
    answer: str
    verdict: Verdict | None
    drop: Drop | None
    predictions: pd.DataFrame
    notes: tuple[str, ...]


def judge_elsewhere(
    model: ChosenModel, found: LabelledSet, probabilities: FloatArray, *, seed: int, resamples: int
) -> Judgement:
    """Judge a model on a labelled set; probabilities: its network's, (n, materials of the model), not calibrated."""
    of_network, probabilities = probabilities, model.rule.calibrated(probabilities)
    decisions = decide(probabilities, model.thresholds)
    predictions = _predictions(model, found, probabilities, decisions)
    own = None if found.own else model.test_predictions()
    scored, notes = _scored_materials(model, found.table, own)
    if too_few := _too_few(found.table, scored):
        answer = f"Whether the model holds on {found.name} cannot be told: {too_few}."
        return Judgement("unknown", answer, None, None, predictions, tuple(notes))
    columns = [model.materials.index(name) for name in scored]
    table = TestTable(found.table.frame, tuple(scored))
    groups, grouping = sampling_units(table.groups, found.name)
    here = Answers(table.labels == 1, probabilities[:, columns], decisions[:, columns], groups)
    verdict, control_note = _verdict(model, found, table, of_network[:, columns], groups, seed, resamples)
    drop = None
    if own:
        own_groups, own_grouping = sampling_units(own.groups, "the model's own test")
        there = Answers(own.labels == 1, own.probabilities, own.decisions, own_groups).take(columns)
        drop = drop_of(here, there, scored, seed, resamples)
        grouping += own_grouping
    holds, answer = _answer(found.name, verdict, drop)
    return Judgement(holds, answer, verdict, drop, predictions, (*notes, *grouping, *control_note))


def _verdict(
    model: ChosenModel,
    found: LabelledSet,
    table: TestTable,
    of_network: FloatArray,
    groups: Sequence[str],
    seed: int,
    resamples: int,
) -> tuple[Verdict, list[str]]:
    """Judge by controls that are fitted on folds of the same photos or, for the model's own test, on its train."""
    if found.own:
        frame, fold, note = found.own.controls(model.card.fold), model.card.fold, ""
        macro_ap, rivals = found.own.control_macro_ap(fold), lambda name: control_scores(frame, name, table)
    else:
        controls = cross_fitted_controls(table, groups, found.photos, seed)
        note = controls.note
        macro_ap = {name: of_split["test"] for name, of_split in controls.macro_ap.items()}
        rivals = lambda name: controls.scores[name]["test"]  # noqa: E731
    verdict = judge_finished(
        table,
        of_network,
        model.rule.of(table.materials),
        control_macro_ap=macro_ap,
        rivals=rivals,
        seed=seed,
        resamples=resamples,
        groups=groups,
        calibration=model.card.calibration,
    )
    return verdict, [note] if note else []


def _predictions(
    model: ChosenModel, found: LabelledSet, probabilities: FloatArray, decisions: BoolArray
) -> pd.DataFrame:
    """Return predictions.csv: file_name, source_file, group; per material label (if known), probability, decision."""
    columns: dict[str, object] = {name: found.table.frame[name] for name in ("file_name", "source_file", "group")}
    for number, material in enumerate(model.materials):
        if material in found.table.materials:
            columns[f"label_{material}"] = found.table.frame[material]
        columns[f"probability_{material}"] = probabilities[:, number].round(DECIMALS)
        columns[f"decision_{material}"] = decisions[:, number].astype(int)
    return pd.DataFrame(columns).reset_index(drop=True)


def _scored_materials(model: ChosenModel, table: TestTable, own: TestPredictions | None) -> tuple[list[str], list[str]]:
    """Return the materials that both sides can score, and a sentence about each that one side lacks."""
    notes = [f"{name}: the model does not answer for it." for name in table.materials if name not in model.materials]
    scored = []
    for number, name in enumerate(model.materials):
        if name not in table.materials:
            notes.append(f"{name}: no label of these photos means it.")
            continue
        sides = {"of these photos": table.frame[name].to_numpy()}
        sides |= {"of the model's own test": own.labels[:, number]} if own else {}
        few = [
            f"{name}: only {count} {where} {verb} it."
            for where, labels in sides.items()
            for count, verb in ((int((labels == 1).sum()), "show"), (int((labels == 0).sum()), "do not show"))
            if count < FEWEST_SHOWING
        ]
        notes += few
        scored += [] if few else [name]
    left_out = " They are left out of all means, on both sides." if notes else ""
    return scored, [f"{' '.join(notes)}{left_out}"] if notes else []


def _too_few(table: TestTable, scored: Sequence[str]) -> str:
    """Return why there can be no verdict; "" if there can be one."""
    if len(table) < FEWEST_PHOTOS:
        return f"there are only {len(table)} photos; label at least {FEWEST_PHOTOS}"
    if not scored:
        return f"no material is shown, and not shown, by {FEWEST_SHOWING} photos; label more"
    return ""


def drop_of(here: Answers, own: Answers, materials: Sequence[str], seed: int, resamples: int) -> Drop:
    """Compare the answers for other photos with those for the model's own test, by two independent bootstraps."""
    prevalence, own_prevalence = here.labels.mean(axis=0), own.labels.mean(axis=0)
    ap = _resampled(here, prevalence, np.random.default_rng([seed, 40]), resamples)
    own_ap = _resampled(own, prevalence, np.random.default_rng([seed, 41]), resamples)
    plain = per_material_average_precision(own.labels, own.probabilities)
    rows = [
        {
            "material": name,
            "photos": int(here.labels[:, place].sum()),
            "own_photos": int(own.labels[:, place].sum()),
            "prevalence": float(prevalence[place]),
            "own_prevalence": float(own_prevalence[place]),
            "own_ap_unweighted": float(plain[place]),
            **_named("ap", _first_and_rest(ap[:, place])),
            **_named("own_ap", _first_and_rest(own_ap[:, place])),
            **_named("difference", _first_and_rest(ap[:, place] - own_ap[:, place])),
            "f1": _f1(here, place),
            "own_f1": _f1(own, place),
        }
        for place, name in enumerate(materials)
    ]
    macro, own_macro = mean_of_defined(ap), mean_of_defined(own_ap)
    return Drop(_first_and_rest(macro - own_macro), float(plain.mean()), float(own_macro[0]), pd.DataFrame(rows))


def _resampled(side: Answers, prevalence: FloatArray, rng: np.random.Generator, resamples: int) -> FloatArray:
    """Return average precisions at this prevalence, (1 + resamples, m); the first row is of the photos themselves.

    Weights of the photos that show a material, and of the others, make up the prevalence (m,) in each resample. Recall
    and the share of false alarms, which a change of prevalence alone leaves as they are, stay (Saerens, Latinne &
    Decaestecker 2002, Neural Comput. 14).
    """
    drawn = multiplicities(len(side.labels), resamples, rng, side.groups)
    counts = np.concatenate([np.ones((1, len(side.labels))), drawn])
    columns = []
    for place, wanted in enumerate(prevalence.tolist()):
        shown = side.labels[:, place]
        weights = counts.copy()
        for which, share in ((shown, wanted), (~shown, 1 - wanted)):
            total = counts[:, which].sum(axis=1, keepdims=True)
            weights[:, which] *= np.divide(share, total, out=np.zeros_like(total), where=total > 0)
        columns.append(average_precision(shown, side.probabilities[:, place], weights))
    return np.stack(columns, axis=-1)


def _first_and_rest(values: FloatArray) -> Interval:
    """Return the first value, and the interval of the rest."""
    return Interval(float(values[0]), *interval(values[1:], estimate=float(values[0])))


def _named(name: str, value: Interval) -> dict[str, float]:
    return {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}


def _f1(side: Answers, place: int) -> float:
    truth, decided = side.labels[:, place], side.decisions[:, place]
    return float(2 * (truth & decided).sum() / max(truth.sum() + decided.sum(), 1))


def _answer(name: str, verdict: Verdict, drop: Drop | None) -> tuple[Holds, str]:
    """Answer whether the model holds on these photos, in one sentence."""
    gain = f"{verdict.gain.estimate:+.3f} [{verdict.gain.low:+.3f}, {verdict.gain.high:+.3f}]"
    rival = f"the strongest control ({verdict.strongest_control}), which is fitted on such photos"
    numbers = f"macro AP {verdict.test.macro_ap:.3f}, floor {verdict.floors.macro_ap:.3f}; {gain} against {rival}"
    if drop:
        change = f"{drop.macro_ap.estimate:+.3f} [{drop.macro_ap.low:+.3f}, {drop.macro_ap.high:+.3f}]"
        better = "better than" if drop.macro_ap.low > 0 else "not clearly different from"
        compared = "worse than" if drop.macro_ap.high < 0 else better
        numbers += f"; {change}, so {compared} its own test with materials as frequent as here"
    if verdict.collapse.collapsed:
        return "no", f"The model does not hold on {name}: {' '.join(verdict.collapse.reasons)} In numbers: {numbers}."
    if verdict.collapse.too_few:
        why = f"{TOO_FEW.capitalize()} whether the model holds on {name}. {verdict.collapse.too_few}"
        return "unknown", f"{why} In numbers: {numbers}."
    if not verdict.above_controls:
        shown = "does not hold" if verdict.gain.high < 0 else "is not shown to hold"
        return "no", f"The model {shown} on {name}: {numbers}."
    if drop is None:
        return "yes", f"The model holds on its own test: {numbers}."
    if drop.macro_ap.high < 0:
        return "partly", f"The model holds on {name} in part, above the controls but with a loss: {numbers}."
    return "yes", f"The model holds on {name}: {numbers}."
