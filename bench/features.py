"""A frozen VGG16 for twenty epochs: its features from the cache, computed in that time too, against none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.epochs import _table
from bench.measure import Measurement, Silent, best_of
from wastelens.config.files import load_config
from wastelens.config.train import TrainConfig
from wastelens.data.batches.pipeline import TrainingBatches
from wastelens.models.freezing import freeze, frozen_cut, split_model
from wastelens.training.checkpoint import Progress
from wastelens.training.feature_cache import FeatureBatches, architecture_digest, cached_features, weights_digest
from wastelens.training.loop import Batches, TrainingLoop
from wastelens.training.phases import compiled_on_logits

SIDE_PX = 128
PHOTOS = 192
BATCH = 32
EPOCHS = 20
LIVE_EPOCHS = 2


def _compiled(model: Any, config: TrainConfig) -> Any:
    return compiled_on_logits(model, config.optimizer.build(), config.loss.__call__)


def _train(trained: Any, batches: Batches, config: TrainConfig, epochs: int) -> None:
    for epoch in range(epochs):
        TrainingLoop(
            trained,
            batches,
            config.fit,
            rate=lambda at: config.schedule.learning_rate(at, EPOCHS),
            measure=lambda: (0.0, {}),
            watcher=Silent(),
            remedy="",
        ).train_epoch(Progress(epochs_done=epoch))


def measure() -> list[Measurement]:
    """Twenty epochs with the cache, from an empty folder and an uncompiled head, are measured whole.

    Without it, epochs take the same time each: after one that traces the graph, two are measured, and twenty times the
    faster one is the peer.
    """
    config = load_config("train", parameters={"model": "vgg16"}, settings="weights=none")
    assert isinstance(config, TrainConfig)
    model = config.network.build(image_side_px=SIDE_PX, outputs=6, seed=0)
    freeze(model, 1.0)
    features_model, head_model = split_model(model, str(frozen_cut(model)))
    table = _table(PHOTOS)
    photos = np.random.default_rng(0).integers(0, 256, (PHOTOS, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)

    def cached() -> None:
        with tempfile.TemporaryDirectory() as folder:
            key = {"architecture": architecture_digest(features_model), "weights": weights_digest(features_model)}
            features = cached_features(features_model, photos, folder=Path(folder), key=key)
            batches = FeatureBatches(table, features, batch_size=BATCH, seed=0)
            _train(_compiled(head_model, config), batches, config, EPOCHS)

    whole = _compiled(model, config)
    batches = TrainingBatches(table, photos, batch_size=BATCH, policy=None, seed=0)
    _train(whole, batches, config, 1)
    before = best_of(1, lambda: _train(whole, batches, config, 1))
    seconds = best_of(1, cached)
    peer = EPOCHS * min(before, best_of(1, lambda: _train(whole, batches, config, 1)))
    return [
        Measurement(
            f"{EPOCHS} epochs, frozen VGG16, {PHOTOS} photos of {SIDE_PX} px, features computed and cached",
            f"{seconds:.1f} s",
            f"{peer:.1f} s (the backbone run every epoch: {EPOCHS} × the faster of {LIVE_EPOCHS} epochs)",
            f"{peer / seconds:.1f}×",
            "≥ 10×",
            peer / seconds >= 10,
        )
    ]
