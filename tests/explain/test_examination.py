"""The rank correlation of two maps against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wastelens.explain.examination import rank_correlation


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_rank_correlation_is_spearmans(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 6, 7)).astype(np.float32)
    b += rng.uniform(-2, 2) * a
    if ties:
        a, b = np.maximum(a, 0), np.round(b)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)


def test_rank_correlation_depends_only_on_the_order() -> None:
    cells = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    assert rank_correlation(cells, np.exp(cells)) == pytest.approx(1)
    assert rank_correlation(cells, -cells) == pytest.approx(-1)
    assert rank_correlation(cells, cells) <= 1


def test_rank_correlation_with_a_constant_is_undefined() -> None:
    cells = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.isnan(rank_correlation(cells, np.zeros((2, 3), np.float32)))
    assert np.isnan(rank_correlation(np.full((2, 3), 0.1, np.float32), cells))
    with pytest.raises(ValueError, match="compared"):
        rank_correlation(cells, cells.T)
