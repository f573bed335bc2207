"""Figures of clusters, for few and many photos and clusters."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests import factories
from tests.figure_checks import draw, legend_texts

from wastelens.data.prepared.tables import LabelTable
from wastelens.evaluation import clustering, kmeans
from wastelens.figures import clusters as figures

ODD_NAMES = ("$x_1$ plastic", "other_objects", "a very long name of some material", "toxic")


def photos_of(count: int, k: int, materials: tuple[str, ...] = ODD_NAMES, sized: bool = True):
    """Return a table, its assignment, points and photos; the photos show none, one or several materials."""
    rng = np.random.default_rng(0)
    labels = (rng.random((count, len(materials))) < 0.3).astype(int)
    frame = pd.DataFrame({"file_name": [f"$batch_{n}$_000{n}.jpg" for n in range(count)], "split": "test"})
    frame = frame.assign(photo_index=np.arange(count)[::-1], **dict(zip(materials, labels.T, strict=True)))
    if sized:
        frame = frame.assign(width=300, height=np.where(np.arange(count) % 2, 200, 500))
    assignment = kmeans.Assignment(np.arange(count) % k, rng.random(count), k)
    return LabelTable(frame, materials), assignment, rng.normal(size=(count, 5)), factories.photo_array(count, 8)


def texts(figure: Figure) -> list[str]:
    assert draw(figure) > 1000
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


CASES = [(6, 2), (20, 20), (1, 1), (30, 7)]


@pytest.mark.parametrize(("count", "k"), CASES)
def test_materials_per_cluster(count, k):
    table, assignment, _, _ = photos_of(count, k)
    said = texts(figures.materials_per_cluster(table, assignment))
    assert f"cluster 0   {assignment.sizes[0]}" in said
    assert f"all photos   {count}" in said
    shown = int(table.labels[:, 1].sum())
    assert f"{shown}  {shown / count:.0%}" in said


def test_histogram_counts_and_order():
    frame = pd.DataFrame({"file_name": list("abcd"), "glass": [1, 1, 0, 1], "paper": [0, 1, 1, 0]})
    assignment = kmeans.Assignment(np.array([2, 2, 2, 0]), np.zeros(4), 3)
    figure = figures.materials_per_cluster(LabelTable(frame, ("glass", "paper")), assignment)
    draw(figure)
    rows = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert rows == ["all photos   4", "cluster 2   3", "cluster 0   1", "cluster 1   0"]
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert cells == ["3  75%", "2  67%", "1  100%", "–", "2  50%", "2  67%", "0  0%", "–"]


@pytest.mark.parametrize(("count", "k"), CASES)
def test_nearest_photos(count, k):
    table, assignment, _, photos = photos_of(count, k, sized=count != 6)
    figure = figures.nearest_photos(table, assignment, photos, per_cluster=3)
    captions = [text for text in texts(figure) if "batch" in text]
    assert len(captions) == np.minimum(assignment.sizes, 3).sum()
    nearest = np.flatnonzero(assignment.clusters == 0)[assignment.distances[assignment.clusters == 0].argmin()]
    assert captions[0].startswith(table.file_names[nearest])
    (image,) = figure.axes[0].images
    np.testing.assert_array_equal(image.get_array(), photos[table.frame["photo_index"][nearest]])


def test_nearest_photos_of_several_clusters_show_their_materials():
    table, assignment, _, photos = photos_of(6, 2, ("glass", "paper"))
    said = texts(figures.nearest_photos(table, assignment, photos))
    assert any(text.endswith("\nno material") for text in said)
    many = {f"material {number}": 1 for number in range(20)}
    said = texts(figures.nearest_photos(LabelTable(table.frame.assign(**many), tuple(many)), assignment, photos))
    assert {text.count("\n") for text in said if "material 0" in text} == {2}  # the file name and two lines


@pytest.mark.parametrize(("count", "k"), [(1, 1), (2, 2), (12, 3), (40, 20)])
def test_map(count, k):
    table, assignment, points, _ = photos_of(count, k)
    figure = figures.cluster_map(table, assignment, points, seed=0)
    said = texts(figure)
    assert {"by cluster", "by material", "0"} <= set(said)
    several = int((table.labels.sum(axis=1) > 1).sum())
    assert (f"several materials ({several})" in legend_texts(figure)) == (several > 0)
    assert any(f"of {count} photos" in text for text in said)


def test_map_samples_photos(monkeypatch):
    monkeypatch.setattr(figures, "MAP_PHOTOS", 5)
    table, assignment, points, _ = photos_of(30, 2)
    assert any(
        "principal axes of 5 of 30 photos" in t for t in texts(figures.cluster_map(table, assignment, points, seed=0))
    )


@pytest.mark.parametrize("points", [np.zeros((12, 3)), np.arange(12.0)[:, None] // 6, np.ones((12, 0))])
def test_places_of_equal_points_are_finite(points):
    places, _ = figures.plane_of(points, 0)
    assert places.shape == (12, 2)
    assert np.isfinite(places).all()


def test_map_is_the_same_again_and_keeps_groups_apart():
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 12)
    points = rng.normal(size=(24, 6)) + 20 * group[:, None]
    (first, how), (again, _) = (figures.plane_of(points, 3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert how == "t-SNE"
    apart = np.linalg.norm(first[:, None] - first[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(axis=1)] == group).all()


@pytest.mark.parametrize("k", [2, "auto"])
def test_k_choice(k):
    features = np.random.default_rng(0).normal(size=(30, 3))
    clustering = kmeans.fit_clusters(features, k=k, k_range=(2, 5), n_init=1, seed=0)
    figure = figures.k_choice(clustering, "$learned$")
    texts(figure)
    assert legend_texts(figure) == [f"chosen: k = {clustering.k}"]
    (line,) = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    np.testing.assert_allclose(line.get_ydata(), [one.silhouette for one in clustering.candidates])


@pytest.mark.parametrize("names", [("learned", "pixels", "colours"), ("pixels",)])
def test_score_bars(names):
    rng = np.random.default_rng(0)
    clusters, labels = rng.integers(0, 3, 40), rng.integers(0, 2, (40, 3))
    scores = {name: clustering.score_clusters(clusters, labels, draws=5, rng=rng) for name in names}
    said = texts(figures.score_bars(scores, "A verdict of $5."))
    assert "A verdict of $5." in said
    assert f"{scores['pixels'].purity.value:.3f}" in said
    assert ("learned features" in said) == ("learned" in names)
    assert {"purity", "adjusted Rand index", "random clusters, 95 % quantile", "floor: random clusters, mean"} <= set(
        said
    )


def test_tables_of_other_photos_are_refused():
    table, assignment, points, photos = photos_of(6, 2)
    fewer = table.take(np.arange(5))
    for refuse in (
        lambda: figures.materials_per_cluster(fewer, assignment),
        lambda: figures.nearest_photos(fewer, assignment, photos),
        lambda: figures.cluster_map(fewer, assignment, points, seed=0),
    ):
        with pytest.raises(ValueError, match="photos"):
            refuse()


def test_pyplot_is_left_alone():
    before = "matplotlib.pyplot" in sys.modules
    table, assignment, _, _ = photos_of(6, 2)
    draw(figures.materials_per_cluster(table, assignment))
    assert ("matplotlib.pyplot" in sys.modules) == before
