"""The phases of a training: what is frozen, what is trained, and on what: photos, or features computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.kinds import ScheduleConfig
from wastelens.config.train import FitConfig, TrainConfig
from wastelens.data.batches.augment import AugmentedViews
from wastelens.data.batches.pipeline import TrainingBatches
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import ConfigError
from wastelens.models.freezing import freeze, frozen_cut, split_model
from wastelens.system.console import Bar
from wastelens.training.equal_epochs import EqualEpochs
from wastelens.training.feature_cache import FeatureBatches, architecture_digest, cached_features, weights_digest
from wastelens.training.loop import Batches
from wastelens.training.schedules import ConstantSchedule

FEATURES = "features"
OpenBar = Callable[[str, int], AbstractContextManager[Bar]]


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Attributes:
        network: what is trained: the whole network, or what follows its frozen layers.
        batches: of training rows, for that.
        inputs: what it takes, by photo_index: the photos, or their features.
        schedule: of the learning rate.
        limits: epochs and patience.
    """

    network: Any
    batches: Batches
    inputs: npt.NDArray[Any]
    schedule: ScheduleConfig
    limits: FitConfig


def check_freezing(model: Any, config: TrainConfig) -> None:
    """Look, before any work, whether both phases can be frozen as they are to be.

    Raises:
        ConfigError: no such layer, or the second phase would freeze layers that the first trained.
    """
    freeze(model, config.freeze)
    if config.fine_tune.epochs:
        trained = {layer.name for layer in model.layers if layer.trainable and layer.weights}
        freeze(model, config.fine_tune.freeze)
        again = [layer.name for layer in model.layers if layer.name in trained and not layer.trainable]
        if again:
            raise ConfigError(
                f"fine_tune.freeze={config.fine_tune.freeze} freezes layer '{again[0]}', which the first phase trained "
                f"(freeze={config.freeze}). Freeze less in fine_tune."
            )
    freeze(model, 0.0)


def first_phase(
    model: Any, config: TrainConfig, dataset: PreparedDataset, rows: TrainTable, open_bar: OpenBar
) -> Phase:
    """Freeze what ``freeze`` says; where that leaves whole layers to be computed but once a photo, compute them."""
    freeze(model, config.freeze)
    cut = frozen_cut(model) if config.cache_features and (config.views or not config.policy) else None
    if cut is None:
        return Phase(model, _live(config, dataset, rows), dataset.photos, config.schedule, config.fit)
    extractor, head = split_model(model, cut)
    inputs = _features(extractor, dataset.photos, dataset, {}, open_bar)
    views = _views(config, dataset, rows)
    learnt_from = inputs if views is None else _features(extractor, views, dataset, views.key, open_bar)
    batches = FeatureBatches(rows, learnt_from, batch_size=config.fit.batch_size, seed=config.seed, views=views)
    return Phase(head, _cut(batches, config.fit), inputs, config.schedule, config.fit)


def _cut(batches: Batches, limits: FitConfig) -> Batches:
    """Return the batches, in epochs of ``steps_per_epoch`` steps where that is a number."""
    return batches if limits.steps_per_epoch == "auto" else EqualEpochs(batches, limits.steps_per_epoch)


def _views(config: TrainConfig, dataset: PreparedDataset, rows: TrainTable) -> AugmentedViews | None:
    """Return the augmented views of the training photos, if ``views`` asks for them."""
    if config.policy is None or not config.views:
        return None
    chosen = rows.frame["photo_index"].to_numpy(dtype=np.intp)
    return AugmentedViews(dataset.photos, chosen, config.policy, config.views, config.seed)


def _features(
    extractor: Any, photos: Any, dataset: PreparedDataset, key: Mapping[str, str | int], open_bar: OpenBar
) -> npt.NDArray[np.float32]:
    """Return the frozen layers' features of photos or views, from the cache in the prepared dataset's folder."""
    key = {
        **key,
        "photos": dataset.manifest["files"][dataset.manifest["cache"]["file"]],
        **{name: version(name) for name in ("tensorflow", "keras", "albumentations")},
        "architecture": architecture_digest(extractor),
        "weights": weights_digest(extractor),
    }
    with open_bar(f"Features of {'views' if 'views' in key else 'photos'}", len(photos)) as bar:
        return cached_features(extractor, photos, folder=dataset.folder / FEATURES, key=key, progress=bar.advance)


def fine_tuning_phase(model: Any, config: TrainConfig, dataset: PreparedDataset, rows: TrainTable) -> Phase:
    """Thaw down to ``fine_tune.freeze``, and train the whole network at a rate of its own, constant."""
    freeze(model, config.fine_tune.freeze)
    rate = config.fine_tune.learning_rate
    schedule = ConstantSchedule(kind="constant", start=rate, peak=rate, warmup_epochs=0.0)
    limits = config.fit.model_copy(update={"epochs": config.fine_tune.epochs})
    return Phase(model, _live(config, dataset, rows), dataset.photos, schedule, limits)


def _live(config: TrainConfig, dataset: PreparedDataset, rows: TrainTable) -> Batches:
    """Return batches of photos: unchanged, changed at random every epoch, or a fixed number of views of each."""
    views = _views(config, dataset, rows)
    if views is not None:
        batches = FeatureBatches(rows, views, batch_size=config.fit.batch_size, seed=config.seed, views=views)
        return _cut(batches, config.fit)
    live = TrainingBatches(
        rows, dataset.photos, batch_size=config.fit.batch_size, policy=config.policy, seed=config.seed
    )
    return _cut(live, config.fit)
