"""A training epoch from the prepared dataset, against tensors in memory and against the predecessor's pipeline."""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.measure import Measurement, Silent, alternating, best_of
from bench.photos import full_size_photos
from wastelens.config.files import load_config
from wastelens.config.train import TrainConfig
from wastelens.data.batches.pipeline import TrainingBatches
from wastelens.data.photos.cache import PhotoCache, PhotoSource, load_photos
from wastelens.data.prepared.tables import TrainTable
from wastelens.models.backend import precision
from wastelens.system.machine import worker_count
from wastelens.training.checkpoint import Progress
from wastelens.training.loop import Batches, TrainingLoop
from wastelens.training.phases import compiled_on_logits

MATERIALS = ("plastic", "aluminium", "paper", "glass", "other_objects", "toxic")
SIDE_PX, LITE_SIDE_PX = 160, 256
MATRIX, STEPS = 2048, 8
PHOTOS = 512
BATCH = 32


def _compiled(config: TrainConfig, side_px: int) -> Any:
    model = config.network.build(image_side_px=side_px, outputs=len(MATERIALS), seed=0)
    return compiled_on_logits(model, config.optimizer.build(), config.loss.__call__)


def _train(trained: Any, batches: Batches, config: TrainConfig, progress: Progress) -> None:
    TrainingLoop(
        trained,
        batches,
        config.fit,
        rate=lambda at: config.schedule.learning_rate(at, 1000),
        measure=lambda: (0.0, {}),
        watcher=Silent(),
        remedy="",
    ).train_epoch(progress)


def _table(count: int) -> TrainTable:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 2, (count, len(MATERIALS))), columns=list(MATERIALS))
    return TrainTable(
        frame.assign(file_name=[f"{n}.jpg" for n in range(count)], photo_index=np.arange(count)), MATERIALS
    )


def against_memory() -> list[Measurement]:
    """Our loop from a memory-mapped cache on disk, and the same steps on tensors that are in memory already."""
    import tensorflow as tf

    config = load_config("train", parameters={"model": "base", "augment": "true"})
    assert isinstance(config, TrainConfig)
    table = _table(PHOTOS)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "photos.npy"
        np.save(path, np.random.default_rng(0).integers(0, 256, (PHOTOS, SIDE_PX, SIDE_PX, 3), dtype=np.uint8))
        photos = load_photos(path)
        tensors = tf.constant(np.asarray(photos))
        labels = tf.constant(table.labels.astype(np.float32))
        trained = _compiled(config, SIDE_PX)

        def in_memory() -> None:
            for start in range(0, PHOTOS, BATCH):
                trained.train_on_batch(tensors[start : start + BATCH], labels[start : start + BATCH])

        lines = []
        for policy, wanted in ((None, 1.05), (config.policy, 1.25)):
            batches = TrainingBatches(table, photos, batch_size=BATCH, policy=policy, seed=0)
            epoch = iter(range(1000))

            def ours(batches: TrainingBatches = batches, epoch: Any = epoch) -> None:
                _train(trained, batches, config, Progress(next(epoch)))

            ours()
            in_memory()
            seconds, peer = alternating(4, ours, in_memory)
            name = "with the default augmentation" if policy else "without augmentation"
            lines.append(
                Measurement(
                    f"one epoch {name}: {PHOTOS} photos of {SIDE_PX} px, base model, from the cache",
                    f"{seconds:.2f} s",
                    f"{peer:.2f} s (the same steps on tensors in memory)",
                    f"{seconds / peer:.2f}×",
                    f"≤ {wanted}×",
                    seconds / peer <= wanted,
                )
            )
        return lines


