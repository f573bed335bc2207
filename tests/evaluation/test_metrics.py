"""Average precision, F1 and their relatives equal those of scikit-learn."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as peer

from wastelens.evaluation import metrics
from wastelens.evaluation.metrics import floors


@st.composite
def one_material(draw):
    """Draw labels with a positive, scores with many ties, and weights, some of them 0."""
    n = draw(st.integers(2, 30))
    labels = draw(arrays.arrays(np.uint8, n, elements=st.integers(0, 1)))
    labels[draw(st.integers(0, n - 1))] = 1
    scores = draw(arrays.arrays(np.float64, n, elements=st.integers(0, 6).map(float)))
    weights = draw(arrays.arrays(np.int32, n, elements=st.integers(0, 4)))
    return labels, scores, weights


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(one_material())
def test_average_precision_equals_that_of_scikit_learn(case):
    labels, scores, weights = case
    expected = peer.average_precision_score(labels, scores)
    assert metrics.average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)
    if weights[labels == 1].sum():
        expected = peer.average_precision_score(labels, scores, sample_weight=weights)
        assert metrics.average_precision(labels, scores, weights) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(one_material())
def test_weights_are_repeated_rows(case):
    labels, scores, weights = case
    if not weights[labels == 1].sum():
        assert np.isnan(metrics.average_precision(labels, scores, weights))
        return
    repeated = metrics.average_precision(np.repeat(labels, weights), np.repeat(scores, weights))
    assert metrics.average_precision(labels, scores, weights) == pytest.approx(repeated, abs=1e-12)


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(one_material(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(case, random):
    labels, scores, _ = case
    order = random.sample(range(len(labels)), len(labels))
    shuffled = metrics.average_precision(labels[order], scores[order])
    assert shuffled == pytest.approx(metrics.average_precision(labels, scores), abs=1e-12)


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(one_material())
def test_only_the_order_of_scores_matters(case):
    labels, scores, _ = case
    assert metrics.average_precision(labels, np.exp(scores) - 3) == metrics.average_precision(labels, scores)


def test_many_weightings_are_each_their_own(monkeypatch):
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 40), rng.integers(0, 9, 40)
    weights = rng.integers(0, 3, (11, 40))
    single = [float(metrics.average_precision(labels, scores, row)) for row in weights]
    monkeypatch.setattr(metrics, "_CELLS_AT_ONCE", 100)  # two weightings at once
    np.testing.assert_allclose(metrics.average_precision(labels, scores, weights), single)


def test_constant_scores_reach_the_prevalence():
    assert metrics.average_precision([1, 0, 0, 0], [0.3] * 4) == pytest.approx(0.25)


def test_macro_leaves_out_a_material_without_positives():
    labels = np.array([[1, 0], [0, 0], [1, 0]])
    scores = np.array([[0.9, 0.1], [0.2, 0.5], [0.8, 0.9]])
    assert np.isnan(metrics.per_material_average_precision(labels, scores)[1])
    assert metrics.macro_average_precision(labels, scores) == pytest.approx(1.0)
    assert np.isnan(metrics.macro_average_precision(np.zeros((3, 2)), scores))


def test_macro_takes_weights():
    rng = np.random.default_rng(1)
    labels, scores, weights = rng.integers(0, 2, (30, 3)), rng.random((30, 3)), rng.integers(0, 3, (5, 30))
    answer = metrics.macro_average_precision(labels, scores, weights)
    expected = [peer.average_precision_score(labels, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(answer, expected)


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(
    arrays.arrays(np.uint8, (9, 3), elements=st.integers(0, 1)),
    arrays.arrays(np.uint8, (9, 3), elements=st.integers(0, 1)),
)
def test_decisions_are_scored_as_scikit_learn_does(labels, decisions):
    macro = peer.f1_score(labels, decisions, average="macro", zero_division=0)
    micro = peer.f1_score(labels, decisions, average="micro", zero_division=0)
    assert metrics.macro_f1(labels, decisions) == pytest.approx(macro)
    assert metrics.micro_f1(labels, decisions) == pytest.approx(micro)
    assert metrics.subset_accuracy(labels, decisions) == pytest.approx(peer.accuracy_score(labels, decisions))
    assert metrics.hamming_loss(labels, decisions) == pytest.approx(peer.hamming_loss(labels, decisions))


@st.composite
def probabilities_case(draw):
    """Draw labels, probabilities with ties, and weights of two resamples that are not all 0."""
    n = draw(st.integers(2, 25))
    labels = draw(arrays.arrays(np.uint8, (n, 2), elements=st.integers(0, 1)))
    numbers = draw(arrays.arrays(np.float64, (n, 2), elements=st.integers(0, 20).map(lambda one: one / 20)))
    weights = draw(arrays.arrays(np.int32, (2, n), elements=st.integers(0, 3)))
    weights[:, 0] += 1
    return labels, numbers, weights


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(probabilities_case())
def test_the_brier_score_is_that_of_scikit_learn(case):
    labels, numbers, weights = case
    for column in range(2):
        expected = [peer.brier_score_loss(labels[:, column], numbers[:, column], sample_weight=one) for one in weights]
        assert metrics.brier_score(labels, numbers, weights)[:, column] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "measure", [metrics.brier_score, metrics.expected_calibration_error, metrics.area_under_risk_coverage]
)
@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(case=probabilities_case())
def test_measures_of_probabilities_take_weights_as_repeated_rows(measure, case):
    labels, numbers, weights = case
    repeated = [measure(*(np.repeat(part, one, axis=0) for part in (labels, numbers))) for one in weights]
    assert measure(labels, numbers, weights) == pytest.approx(np.array(repeated), abs=1e-12)


def test_the_calibration_error_is_the_mean_gap_of_ten_bins():
    numbers = np.array([[0.05], [0.07], [0.31], [0.39], [1.0]])
    labels = np.array([[0], [1], [0], [0], [1]])
    expected = (2 * abs(0.06 - 0.5) + 2 * abs(0.35 - 0.0) + 0) / 5
    assert metrics.expected_calibration_error(labels, numbers) == pytest.approx([expected])


def test_the_risk_is_that_of_the_surest_photos():
    labels, numbers = np.array([[1], [0], [1], [0]]), np.array([[0.9], [0.2], [0.4], [0.4]])
    # surest first: 0.9 is right, 0.2 is right, then two photos as sure as each other, one of them wrong
    assert metrics.area_under_risk_coverage(labels, numbers) == pytest.approx([0.25 * 0 + 0.25 * 0 + 0.5 * 0.25])


@pytest.mark.parametrize("weights", [[1, 2], [[[1, 1, 1]]], [-1, 1, 1], [np.nan, 1, 1]])
def test_weights_are_checked(weights):
    with pytest.raises(ValueError, match="weights"):
        metrics.average_precision([1, 0, 1], [0.1, 0.2, 0.3], weights)


def documented() -> list[list[str]]:
    """Return the names, title, unit and direction of every metric in docs/metrics.md."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = text.partition("| metric | title | unit | better | meaning |\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:5]] for line in table.splitlines()[1:]]


