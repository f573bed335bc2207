"""The training loop: epochs with a measured learning rate, the best weights kept, interruption survived."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wastelens.config.kinds import ScheduleConfig
from wastelens.config.train import FitConfig
from wastelens.data.prepared.tables import LabelTable, ValTable
from wastelens.errors import NonFiniteLossError
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.models.freezing import logits_tensor
from wastelens.system import interrupts
from wastelens.training.checkpoint import Arrays, Checkpoint, Progress

PREDICTION_BATCH = 64
Loss = Callable[[Any, Any], Any]  # labels, logits → scalar


class Watcher(Protocol):
    """Is told of every epoch, after which a kill loses nothing."""

    def batch_done(self, epoch: int) -> None: ...
    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None: ...


class Batches(Protocol):
    """What training sees: each epoch another order of (photos or their features, labels)."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any]]: ...


@dataclass(frozen=True)
class Validation:
    """What val_macro_ap and val_loss are measured on: rows of val, and nothing else by type.

    Attributes:
        table: the rows.
        photos: what the network takes, by ``photo_index``: photos, or features of a frozen backbone.
    """

    table: ValTable
    photos: npt.NDArray[Any]


def fit(
    model: Any,
    batches: Batches,
    validation: Validation,
    *,
    loss: Loss,
    optimizer: Any,
    schedule: ScheduleConfig,
    limits: FitConfig,
    watcher: Watcher,
    before: Progress | None = None,
    resume_from: Checkpoint | None = None,
) -> Progress:
    """Train until the epochs are up or val_macro_ap has not risen for ``patience_epochs``; restore the best weights.

    Args:
        model: from what ``batches`` give to probabilities, with a layer ``logits``.
        batches: of training rows.
        validation: of val rows.
        loss: on logits.
        optimizer: fresh.
        schedule: of the learning rate, over this phase's epochs.
        limits: of this phase.
        watcher: is told of every epoch.
        before: how an earlier phase ended whose best weights are in the model; they stay the best until beaten.
        resume_from: a checkpoint of this phase.

    Returns:
        How training went; the model has its best weights in place.

    Raises:
        NonFiniteLossError: a batch's loss, or what the network says of val, is not finite; the message names epoch
            and step.
    """
    trained = _on_logits(model, optimizer, loss)
    changing = _changing_variables(trained)
    progress, best = _restore(changing, optimizer, before.next_phase() if before else Progress(), resume_from)
    while progress.epochs_done - progress.phase_began < limits.epochs and not _out_of_patience(progress, limits):
        epoch = progress.epochs_done
        train_loss, rate = _train_epoch(trained, batches, progress, schedule, limits.epochs, watcher)
        probabilities = predict(model, validation.photos, validation.table)
        if not np.isfinite(probabilities).all():
            raise _diverged("The network's answer is not finite after", epoch, len(batches), len(batches), rate)
        value = float(macro_average_precision(validation.table.labels, probabilities))
        improved = value > progress.best_value
        best = arrays_of(changing) if improved else best
        progress = replace(
            progress,
            epochs_done=epoch + 1,
            best_epoch=epoch + 1 if improved else progress.best_epoch,
            best_value=value if improved else progress.best_value,
        )
        metrics = {
            "loss": train_loss,
            "val_loss": _loss_of(loss, validation.table, probabilities),
            "val_macro_ap": value,
            "learning_rate": rate,
        }
        watcher.epoch_done(epoch + 1, metrics, progress, partial(_checkpoint, progress, changing, optimizer, best))
    assign(changing, best)
    return progress


def _checkpoint(progress: Progress, changing: list[Any], optimizer: Any, best: Arrays) -> Checkpoint:
    return Checkpoint(progress, arrays_of(changing), arrays_of(optimizer.variables), best)


def _changing_variables(trained: Any) -> list[Any]:
    """All that training changes: the variables, moving averages too, of every layer that is not frozen."""
    return [variable for layer in trained.layers if layer.trainable for variable in layer.variables]


def _on_logits(model: Any, optimizer: Any, loss: Loss) -> Any:
    """The same network, ending before the sigmoid: losses from logits neither overflow nor saturate."""
    import keras

    trained = keras.Model(model.input, logits_tensor(model))
    # jit on a processor makes everything slower; there is no metric here that a batch would have to update.
    trained.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    optimizer.build(trained.trainable_variables)
    return trained


def _restore(
    changing: list[Any], optimizer: Any, start: Progress, checkpoint: Checkpoint | None
) -> tuple[Progress, Arrays]:
    if checkpoint is None:
        return start, arrays_of(changing)
    assign(changing, checkpoint.network)
    assign(optimizer.variables, checkpoint.optimizer)
    return checkpoint.progress, checkpoint.best


def _out_of_patience(progress: Progress, limits: FitConfig) -> bool:
    return progress.epochs_done - max(progress.best_epoch, progress.phase_began) >= limits.patience_epochs


def _train_epoch(
    trained: Any,
    batches: Batches,
    progress: Progress,
    schedule: ScheduleConfig,
    epochs: int,
    watcher: Watcher,
) -> tuple[float, float]:
    """One epoch; returns the mean loss over photos and the last batch's learning rate."""
    epoch = progress.epochs_done
    total = 0.0
    photos_seen = 0
    rate = 0.0
    for step, (photos, labels) in enumerate(batches.epoch(epoch)):
        rate = schedule.learning_rate(epoch - progress.phase_began + step / len(batches), epochs)
        trained.optimizer.learning_rate = rate
        batch_loss = float(trained.train_on_batch(photos, labels))
        if not math.isfinite(batch_loss):
            raise _diverged(f"The loss is {batch_loss} at", epoch, step + 1, len(batches), rate)
        interrupts.check()
        total += batch_loss * len(labels)
        photos_seen += len(labels)
        watcher.batch_done(epoch + 1)
    return total / photos_seen, rate


def _diverged(what: str, epoch: int, step: int, steps: int, rate: float) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"{what} epoch {epoch + 1}, step {step} of {steps} (learning rate {rate:.3g}). "
        "Lower schedule.peak, or set optimizer.clip_norm."
    )


def predict(model: Any, photos: npt.NDArray[Any], table: LabelTable) -> npt.NDArray[np.float64]:
    """Probabilities, float64 (rows, materials), for the rows of a table."""
    rows = table.frame["photo_index"].to_numpy(dtype=np.intp)
    pieces = [rows[start : start + PREDICTION_BATCH] for start in range(0, len(rows), PREDICTION_BATCH)]
    return np.concatenate([np.asarray(model.predict_on_batch(photos[piece]), dtype=np.float64) for piece in pieces])


def _loss_of(loss: Loss, table: LabelTable, probabilities: npt.NDArray[np.float64]) -> float:
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    logits = np.log(clipped / (1 - clipped)).astype(np.float32)
    return float(loss(table.labels.astype(np.float32), logits))


def arrays_of(variables: list[Any]) -> Arrays:
    """Copies of variables."""
    return [np.array(variable.numpy()) for variable in variables]


def assign(variables: list[Any], arrays: Arrays) -> None:
    """Put arrays back into their variables."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