def against_predecessor() -> list[Measurement]:
    """Compare a small network's epoch with Keras' ImageDataGenerator, which decodes the photos again each epoch."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    config = load_config("train", settings="model=base network.widths=[16,32] network.pooling=average")
    assert isinstance(config, TrainConfig)
    side_px = 96
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(temporary)
        paths = full_size_photos(folder)
        table = _table(len(paths))
        cache = PhotoCache(folder / "cache", side_px, 200)
        sources = [PhotoSource(f"{number}.jpg", path) for number, path in enumerate(paths)]
        cache.fill(sources, workers=worker_count("auto"))
        photos = cache.finish(np.arange(len(paths), dtype=np.intp))
        trained = _compiled(config, side_px)
        batches = TrainingBatches(table, photos, batch_size=BATCH, policy=None, seed=0)
        rows = table.frame.assign(file_name=[str(path) for path in paths])
        flow = ImageDataGenerator().flow_from_dataframe(
            rows,
            x_col="file_name",
            y_col=list(MATERIALS),
            class_mode="raw",
            target_size=(side_px, side_px),
            batch_size=BATCH,
            verbose=0,
        )

        def predecessor() -> None:
            trained.fit(flow, epochs=1, verbose=0)

        def ours() -> None:
            _train(trained, batches, config, Progress())

        ours()
        predecessor()
        peer = best_of(2, predecessor)
        seconds = best_of(6, ours)
    return [
        Measurement(
            f"one epoch, small network, {len(paths)} full-size photos at {side_px} px",
            f"{seconds:.2f} s",
            f"{peer:.2f} s (ImageDataGenerator.flow_from_dataframe)",
            f"{peer / seconds:.0f}×",
            "≥ 10×",
            peer / seconds >= 10,
        )
    ]


def against_matrix_product() -> list[Measurement]:
    """Compare the arithmetic of training steps with the rate of a large float32 matrix product, in turns.

    A step is counted as three forward passes: one, and the gradients of the weights and of the inputs.
    """
    import tensorflow as tf

    matrix = tf.random.normal((MATRIX, MATRIX))
    product = tf.function(lambda: tf.linalg.matmul(matrix, matrix))
    product()
    lines = []
    for model, side_px in (("base", SIDE_PX), ("efficientnet_lite", LITE_SIDE_PX)):
        config = load_config("train", parameters={"model": model, "weights": "none"})
        assert isinstance(config, TrainConfig)
        rng = np.random.default_rng(0)
        photos = tf.constant(rng.integers(0, 256, (BATCH, side_px, side_px, 3)).astype(np.float32))
        labels = tf.constant(rng.integers(0, 2, (BATCH, len(MATERIALS))).astype(np.float32))
        steps = {}
        for name, mixed in (("float32", False), ("bfloat16", True)):
            with precision(mixed):
                trained = _compiled(config, side_px)
            steps[name] = partial(trained.train_on_batch, photos, labels)
            steps[name]()
        operations = 3 * BATCH * forward_operations(trained)
        plain_s, mixed_s, product_s = alternating(STEPS, steps["float32"], steps["bfloat16"], product)
        rate, peer = operations / plain_s / 1e9, 2 * MATRIX**3 / product_s / 1e9
        faster = plain_s / mixed_s
        lines.append(
            Measurement(
                f"a training step in float32, {model}, {BATCH} photos of {side_px} px; in bfloat16",
                f"{rate:.0f} GFLOP/s; {BATCH / plain_s:.0f} and {BATCH / mixed_s:.0f} photos/s",
                f"{peer:.0f} GFLOP/s (a matrix product of {MATRIX:,} rows)",
                f"{rate / peer:.2f}×; {faster:.2f}× the photos in bfloat16",
                "≥ 0.75×, or 1.5× in bfloat16",
                rate / peer >= 0.75 or faster >= 1.5,
            )
        )
    return lines


def forward_operations(network: Any) -> int:
    """Return the multiplications and additions of convolutions and dense layers for one photo."""
    import keras

    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            places = layer.output.shape[1] * layer.output.shape[2]
            total += 2 * places * int(np.prod(layer.kernel.shape))
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            places = int(np.prod(layer.output.shape[1:-1]))
            total += 2 * places * int(np.prod(layer.kernel.shape))
    return total


def measure() -> list[Measurement]:
    """All epoch budgets."""
    return [*against_memory(), *against_predecessor(), *against_matrix_product()]
