"""Calibration finds the distortion that was planted, and its parts of the Brier score add up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from wastelens.data.prepared.tables import TestTable, ValTable
from wastelens.evaluation.calibration import KINDS, brier_parts, calibrate_probabilities, recalibrated
from wastelens.evaluation.calibration import report_calibration as report
from wastelens.evaluation.metrics import brier_score, per_material_average_precision
from wastelens.system.arrays import FloatArray
from wastelens.system.decision_rule import DecisionRule, sigmoid

MATERIALS = ("glass", "paper")


def drawn(n: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return labels and the true log-odds that they are drawn from, (n, 2)."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1.5, (n, 2))
    return (rng.random((n, 2)) < sigmoid(truth)).astype(np.int64), truth


def table_of(labels: FloatArray, kind: type = ValTable, group_size: int = 1):
    frame = pd.DataFrame(labels, columns=MATERIALS)
    frame["file_name"] = [f"{row}.jpg" for row in range(len(labels))]
    frame["group"] = [str(row // group_size) for row in range(len(labels))]
    return kind(frame.assign(photo_index=range(len(labels))), MATERIALS)


def step(log_odds_: FloatArray) -> FloatArray:
    """Distort log-odds in a way that no straight line undoes."""
    return np.where(log_odds_ > -1, log_odds_ + 4, log_odds_ / 5 - 3)


@pytest.mark.parametrize(
    ("distorted", "kinds", "n"),
    [
        (lambda one: one, {"none", "temperature", "platt"}, 1500),
        (lambda one: one * 3, {"temperature", "platt"}, 1500),
        (lambda one: one * [0.3, 2] + [2, -2], {"platt"}, 1500),
        (step, {"isotonic"}, 4000),
    ],
)
def test_the_kind_that_undoes_a_distortion_is_chosen(distorted, kinds, n) -> None:
    labels, truth = drawn(n, 0)
    found = calibrate_probabilities(table_of(labels), sigmoid(distorted(truth)), seed=0)
    assert found.kind in kinds
    rule = DecisionRule(dict.fromkeys(MATERIALS, 0.5), found.maps)
    new_labels, new_truth = drawn(4000, 1)
    calibrated = rule.calibrated(sigmoid(distorted(new_truth)))
    best = brier_score(new_labels, sigmoid(new_truth))
    assert brier_score(new_labels, calibrated) == pytest.approx(best, abs=0.006)
    assert set(found.brier) == {"none", *KINDS}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_keeps_the_order_of_photos(kind) -> None:
    labels, truth = drawn(80, 2)
    labels[:, 1] = labels[::-1, 1]  # no relation, or a falling one
    maps = KINDS[kind](labels.astype(bool), truth)
    rule = DecisionRule(dict.fromkeys(MATERIALS, 0.5), dict(zip(MATERIALS, maps, strict=True)))
    after = rule.calibrated(sigmoid(truth))
    assert per_material_average_precision(labels, after) == pytest.approx(
        per_material_average_precision(labels, truth), abs=1e-9
    )
    assert ((after > 0) & (after < 1)).all()


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("label", [0, 1])
def test_a_material_that_no_photo_or_every_photo_shows_stays_usable(kind, label) -> None:
    before = np.linspace(-2, 2, 40)[:, None]
    (found,) = KINDS[kind](np.full((40, 1), bool(label)), before)
    after = sigmoid(found(before[:, 0]))
    assert np.isfinite(after).all()
    assert (np.diff(after) > 0).all()


def test_an_isotonic_map_is_flat_beyond_the_photos_that_it_learnt_from() -> None:
    before = np.array([[-3.0], [-2.0], [0.50], [0.52]])
    (found,) = KINDS["isotonic"](np.array([[False], [False], [False], [True]]), before)
    ends = sigmoid(found(np.array([0.52, 2.0, 20.0])))
    assert ends[0] == pytest.approx(5 / 6, abs=0.02)
    assert ends[2] - ends[0] < 0.05


def test_one_group_compares_nothing_and_changes_nothing() -> None:
    labels, truth = drawn(50, 3)
    assert calibrate_probabilities(table_of(labels, group_size=50), sigmoid(truth), 0).kind == "none"


def test_test_photos_do_not_calibrate() -> None:
    labels, truth = drawn(50, 3)
    with pytest.raises(TypeError, match="ValTable"):
        calibrate_probabilities(table_of(labels, TestTable), sigmoid(truth), 0)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_parts_of_the_brier_score_add_up(data) -> None:
    n = data.draw(st.integers(2, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    labels, numbers = rng.integers(0, 2, n).astype(bool), rng.integers(0, 8, n) / 7
    weights = rng.integers(0, 3, n)
    weights[0] += 1
    miscalibration, discrimination = brier_parts(labels, numbers, weights)
    repeated = np.repeat(labels, weights)
    p = repeated.mean()
    score = np.square(np.repeat(numbers, weights) - repeated).mean()
    assert miscalibration - discrimination + p * (1 - p) == pytest.approx(score)
    assert miscalibration >= -1e-12
    assert discrimination >= -1e-12
    peer = IsotonicRegression(out_of_bounds="clip").fit(numbers, labels, weights)
    seen = weights > 0
    assert recalibrated(labels, numbers, weights)[seen] == pytest.approx(peer.predict(numbers)[seen])


def test_the_report_says_what_calibration_gained() -> None:
    labels, truth = drawn(400, 4)
    before, after = sigmoid(truth * 3), sigmoid(truth)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(400, np.full(400, 1 / 400), 200)
    found = report(labels.astype(bool), before, after, MATERIALS, "temperature", weights, rng)
    assert found.brier_change.high < 0
    assert found.ece_change.high < 0
    assert "calibrated on val (temperature)" in found.sentence
    metrics = found.metrics()
    score = metrics["calibration/miscalibration"] - metrics["calibration/discrimination"] + found.uncertainty.mean()
    assert score == pytest.approx(brier_score(labels, after).mean())
    rows = found.table().set_index(["probabilities", "material"])
    assert list(rows.loc["after"].index) == ["all (macro)", *MATERIALS]
    assert rows.loc[("after", "glass"), "ece"] < rows.loc[("before", "glass"), "ece"]
    overall = rows.loc[("after", "all (macro)")]
    assert overall["discrimination_low"] < overall["discrimination"] < overall["discrimination_high"]
    # what is right by construction has no more error than chance gives
    assert metrics["floor/ece"] == pytest.approx(found.after.ece.value, abs=0.02)
    unchanged = report(labels.astype(bool), before, before, MATERIALS, "none", weights, rng)
    assert unchanged.brier_change.low == unchanged.brier_change.high == 0
    assert "Probabilities are the network's own" in unchanged.sentence
