"""The verdict on a model: thresholds from val, scores from test, with floors and controls beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.prepared.tables import LabelTable, TestTable, ValTable
from wastelens.evaluation.abstention import Band, Wish, band_table, choose_bands, why_no_guarantee
from wastelens.evaluation.bootstrap import Interval, multiplicities
from wastelens.evaluation.calibration import NONE, CalibrationReport, calibrate_probabilities, report_calibration
from wastelens.evaluation.collapse import Collapse, diagnose
from wastelens.evaluation.controls import control_scores
from wastelens.evaluation.evaluate import Evaluation, evaluate, paired_difference
from wastelens.evaluation.metrics import (
    Floors,
    area_under_risk_coverage,
    checked_probabilities,
    decide,
    floors,
    macro_average_precision,
    per_material_average_precision,
)
from wastelens.system.arrays import BoolArray, FloatArray
from wastelens.system.decision_rule import DecisionRule

WITHOUT_POSITIVES = 0.5
TOO_FEW = "too few photos to tell"
DECIMALS = 9  # of probabilities in tables: fewer would make photos equal that a calibrated model hardly tells apart
NO_WISH = Wish(precision=0.0, recall=0.9)


@dataclass(frozen=True)
class StartAnswers:
    """A probe of what a network started from.

    Attributes:
        name: as of :class:`StartControl`.
        val, test: its probabilities, float64 (photos of the split, materials).
    """

    name: str
    val: FloatArray
    test: FloatArray


@dataclass(frozen=True)
class StartControl:
    """The score of a linear probe on the features that a network started from, and what training added to it.

    Attributes:
        name: ``probe``: on the frozen pretrained backbone; ``random_encoder``: on an encoder before its pretraining.
        val_macro_ap, test_macro_ap: of the probe.
        test_ap: its average precision per material on test, float64 (materials,).
        val_gain, test_gain: macro AP of the network minus that of the probe, with a paired bootstrap interval.
    """

    name: str
    val_macro_ap: float
    test_macro_ap: float
    test_ap: FloatArray
    val_gain: Interval
    test_gain: Interval

    @property
    def network_is_worse(self) -> bool:
        """Whether the network is worse on test with the whole interval, or on val and test by the bare numbers."""
        return self.test_gain.high < 0 or max(self.test_gain.estimate, self.val_gain.estimate) < 0

    @property
    def words(self) -> str:
        """The probe in words, for sentences and legends."""
        frozen = {"probe": "its own frozen features", "random_encoder": "the encoder's random start"}
        return f"a linear probe on {frozen[self.name]}"

    @property
    def sentence(self) -> str:
        """Return what training added, in one line."""
        gain = self.test_gain
        number = f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] in test macro AP"
        what = {"probe": "Training", "random_encoder": "Pretraining"}[self.name]
        if self.network_is_worse:
            return f"{what} made the features worse: {number} against {self.words} ({self.test_macro_ap:.3f})."
        if gain.low > 0:
            return f"{what} adds {number} to {self.words} ({self.test_macro_ap:.3f})."
        return f"{what} adds nothing certain to {self.words} ({self.test_macro_ap:.3f}): {number}."

    def metrics(self) -> dict[str, float]:
        """Return the probe's macro AP beside those of the controls, and the gain over it, by their MLflow names."""
        return {
            f"controls/{self.name}_val_macro_ap": self.val_macro_ap,
            f"controls/{self.name}_macro_ap": self.test_macro_ap,
            f"gain_over_{self.name}": self.test_gain.estimate,
            f"gain_over_{self.name}_low": self.test_gain.low,
            f"gain_over_{self.name}_high": self.test_gain.high,
        }


