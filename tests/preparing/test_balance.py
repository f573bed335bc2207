"""Oversampling gives the smallest number of rows, and repeats only training rows.

A share of the labels has the right size, is nested, and loses no material by bad luck.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wastelens.data.prepared.tables import TestTable, TrainTable, ValTable
from wastelens.errors import BalanceError
from wastelens.preparing.balance import labelled_share, oversample


def table(rows, materials=None, kind=TrainTable):
    """Make a table of photos a.jpg, b.jpg, … with these label rows."""
    labels = np.array(rows, np.uint8)
    materials = materials or tuple(f"m{k}" for k in range(labels.shape[1]))
    frame = pd.DataFrame(labels, columns=list(materials))
    frame.insert(0, "file_name", [f"{k:05}.jpg" for k in range(len(frame))])
    return kind(frame, materials)


def fewest_rows(labels, target_tenths, cap):
    """Find the slow obvious answer: try every number of copies of every photo."""
    best = None
    for copies in itertools.product(range(1, cap + 1), repeat=len(labels)):
        counts = np.array(copies) @ labels
        if (10 * counts[:, None] >= target_tenths * counts[None, :]).all():
            best = sum(copies) if best is None else min(best, sum(copies))
    return best


@given(
    st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=2, max_size=5),
    st.integers(1, 10),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_rows_equal_brute_force(rows, tenths, cap):
    labels = np.array([*rows, (1, 0, 0), (0, 1, 1)], np.int64)[:6]
    if not labels.any(axis=0).all():
        return
    expected = fewest_rows(labels, tenths, cap)
    if expected is None:
        with pytest.raises(BalanceError):
            oversample(table(labels), tenths / 10, cap)
        return
    found = oversample(table(labels), tenths / 10, cap)
    assert found.rows_after == len(found.table) == expected
    assert found.most_copies <= cap
    assert set(found.table.file_names) == set(table(labels).file_names)


def skewed(seed=0, photos=400):
    rng = np.random.default_rng(seed)
    rows = (rng.random((photos, 4)) < [0.8, 0.2, 0.1, 0.03]).astype(np.uint8)
    rows[:4] = np.eye(4)
    return table(rows, ("plastic", "paper", "glass", "toxic"))


def test_target_is_met_with_even_copies_in_the_order_of_the_rows():
    found = oversample(skewed())
    counts = found.table.labels.sum(axis=0, dtype=np.int64)
    assert (10 * counts >= 7 * counts.max()).all()
    assert found.share_of_commonest["plastic"] == 1.0
    assert min(found.share_of_commonest.values()) >= 0.7
    assert found.table.file_names == sorted(found.table.file_names)
    assert found.rows_before == 400
    frame = found.table.frame
    copies = frame.groupby(["plastic", "paper", "glass", "toxic", "file_name"]).size()
    spread = copies.groupby(level=[0, 1, 2, 3]).agg(["min", "max"])
    assert (spread["max"] - spread["min"]).max() <= 1
    assert found.most_copies == copies.max() <= found.max_copies


def test_automatic_cap_is_the_smallest_within_six_fifths():
    found = oversample(skewed())
    uncapped_rows = oversample(skewed(), max_copies=100_000).rows_after
    assert uncapped_rows <= found.rows_after <= 1.2 * uncapped_rows
    try:
        tighter = oversample(skewed(), max_copies=found.max_copies - 1).rows_after
    except BalanceError:
        return
    assert tighter > 1.2 * uncapped_rows


def test_the_same_photos_get_the_extra_copies_in_any_row_order():
    train = skewed()
    shuffled = train.take(np.random.default_rng(1).permutation(len(train)))
    first, second = oversample(train), oversample(shuffled)
    assert sorted(first.table.file_names) == sorted(second.table.file_names)


def test_balanced_rows_stay_as_they_are():
    found = oversample(table([(1, 0), (0, 1), (0, 0)]))
    assert (found.rows_after, found.most_copies, found.max_copies) == (3, 1, 1)


@pytest.mark.parametrize("target", [0.35, 0.7])
def test_a_cap_too_low_names_the_cap_and_the_target_that_work(target):
    rows = [(1, 0)] * 20 + [(0, 1)]
    with pytest.raises(BalanceError, match=rf"max_copies={int(20 * target)} or more, or target 0.15 or less"):
        oversample(table(rows), target, max_copies=3)
    assert oversample(table(rows), target, max_copies=int(20 * target)).rows_after == 20 + 20 * target
    assert oversample(table(rows), 0.15, max_copies=3).most_copies == 3


def test_materials_that_always_occur_together_name_the_target_that_works():
    rows = [(1, 1, 0), (1, 0, 1)]  # the first is always the sum of the others
    with pytest.raises(BalanceError, match=r"target=0\.5 or less"):
        oversample(table(rows))
    assert oversample(table(rows), 0.5).rows_after == 2


def test_a_material_without_photos_is_named():
    with pytest.raises(BalanceError, match="'glass' is in no training photo"):
        oversample(table([(1, 0), (1, 0)], ("plastic", "glass")))


@pytest.mark.parametrize("kind", [TestTable, ValTable])
def test_only_training_rows_are_repeated(kind):
    with pytest.raises(TypeError, match=kind.__name__):
        oversample(table([(1, 0), (0, 1)], kind=kind))


def test_a_target_with_many_decimals_is_met():
    found = oversample(skewed(), target=1 / 3)
    assert min(found.share_of_commonest.values()) >= 1 / 3


MATERIALS = ("plastic", "glass", "toxic")


def _table(photos: int, seed: int) -> TrainTable:
    rng = np.random.default_rng(seed)
    labels = rng.random((photos, len(MATERIALS))) < (0.8, 0.2, 0.05)
    frame = pd.DataFrame(labels.astype(int), columns=list(MATERIALS))
    return TrainTable(frame.assign(file_name=[f"{number}.jpg" for number in range(photos)]), MATERIALS)


@given(st.integers(1, 80), st.floats(0.5, 100), st.floats(0.5, 100), st.integers(0, 5))
def test_shares_are_nested_and_of_the_right_size(photos: int, a: float, b: float, seed: int) -> None:
    table = _table(photos, seed)
    small, large = (labelled_share(table, percent, seed) for percent in sorted((a, b)))
    assert len(small) == math.ceil(photos * min(a, b) / 100)
    assert set(small.file_names) <= set(large.file_names) <= set(table.file_names)
    assert len(set(large.file_names)) == len(large)


@given(st.integers(3, 80), st.integers(0, 20))
def test_every_material_that_occurs_is_in_the_first_photos(photos: int, seed: int) -> None:
    table = _table(photos, seed)
    share = labelled_share(table, 100 * len(MATERIALS) / photos, seed)
    assert (share.labels.any(axis=0) == table.labels.any(axis=0)).all()


def test_all_labels_give_all_rows_in_order() -> None:
    table = _table(30, 0)
    assert labelled_share(table, 100, 3).file_names == table.file_names


def test_another_seed_draws_other_photos() -> None:
    table = _table(60, 0)
    assert labelled_share(table, 20, 0).file_names != labelled_share(table, 20, 1).file_names
