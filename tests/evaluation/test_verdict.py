"""Calibration equals trying every threshold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wastelens.data.prepared.tables import TestTable, TrainTable, ValTable
from wastelens.evaluation.verdict import calibrate, calibrate_on


def f1(truth, called):
    return 2 * np.sum(truth * called) / (truth.sum() + called.sum() or 1)


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(
    arrays.arrays(np.uint8, (12, 2), elements=st.integers(0, 1)),
    arrays.arrays(np.float64, (12, 2), elements=st.integers(0, 10).map(lambda tenth: tenth / 10)),
)
def test_no_threshold_is_better_and_no_equally_good_cut_is_nearer_to_half(labels, probabilities):
    for j, threshold in enumerate(calibrate(labels, probabilities)):
        truth, scores = labels[:, j], probabilities[:, j]
        if not truth.any():
            assert threshold == 0.5
            continue
        distinct = np.unique(scores)
        cuts = np.append(distinct[0] / 2, (distinct[1:] + distinct[:-1]) / 2)
        reached = {cut: f1(truth, scores >= cut) for cut in cuts}
        best = max(reached.values())
        assert f1(truth, scores >= threshold) == pytest.approx(best)
        nearest = min(abs(cut - 0.5) for cut, value in reached.items() if value > best - 1e-12)
        assert abs(threshold - 0.5) == pytest.approx(nearest)


def test_a_clean_gap_is_cut_in_the_middle():
    assert calibrate([[0], [0], [1], [1]], [[0.1], [0.2], [0.6], [0.9]]) == pytest.approx([0.4])


def test_neighbouring_floats_are_still_told_apart():
    low = 0.3
    high = np.nextafter(low, 1)
    (threshold,) = calibrate([[0], [1]], [[low], [high]])
    assert low < threshold <= high


def test_constant_probabilities_predict_everything():
    (threshold,) = calibrate([[0], [1]], [[0.3], [0.3]])
    assert threshold <= 0.3


def table(kind):
    frame = pd.DataFrame({"file_name": ["a", "b"], "plastic": [0, 1]})
    return kind(frame, ("plastic",))


def test_val_only():
    assert calibrate_on(table(ValTable), [[0.2], [0.8]]) == pytest.approx([0.5])
    for kind in (TrainTable, TestTable):
        with pytest.raises(TypeError, match=kind.__name__):
            calibrate_on(table(kind), [[0.2], [0.8]])


def test_probabilities_are_checked():
    with pytest.raises(ValueError, match="0, 1"):
        calibrate([[0], [1]], [[0.2], [1.8]])
