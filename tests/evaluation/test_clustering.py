"""Clusters of learned features beside those of pixels and colours: their metrics, verdict and table."""

from __future__ import annotations

import numpy as np
import pytest
from tests import factories

from wastelens.data.prepared.tables import TestTable
from wastelens.evaluation import cluster_scores, clustering, kmeans


def test_control_features():
    photos = factories.photo_array(70, side_px=32)
    index = np.array([69, 0, 3])
    pixels, colours = (make(photos, index) for make in clustering.CONTROL_FEATURES.values())
    assert pixels.shape == (3, 768)
    np.testing.assert_allclose(pixels[0].reshape(16, 16, 3)[0, 0], photos[69, :2, :2].mean(axis=(0, 1)), rtol=1e-5)
    assert colours.shape == (3, 192)
    np.testing.assert_allclose(colours.sum(axis=1), 1)
    assert clustering.pixel_features(photos, np.arange(70)).shape == (70, 768)
    assert [make(photos, index[:0]).shape for make in clustering.CONTROL_FEATURES.values()] == [(0, 768), (0, 192)]


def test_metrics_have_their_names():
    rng, group = np.random.default_rng(0), np.arange(60) % 3
    features = rng.normal(scale=6, size=(3, 4))[group] + rng.normal(scale=0.1, size=(60, 4))
    found = clustering.cluster_features(
        "pixels",
        features,
        features[:9],
        np.eye(3, dtype=int)[group[:9]],
        k="auto",
        k_range=(2, 4),
        n_init=2,
        draws=3,
        seed=0,
    )
    named = found.metrics()
    scores = ("purity", "normalised_mutual_information", "adjusted_rand_index", "matching_accuracy")
    names = [f"{score}{part}" for score in scores for part in ("", "_random", "_random_high")]
    assert set(named) == {f"cluster_pixels_{name}" for name in (*names, "k", "inertia", "silhouette")}
    assert named["cluster_pixels_k"] == 3
    assert named["cluster_pixels_purity"] == 1
    assert found.points.shape == (9, 4)


def with_information(value: float, random: float = 0.02, high: float = 0.04) -> cluster_scores.ClusterScores:
    other = cluster_scores.Score(0.4, 0.3, 0.35)
    return cluster_scores.ClusterScores(other, cluster_scores.Score(value, random, high), other, other, 10, 0, 0)


def test_verdict_says_what_the_numbers_allow():
    both = {"learned": with_information(0.2), "pixels": with_information(0.1), "colours": with_information(0.19)}
    assert clustering.verdict(both) == (
        "Clusters of learned features say more about the materials than chance (mutual information 0.200, random "
        "0.020; purity 0.400, random 0.300). They say more than pixels (mutual information 0.100, random 0.020) but "
        "no more than colours (mutual information 0.190, random 0.020)."
    )
    assert "more than pixels (" in clustering.verdict(both)
    none = clustering.verdict({**both, "learned": with_information(0.03)})
    assert "learned features say no more about the materials than chance" in none
    assert "They say no more than pixels (" in none
    assert clustering.verdict({"learned": both["learned"]}).endswith("random 0.300).")
    alone = clustering.verdict({"pixels": both["pixels"], "colours": with_information(0.04)})
    assert alone.startswith("No learned features were clustered. Clusters of pixels say more about the materials than")
    assert "Clusters of colours say no more about" in alone
    with pytest.raises(ValueError, match="no clusters"):
        clustering.verdict({})


def test_a_higher_number_of_higher_chance_is_no_lead():
    learned, pixels = with_information(0.3, 0.25, 0.27), with_information(0.2)
    assert "They say no more than pixels" in clustering.verdict({"learned": learned, "pixels": pixels})


def test_assignments_frame():
    table = factories.table(TestTable, 6)
    found = kmeans.assign(kmeans.fit_clusters(np.eye(6), k=3, k_range=(2, 6), n_init="auto", seed=0), np.eye(6))
    frame = clustering.assignments_frame(table, found)
    labels = [f"label_{material}" for material in factories.MATERIALS]
    assert list(frame.columns) == ["file_name", "split", "cluster", "distance", *labels]
    assert list(frame["file_name"]) == table.file_names
    assert set(frame["split"]) == {"test"}
    np.testing.assert_array_equal(frame[labels], table.labels)
    with pytest.raises(ValueError, match="5 photos, but 6"):
        clustering.assignments_frame(table.take(np.arange(5)), found)
