"""The training loop: epochs with a measured value, the best weights kept, interruption survived."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

import numpy as np

from wastelens.errors import NonFiniteLossError
from wastelens.system import interrupts
from wastelens.system.arrays import Arrays
from wastelens.training.checkpoint import Checkpoint, Progress

Measured = tuple[float, dict[str, float]]


class Watcher(Protocol):
    """Receives every epoch; after that, a kill loses nothing of it."""

    def batch_done(self, epoch: int) -> None: ...
    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None: ...


class Batches(Protocol):
    """Batches of (inputs, targets), in another order every epoch."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any]]: ...


class Limits(Protocol):
    """When training ends."""

    @property
    def epochs(self) -> int: ...
    @property
    def patience_epochs(self) -> int: ...


@dataclass(frozen=True)
class TrainingLoop:
    """One phase of a training.

    Attributes:
        network: from :func:`compiled`.
        batches: to train on.
        limits: epochs of the phase, and how many without a better value end it.
        rate: (fractional) epoch of the phase, from 0 → learning rate.
        measure: returns the network's value, the higher the better, and metrics to log.
        watcher: is told of every epoch.
        remedy: the fix in the message about diverged training.
    """

    network: Any
    batches: Batches
    limits: Limits
    rate: Callable[[float], float]
    measure: Callable[[], Measured]
    watcher: Watcher
    remedy: str

    def run(self, start: Progress, resume_from: Checkpoint | None = None) -> Progress:
        """Train until the epochs are up or patience ends; leave the best weights in the network.

        Args:
            start: of this phase.
            resume_from: a checkpoint of this phase.

        Raises:
            NonFiniteLossError: a batch's loss or the network's value is not finite; names epoch and step.
        """
        # Moving averages change too: all variables of every layer that is not frozen.
        changing = [variable for layer in self.network.layers if layer.trainable for variable in layer.variables]
        optimizer = self.network.optimizer
        progress, best = start, arrays_of(changing)
        if resume_from is not None:
            assign(changing, resume_from.network)
            assign(optimizer.variables, resume_from.optimizer)
            progress, best = resume_from.progress, resume_from.best
        while self._goes_on(progress):
            epoch = progress.epochs_done
            loss, rate = self.train_epoch(progress)
            stepped = self._average(changing)
            value, metrics = self.measure()
            if not math.isfinite(value):
                raise self._diverged("The network's answer is not finite after", epoch, len(self.batches), rate)
            improved = value > progress.best_value
            best = arrays_of(changing) if improved else best
            if stepped:
                assign(changing, stepped)
            progress = replace(
                progress,
                epochs_done=epoch + 1,
                best_epoch=epoch + 1 if improved else progress.best_epoch,
                best_value=value if improved else progress.best_value,
            )
            checkpoint = partial(_checkpoint, progress, changing, optimizer, best)
            self.watcher.epoch_done(epoch + 1, {"loss": loss, **metrics, "learning_rate": rate}, progress, checkpoint)
        assign(changing, best)
        return progress

    def _average(self, changing: list[Any]) -> Arrays:
        """Put the optimizer's averages of the weights, if it keeps them, into the network; return what was there."""
        stepped = arrays_of(changing) if self.network.optimizer.use_ema else []
        self.network.optimizer.finalize_variable_values(self.network.trainable_variables)
        return stepped

    def train_epoch(self, progress: Progress) -> tuple[float, float]:
        """Train for one epoch; return the mean loss over photos and the last batch's learning rate."""
        epoch, total, photos_seen, rate = progress.epochs_done, 0.0, 0, 0.0
        for step, (inputs, targets) in enumerate(self.batches.epoch(epoch)):
            rate = self.rate(epoch - progress.phase_began + step / len(self.batches))
            self.network.optimizer.learning_rate = rate
            loss = float(self.network.train_on_batch(inputs, targets))
            if not math.isfinite(loss):
                raise self._diverged(f"The loss is {loss} at", epoch, step + 1, rate)
            interrupts.check()
            total += loss * len(targets)
            photos_seen += len(targets)
            self.watcher.batch_done(epoch + 1)
        return total / photos_seen, rate

    def _goes_on(self, progress: Progress) -> bool:
        waited = progress.epochs_done - max(progress.best_epoch, progress.phase_began)
        done = progress.epochs_done - progress.phase_began
        return done < self.limits.epochs and waited < self.limits.patience_epochs

    def _diverged(self, fact: str, epoch: int, step: int, rate: float) -> NonFiniteLossError:
        return NonFiniteLossError(
            f"{fact} epoch {epoch + 1}, step {step} of {len(self.batches)} (learning rate {rate:.3g}). {self.remedy}"
        )


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


def compiled(network: Any, optimizer: Any, loss: Any) -> Any:
    """Return the network ready to train, with the optimizer's variables in place."""
    # jit makes everything slower on a processor, and there are no metrics to update per batch.
    network.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    optimizer.build(network.trainable_variables)
    return network


def arrays_of(variables: list[Any]) -> Arrays:
    """Copy variables."""
    return [np.array(variable.numpy()) for variable in variables]


def assign(variables: list[Any], arrays: Arrays) -> None:
    """Copy arrays back into their variables."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _checkpoint(progress: Progress, changing: list[Any], optimizer: Any, best: Arrays) -> Checkpoint:
    return Checkpoint(progress, arrays_of(changing), arrays_of(optimizer.variables), best)
