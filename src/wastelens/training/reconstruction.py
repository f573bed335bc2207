"""Teach an autoencoder to rebuild photos; the epoch that rebuilds val best is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wastelens.errors import NonFiniteLossError
from wastelens.models.autoencoders import AutoencoderConfig
from wastelens.system import interrupts
from wastelens.training.checkpoint import Arrays, Checkpoint, Progress
from wastelens.training.fit import Watcher, arrays_of, assign

Photos = npt.NDArray[np.uint8]
PREDICTION_BATCH = 64


class PhotoPairs(Protocol):
    """What an autoencoder learns from: each epoch another order of (photos as shown, photos as wanted), 0–255."""

    def __len__(self) -> int: ...
    def epoch(self, epoch: int) -> Iterator[tuple[Photos, Photos]]: ...


def fit_autoencoder(
    network: Any,
    pairs: PhotoPairs,
    *,
    config: AutoencoderConfig,
    errors: Callable[[], dict[str, float]],
    watcher: Watcher,
    resume_from: Checkpoint | None = None,
) -> Progress:
    """Train until the epochs are up or val is not rebuilt better for ``patience_epochs``; restore the best weights.

    Args:
        network: photos float (batch, side, side, 3) in 0–255 → the same in [0, 1].
        pairs: of training photos.
        config: of the learner.
        errors: measures the network as it is; ``val_reconstruction_error`` of its answer decides which epoch is best.
        watcher: is told of every epoch.
        resume_from: a checkpoint of this training.

    Returns:
        How training went; ``best_value`` is minus the best error.

    Raises:
        NonFiniteLossError: a batch's loss, or an error, is not finite.
    """
    optimizer = _compiled(network, config)
    progress, best = _restore(network, optimizer, resume_from)
    while progress.epochs_done < config.epochs and progress.epochs_done - progress.best_epoch < config.patience_epochs:
        epoch = progress.epochs_done
        loss = _train_epoch(network, pairs, epoch, watcher)
        measured = errors()
        value = -measured["val_reconstruction_error"]
        if not math.isfinite(value):
            raise _diverged(epoch)
        improved = value > progress.best_value
        best = arrays_of(network.variables) if improved else best
        progress = replace(
            progress,
            epochs_done=epoch + 1,
            best_epoch=epoch + 1 if improved else progress.best_epoch,
            best_value=value if improved else progress.best_value,
        )
        metrics = {"loss": loss, **measured, "learning_rate": config.learning_rate}
        watcher.epoch_done(epoch + 1, metrics, progress, partial(_checkpoint, progress, network, optimizer, best))
    assign(network.variables, best)
    return progress


def _compiled(network: Any, config: AutoencoderConfig) -> Any:
    import keras

    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
    network.compile(optimizer=optimizer, loss="mean_squared_error", jit_compile=False)
    optimizer.build(network.trainable_variables)
    return optimizer


def _restore(network: Any, optimizer: Any, checkpoint: Checkpoint | None) -> tuple[Progress, Arrays]:
    if checkpoint is None:
        return Progress(), arrays_of(network.variables)
    assign(network.variables, checkpoint.network)
    assign(optimizer.variables, checkpoint.optimizer)
    return checkpoint.progress, checkpoint.best


def _checkpoint(progress: Progress, network: Any, optimizer: Any, best: Arrays) -> Checkpoint:
    return Checkpoint(progress, arrays_of(network.variables), arrays_of(optimizer.variables), best)


def _train_epoch(network: Any, pairs: PhotoPairs, epoch: int, watcher: Watcher) -> float:
    """One epoch; returns the mean squared error over its photos, as they were shown."""
    total, photos_seen = 0.0, 0
    for shown, wanted in pairs.epoch(epoch):
        loss = float(network.train_on_batch(shown, wanted.astype(np.float32) / 255))
        if not math.isfinite(loss):
            raise _diverged(epoch)
        interrupts.check()
        total += loss * len(wanted)
        photos_seen += len(wanted)
        watcher.batch_done(epoch + 1)
    return total / photos_seen


def _diverged(epoch: int) -> NonFiniteLossError:
    return NonFiniteLossError(f"The reconstruction is not finite in epoch {epoch + 1}. Lower learner.learning_rate.")


def rebuilt(network: Any, photos_0_255: Photos) -> npt.NDArray[np.float32]:
    """What an autoencoder makes of photos, float32 (n, side, side, 3) in [0, 1]."""
    pieces = [photos_0_255[start : start + PREDICTION_BATCH] for start in range(0, len(photos_0_255), PREDICTION_BATCH)]
    return np.concatenate([np.asarray(network.predict_on_batch(piece), dtype=np.float32) for piece in pieces])


def squared_error(rebuilt_0_1: npt.NDArray[np.floating], photos_0_255: Photos) -> float:
    """The mean over photos, pixels and channels of (rebuilt − photo)², the photo in [0, 1]."""
    return float(np.mean(np.square(rebuilt_0_1 - photos_0_255.astype(np.float32) / 255)))
