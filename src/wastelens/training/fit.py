"""Training of classifiers on logits, watched on val; predictions of tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.kinds import ScheduleConfig
from wastelens.config.train import FitConfig
from wastelens.data.prepared.tables import LabelTable, ValTable
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.models.features import predict_in_batches
from wastelens.models.freezing import logits_tensor
from wastelens.system.arrays import FloatArray
from wastelens.training.checkpoint import Checkpoint, Progress
from wastelens.training.loop import Batches, Measured, TrainingLoop, Watcher, compiled

Loss = Callable[[Any, Any], Any]  # labels, logits → scalar


@dataclass(frozen=True)
class Validation:
    """Rows of val, and by type nothing else: the basis of val_macro_ap and val_loss.

    Attributes:
        table: the rows.
        photos: the network's inputs by ``photo_index``: photos, or features of a frozen backbone.
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
        model: from the inputs of ``batches`` to probabilities, with a layer ``logits``.
        batches: of training rows.
        validation: of val rows.
        loss: on logits.
        optimizer: fresh.
        schedule: of the learning rate, over this phase's epochs.
        limits: of this phase.
        watcher: is told of every epoch.
        before: the end of an earlier phase, whose best weights are in the model; they stay the best until beaten.
        resume_from: a checkpoint of this phase.

    Returns:
        The progress; the model has its best weights in place.

    Raises:
        NonFiniteLossError: a batch's loss or a prediction for val is not finite; names epoch and step.
    """

    def measure() -> Measured:
        probabilities = predict(model, validation.photos, validation.table)
        if not np.isfinite(probabilities).all():
            return math.nan, {}
        value = float(macro_average_precision(validation.table.labels, probabilities))
        return value, {"val_loss": _loss_of(loss, validation.table, probabilities), "val_macro_ap": value}

    loop = TrainingLoop(
        compiled_on_logits(model, optimizer, loss),
        batches,
        limits,
        rate=lambda epoch: schedule.learning_rate(epoch, limits.epochs),
        measure=measure,
        watcher=watcher,
        remedy="Lower schedule.peak, or set optimizer.clip_norm.",
    )
    return loop.run(before.next_phase() if before else Progress(), resume_from)


def compiled_on_logits(model: Any, optimizer: Any, loss: Loss) -> Any:
    """Return the same network, ending before the sigmoid: losses from logits neither overflow nor saturate."""
    import keras

    return compiled(keras.Model(model.input, logits_tensor(model)), optimizer, loss)


def predict(model: Any, photos: npt.NDArray[Any], table: LabelTable) -> FloatArray:
    """Return probabilities, float64 (rows, materials), for the rows of a table."""
    return predict_in_batches(model, photos, table.photo_index).astype(np.float64)


def _loss_of(loss: Loss, table: LabelTable, probabilities: FloatArray) -> float:
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    logits = np.log(clipped / (1 - clipped)).astype(np.float32)
    return float(loss(table.labels.astype(np.float32), logits))
