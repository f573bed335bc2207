"""Learning by rebuilding photos: an autoencoder, which may be shown noisy ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wastelens.config.networks import AutoencoderConfig
from wastelens.data.batches.pipeline import PhotoBatches, add_noise
from wastelens.figures.pretraining import SHOWN_PHOTOS, filter_grid, rebuilt_rows
from wastelens.models.encoders import build_encoder, copy_weights
from wastelens.models.features import predict_in_batches
from wastelens.models.layers import layer_seeds
from wastelens.system.arrays import Float32Array, PhotoArray
from wastelens.training.checkpoint import Checkpoint, Progress
from wastelens.training.loop import Batches, Measured, TrainingLoop, Watcher, compiled
from wastelens.training.visible_photos import VisiblePhotos, squared_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Autoencoder:
    """A network and the half of it that encodes; they share their layers.

    Attributes:
        network: photos float (batch, side, side, 3) in 0–255 → the same photos in [0, 1].
        encoder: the same photos → code, a map or vectors.
        side_px: of the photos.
    """

    network: Any
    encoder: Any
    side_px: int


def build_autoencoder(config: AutoencoderConfig, *, image_side_px: int, seed: int) -> Autoencoder:
    """Return an autoencoder of photos at the size it sees: the dense one's input is shrunk already."""
    import keras

    side_px = config.visible_side_px(image_side_px)
    seeds = layer_seeds(seed)
    photos = keras.Input((side_px, side_px, 3), name="photo_0_255")
    code = config.encode(photos, seeds)
    rebuilt = config.decode(code, side_px, seeds)
    return Autoencoder(
        keras.Model(photos, rebuilt, name=config.kind), keras.Model(photos, code, name="encoder"), side_px
    )


class AutoencoderLearning:
    """Trains an autoencoder, and keeps the epoch that rebuilds val best."""

    def __init__(self, config: AutoencoderConfig, photos: VisiblePhotos, seed: int) -> None:
        self._config = config
        self._photos = photos
        self._seed = seed
        self._autoencoder = build_autoencoder(config, image_side_px=photos.side_px, seed=seed)
        self._pairs = PhotoBatches(photos.train, batch_size=config.batch_size, noise=config.noise, seed=seed)
        # The same noise every time, so that epochs can be compared.
        rng = np.random.default_rng([seed, 1])
        self._shown = {
            "": add_noise(photos.train_sample, config.noise, rng),
            "val/": add_noise(photos.val_sample, config.noise, rng),
        }
        self.epochs = config.epochs
        self.steps = config.epochs * len(self._pairs)

    def fit(self, watcher: Watcher, resume_from: Checkpoint | None) -> Progress:
        """Train until the epochs are up or val is not rebuilt better for ``patience_epochs``; keep the best weights.

        Returns:
            The progress; ``best_value`` is minus the best error.

        Raises:
            NonFiniteLossError: a batch's loss or an error is not finite.
        """
        import keras

        def measure() -> Measured:
            errors = self._errors()
            return -errors["val/reconstruction_error"], errors

        optimizer = keras.optimizers.AdamW(self._config.learning_rate, weight_decay=self._config.weight_decay)
        loop = TrainingLoop(
            compiled(self._autoencoder.network, optimizer, "mean_squared_error"),
            _ScaledTargets(self._pairs),
            self._config,
            rate=lambda epoch: self._config.learning_rate,
            measure=measure,
            watcher=watcher,
            remedy="Lower learner.learning_rate.",
        )
        return loop.run(Progress(), resume_from)

    def _errors(self) -> dict[str, float]:
        wanted = {"": self._photos.train_sample, "val/": self._photos.val_sample}
        return {
            f"{split}reconstruction_error": squared_error(self._rebuilt(shown), wanted[split])
            for split, shown in self._shown.items()
        }

    def _rebuilt(self, photos: PhotoArray) -> Float32Array:
        """Rebuild photos: float32 (n, side, side, 3) in [0, 1]."""
        return predict_in_batches(self._autoencoder.network, photos, np.arange(len(photos)))

    def closing_metrics(self) -> dict[str, float]:
        """Return the errors of the best weights, and where photos are shown noisy, of leaving them unchanged."""
        noisy = self._config.noise.name != "none"
        identity = squared_error(self._shown["val/"].astype(np.float32) / 255, self._photos.val_sample)
        return {
            **self._errors(),
            **({"floor/identity_reconstruction_error": identity} if noisy else {}),
        }

    def encoder(self, image_side_px: int) -> Any:
        """Return the encoder with its weights, for photos of the dataset's size."""
        encoder = build_encoder(self._config, image_side_px=image_side_px, seed=self._seed)
        copy_weights(self._autoencoder.encoder, encoder)
        return encoder

    def figures(self) -> dict[str, Figure]:
        """Draw photos of val beside their reconstructions, and the filters of the first layer."""
        shown, photos = self._shown["val/"][:SHOWN_PHOTOS], self._photos.val_sample[:SHOWN_PHOTOS]
        noisy = {"as shown": shown} if self._config.noise.name != "none" else {}
        rows: dict[str, Any] = {"photo": photos, **noisy, "rebuilt": self._rebuilt(shown)}
        filters = self._config.filters(self._autoencoder.encoder, self._autoencoder.side_px)
        return {
            "reconstructions": rebuilt_rows(rows, "Val photos and their reconstructions by the autoencoder"),
            "filters": filter_grid(filters, "Filters of the first layer"),
        }

    def save(self, folder: Path) -> Path:
        """Save the whole autoencoder and return the file."""
        file = folder / "autoencoder.keras"
        self._autoencoder.network.save(file)
        return file


class _ScaledTargets:
    """Batches of (photos as shown, photos as wanted), both in 0–255, with the second scaled to [0, 1]."""

    def __init__(self, pairs: Batches) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        for shown, wanted in self._pairs.epoch(epoch):
            yield shown, wanted.astype(np.float32) / 255
