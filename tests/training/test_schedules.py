"""Learning rates against their closed forms, above all where one part ends and the next begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wastelens.config.kinds import SCHEDULES

START, PEAK, FLOOR, WARMUP, DECAY, EPOCHS = 1e-4, 2e-3, 1e-5, 2.0, 0.9, 10


def schedule(name, **changes):
    kind = SCHEDULES[name]
    values = {"start": START, "peak": PEAK, "floor": FLOOR, "warmup_epochs": WARMUP, "decay_per_epoch": DECAY}
    return kind(kind=name, **{key: value for key, value in (values | changes).items() if key in kind.model_fields})


@pytest.mark.parametrize("name", ["constant", "exponential", "cosine"])
def test_warm_up_is_a_line_from_start_to_peak(name):
    rates = [schedule(name).learning_rate(epoch, EPOCHS) for epoch in (0, 0.5, 1, 1.5, 2)]
    assert rates == pytest.approx([START + (PEAK - START) * part for part in (0, 0.25, 0.5, 0.75, 1)])
    assert schedule(name, warmup_epochs=0).learning_rate(0, EPOCHS) == PEAK


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [
        ("constant", 2, PEAK),
        ("constant", 1000, PEAK),
        ("exponential", 2, PEAK),
        ("exponential", 3, PEAK * DECAY),
        ("exponential", 4.5, PEAK * DECAY**2.5),
        ("exponential", 1000, FLOOR),
        ("cosine", 2, PEAK),
        ("cosine", 4, FLOOR + (PEAK - FLOOR) * (1 + 0.5**0.5) / 2),
        ("cosine", 6, (PEAK + FLOOR) / 2),
        ("cosine", 10, FLOOR),
        ("cosine", 11, FLOOR),
    ],
)
def test_after_the_warm_up(name, epoch, rate):
    assert schedule(name).learning_rate(epoch, EPOCHS) == pytest.approx(rate, rel=1e-9)


def test_warm_up_longer_than_the_training():
    assert schedule("cosine", warmup_epochs=20).learning_rate(9, EPOCHS) == pytest.approx(START + (PEAK - START) * 0.45)
    assert schedule("cosine", warmup_epochs=EPOCHS).learning_rate(EPOCHS, EPOCHS) == PEAK


@given(st.sampled_from(["constant", "exponential", "cosine"]), st.floats(0, 30), st.floats(0, 5), st.integers(1, 20))
def test_never_outside_its_range_and_never_rising_after_the_warm_up(name, epoch, warmup, epochs):
    made = schedule(name, warmup_epochs=warmup)
    rate = made.learning_rate(epoch, epochs)
    assert FLOOR * (1 - 1e-12) <= rate <= PEAK * (1 + 1e-12)
    if epoch >= warmup:
        assert made.learning_rate(epoch + 0.1, epochs) <= rate * (1 + 1e-12)
