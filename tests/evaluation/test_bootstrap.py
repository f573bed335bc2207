"""The bootstrap draws correctly, and its intervals contain the true value as often as promised."""

from __future__ import annotations

import numpy as np
import pytest

from wastelens.evaluation import bootstrap
from wastelens.evaluation.metrics import macro_average_precision


def test_a_resample_is_as_large_as_the_sample():
    drawn = bootstrap.multiplicities(50, 400, np.random.default_rng(0))
    assert drawn.shape == (400, 50)
    assert (drawn.sum(axis=1) == 50).all()
    assert (drawn == 0).mean() == pytest.approx(np.exp(-1), abs=0.02)


def test_groups_are_drawn_whole():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = bootstrap.multiplicities(6, 100, np.random.default_rng(0), groups)
    for name in "abc":
        assert (drawn[:, groups == name] == drawn[:, groups == name][:, :1]).all()
    assert (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_the_same_seed_draws_the_same():
    one, again = (bootstrap.multiplicities(20, 30, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize(("n", "resamples", "groups"), [(0, 10, None), (5, 0, None), (5, 10, [1, 2])])
def test_invalid_resampling_is_refused(n, resamples, groups):
    with pytest.raises(ValueError, match=r"bootstrap|groups"):
        bootstrap.multiplicities(n, resamples, np.random.default_rng(0), groups)


def test_interval_takes_quantiles_and_leaves_out_nan():
    values = np.append(np.arange(101) / 100, np.nan)
    assert bootstrap.interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert np.isnan(bootstrap.interval([np.nan, np.nan])).all()
    with pytest.raises(ValueError, match="level"):
        bootstrap.interval(values, 95)


def test_interval_is_shifted_by_twice_the_bias_and_contains_the_estimate():
    values = np.arange(101) / 100  # mean 0.5
    assert bootstrap.interval(values, 0.9, estimate=0.4) == pytest.approx((-0.15, 0.75))
    low, high = bootstrap.interval(values, 0.9, estimate=5.0)
    assert low <= 5.0 <= high


def drawn_case(n: int, rng: np.random.Generator, signal: float):
    labels = (rng.random((n, 4)) < [0.6, 0.3, 0.15, 0.08]).astype(np.uint8)
    return labels, labels * signal + rng.normal(size=labels.shape)


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_corrected_intervals_contain_the_truth_where_plain_quantiles_do_not(signal):
    rng = np.random.default_rng(5)
    truth = float(macro_average_precision(*drawn_case(60_000, rng, signal)))
    trials, held, held_plain = 100, 0, 0
    for _ in range(trials):
        labels, scores = drawn_case(200, rng, signal)
        resampled = macro_average_precision(labels, scores, bootstrap.multiplicities(200, 150, rng))
        low, high = bootstrap.interval(resampled, estimate=float(macro_average_precision(labels, scores)))
        plain_low, plain_high = bootstrap.interval(resampled)
        held += low <= truth <= high
        held_plain += plain_low <= truth <= plain_high
    assert held / trials >= 0.86  # 95 % promised; 4 standard errors of 100 trials below
    assert held > held_plain
