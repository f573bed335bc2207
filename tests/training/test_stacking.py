"""Stacking equals its slow, written-out form; it uses the evidence as far as held-out photos trust it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from wastelens.errors import NonFiniteLossError
from wastelens.training.probe import group_folds
from wastelens.training.stacking import STRENGTHS, fit_stacked

ROWS, FEATURES, MATERIALS = 120, 150, 3


def photos(clear_evidence, seed=0):
    """Return features, evidence last, labels and groups; half of what decides a label is in the features."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3.0, 2.0, (ROWS, FEATURES)).astype(np.float32)
    hidden = rng.normal(0, 1, (ROWS, MATERIALS))
    labels = ((x[:, :MATERIALS] - 3) / 2 + hidden > 0.5).astype(np.uint8)
    evidence = hidden if clear_evidence else rng.normal(0, 1, hidden.shape)
    return np.hstack([x, 0.1 * evidence]).astype(np.float32), labels, [f"group {row // 6}" for row in range(ROWS)]


def logits_of(probe, x):
    return x @ probe.kernel + probe.bias


def test_it_equals_the_steps_written_out():
    features, labels, groups = photos(clear_evidence=True)
    probe = fit_stacked(features, labels, groups, seed=0)
    assert probe.strength in STRENGTHS
    z = (features - features.mean(0)) / features.std(0)
    x, evidence, folds = z[:, :-MATERIALS], z[:, -MATERIALS:], group_folds(groups, 0)
    held_out = np.empty(labels.shape)
    for fold in range(folds.max() + 1):
        inside = folds != fold
        held_out[~inside] = Ridge(probe.strength * ROWS).fit(x[inside], labels[inside]).predict(x[~inside])
    answer = Ridge(probe.strength * ROWS).fit(x, labels).predict(x)
    columns = [
        np.hstack([((one - held_out.mean(0)) / held_out.std(0)).T.reshape(-1, 1), evidence.T.reshape(-1, 1)])
        for one in (held_out, answer)
    ]
    learnt, new = (np.hstack([one, np.repeat(np.eye(MATERIALS), ROWS, axis=0)]) for one in columns)
    slow = LogisticRegression(fit_intercept=False).fit(learnt, labels.T.ravel()).decision_function(new)
    np.testing.assert_allclose(logits_of(probe, features), slow.reshape(MATERIALS, ROWS).T, atol=0.05)


@pytest.mark.parametrize("clear", [True, False])
def test_evidence_counts_as_much_as_it_tells(clear):
    features, labels, groups = photos(clear)
    own = fit_stacked(features, labels, groups, seed=0).kernel[-MATERIALS:] * features[:, -MATERIALS:].std(0)[:, None]
    assert not (own - np.diag(np.diag(own))).any()
    np.testing.assert_allclose(np.diag(own), own[0, 0], rtol=1e-4)  # shared by all materials
    assert own[0, 0] > 1 if clear else abs(own[0, 0]) < 0.4


def test_a_material_on_all_photos_or_none_and_a_constant_feature():
    features, labels, groups = photos(clear_evidence=False)
    labels[:, 1], labels[:, 2], features[:, 5] = 1, 0, 7.0
    features[:, -MATERIALS:] = 0.0
    probe = fit_stacked(features, labels, groups, seed=0)
    answers = 1 / (1 + np.exp(-logits_of(probe, features)))
    assert not probe.kernel[5].any()
    assert answers[:, 1].min() > 0.9
    assert answers[:, 2].max() < 0.1


def test_features_that_are_not_finite_are_refused():
    features, labels, groups = photos(clear_evidence=False)
    features[3, 4] = np.inf
    with pytest.raises(NonFiniteLossError), np.errstate(invalid="ignore"):
        fit_stacked(features, labels, groups, seed=0)
