"""Floors: no constant predictor does better."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wastelens.evaluation import metrics
from wastelens.evaluation.floors import floors


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.just(3)), elements=st.integers(0, 1)))
def test_floors_are_the_best_of_all_constants(labels):
    constants = [np.tile(said, (len(labels), 1)) for said in itertools.product([0, 1], repeat=3)]
    found = floors(labels)
    assert found.macro_f1 == pytest.approx(max(metrics.macro_f1(labels, said) for said in constants))
    best = max(metrics.subset_accuracy(labels, said) for said in constants)
    assert found.subset_accuracy == pytest.approx(best)
    flat = float(metrics.macro_average_precision(labels, np.full(labels.shape, 0.3)))
    assert found.macro_ap == pytest.approx(flat, nan_ok=True)


def test_floors_have_their_mlflow_names():
    named = floors([[1, 0], [1, 1], [0, 0], [1, 0]]).metrics()
    assert named == {"floor_macro_ap": 0.5, "floor_macro_f1": pytest.approx((6 / 7 + 2 / 5) / 2),
                     "floor_subset_accuracy": 0.5}  # fmt: skip


def test_floors_refuse_labels_other_than_0_and_1():
    with pytest.raises(ValueError, match="0 or 1"):
        floors([[0, 2]])
