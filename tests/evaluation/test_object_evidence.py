"""Recall of objects by size, and the controls that are told where to look."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wastelens.data.annotations.coverage import ObjectCells
from wastelens.data.prepared.tables import TestTable
from wastelens.evaluation.object_evidence import best_places, measure_evidence, places_of_objects

NAMES = ("glass", "paper")


def objects(photos=8, side=8):
    """Return a small object in each photo, but a large one in the last two."""
    rng = np.random.default_rng(0)
    coverage = np.zeros((photos, side, side), np.float32)
    row, column = rng.integers(side, size=(2, photos))
    coverage[np.arange(photos), row, column] = 0.1  # 20 px of 512
    coverage[-2:] = 0
    coverage[-2:, 2:6, 2:6] = 1.0
    photo = np.arange(photos)
    return ObjectCells(photos, photo, photo % 2, coverage, boxes=0)


def table(photos=8):
    labels = np.stack([np.arange(photos) % 2 == 0, np.arange(photos) % 2 == 1], axis=1).astype(int)
    return TestTable(pd.DataFrame(labels, columns=list(NAMES)), NAMES)


def test_true_places_find_all_and_are_their_own_ceiling():
    known = objects()
    none = np.zeros((8, 2, 2), np.float32)
    true = places_of_objects(known, none)

    def told(places):
        right = np.abs(places[:, 0] - true[:, 0]).max(axis=1) < 1e-6
        return np.where(right[:, None], table().labels, 0.5).astype(np.float64)

    found = measure_evidence(known, known.litter(), true, told(true), told, table(), seed=0)
    assert found.recall == {"small": 1.0, "large": 1.0}
    assert found.counts == {"small": 6, "large": 2}
    assert found.chance["small"] < 1
    assert found.macro_ap["own"] == found.macro_ap["true_outlines"] == 1.0
    assert max(found.macro_ap["other_photo"], found.macro_ap["random_place"]) < 0.8
    metrics = found.metrics()
    assert metrics["share_of_ceiling"] == 1.0
    assert metrics["objects/recall_small"] == 1.0
    assert "objects/recall_medium" not in metrics


def test_litter_elsewhere_finds_little():
    known = objects()
    places = np.zeros((8, 2, 2), np.float32)
    answers = np.zeros((8, 2))
    found = measure_evidence(known, 1 - known.litter(), places, answers, lambda places: answers, table(), seed=0)
    assert found.recall["large"] == 0.0


def test_places_of_objects_begin_with_the_largest_and_end_with_the_models_own():
    coverage = np.zeros((3, 4, 4), np.float32)
    coverage[0, 0, 0], coverage[1, 3, 3], coverage[2, 1, 2] = 0.2, 1.0, 0.5
    known = ObjectCells(2, np.zeros(3, np.intp), np.zeros(3, np.intp), coverage, boxes=0)
    own = np.full((2, 5, 2), 0.4, np.float32)
    found = places_of_objects(known, own)
    in_order = [[0.875, 0.875], [0.375, 0.625], [0.125, 0.125]]
    np.testing.assert_allclose(found[0], [*in_order, [0.4, 0.4], [0.4, 0.4]])
    np.testing.assert_allclose(places_of_objects(known, own[:, :2])[0], in_order[:2])
    np.testing.assert_array_equal(found[1], own[1])


@pytest.mark.parametrize("places", [1, 5, 30])
def test_peaks_come_first_as_in_slow_loops(places):
    evidence = np.random.default_rng(1).random((3, 6, 7)).astype(np.float32)
    chosen = best_places(evidence, places)
    for photo, cells in zip(evidence, chosen, strict=True):
        ranked = []
        for row in range(6):
            for column in range(7):
                around = photo[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                ranked.append((photo[row, column] < around.max(), -photo[row, column], row, column))
        expected = np.zeros((6, 7), bool)
        for _, _, row, column in sorted(ranked)[:places]:
            expected[row, column] = True
        np.testing.assert_array_equal(cells, expected)
