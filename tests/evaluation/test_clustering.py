"""Clusters of learned features beside those of pixels and colours: their metrics, verdict and table."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from tests import factories

from wastelens.data.prepared.tables import TestTable
from wastelens.errors import DatasetError
from wastelens.evaluation import clustering, kmeans


def test_control_features():
    photos = factories.photo_array(70, side_px=32)
    index = np.array([69, 0, 3])
    pixels, colours = (make(photos, index) for make in clustering.CONTROL_FEATURES.values())
    assert pixels.shape == (3, 768)
    np.testing.assert_allclose(pixels[0].reshape(16, 16, 3)[0, 0], photos[69, :2, :2].mean(axis=(0, 1)), rtol=1e-5)
    assert colours.shape == (3, 192)
    np.testing.assert_allclose(colours.sum(axis=1), 1)
    assert clustering.pixel_features(photos, np.arange(70)).shape == (70, 768)


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
    names = [f"{score}{part}" for score in scores for part in ("", "_random")]
    assert set(named) == {f"cluster/pixels/{name}" for name in (*names, "k", "inertia", "silhouette")}
    assert named["cluster/pixels/k"] == 3
    assert named["cluster/pixels/purity"] == 1
    assert found.points.shape == (9, 4)


def with_information(value: float, random: float = 0.02, high: float = 0.04) -> clustering.ClusterScores:
    other = clustering.Score(0.4, 0.3, 0.35)
    return clustering.ClusterScores(other, clustering.Score(value, random, high), other, other)


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
    with pytest.raises(ValueError, match="same length"):
        clustering.assignments_frame(table.take(np.arange(5)), found)


def scored(clusters, labels, draws=1, seed=0):
    return clustering.score_clusters(clusters, labels, draws=draws, rng=np.random.default_rng(seed))


def one_hot(materials, count=None):
    return np.eye(count or int(np.max(materials)) + 1, dtype=np.uint8)[materials]


def obvious(clusters, materials) -> dict[str, float]:
    """Compute the scores the slow way."""
    groups, stuff, n = sorted(set(clusters)), sorted(set(materials)), len(clusters)
    pairs = list(zip(clusters, materials, strict=True))
    most = sum(max(pairs.count((g, m)) for m in stuff) for g in groups)
    wide = [*stuff, *[-1] * len(groups)]  # -1: a cluster that matches nothing
    matched = max(
        sum(pairs.count(pair) for pair in zip(groups, chosen, strict=True))
        for chosen in set(itertools.permutations(wide, len(groups)))
    )
    return {
        "purity": most / n,
        "normalised_mutual_information": normalized_mutual_info_score(materials, clusters),
        "adjusted_rand_index": adjusted_rand_score(materials, clusters),
        "matching_accuracy": matched / n,
    }


pairs_of_photos = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=25)


@settings(max_examples=80, deadline=None)
@given(pairs_of_photos)
def test_one_material_per_photo_is_scored_as_by_sklearn_and_by_hand(pairs):
    clusters, materials = (np.array(side) for side in zip(*pairs, strict=True))
    found = {name: score.value for name, score in scored(clusters, one_hot(materials, 3)).scores.items()}
    assert found == pytest.approx(obvious(list(clusters), list(materials)), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(pairs_of_photos, st.integers(1, 5))
def test_scores_do_not_depend_on_names_or_draws(pairs, draws):
    clusters, materials = (np.array(side) for side in zip(*pairs, strict=True))
    labels = one_hot(materials, 3)
    first = scored(clusters, labels, draws)
    renamed = scored(7 - clusters, labels[:, ::-1], 1)
    for name, score in first.scores.items():
        assert renamed.scores[name].value == pytest.approx(score.value, abs=1e-12)
        assert score.random <= 1 + 1e-12
        assert score.random_high <= 1 + 1e-12


def test_perfect_clusters_score_one_and_beat_chance():
    materials = np.arange(60) % 3
    for score in scored(2 - materials, one_hot(materials)).scores.values():
        assert score.value == pytest.approx(1)
        assert score.random < 0.6
        assert score.above_chance


def test_useless_clusters_score_as_chance():
    materials = np.arange(400) % 4
    for clusters in (np.zeros(400, int), np.arange(400) // 4 % 2):  # one cluster; two, each of all materials alike
        for score in scored(clusters, one_hot(materials), draws=20).scores.values():
            assert not score.above_chance
            assert score.value == pytest.approx(score.random, abs=0.04)


def test_random_clusters_are_seldom_above_chance():
    rng = np.random.default_rng(5)
    above = [
        scored(rng.integers(0, 5, 80), rng.integers(0, 2, (80, 3)), 20, trial).purity.above_chance
        for trial in range(60)
    ]
    assert sum(above) <= 9  # 3 expected; more than 9 in 1 of 1,000 trials


def test_random_is_the_mean_over_all_shuffles():
    clusters, materials = [0, 0, 1, 1], [0, 0, 1, 2]
    shuffles = [obvious(list(shuffle), materials) for shuffle in itertools.permutations(clusters)]
    found = scored(np.array(clusters), one_hot(materials), draws=4000)
    for name, score in found.scores.items():
        assert score.random == pytest.approx(np.mean([shuffle[name] for shuffle in shuffles]), abs=0.02)
        assert score.random_high == pytest.approx(np.quantile([shuffle[name] for shuffle in shuffles], 0.95), abs=1e-9)


def test_several_materials_each_stand_for_the_photo_equally_often():
    # the first photo is of material 0 in half of the draws, and pure then; the others always are
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    found = scored(np.array([0, 0, 1, 1]), labels, draws=4000)
    assert found.purity.value == pytest.approx((1 + 2 / 3) / 2, abs=0.02)


def test_blocks_of_draws_change_nothing_of_single_materials(monkeypatch):
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(0, 4, 50), rng.integers(0, 2, (50, 3))
    whole = scored(clusters, labels, draws=150)
    monkeypatch.setattr(clustering, "_CELLS_AT_ONCE", 2000)
    parts = scored(clusters, labels, draws=150)
    for name, score in whole.scores.items():
        assert parts.scores[name].value == pytest.approx(score.value, abs=0.02)
        assert parts.scores[name].random == pytest.approx(score.random, abs=0.02)


def test_scores_are_the_same_again_and_for_as_many_photos_as_pairs_overflow():
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(0, 4, 100), rng.integers(0, 2, (100, 3))
    assert scored(clusters, labels, 10, seed=3) == scored(clusters, labels, 10, seed=3)
    table = np.array([[[90_000, 10], [7, 110_000]]])
    assert 0.999 < clustering._adjusted_rand_index(table)[0] < 1


@pytest.mark.parametrize(
    ("clusters", "labels", "draws"),
    [([0], [[1], [0]], 1), ([0.5], [[1]], 1), ([-1], [[1]], 1), ([0], [[2]], 1), ([0], [[1]], 0)],
)
def test_mismatched_inputs_are_refused(clusters, labels, draws):
    with pytest.raises(ValueError, match=r"match|0 or 1|labels"):
        scored(np.array(clusters), np.array(labels), draws)


def test_photos_without_any_material_cannot_be_scored():
    with pytest.raises(DatasetError, match="None of the 2 photos shows a material"):
        scored(np.array([0, 1]), np.zeros((2, 3), int))
