"""The ranking of labels, against the slow obvious answer; categories and near-duplicates, counted by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wastelens.evaluation.label_quality import (
    category_doubts,
    differing_pairs,
    estimated_errors,
    label_quality,
    ranked_doubts,
    times_chance,
)


def drawn(seed: int, photos: int = 40, materials: int = 3):
    """Labels that probabilities follow."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((photos, materials)) < 0.4).astype(np.uint8)
    return labels, np.clip(labels * 0.5 + rng.random((photos, materials)) * 0.5, 0.01, 0.99)


@given(st.integers(0, 1000))
def test_a_labels_quality_is_the_probability_of_what_it_says(seed: int) -> None:
    labels, probabilities = drawn(seed)
    quality = label_quality(labels, probabilities)
    for row, place in np.ndindex(*labels.shape):
        p = probabilities[row, place]
        assert quality[row, place] == pytest.approx(p if labels[row, place] else 1 - p)


def test_photos_without_any_material_are_ranked_too() -> None:
    labels = np.array([[0, 0], [1, 0], [0, 1], [0, 0]], dtype=np.uint8)
    probabilities = np.array([[0.9, 0.2], [0.8, 0.1], [0.3, 0.7], [0.1, 0.1]])
    first = ranked_doubts(labels, probabilities).iloc[0]
    assert (first["row"], first["place"], first["kind"], first["label"]) == (0, 0, "missing", 0)


def test_the_list_is_what_a_loop_would_sort() -> None:
    labels, probabilities = drawn(3)
    labels[5, 1] = 1 - labels[5, 1]
    listed = ranked_doubts(labels, probabilities)
    slow = sorted(
        (probabilities[row, place] if labels[row, place] else 1 - probabilities[row, place], row, place)
        for row, place in np.ndindex(*labels.shape)
    )
    assert [(row, place) for _, row, place in slow] == list(zip(listed["row"], listed["place"], strict=True))
    assert (listed["row"][0], listed["place"][0]) == (5, 1)
    assert listed["kind"][0] == ("superfluous" if labels[5, 1] else "missing")


def test_planted_errors_are_estimated_to_be_wrong_and_clean_labels_are_not() -> None:
    labels, probabilities = drawn(0, photos=200)
    assert not estimated_errors(labels, probabilities).any()
    wrong = np.zeros(labels.shape, np.bool_)
    wrong[[3, 77, 150], [0, 1, 2]] = True
    flipped = np.where(wrong, 1 - labels, labels).astype(np.uint8)
    assert (estimated_errors(flipped, probabilities) == wrong).all()


def test_times_chance_by_hand() -> None:
    quality = np.arange(20.0).reshape(10, 2)
    wrong = np.zeros((10, 2), np.bool_)
    wrong.flat[[0, 1, 10, 19]] = True
    assert times_chance(quality, wrong, 0.1) == pytest.approx(5.0)  # the first 2 of 20 hold 2 of 4
    assert times_chance(-quality, wrong, 0.1) == pytest.approx(2.5)
    assert times_chance(quality, wrong, 1.0) == 1.0


def test_where_all_labels_of_a_material_are_the_same_nothing_is_estimated() -> None:
    labels, probabilities = drawn(0)
    labels[:, 1] = 0
    assert not estimated_errors(labels, probabilities)[:, 1].any()
    assert not estimated_errors(np.zeros_like(labels), probabilities).any()
    assert len(ranked_doubts(labels, probabilities)) == labels.size


def objects_of(*rows: tuple[int, str, str]) -> pd.DataFrame:
    return pd.DataFrame([(f"{row}.jpg", *of) for row, *of in rows], columns=["file_name", "category", "material"])


def test_a_category_that_is_mapped_to_the_wrong_material_comes_first() -> None:
    """Photos 0 to 9 show cans, 10 to 19 foil, 20 to 39 bottles; the model takes foil for glass."""
    objects = objects_of(
        *((row, "can", "aluminium") for row in range(10)),
        *((row, "foil", "aluminium") for row in range(10, 20)),
        *((row, "bottle", "glass") for row in range(20, 40)),
    )
    says_aluminium = np.r_[np.full(10, 0.9), np.full(10, 0.1), np.full(20, 0.1)]
    probabilities = np.column_stack([says_aluminium, 1 - says_aluminium])
    probabilities[0] = [0.2, 0.8]
    first, *others = category_doubts(objects, [f"{n}.jpg" for n in range(40)], ["aluminium", "glass"], probabilities)
    assert (first.category, first.material, first.instead) == ("foil", "aluminium", "glass")
    assert (first.photos, first.contradicted) == (10, 10)
    assert first.expected == pytest.approx(1.0)  # one of the ten cans is contradicted
    # of 20 photos of aluminium 11 are contradicted: how often are 10 drawn without replacement all among them?
    assert first.chance == pytest.approx(comb(11, 10) / comb(20, 10))
    assert {one.category: one.contradicted for one in others} == {"can": 1, "bottle": 0}
    bottle = next(one for one in others if one.category == "bottle")
    assert np.isnan(bottle.expected)
    assert bottle.instead == ""


def test_a_photo_that_shows_two_categories_of_a_material_counts_for_neither() -> None:
    objects = objects_of((0, "can", "a"), (0, "foil", "a"), (1, "can", "a"), (1, "can", "a"), (2, "jar", "b"))
    found = category_doubts(objects, ["0.jpg", "1.jpg", "2.jpg"], ["a", "b"], np.full((3, 2), 0.1))
    assert {one.category: one.photos for one in found} == {"can": 1, "jar": 1}


def test_objects_of_photos_that_were_left_out_do_not_count() -> None:
    objects = objects_of((0, "can", "a"), (7, "can", "a"), (1, "jar", "b"))
    found = category_doubts(objects, ["0.jpg", "1.jpg"], ["a", "b"], np.full((2, 2), 0.9))
    assert {one.category: one.photos for one in found} == {"can": 1, "jar": 1}


def test_only_pairs_with_different_labels_differ() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=np.uint8)
    pairs = np.array([[0, 1], [0, 2], [1, 3]])
    assert differing_pairs(pairs, labels).tolist() == [[0, 2], [1, 3]]
    assert differing_pairs(np.empty((0, 2), np.int64), labels).shape == (0, 2)
