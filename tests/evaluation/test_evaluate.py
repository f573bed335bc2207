"""Evaluations use every registered metric, and two models are compared on the same resamples."""

from __future__ import annotations

import numpy as np
import pytest

from wastelens.evaluation import evaluate
from wastelens.evaluation.metrics import METRICS, metric

MATERIALS = ("plastic", "glass", "paper")


def evaluation(seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (60, 3))
    labels[:, 1] = 0
    probabilities = np.clip(labels * 0.3 + rng.random((60, 3)) * 0.7, 0, 1)
    thresholds = [0.4, 0.5, 0.6]
    return evaluate.evaluate(labels, probabilities, thresholds, MATERIALS, rng, 200)


def test_evaluation_has_its_mlflow_names():
    named = evaluation().metrics("test/")
    assert set(named) == {
        "test/macro_ap", "test/macro_ap_low", "test/macro_ap_high", "test/macro_f1", "test/macro_f1_at_half",
        "test/micro_f1", "test/subset_accuracy", "test/hamming_loss", "test/ap_plastic", "test/ap_paper",
        *(f"test/{name}{end}" for name in ("brier", "ece", "aurc")
          for end in ("", "_low", "_high")),
    }  # fmt: skip
    assert all(np.isfinite(value) for value in named.values())
    assert named["test/macro_ap"] == pytest.approx((named["test/ap_plastic"] + named["test/ap_paper"]) / 2)


def test_evaluation_brackets_its_estimates_and_repeats_itself():
    one, again = evaluation(), evaluation()
    assert one.metrics("") == again.metrics("")
    low, high = one.macro_ap_interval
    assert 0 <= low <= one.macro_ap <= high <= 1
    seen, ap = [0, 2], one.values["macro_ap"]
    assert (ap.materials_low[seen] <= ap.materials[seen]).all()
    assert (ap.materials[seen] <= ap.materials_high[seen]).all()
    assert low < high


LABELS, SCORES, CUTS = np.array([[0, 1], [1, 0]]), np.array([[0.1, 0.9], [0.8, 0.2]]), [0.5, 0.5]


@pytest.mark.parametrize(
    ("labels", "probabilities", "thresholds", "words"),
    [
        (LABELS, [[0.1, np.nan], [0.8, 0.2]], CUTS, "not finite"),
        (LABELS, [[0.1, 1.5], [0.8, 0.2]], CUTS, "0, 1"),
        (LABELS, [[-0.1, 0.5], [0.8, 0.2]], CUTS, "0, 1"),
        (LABELS, SCORES[:1], CUTS, r"\(2, 2\)"),
        (LABELS, SCORES, [0.5], "thresholds"),
        (LABELS[:, 0], SCORES[:, 0], CUTS, "dimension"),
        (LABELS * 2, SCORES, CUTS, "0 or 1"),
        (LABELS[:0], SCORES[:0], CUTS, "labels"),
    ],
)
def test_invalid_predictions_are_refused(labels, probabilities, thresholds, words):
    with pytest.raises(ValueError, match=words):
        evaluate.evaluate(labels, probabilities, thresholds, ("a", "b"), np.random.default_rng(0))


@pytest.fixture
def registered(monkeypatch):
    """The registry, with a metric of one number and one per material added to it."""
    monkeypatch.setattr(METRICS, "_parts", dict(METRICS.parts))

    @metric("squared_error", "squared error", of="probabilities", better="lower")
    def squared_error(labels, probabilities) -> float:
        return float(((probabilities - labels) ** 2).mean())

    @metric("mean_recall", "mean recall", of="decisions", per_material=True, material_name="recall")
    def recall(labels, decisions, weights=None) -> np.ndarray:
        counts = np.ones(len(labels)) if weights is None else weights
        with np.errstate(invalid="ignore"):
            return (counts @ (labels & decisions)) / (counts @ labels)

    return METRICS


def test_a_metric_is_added_by_one_function(registered):
    named = evaluation().metrics("test/")
    assert 0 < named["test/squared_error"] < 1
    assert 0 <= named["test/mean_recall_low"] <= named["test/mean_recall"] <= named["test/mean_recall_high"] <= 1
    assert named["test/mean_recall"] == pytest.approx((named["test/recall_plastic"] + named["test/recall_paper"]) / 2)
    assert "test/recall_glass" not in named, "a material without positives"
    assert registered["squared_error"].better == "lower"


def drawn_case(n: int, rng: np.random.Generator, signal: float):
    labels = (rng.random((n, 4)) < [0.6, 0.3, 0.15, 0.08]).astype(np.uint8)
    return labels, labels * signal + rng.normal(size=labels.shape)


def test_a_predictor_does_not_beat_itself():
    labels, scores = drawn_case(80, np.random.default_rng(1), 1.0)
    itself = evaluate.paired_difference(labels, scores, scores, np.random.default_rng(0), 50)
    assert (itself.estimate, itself.low, itself.high) == (0, 0, 0)


def test_a_better_predictor_is_found_better_and_worse_the_other_way_round():
    labels, good = drawn_case(200, np.random.default_rng(2), 3.0)
    poor = np.random.default_rng(3).random(labels.shape)
    ahead = evaluate.paired_difference(labels, good, poor, np.random.default_rng(0), 200)
    behind = evaluate.paired_difference(labels, poor, good, np.random.default_rng(0), 200)
    assert 0 < ahead.low < ahead.estimate < ahead.high
    assert (behind.estimate, behind.low, behind.high) == pytest.approx((-ahead.estimate, -ahead.high, -ahead.low))


def test_random_scores_do_not_beat_constant_ones():
    rng = np.random.default_rng(4)
    ahead = 0
    for _ in range(60):
        labels, noise = drawn_case(100, rng, 0.0)
        ahead += evaluate.paired_difference(labels, noise, np.zeros(labels.shape), rng, 150).low > 0
    assert ahead <= 9  # uncorrected, some 40 of 60
