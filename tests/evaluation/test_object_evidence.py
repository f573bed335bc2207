"""Recall of objects by size, and the controls that are told where to look."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wastelens.data.annotations.coverage import ObjectCells
from wastelens.data.prepared.tables import TestTable
from wastelens.evaluation.object_evidence import attention_of, best_places, measure_evidence

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


def test_true_evidence_finds_all_and_is_its_own_ceiling():
    known = objects()
    evidence = attention_of(known.covered())

    def answer(attention):
        right = np.abs(attention - evidence).max(axis=(1, 2)) < 1e-6
        return np.where(right[:, None], table().labels, 0.5).astype(np.float64)

    found = measure_evidence(known, evidence, answer, table(), seed=0)
    assert found.recall == {"small": 1.0, "large": 1.0}
    assert found.counts == {"small": 6, "large": 2}
    assert found.chance["small"] < 1
    assert found.macro_ap["own"] == found.macro_ap["true_outlines"] == 1.0
    assert found.macro_ap["other_photo"] == found.macro_ap["random_place"] == pytest.approx(0.5)
    metrics = found.metrics()
    assert metrics["share_of_ceiling"] == 1.0
    assert metrics["objects/recall_small"] == 1.0
    assert "objects/recall_medium" not in metrics


def test_evidence_elsewhere_finds_little():
    known = objects()
    evidence = attention_of(1 - known.covered())
    found = measure_evidence(known, evidence, lambda attention: np.zeros((8, 2)), table(), seed=0)
    assert found.recall["large"] == 0.0


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


def test_attention_has_mean_one_and_is_even_where_there_is_nothing():
    covered = np.zeros((2, 4, 4), np.float32)
    covered[0, 1, 1] = 0.25
    attention = attention_of(covered)
    np.testing.assert_allclose(attention.mean(axis=(1, 2)), 1.0)
    assert attention[0, 1, 1] == 16.0
    assert (attention[1] == 1.0).all()