def test_every_metric_is_documented():
    expected = []
    for metric in metrics.METRICS.parts.values():
        names = [metric.name]
        if metric.per_material:
            names += [f"{metric.name}_low", f"{metric.name}_high"]
        if metric.material_name:
            names.append(f"{metric.material_name}_<material>")
        expected.append([", ".join(f"`{name}`" for name in names), metric.title, metric.unit, metric.better])
    assert documented() == expected


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(0, 1)))
def test_floors_are_the_best_of_all_constants(labels):
    constants = [np.tile(said, (len(labels), 1)) for said in itertools.product([0, 1], repeat=3)]
    found = floors(labels)
    assert found.macro_f1 == pytest.approx(max(metrics.macro_f1(labels, said) for said in constants))
    best = max(metrics.subset_accuracy(labels, said) for said in constants)
    assert found.subset_accuracy == pytest.approx(best)
    flat = float(metrics.macro_average_precision(labels, np.full(labels.shape, 0.3)))
    assert found.macro_ap == pytest.approx(flat, nan_ok=True)
    shares = labels.mean(axis=0)
    constant = np.broadcast_to(shares, labels.shape)
    assert found.brier == pytest.approx(metrics.brier_score(labels, constant).mean())
    assert found.aurc == pytest.approx(metrics.area_under_risk_coverage(labels, constant).mean())
    other = np.clip(constant + 0.1, 0, 1)
    assert metrics.brier_score(labels, other).mean() >= found.brier


def test_floors_have_their_mlflow_names():
    named = floors([[1, 0], [1, 1], [0, 0], [1, 0]]).metrics()
    assert named == {"floor/macro_ap": 0.5, "floor/macro_f1": pytest.approx((6 / 7 + 2 / 5) / 2),
                     "floor/subset_accuracy": 0.5, "floor/brier": pytest.approx((3 / 16 + 3 / 16) / 2),
                     "floor/aurc": 0.25}  # fmt: skip


def test_floors_refuse_labels_other_than_0_and_1():
    with pytest.raises(ValueError, match="0 or 1"):
        floors([[0, 2]])
