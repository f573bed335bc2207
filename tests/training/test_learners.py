"""Learning without labels: a denoiser that beats leaving the noise, errors beside their floor, memory that stays."""

from __future__ import annotations

import os
import tracemalloc
from functools import partial

import numpy as np
import pytest
from tests.factories import config

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.figures.pretraining import filter_grid, learning_curves, picture_grid, rebuilt_rows
from wastelens.training.visible_photos import visible_photos

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
SIDE = 16


@pytest.fixture(autouse=True, scope="module")
def _backend():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")


class Recorder:
    """A watcher that records everything."""

    def __init__(self):
        self.epochs, self.batches = {}, 0

    def batch_done(self, epoch):
        self.batches += 1

    def epoch_done(self, epoch, metrics, progress, checkpoint):
        self.epochs[epoch] = metrics
        self.last = (progress, checkpoint())


def smooth_photos(count, seed=0):
    """Return photos with structure: each a smooth blend of two colours."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(0, 256, (2, count, 1, 1, 3))
    weight = np.linspace(0, 1, SIDE)[None, :, None, None] * np.ones((count, 1, SIDE, 1))
    turned = rng.random(count) < 0.5
    weight[turned] = weight[turned].transpose(0, 2, 1, 3)
    return (ends[0] * weight + ends[1] * (1 - weight)).astype(np.uint8)


def photos_seen_by(learner, tmp_path, seed=0):
    train, val = (PhotoRows([(smooth_photos(count, at), np.arange(count))]) for count, at in ((128, 1), (40, 2)))
    return visible_photos(train, val, learner, labelled=len(train), folder=tmp_path, seed=seed)


def learning_of(tmp_path, method, settings, seed=0):
    learner = config("pretrain", settings, method=method).learner
    seen = photos_seen_by(learner, tmp_path, seed)
    return learner.learning(seen, seed=seed, mixed_precision=False, folder=tmp_path)


def floors_of(tmp_path, method, settings, code_width=1):
    return photos_seen_by(config("pretrain", settings, method=method).learner, tmp_path).floors(code_width)


def test_the_floors_are_those_of_the_slow_obvious_way(tmp_path):
    learner = config("pretrain", "learner.side_px=8", method="rbm").learner
    seen = photos_seen_by(learner, tmp_path)
    floors = seen.floors(3)
    train, val = (photos.reshape(len(photos), -1) / 255 for photos in (seen.train_sample, seen.val_sample))
    colours = [[photo[:, :, channel].mean() / 255 for channel in range(3)] for photo in seen.val_sample]
    painted = np.tile(np.array(colours)[:, None], (1, 64, 1)).reshape(len(val), -1)
    assert floors["floor/mean_colour_reconstruction_error"] == pytest.approx(np.mean((painted - val) ** 2), rel=1e-5)
    _, _, directions = np.linalg.svd(train - train.mean(axis=0), full_matrices=False)
    code = (val - train.mean(axis=0)) @ directions[:3].T
    rebuilt = code @ directions[:3] + train.mean(axis=0)
    assert floors["floor/pca_reconstruction_error"] == pytest.approx(np.mean((rebuilt - val) ** 2), rel=1e-3)
    assert seen.floors(10_000)["floor/pca_reconstruction_error"] < floors["floor/pca_reconstruction_error"]


@pytest.mark.parametrize("noise", ["gaussian", "masking", "salt_and_pepper"])
def test_a_denoiser_beats_the_identity_on_noisy_photos(tmp_path, noise):
    settings = "learner.widths=[12,16] learner.epochs=14 learner.batch_size=16 learner.learning_rate=0.005 "
    learning = learning_of(tmp_path, "denoising_autoencoder", f"{settings} learner.noise.name={noise}")
    learning.fit(Recorder(), None)
    metrics = learning.closing_metrics()
    assert metrics["val/reconstruction_error"] < 0.6 * metrics["floor/identity_reconstruction_error"]
    floors = floors_of(tmp_path, "denoising_autoencoder", settings)
    assert metrics["val/reconstruction_error"] < floors["floor/reconstruction_error"]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dense_autoencoder", "learner.side_px=8 learner.hidden_units=[32,8] learner.learning_rate=0.005"),
        ("conv_autoencoder", "learner.widths=[8,12] learner.learning_rate=0.005"),
        ("rbm", "learner.side_px=8 learner.hidden_units=32 learner.learning_rate=0.01"),
        ("dbn", "learner.side_px=8 learner.hidden_units=[32,24] learner.learning_rate=0.02 learner.epochs=40"),
    ],
)
def test_learning_rebuilds_better_than_the_mean_photo(tmp_path, method, settings):
    learning = learning_of(tmp_path, method, f"learner.epochs=15 learner.batch_size=16 {settings}")
    recorder = Recorder()
    progress = learning.fit(recorder, None)
    metrics = learning.closing_metrics()
    floors = floors_of(tmp_path, method, settings)
    assert metrics["val/reconstruction_error"] < 0.6 * floors["floor/reconstruction_error"]
    assert recorder.batches == learning.steps * progress.epochs_done // learning.epochs
    assert progress.epochs_done == max(recorder.epochs)
    if method == "dbn":
        layers = [recorder.epochs[epoch]["layer"] for epoch in sorted(recorder.epochs)]
        assert layers == [1] * 40 + [2] * 40
    code = np.asarray(learning.encoder(SIDE)(smooth_photos(5).astype("float32")))
    assert len(code) == 5
    assert learning.save(tmp_path).stat().st_size > 0


def test_the_epoch_that_rebuilds_val_best_is_kept(tmp_path, monkeypatch):
    learning = learning_of(tmp_path, "dense_autoencoder", "learner.hidden_units=[8] learner.epochs=6")
    values = iter([0.5, 0.2, 0.4, 0.45, 0.5, 0.6])
    weights = []

    def errors():
        weights.append([array.copy() for array in learning._autoencoder.network.get_weights()])
        return {"reconstruction_error": 0.0, "val/reconstruction_error": next(values)}

    monkeypatch.setattr(learning, "_errors", errors)
    progress = learning.fit(Recorder(), None)
    assert progress.best_epoch == 2
    for ours, best in zip(learning._autoencoder.network.get_weights(), weights[1], strict=True):
        np.testing.assert_array_equal(ours, best)


def test_memory_does_not_grow_with_the_number_of_photos(tmp_path):
    learner = config("pretrain", "learner.side_px=8", method="rbm").learner
    val = PhotoRows([(smooth_photos(16), np.arange(16))])

    def peak_bytes(count):
        stored = np.lib.format.open_memmap(tmp_path / f"{count}.npy", "w+", np.uint8, (count, SIDE, SIDE, 3))
        rows = PhotoRows([(stored, np.arange(count))])
        tracemalloc.start()
        visible_photos(rows, val, learner, labelled=count, folder=tmp_path, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = peak_bytes(1_000), peak_bytes(20_000)
    assert many - few < 20_000 * 64  # less than a tenth of the photos: their numbers, not their pixels


def test_figures_of_odd_sizes_are_drawn(tmp_path):
    floors = {"the mean photo": 0.3}
    pictures = smooth_photos(1)
    draw = partial(rebuilt_rows, title="one")
    figures = [
        draw({"photo": pictures, "rebuilt": pictures / 255}),
        picture_grid(list(smooth_photos(17)), "17"),
        picture_grid([], "none"),
        filter_grid(np.zeros((3, 3, 3, 3)), "zero"),
        filter_grid(np.random.default_rng(0).normal(size=(100, 5, 5, 3)), "100"),
        learning_curves([{"epoch": 1, "reconstruction_error": 0.1, "val/reconstruction_error": 0.2}], floors),
        learning_curves([{"epoch": 1.0, "layer": 1.0}], floors),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png")
