"""The probe equals scikit-learn's logistic regression on standardised features; its folds keep groups whole."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from wastelens.errors import NonFiniteLossError
from wastelens.training import probe as probe_module
from wastelens.training.probe import STRENGTHS, fit_probe


def photos(rows, features, seed=0):
    """Return features whose first two tell two materials, labels and groups."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 2.0, (rows, features)).astype(np.float32)
    labels = np.stack([x[:, 0] > 4, x[:, 1] + rng.normal(0, 1, rows) > 3], axis=1).astype(np.uint8)
    return x, labels, [f"group {number // 5}" for number in range(rows)]


def logits_of(probe, x):
    return x @ probe.kernel + probe.bias


@pytest.mark.parametrize(("rows", "features"), [(200, 7), (60, 150)])  # more rows, more features
def test_it_equals_scikit_learn(rows, features):
    x, labels, groups = photos(rows, features)
    probe = fit_probe(x, labels, groups, seed=0)
    assert probe.strength in STRENGTHS
    standardised = StandardScaler().fit_transform(x.astype(np.float64))
    for material in range(2):
        slow = LogisticRegression(C=probe.strength, max_iter=5000, tol=1e-8).fit(standardised, labels[:, material])
        np.testing.assert_allclose(
            logits_of(probe, x)[:, material], slow.decision_function(standardised), atol=0.02, rtol=0.01
        )


def test_the_loss_is_the_mean_cross_entropy():
    x, labels, groups = photos(100, 5)
    probe = fit_probe(x, labels, groups, seed=0)
    p = 1 / (1 + np.exp(-logits_of(probe, x).astype(np.float64)))
    assert probe.loss == pytest.approx(-np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p)), rel=1e-3)


def test_a_material_on_all_photos_or_none_gets_its_share():
    x, labels, groups = photos(40, 3)
    labels = np.column_stack([labels[:, 0], np.ones(40, np.uint8), np.zeros(40, np.uint8)])
    probe = fit_probe(x, labels, groups, seed=0)
    assert not probe.kernel[:, 1:].any()
    answers = 1 / (1 + np.exp(-logits_of(probe, x)))
    np.testing.assert_allclose(answers[0, 1:], [40.5 / 41, 0.5 / 41], rtol=1e-5)


def test_a_constant_feature_does_not_count():
    x, labels, groups = photos(50, 4)
    x[:, 2] = 7.0
    assert not fit_probe(x, labels, groups, seed=0).kernel[2].any()


def test_one_group_is_divided_by_rows():
    x, labels, _ = photos(30, 3)
    assert len(set(probe_module.group_folds(["all"] * 30, seed=0))) == probe_module.FOLDS
    assert fit_probe(x, labels, ["all"] * 30, seed=0).strength in STRENGTHS


def test_features_that_are_not_finite_are_refused():
    x, labels, groups = photos(20, 3)
    x[3, 1] = np.inf
    with pytest.raises(NonFiniteLossError), np.errstate(invalid="ignore"):
        fit_probe(x, labels, groups, seed=0)


def test_folds_keep_groups_whole_and_are_about_equal():
    groups = [f"group {number % 17}" for number in range(170)]
    folds = probe_module.group_folds(groups, seed=0)
    assert all(len({fold for name, fold in zip(groups, folds, strict=True) if name == one}) == 1 for one in set(groups))
    sizes = np.bincount(folds)
    assert len(sizes) == probe_module.FOLDS
    assert sizes.max() - sizes.min() <= 10


def test_a_signal_is_found_in_many_features():
    x, labels, groups = photos(150, 400)
    probe = fit_probe(x, labels, groups, seed=0)
    new, truth, _ = photos(400, 400, seed=1)
    right = (logits_of(probe, new)[:, 0] > 0) == truth[:, 0]
    assert right.mean() > 0.6


def test_progress_is_told_once_a_material():
    x, labels, groups = photos(30, 3)
    told = []
    fit_probe(x, labels, groups, seed=0, progress=lambda: told.append(1))
    assert len(told) == 2
