"""Ridge regression from sums equals scikit-learn's on standardised rows; its strength is chosen by held-out folds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from wastelens.training.ridge import STRENGTHS, Moments, best_strength, ridge, total


def rows(count, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(2.0, [1.0, 5.0, 0.1, 1.0, 1.0, 1.0], (count, 6)).astype(np.float32)
    y = np.stack([x[:, 0] - 0.3 * x[:, 1], 4 * x[:, 2]], axis=1) + rng.normal(0, noise, (count, 2))
    return x, y.astype(np.float32)


@pytest.mark.parametrize("strength", [0.1, 3.0])
def test_it_equals_scikit_learn(strength):
    x, y = rows(200)
    kernel, bias = ridge(total([Moments.of(x[:50], y[:50]), Moments.of(x[50:], y[50:])]), strength)
    standardised = StandardScaler().fit_transform(x.astype(np.float64))
    slow = Ridge(alpha=strength * len(x)).fit(standardised, y)
    np.testing.assert_allclose(x @ kernel + bias, slow.predict(standardised), atol=1e-3)


def test_the_error_is_that_of_the_rows():
    x, y = rows(80)
    kernel, bias = ridge(Moments.of(x, y), 0.3)
    other_x, other_y = rows(40, seed=1)
    error = np.square(other_x @ kernel + bias - other_y).sum(axis=1).mean()
    assert Moments.of(other_x, other_y).squared_error(kernel, bias) == pytest.approx(error, rel=1e-3)


def test_a_constant_feature_does_not_count():
    x, y = rows(60)
    x[:, 4] = 7.0
    kernel, _ = ridge(Moments.of(x, y), 0.1)
    assert not kernel[4].any()
    assert np.isfinite(kernel).all()


def test_noise_needs_a_stronger_penalty():
    clear, noisy = (best_strength([Moments.of(*rows(12, seed, noise)) for seed in range(4)]) for noise in (0.01, 100.0))
    assert clear == STRENGTHS[0]
    assert noisy == STRENGTHS[-1]


def test_one_fold_leaves_nothing_to_choose_by():
    assert best_strength([Moments.of(*rows(20))]) in STRENGTHS
