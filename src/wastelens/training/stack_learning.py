"""Learning a stack of restricted Boltzmann machines, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wastelens.config.networks import BoltzmannConfig
from wastelens.figures.pretraining import SHOWN_PHOTOS, filter_grid, rebuilt_rows
from wastelens.models.dbn import DeepBeliefNetwork, LayerwiseTraining
from wastelens.models.encoders import build_encoder, set_dense_weights, set_visible_statistics
from wastelens.system import interrupts
from wastelens.system.arrays import Array, Float32Array, PhotoArray
from wastelens.training.checkpoint import Checkpoint, Progress
from wastelens.training.loop import Watcher
from wastelens.training.visible_photos import VisiblePhotos, squared_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GIBBS_STEPS_SHOWN = (1, 10, 100, 1000)


class StackLearning:
    """Restricted Boltzmann machines, each trained on the hidden probabilities of the one below."""

    def __init__(
        self, config: BoltzmannConfig, photos: VisiblePhotos, *, seed: int, mixed_precision: bool, folder: Path
    ) -> None:
        self._config = config
        self._photos = photos
        self._seed = seed
        self._network = DeepBeliefNetwork(config.layers, config.visible)
        self._training = LayerwiseTraining(self._network, photos.train, config, seed, mixed_precision, folder)
        self.epochs = self.steps = len(config.layers) * config.epochs

    def fit(self, watcher: Watcher, resume_from: Checkpoint | None) -> Progress:
        """Train layer by layer, each for all its epochs."""
        progress = Progress()
        if resume_from is not None:
            self._training.restore(resume_from.network)
            progress = resume_from.progress
        while not self._training.finished:
            layer = self._training.layer
            self._training.epoch()
            interrupts.check()
            done = progress.epochs_done + 1
            watcher.batch_done(done)
            metrics = {**self._measured(layer), "layer": layer + 1, "learning_rate": self._config.learning_rate}
            value = -metrics["val/reconstruction_error"]
            progress = replace(progress, epochs_done=done, best_epoch=done, best_value=value, phase=layer)
            watcher.epoch_done(done, metrics, progress, partial(self._checkpoint, progress))
        return progress

    def _measured(self, layer: int) -> dict[str, float]:
        """Measure how the stack up to this layer rebuilds photos, and how likely its machine finds its own input."""
        below, machine = self._network.machines[:layer], self._network.machines[layer]
        metrics: dict[str, float] = {}
        energies = {}
        for split, photos in {"": self._photos.train_sample, "val/": self._photos.val_sample}.items():
            metrics[f"{split}reconstruction_error"] = squared_error(self._rebuilt(photos, layer + 1), photos)
            seen = reduce(lambda x, lower: lower.transform(x), below, _vectors(photos))
            # The same components are flipped every time, so that epochs can be compared.
            likelihood = machine.pseudo_likelihood(seen, np.random.default_rng(self._seed))
            metrics[f"{split}pseudo_likelihood"] = float(likelihood.mean())
            energies[split] = float(machine.free_energy(seen).mean())
        # Over equally many photos: it grows as the machine overfits the training photos (Hinton 2010, §6).
        return {**metrics, "free_energy_gap": energies["val/"] - energies[""]}

    def _rebuilt(self, photos: PhotoArray, layers: int) -> Float32Array:
        part = DeepBeliefNetwork(self._config.layers[:layers], self._config.visible)
        part.machines = self._network.machines[:layers]
        return part.reconstruct(_vectors(photos)).reshape(photos.shape)

    def closing_metrics(self) -> dict[str, float]:
        """Return the last layer's measures."""
        return self._measured(len(self._config.layers) - 1)

    def encoder(self, image_side_px: int) -> Any:
        """Return the stack unrolled into a network with its weights, for photos of the dataset's size."""
        encoder = build_encoder(self._config, image_side_px=image_side_px, seed=self._seed)
        set_dense_weights(encoder, self._network.dense_weights())
        if self._config.visible == "gaussian":
            lowest = self._network.machines[0]
            set_visible_statistics(encoder, lowest.visible_mean_, lowest.visible_scale_)
        return encoder

    def figures(self) -> dict[str, Figure]:
        """Draw photos of val and their reconstructions, each layer's filters, and Gibbs samples that begin as noise."""
        photos = self._photos.val_sample[:SHOWN_PHOTOS]
        rebuilt = self._rebuilt(photos, len(self._config.layers))
        rows: dict[str, Array] = {"photo": photos, "rebuilt": rebuilt}
        kernels = [kernel for kernel, _ in self._network.dense_weights()]
        filters = {}
        for layer in range(1, len(kernels) + 1):  # higher ones projected onto the photo (Lee, Ekanadham & Ng 2008, §5)
            onto_photo = reduce(np.matmul, kernels[:layer]).T.reshape(-1, *photos.shape[1:])
            name = "filters" if layer == 1 else f"filters_layer{layer}"
            filters[name] = filter_grid(onto_photo, f"Filters of layer {layer}")
        return {
            "reconstructions": rebuilt_rows(rows, "Val photos and their reconstructions by the machines"),
            "samples": rebuilt_rows(self._samples(len(photos)), "Samples: Gibbs steps starting from noise"),
            **filters,
        }

    def _samples(self, count: int) -> dict[str, Float32Array]:
        shape = (count, *self._photos.val_sample.shape[1:])
        rng = np.random.default_rng(self._seed)
        noise = rng.random((count, int(np.prod(shape[1:]))), dtype=np.float32)
        rows = {"noise": noise.reshape(shape)}
        for steps in GIBBS_STEPS_SHOWN:
            sampled = self._network.sample(noise, steps, np.random.default_rng(self._seed))
            rows[f"{steps:,} step{'s' if steps > 1 else ''}"] = sampled.reshape(shape)
        return rows

    def save(self, folder: Path) -> Path:
        """Save the machines' weights as arrays ``<layer>_<name>`` and return the file."""
        file = folder / "boltzmann_machines.npz"
        np.savez(file, allow_pickle=False, **self._network.weights())
        return file

    def _checkpoint(self, progress: Progress) -> Checkpoint:
        return Checkpoint(progress, self._training.state(), [], [])


def _vectors(photos: PhotoArray) -> Array:
    return photos.reshape(len(photos), -1)
