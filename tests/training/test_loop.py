"""Epochs of a fixed number of steps: the same stream of batches, cut elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import pytest

from wastelens.training.loop import EqualEpochs


class _Passes:
    """Batches that name their pass and their step in it."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.made = 0

    def __len__(self) -> int:
        return self.length

    def epoch(self, epoch: int) -> Iterator[tuple[int, int]]:
        for step in range(self.length):
            self.made += 1
            yield epoch, step


def _stream(length: int, steps: int) -> list[tuple[int, int]]:
    return list(islice(chain.from_iterable(_Passes(length).epoch(number) for number in range(steps)), steps))


@pytest.mark.parametrize(("length", "steps"), [(5, 5), (5, 3), (3, 7), (1, 4), (4, 6)])
def test_epochs_cut_the_same_stream(length: int, steps: int) -> None:
    passes = _Passes(length)
    cut = EqualEpochs(passes, steps)
    seen = [list(cut.epoch(epoch)) for epoch in range(4)]
    assert [len(epoch) for epoch in seen] == [len(cut)] * 4 == [steps] * 4
    assert list(chain.from_iterable(seen)) == _stream(length, 4 * steps)
    assert passes.made == 4 * steps  # nothing is made twice


@pytest.mark.parametrize(("length", "steps"), [(5, 3), (3, 7), (4, 6), (2, 4)])
def test_an_epoch_depends_on_its_number_alone(length: int, steps: int) -> None:
    undisturbed = EqualEpochs(_Passes(length), steps)
    expected = [list(undisturbed.epoch(epoch)) for epoch in range(5)]
    resumed = EqualEpochs(_Passes(length), steps)
    assert list(resumed.epoch(3)) == expected[3]
    assert list(resumed.epoch(4)) == expected[4]
    next(iter(resumed.epoch(1)))  # left in the middle
    assert list(resumed.epoch(2)) == expected[2]
