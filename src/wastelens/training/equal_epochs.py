"""Epochs of a fixed number of steps, whatever the number of rows, so that two trainings have the same budget."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from wastelens.training.loop import Batches


class EqualEpochs:
    """Consecutive passes over the training rows, cut into epochs of a fixed number of steps.

    An epoch depends on its number alone, so that a resumed run sees the same batches as an uninterrupted one.
    """

    def __init__(self, batches: Batches, steps_per_epoch: int) -> None:
        self._batches = batches
        self._steps = steps_per_epoch
        self._ongoing: Iterator[tuple[Any, Any]] = iter(())
        self._at = -1  # the next step of the ongoing pass, counted from the very first

    def __len__(self) -> int:
        return self._steps

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of this epoch, counted from 0."""
        first = epoch * self._steps
        if self._at != first:
            number, skipped = divmod(first, len(self._batches))
            self._ongoing = islice(self._batches.epoch(number), skipped, None)
        for step in range(first, first + self._steps):
            if step % len(self._batches) == 0:
                self._ongoing = iter(self._batches.epoch(step // len(self._batches)))
            self._at = step + 1
            yield next(self._ongoing)