@dataclass(frozen=True)
class Verdict:
    """A model's scores, and the conclusion they support.

    Attributes:
        probabilities: calibrated, float64 (test photos, materials).
        network_probabilities: the network's own, of the same shape.
        val: scores of the network's own probabilities on the photos that chose the rule; None where a finished model is
            judged on other photos.
        rule: thresholds, calibration and bands, chosen on val.
        calibration: what calibrating the probabilities changed.
        bands: what the bands of "unsure" reach on test; None without any.
        no_guarantee: why a recall is not guaranteed; "" where it is, or none is wished for.
        floors: scores of the best constant predictor on test.
        collapse: whether the model answers the same for every photo, or no better than chance.
        control_macro_ap: control → its test macro AP.
        strongest_control: the control with the best test macro AP.
        strongest_control_ap: its average precision per material, float64 (materials,).
        control_probabilities: its probabilities, calibrated on val like the model's, float64 (test photos, materials);
            None where a finished model is judged on other photos.
        gain: test macro AP minus that of the strongest control, with a paired bootstrap interval.
        start: what the features that the network started from reach, where they were trained before. It looks at the
            litter, so it is not among the controls that a network must be above.
    """

    test_table: TestTable
    probabilities: FloatArray
    network_probabilities: FloatArray
    rule: DecisionRule
    calibration: CalibrationReport
    val: Evaluation | None
    test: Evaluation
    floors: Floors
    collapse: Collapse
    control_macro_ap: dict[str, float]
    strongest_control: str
    strongest_control_ap: FloatArray
    control_probabilities: FloatArray | None
    gain: Interval
    start: StartControl | None = None
    bands: pd.DataFrame | None = None
    no_guarantee: str = ""

    @property
    def thresholds(self) -> dict[str, float]:
        """Material → calibrated probability from which the decision is yes."""
        return dict(self.rule.thresholds)

    @property
    def strongest_control_macro_ap(self) -> float:
        """Test macro AP of the strongest control."""
        return self.control_macro_ap[self.strongest_control]

    @property
    def above_controls(self) -> bool:
        """Whether the whole interval of the gain lies above zero, on enough photos, and the model has not collapsed."""
        return self.gain.low > 0 and not self.collapse.collapsed and not self.collapse.too_few

    @property
    def word(self) -> str:
        """The conclusion, in a word or two."""
        if self.collapse.collapsed:
            return "collapsed"
        if self.collapse.too_few:
            return TOO_FEW
        return "above controls" if self.above_controls else "not above controls"

    @property
    def decisions(self) -> BoolArray:
        """Decisions at the thresholds, bool (test photos, materials)."""
        return decide(self.probabilities, list(self.thresholds.values()))

    @property
    def sentence(self) -> str:
        """The conclusion, in one line."""
        low, high = self.test.macro_ap_interval
        number = f"test macro AP {self.test.macro_ap:.3f} [{low:.3f}, {high:.3f}], floor {self.floors.macro_ap:.3f}"
        control = (
            f"{self.gain.estimate:+.3f} [{self.gain.low:+.3f}, {self.gain.high:+.3f}] against the strongest control "
            f"({self.strongest_control}, {self.strongest_control_macro_ap:.3f})"
        )
        if self.collapse.collapsed:
            return f"COLLAPSED: {' '.join(self.collapse.reasons)} In numbers: {number}; {control}."
        if self.collapse.too_few:
            return f"{TOO_FEW.capitalize()}. {self.collapse.too_few} In numbers: {number}; {control}."
        if not self.above_controls:
            return f"Not above the controls: {number}; {control}. It may not have looked at the litter."
        return f"Above floor and controls: {number}; {control}."

    def metrics(self) -> dict[str, float]:
        """Return all final metrics by their MLflow names."""
        return {
            **(self.val.metrics("val/") if self.val else {}),
            **self.test.metrics("test/"),
            **self.floors.metrics(),
            **{f"controls/{name}_macro_ap": value for name, value in self.control_macro_ap.items()},
            **{f"threshold/{material}": value for material, value in self.thresholds.items()},
            **self.calibration.metrics(),
            **self._control_risk(),
            **self._abstention(),
            "gain_over_controls": self.gain.estimate,
            "gain_over_controls_low": self.gain.low,
            "gain_over_controls_high": self.gain.high,
            **(self.start.metrics() if self.start else {}),
        }

    def _control_risk(self) -> dict[str, float]:
        """Return the strongest control's area under risk–coverage."""
        if self.control_probabilities is None:
            return {}
        area = area_under_risk_coverage(self.test_table.labels, self.control_probabilities)
        return {f"controls/{self.strongest_control}_aurc": float(area.mean())}

    def _abstention(self) -> dict[str, float]:
        if self.bands is None:
            return {}
        overall = self.bands.iloc[0]
        names = [f"{name}{end}" for name in ("coverage", "precision", "recall") for end in ("", "_low", "_high")]
        return {f"abstention/{name}": float(overall[name]) for name in names}

    def tags(self) -> dict[str, object]:
        """Return the tags that runs are filtered by."""
        return {
            "collapsed": self.collapse.collapsed,
            "above_controls": self.above_controls,
            "strongest_control": self.strongest_control,
            "verdict": self.sentence,
            "calibration": self.calibration.kind,
            "calibration_answer": self.calibration.sentence,
            **({"no_guarantee": self.no_guarantee} if self.no_guarantee else {}),
            **(
                {"worse_than_start": self.start.network_is_worse, "gain_over_start": self.start.sentence}
                if self.start
                else {}
            ),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return further tables by file name: calibration.csv and, with bands, bands.csv."""
        bands = {} if self.bands is None else {"bands.csv": self.bands}
        return {"calibration.csv": self.calibration.table(), **bands}

    def predictions(self) -> pd.DataFrame:
        """Return predictions_test.csv: file_name and group, then label, probability and decision for each material."""
        columns: dict[str, object] = {"file_name": self.test_table.file_names, "group": self.test_table.groups}
        for number, material in enumerate(self.test.materials):
            columns[f"label_{material}"] = self.test_table.labels[:, number]
            columns[f"probability_{material}"] = self.probabilities[:, number].round(DECIMALS)
            columns[f"decision_{material}"] = self.decisions[:, number].astype(int)
        return pd.DataFrame(columns)


def judge(
    val_table: ValTable,
    val_probabilities: FloatArray,
    test_table: TestTable,
    test_probabilities: FloatArray,
    *,
    controls: pd.DataFrame,
    control_macro_ap: dict[str, float],
    seed: int,
    resamples: int = 1000,
    start: StartAnswers | None = None,
    wish: Wish = NO_WISH,
    val_chose_weights: bool = True,
) -> Verdict:
    """Calibrate on val, then score test once.

    Args:
        val_table, test_table: the photos.
        val_probabilities, test_probabilities: the model's answers for them, float64 (photos, materials).
        controls: the controls' scores for the test photos (controls.csv).
        control_macro_ap: control → its test macro AP, as measured by ``prepare``.
        seed, resamples: of the bootstrap; the seed is also that of the permutation test.
        start: the probe of what the network started from, if it was trained before.
        wish: which answers may be "unsure".
        val_chose_weights: whether val also chose the epoch whose weights were kept.
    """
    thresholds = calibrate_on(val_table, val_probabilities)
    rule, kind, bands = learn_rule(val_table, val_probabilities, thresholds, seed, wish)
    rngs = [np.random.default_rng([seed, part]) for part in (0, 4, 5)]

    def gain_over(probe: StartAnswers) -> StartControl:
        val, test = val_table.labels, test_table.labels
        return StartControl(
            name=probe.name,
            val_macro_ap=float(macro_average_precision(val, probe.val)),
            test_macro_ap=float(macro_average_precision(test, probe.test)),
            test_ap=per_material_average_precision(test, probe.test),
            val_gain=paired_difference(val, val_probabilities, probe.val, rngs[1], resamples),
            test_gain=paired_difference(test, test_probabilities, probe.test, rngs[2], resamples),
        )

    def calibrated_rival(control: str) -> FloatArray:
        val, test = (np.clip(control_scores(controls, control, table), 0, 1) for table in (val_table, test_table))
        maps = calibrate_probabilities(val_table, val, seed).maps
        return DecisionRule(rule.thresholds, maps).calibrated(test)

    return judge_finished(
        test_table,
        test_probabilities,
        rule,
        calibration=kind,
        no_guarantee=why_no_guarantee(bands, wish.recall, val_chose_weights=val_chose_weights),
        calibrated_rival=calibrated_rival,
        control_macro_ap=control_macro_ap,
        rivals=lambda strongest: control_scores(controls, strongest, test_table),
        seed=seed,
        resamples=resamples,
        val=evaluate(val_table.labels, val_probabilities, thresholds, val_table.materials, rngs[0], resamples),
        start=gain_over(start) if start else None,
    )


def learn_rule(
    val_table: LabelTable, probabilities: FloatArray, thresholds: FloatArray, seed: int, wish: Wish
) -> tuple[DecisionRule, str, dict[str, Band]]:
    """Return the decision rule that val teaches, the kind of its calibration, and its bands.

    Args:
        val_table: the photos.
        probabilities: of the network, (n, materials).
        thresholds: for these, (materials,); they are calibrated like the probabilities, so the decisions stay.
        seed: of the folds that choose the calibration.
        wish: which answers may be "unsure".
    """
    materials = val_table.materials
    found = calibrate_probabilities(val_table, probabilities, seed)
    rule = DecisionRule(dict(zip(materials, thresholds.tolist(), strict=True)), found.maps)
    calibrated_thresholds = rule.calibrated(thresholds[None])[0]
    bands = choose_bands(val_table, rule.calibrated(probabilities), wish)
    known = {name: (band.no_below, band.yes_from) for name, band in bands.items()}
    rule = DecisionRule(dict(zip(materials, calibrated_thresholds.tolist(), strict=True)), found.maps, known)
    return rule, found.kind, bands


def judge_finished(
    test_table: TestTable,
    test_probabilities: FloatArray,
    rule: DecisionRule,
    *,
    control_macro_ap: dict[str, float],
    rivals: Callable[[str], FloatArray],
    seed: int,
    resamples: int = 1000,
    val: Evaluation | None = None,
    groups: npt.ArrayLike | None = None,
    start: StartControl | None = None,
    calibration: str = NONE,
    no_guarantee: str = "",
    calibrated_rival: Callable[[str], FloatArray] | None = None,
) -> Verdict:
    """Score test once, with a decision rule that was chosen before.

    Arguments are as for :func:`judge`; rule: of these materials, in their order; rivals: control → its scores (test
    photos, materials); groups: of the test photos, (n,), to be resampled as a whole; calibration: its kind;
    no_guarantee: of the bands; calibrated_rival: control → its probabilities, calibrated on val.
    """
    materials, labels = test_table.materials, test_table.labels.astype(bool)
    rngs = [np.random.default_rng([seed, part]) for part in (1, 2, 3, 6, 7)]
    strongest = max(control_macro_ap, key=control_macro_ap.__getitem__)
    scores, calibrated = rivals(strongest), rule.calibrated(test_probabilities)
    thresholds = np.array(list(rule.thresholds.values()))
    weights = multiplicities(len(labels), resamples, rngs[3], groups)
    return Verdict(
        test_table=test_table,
        probabilities=calibrated,
        network_probabilities=test_probabilities,
        rule=rule,
        calibration=report_calibration(
            labels, test_probabilities, calibrated, materials, calibration, weights, rngs[4]
        ),
        val=val,
        test=evaluate(labels, calibrated, thresholds, materials, rngs[0], resamples, groups),
        floors=floors(labels),
        # Of the network's own probabilities: calibrating weak ones makes them nearly, and rightly, constant.
        collapse=diagnose(labels, test_probabilities, decide(calibrated, thresholds), rngs[1], materials),
        control_macro_ap=control_macro_ap,
        strongest_control=strongest,
        strongest_control_ap=per_material_average_precision(labels, scores),
        control_probabilities=calibrated_rival(strongest) if calibrated_rival else None,
        gain=paired_difference(labels, calibrated, scores, rngs[2], resamples, groups),
        start=start,
        bands=band_table(labels, calibrated, rule, test_table.groups, weights) if rule.bands else None,
        no_guarantee=no_guarantee,
    )


def calibrate_on(table: LabelTable, probabilities: npt.ArrayLike) -> FloatArray:
    """Calibrate thresholds on a validation table (see :func:`calibrate`); steps call this.

    Raises:
        TypeError: the table holds another split. Thresholds fitted on test photos would inflate every F1.
        ValueError: as for :func:`calibrate`.
    """
    if not isinstance(table, ValTable):
        raise TypeError(f"thresholds are calibrated on a ValTable only, not on a {type(table).__name__}")
    return calibrate(table.labels, probabilities)


def calibrate(val_labels: npt.ArrayLike, val_probabilities: npt.ArrayLike) -> FloatArray:
    """Return the thresholds that maximise each material's F1 under probability ≥ threshold. (n, m) twice → (m,).

    Candidates are midway between neighbouring distinct probabilities, and midway between 0 and the lowest one (which
    predicts everything). Among equally good ones, the nearest to 0.5 is taken, then the lower. A material without
    positives gets 0.5. Maximising the F1 of each material maximises macro F1 (Lipton, Elkan & Narayanaswamy 2014,
    ECML).

    Raises:
        ValueError: the shapes differ, labels are not 0 or 1, or probabilities are not within [0, 1].
    """
    truth, numbers = checked_probabilities(val_labels, val_probabilities)
    return np.array([_best_threshold(truth[:, j], numbers[:, j]) for j in range(truth.shape[1])])


def _best_threshold(positive: BoolArray, probabilities: FloatArray) -> float:
    if not positive.any():
        return WITHOUT_POSITIVES
    candidates, f1 = f1_over_thresholds(positive, probabilities)
    best = candidates[f1 == f1.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def f1_over_thresholds(positive: BoolArray, probabilities: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the candidate thresholds, rising, and the F1 at each. (n,) twice → (candidates,) twice.

    Labels are bool, probabilities float64. There is one candidate just below each distinct probability.
    """
    distinct, rank = np.unique(probabilities, return_inverse=True)
    below = np.concatenate([[0.0], distinct[:-1]])
    middle = below + (distinct - below) / 2
    # adjacent floats have no midpoint: the upper one itself excludes the lower one
    candidates = np.where(middle > below, middle, distinct)
    predicted = np.cumsum(np.bincount(rank, minlength=len(distinct))[::-1])[::-1]
    hits = np.cumsum(np.bincount(rank, weights=positive, minlength=len(distinct))[::-1])[::-1]
    return candidates, 2 * hits / (predicted + positive.sum())
