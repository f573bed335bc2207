"""Epochs of equally many steps, however many rows there are: what makes the budgets of two trainings the same."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from wastelens.training.fit import Batches


class EqualEpochs:
    """Pass after pass over the training rows, cut wherever so many steps are up.

    What an epoch gives depends on its number alone, so that a resumed run sees what an undisturbed one would have.
    """

    def __init__(self, batches: Batches, steps_per_epoch: int) -> None:
        self._batches = batches
        self._steps = steps_per_epoch
        self._ongoing: Iterator[tuple[Any, Any]] = iter(())
        self._at = -1  # the step, counted from the very first, that the ongoing pass gives next

    def __len__(self) -> int:
        return self._steps

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """The batches of this epoch, counted from 0."""
        first = epoch * self._steps
        if self._at != first:
            number, skipped = divmod(first, len(self._batches))
            self._ongoing = islice(self._batches.epoch(number), skipped, None)
        for step in range(first, first + self._steps):
            if step % len(self._batches) == 0:
                self._ongoing = iter(self._batches.epoch(step // len(self._batches)))
            self._at = step + 1
            yield next(self._ongoing)
