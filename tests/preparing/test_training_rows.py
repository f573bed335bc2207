"""A share of the labels has the right size, is nested, and loses no material by bad luck."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from wastelens.data.prepared.tables import TrainTable
from wastelens.preparing.balance import labelled_share

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
