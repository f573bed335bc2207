"""Features are scaled to unit variance and at most 64 dimensions."""

from __future__ import annotations

import numpy as np

from wastelens.evaluation import feature_scaling


def test_scaling_is_to_unit_variance_without_constants():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 5)) * [1, 1e-4, 1e6, 0, 1] + [0, 0, 1e6, 3, 0]
    features[:, 4] = 0.5 + 1e-9 * features[:, 4]  # rounding is no variance
    scaling, _ = feature_scaling.fit_scaling(features, 0)
    assert list(scaling.kept) == [True, True, True, False, False]
    np.testing.assert_allclose(scaling.apply(features).std(axis=0), 1, atol=0.02)
    assert np.abs(scaling.apply(features * 1e9)).max() <= 3


def test_wide_features_lose_no_distance_that_64_axes_can_hold():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 8)) @ rng.normal(size=(8, 12 * 20))
    scaling, scaled = feature_scaling.fit_scaling(features.reshape(90, 12, 20), 0)
    points = scaling.apply(features)
    assert points.shape == (90, 64)
    assert scaling.explained > 0.99
    apart = np.linalg.norm(points[0] - points[1:], axis=1)
    np.testing.assert_allclose(apart, np.linalg.norm(scaled[0] - scaled[1:], axis=1), rtol=0.02)
