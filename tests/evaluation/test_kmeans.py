"""k-means finds separated groups, chooses k, and refuses features that cannot be clustered."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from wastelens.errors import ConfigError, DatasetError
from wastelens.evaluation import kmeans
from wastelens.evaluation.clustering import score_clusters


def blobs(photos: int = 60, centres: int = 3, width: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of well separated groups, one after another in turn, and the groups."""
    rng = np.random.default_rng(seed)
    group = np.arange(photos) % centres
    return rng.normal(scale=6, size=(centres, width))[group] + rng.normal(scale=0.1, size=(photos, width)), group


def fit(features, k=3, k_range=(2, 6), seed=0):
    return kmeans.fit_clusters(features, k=k, k_range=k_range, n_init="auto", seed=seed)


def test_blobs_are_found_and_the_largest_cluster_is_the_first():
    features, group = blobs()
    features, group = features[group < 2 + (np.arange(60) < 30)], group[group < 2 + (np.arange(60) < 30)]
    clustering = fit(features)
    found = kmeans.assign(clustering, features)
    assert list(found.sizes) == [20, 20, 10]
    assert adjusted_rand_score(group, found.clusters) == 1
    assert clustering.chosen.inertia == pytest.approx(np.square(found.distances).sum())


def test_auto_takes_the_best_silhouette():
    features, _ = blobs(centres=4)
    clustering = fit(features, k="auto", k_range=(2, 7))
    assert clustering.k == 4
    assert [one.k for one in clustering.candidates] == [2, 3, 4, 5, 6, 7]
    assert clustering.chosen.silhouette == max(one.silhouette for one in clustering.candidates) > 0.9
    assert len(fit(features, k=5).candidates) == 1


def test_auto_is_cut_to_the_photos():
    features = np.repeat(np.arange(4.0)[:, None], 5, axis=0)
    clustering = fit(features, k="auto", k_range=(2, 9))
    assert [one.k for one in clustering.candidates] == [2, 3, 4]
    assert clustering.k == 4
    assert clustering.chosen.inertia == pytest.approx(0)


@pytest.mark.parametrize("features", [np.zeros((5, 3)), np.ones((5, 100)), np.repeat([[1.0], [2.0]], 4, axis=0)])
def test_more_clusters_than_different_photos_are_refused(features):
    different = len(np.unique(features, axis=0))
    expected = f"^k=3 is more than the {different} different ones among the {len(features)} training photos\\."
    with pytest.raises(ConfigError, match=expected) as error:
        fit(features)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"^k_range starts at 4, which is more than the"):
        fit(features, k="auto", k_range=(4, 9))


def test_duplicates_and_nearly_equal_photos_warn_of_nothing():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(3, 200)), 10, axis=0)
    features[0] += 1e-7
    assert fit(features).k == 3
    assert fit(np.arange(3.0)[:, None]).chosen.silhouette == 0  # each photo is alone


def test_one_photo_per_cluster_and_photos_in_fewer_clusters():
    clustering = fit(np.eye(6), k=6)
    assert list(kmeans.assign(clustering, np.eye(6)).sizes) == [1] * 6
    few = kmeans.assign(clustering, np.eye(6)[:2])
    assert sorted(few.sizes) == [0, 0, 0, 0, 1, 1]
    assert list(few.sizes[few.largest_first]) == [1, 1, 0, 0, 0, 0]
    scores = score_clusters(few.clusters, np.eye(2, dtype=int), draws=1, rng=np.random.default_rng(0))
    assert scores.purity.value == 1


def test_the_same_seed_gives_the_same_clusters():
    features = np.random.default_rng(0).normal(size=(300, 80))
    first, again = (fit(features, k="auto", seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.centres, again.centres)
    assert first.candidates == again.candidates


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_features_that_are_not_finite_are_refused(bad):
    features, _ = blobs()
    clustering = fit(features)
    features[3, 1] = bad
    for refuse in (lambda: fit(features), lambda: kmeans.assign(clustering, features)):
        with pytest.raises(DatasetError, match="1 of 60 photos are not finite"):
            refuse()


def test_features_of_other_shapes_are_refused():
    features, _ = blobs()
    for wrong in (np.zeros((0, 4)), np.zeros(4), np.zeros((4, 0))):
        with pytest.raises(ValueError, match="features must be"):
            fit(wrong)
    with pytest.raises(ValueError, match="3 features, the training photos had 4"):
        kmeans.assign(fit(features), features[:, :3])


def test_scaling_is_to_unit_variance_without_constants():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 5)) * [1, 1e-4, 1e6, 0, 1] + [0, 0, 1e6, 3, 0]
    features[:, 4] = 0.5 + 1e-9 * features[:, 4]  # rounding is no variance
    scaling, _ = kmeans.fit_scaling(features, 0)
    assert list(scaling.kept) == [True, True, True, False, False]
    np.testing.assert_allclose(scaling.apply(features).std(axis=0), 1, atol=0.02)
    assert np.abs(scaling.apply(features * 1e9)).max() <= 3


def test_wide_features_lose_no_distance_that_64_axes_can_hold():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(90, 8)) @ rng.normal(size=(8, 12 * 20))
    scaling, scaled = kmeans.fit_scaling(features.reshape(90, 12, 20), 0)
    points = scaling.apply(features)
    assert points.shape == (90, 64)
    apart = np.linalg.norm(points[0] - points[1:], axis=1)
    np.testing.assert_allclose(apart, np.linalg.norm(scaled[0] - scaled[1:], axis=1), rtol=0.02)
