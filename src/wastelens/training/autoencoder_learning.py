"""Learning by rebuilding photos: an autoencoder, perhaps shown noisy ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wastelens.config.networks import ConvAutoencoderConfig
from wastelens.data.batches.noise import add_noise
from wastelens.data.batches.pipeline import PhotoBatches
from wastelens.figures.pretraining import SHOWN_PHOTOS, filter_grid, rebuilt_rows
from wastelens.models.autoencoders import AutoencoderConfig, build_autoencoder
from wastelens.models.encoders import build_encoder, copy_weights
from wastelens.training.checkpoint import Checkpoint, Progress
from wastelens.training.fit import Watcher
from wastelens.training.reconstruction import fit_autoencoder, rebuilt, squared_error
from wastelens.training.visible_photos import VisiblePhotos

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AutoencoderLearning:
    """An autoencoder, perhaps shown noisy photos."""

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
            "val_": add_noise(photos.val_sample, config.noise, rng),
        }
        self.epochs = config.epochs
        self.steps = config.epochs * len(self._pairs)

    def fit(self, watcher: Watcher, resume_from: Checkpoint | None) -> Progress:
        """Train to the best reconstruction of val."""
        return fit_autoencoder(
            self._autoencoder.network,
            self._pairs,
            config=self._config,
            errors=self._errors,
            watcher=watcher,
            resume_from=resume_from,
        )

    def _errors(self) -> dict[str, float]:
        wanted = {"": self._photos.train_sample, "val_": self._photos.val_sample}
        return {
            f"{split}reconstruction_error": squared_error(rebuilt(self._autoencoder.network, shown), wanted[split])
            for split, shown in self._shown.items()
        }

    def closing_metrics(self) -> dict[str, float]:
        """Errors of the best weights, and of what they have to beat: the mean photo; of noisy photos, leaving them."""
        noisy = self._config.noise.name != "none"
        identity = squared_error(self._shown["val_"].astype(np.float32) / 255, self._photos.val_sample)
        return {
            **self._errors(),
            "floor_reconstruction_error": self._photos.floor_error(),
            **({"identity_reconstruction_error": identity} if noisy else {}),
        }

    def encoder(self, image_side_px: int) -> Any:
        """The encoder with its weights, on photos of the dataset's size."""
        encoder = build_encoder(self._config, image_side_px=image_side_px, seed=self._seed)
        copy_weights(self._autoencoder.encoder, encoder)
        return encoder

    def figures(self) -> dict[str, Figure]:
        """Photos of val beside what becomes of them, and what the first layer responds to."""
        shown, photos = self._shown["val_"][:SHOWN_PHOTOS], self._photos.val_sample[:SHOWN_PHOTOS]
        noisy = {"as shown": shown} if self._config.noise.name != "none" else {}
        rows: dict[str, Any] = {"photo": photos, **noisy, "rebuilt": rebuilt(self._autoencoder.network, shown)}
        return {
            "reconstructions": rebuilt_rows(rows, "Photos of val, and what the autoencoder rebuilds of them"),
            "filters": filter_grid(self._filters(), "What the units of the first layer respond to"),
        }

    def _filters(self) -> Any:
        if isinstance(self._config, ConvAutoencoderConfig):
            return np.moveaxis(self._autoencoder.encoder.get_layer("block0_conv0").get_weights()[0], 3, 0)
        side_px = self._autoencoder.side_px
        return self._autoencoder.encoder.get_layer("encode0").get_weights()[0].T.reshape(-1, side_px, side_px, 3)

    def save(self, folder: Path) -> Path:
        """The whole autoencoder as a file."""
        file = folder / "autoencoder.keras"
        self._autoencoder.network.save(file)
        return file
