"""The box of a map's peak."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wastelens.using.peak import peak_box


def test_the_box_is_that_of_the_region_with_the_maximum() -> None:
    evidence = np.zeros((12, 12), np.float32)
    evidence[2:4, 6:9] = 1.0
    evidence[9, 1] = 0.9  # a second place, not connected
    assert peak_box(evidence) == pytest.approx((6 / 12, 2 / 12, 9 / 12, 4 / 12), abs=0.03)


def test_an_even_map_is_all_of_the_photo() -> None:
    assert peak_box(np.ones((5, 7), np.float32)) == (0, 0, 1, 1)


@pytest.mark.parametrize("evidence", [np.zeros((4, 4)), np.full((4, 4), -1.0), np.full((4, 4), np.nan)])
def test_no_evidence_has_no_place(evidence: np.ndarray) -> None:
    assert all(math.isnan(side) for side in peak_box(evidence.astype(np.float32)))
