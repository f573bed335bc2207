"""The phases of a classifier's training: frozen and trained layers, inputs, and limits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.kinds import ScheduleConfig
from wastelens.config.train import FitConfig, TrainConfig
from wastelens.data.batches.augment import AugmentedViews
from wastelens.data.batches.pipeline import TrainingBatches
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import LabelTable, TrainTable, ValTable
from wastelens.errors import ConfigError
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.models.familiarity import Familiarity, most_photos
from wastelens.models.features import features_tensor, predict_in_batches
from wastelens.models.freezing import backbone_layers, freeze, frozen_cut, layer_rates, logits_tensor, split_model
from wastelens.models.layers import LOGITS
from wastelens.system.arrays import FloatArray
from wastelens.system.console import progress_bar
from wastelens.training.checkpoint import Checkpoint, Progress
from wastelens.training.feature_cache import FeatureBatches, architecture_digest, cached_features, weights_digest
from wastelens.training.loop import Batches, EqualEpochs, Measured, TrainingLoop, Watcher, compiled
from wastelens.training.optimizers import careful
from wastelens.training.probe import Probe, fit_probe
from wastelens.training.schedules import ConstantSchedule

FEATURES = "features"
Loss = Callable[[Any, Any], Any]  # labels, logits → scalar


@dataclass(frozen=True)
class Phase(ABC):
    """One phase of a training.

    Attributes:
        network: the trained part: the whole network, or the layers after the frozen ones; it has a layer ``logits``.
        inputs: of this network, by ``photo_index``: the photos, or their features.
    """

    network: Any
    inputs: npt.NDArray[Any]

    @abstractmethod
    def steps(self, epochs_done: int) -> int:
        """Return the number of steps that are left after this many epochs of the phase, at most."""

    @abstractmethod
    def fit(
        self,
        val: ValTable,
        config: TrainConfig,
        watcher: Watcher,
        before: Progress | None = None,
        resume_from: Checkpoint | None = None,
    ) -> Progress:
        """Train, and keep the best weights on val.

        Args:
            val: what val_macro_ap and val_loss are measured on.
            config: has the loss and the optimizer.
            watcher: is told of every epoch.
            before: the end of an earlier phase, whose best weights are in the network; they stay the best until beaten.
            resume_from: a checkpoint of this phase.

        Raises:
            NonFiniteLossError: a batch's loss or a prediction for val is not finite; names epoch and step.
        """

    def predict(self, table: LabelTable) -> FloatArray:
        """Return probabilities, float64 (rows, materials), for the rows of a table."""
        return predict_in_batches(self.network, self.inputs, table.photo_index).astype(np.float64)

    def familiarity(self, train: TrainTable, test: LabelTable) -> Familiarity:
        """Return what the network remembers of the training photos, and how far the test photos are from them."""
        import keras

        vectors = features_tensor(self.network)
        network = keras.Model(self.network.input, vectors)
        rng, most = np.random.default_rng(0), most_photos(int(vectors.shape[-1]))
        remembered = train.take(np.sort(rng.permutation(len(train))[:most]))
        features = [predict_in_batches(network, self.inputs, one.photo_index) for one in (remembered, test)]
        return Familiarity.of(features[0], remembered.groups, features[1], test.groups)

    def measured(self, val: ValTable, loss: Loss) -> Measured:
        """Return val_macro_ap, and it and val_loss by name; NaN where an answer is not finite."""
        probabilities = self.predict(val)
        if not np.isfinite(probabilities).all():
            return math.nan, {}
        value = float(macro_average_precision(val.labels, probabilities))
        clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
        logits = np.log(clipped / (1 - clipped)).astype(np.float32)
        return value, {"val/loss": float(loss(val.labels.astype(np.float32), logits)), "val/macro_ap": value}


@dataclass(frozen=True)
class GradientPhase(Phase):
    """Training by gradient steps, until the epochs are up or val macro AP has not risen for ``patience_epochs``.

    Attributes:
        batches: of training rows.
        schedule: of the learning rate, over this phase's epochs.
        limits: epochs and patience.
        rates: layer → factor of the learning rate; by default 1 for all.
        average: momentum of the running average of the weights, which val is measured on; 0: none.
    """

    batches: Batches
    schedule: ScheduleConfig
    limits: FitConfig
    rates: Mapping[str, float] = field(default_factory=dict)
    average: float = 0.0

    def steps(self, epochs_done: int) -> int:
        return (self.limits.epochs - epochs_done) * len(self.batches)

    def fit(
        self,
        val: ValTable,
        config: TrainConfig,
        watcher: Watcher,
        before: Progress | None = None,
        resume_from: Checkpoint | None = None,
    ) -> Progress:
        loss: Loss = config.loss.__call__
        loop = TrainingLoop(
            compiled_on_logits(self.network, self._optimizer(config), loss),
            self.batches,
            self.limits,
            rate=lambda epoch: self.schedule.learning_rate(epoch, self.limits.epochs),
            measure=lambda: self.measured(val, loss),
            watcher=watcher,
            remedy=f"Lower {'fine_tune.learning_rate' if before else 'schedule.peak'}, or set optimizer.clip_norm.",
        )
        return loop.run(before.next_phase() if before else Progress(), resume_from)

    def _optimizer(self, config: TrainConfig) -> Any:
        """Return the configured optimizer, with this phase's rates and average."""
        optimizer = config.optimizer.build()
        if set(self.rates.values()) <= {1.0} and not self.average:
            return optimizer
        of_variable = {
            id(variable): self.rates[layer.name]
            for layer in self.network.layers
            for variable in layer.trainable_variables
        }
        rates = [of_variable[id(variable)] for variable in self.network.trainable_variables]
        return careful(optimizer, rates, self.average)


@dataclass(frozen=True)
class SolvedPhase(Phase, ABC):
    """Training on fixed features that is solved at once: one epoch, by default with a logistic regression per material.

    Attributes:
        rows: the training rows.
        seed: of the folds that choose the strength of regularisation.
    """

    rows: TrainTable
    seed: int

    @abstractmethod
    def learn(self) -> npt.NDArray[np.float32]:
        """Set the layers before the logits, if any; return what the logits are fitted on, float32 (rows, features)."""

    def solved_layers(self) -> list[Any]:
        """Return the layers that are set."""
        return [self.network.get_layer(LOGITS)]

    def resumed(self) -> None:
        """Compute what follows from the weights of a checkpoint, if anything."""

    def solve(self, features: npt.NDArray[np.float32], progress: Callable[[], None]) -> Probe:
        """Fit the logits on these features; call ``progress`` after each of :meth:`steps`."""
        return fit_probe(features, self.rows.labels, self.rows.groups, seed=self.seed, progress=progress)

    def steps(self, epochs_done: int) -> int:
        return 0 if epochs_done else len(self.rows.materials)

    def fit(
        self,
        val: ValTable,
        config: TrainConfig,
        watcher: Watcher,
        before: Progress | None = None,
        resume_from: Checkpoint | None = None,
    ) -> Progress:
        layers = self.solved_layers()
        if resume_from is not None:
            weights = iter(resume_from.best)
            for layer in layers:
                layer.set_weights([next(weights) for _ in layer.weights])
            self.resumed()
            return resume_from.progress
        loss: Loss = config.loss.__call__
        probe = self.solve(self.learn(), partial(watcher.batch_done, 1))
        self.network.get_layer(LOGITS).set_weights([probe.kernel, probe.bias])
        value, metrics = self.measured(val, loss)
        progress = Progress(epochs_done=1, best_epoch=1, best_value=value)
        solution = [weight for layer in layers for weight in layer.get_weights()]
        checkpoint = partial(Checkpoint, progress, solution, [], solution)
        watcher.epoch_done(1, {"loss": probe.loss, **metrics, "learning_rate": 0.0}, progress, checkpoint)
        return progress


@dataclass(frozen=True)
class ProbePhase(SolvedPhase):
    """A linear probe.

    Attributes:
        learnt_from: features of the training rows, float32 (rows, features).
    """

    learnt_from: npt.NDArray[np.float32]

    def learn(self) -> npt.NDArray[np.float32]:
        return self.learnt_from


def compiled_on_logits(model: Any, optimizer: Any, loss: Loss) -> Any:
    """Return the same network, ending before the sigmoid: losses from logits neither overflow nor saturate."""
    import keras

    return compiled(keras.Model(model.input, logits_tensor(model)), optimizer, loss)


def check_freezing(model: Any, config: TrainConfig) -> None:
    """Check, before any work, that both phases can freeze the requested layers.

    Raises:
        ConfigError: no such layer, or the second phase would freeze layers that the first trained.
    """
    freeze(model, config.freeze, normalisation=config.keeps_normalisation)
    if config.fine_tune.epochs:
        trained = {layer.name for layer in model.layers if layer.trainable and layer.weights}
        freeze(model, config.fine_tune.freeze, normalisation=config.keeps_normalisation)
        again = [layer.name for layer in model.layers if layer.name in trained and not layer.trainable]
        if again:
            raise ConfigError(
                f"fine_tune.freeze={config.fine_tune.freeze} freezes layer '{again[0]}', which the first phase trained "
                f"(freeze={config.freeze}). Freeze less in fine_tune."
            )
    freeze(model, 0.0)


def first_phase(model: Any, config: TrainConfig, dataset: PreparedDataset, rows: TrainTable) -> Phase:
    """Freeze what ``freeze`` says, and train the rest step by step; or solve a linear head at once."""
    freeze(model, config.freeze, normalisation=config.keeps_normalisation)
    if config.network.learns_from_outlines:
        from wastelens.training.objects import objects_phase  # which builds on this module

        return objects_phase(model, config.network, rows, dataset, config.seed)
    part = _trained_part(model, config, dataset, rows)
    if config.solves_head:
        return _probe_phase(part, rows, config.seed)
    return GradientPhase(part.network, part.inputs, _batches(part, config, rows), config.schedule, config.fit)


def fine_tuning_phase(model: Any, config: TrainConfig, dataset: PreparedDataset, rows: TrainTable) -> Phase:
    """Thaw down to ``fine_tune.freeze``, and train at the rates of ``fine_tune``."""
    fine_tune = config.fine_tune
    freeze(model, fine_tune.freeze, normalisation=config.keeps_normalisation)
    peak, warmup = fine_tune.learning_rate, fine_tune.warmup_epochs
    schedule = ConstantSchedule(kind="constant", start=0.0, peak=peak, warmup_epochs=warmup)
    limits = config.fit.model_copy(update={"epochs": fine_tune.epochs})
    part = _trained_part(model, config, dataset, rows)
    rates = layer_rates(model, fine_tune.layer_decay)
    return GradientPhase(
        part.network, part.inputs, _batches(part, config, rows), schedule, limits, rates, fine_tune.average
    )


@dataclass(frozen=True)
class _Part:
    """The part of a network that a phase trains.

    Attributes:
        network: the whole, or the layers after the frozen ones.
        inputs: of this network, by ``photo_index``.
        learnt_from: the same, or those of augmented views.
        views: the views that ``learnt_from`` is of, if any.
        fixed: whether the inputs are features, computed once.
    """

    network: Any
    inputs: npt.NDArray[Any]
    learnt_from: Any
    views: AugmentedViews | None
    fixed: bool


def _trained_part(model: Any, config: TrainConfig, dataset: PreparedDataset, rows: TrainTable) -> _Part:
    """Return the layers that learn; if whole layers before them can be computed once per photo or view, compute them.

    Where photos change every epoch, only a head that is solved at once has fixed features: those of unchanged photos.
    """
    views = _views(config, dataset, rows)
    once = config.cache_features and (views is not None or not config.policy)
    cut = frozen_cut(model) if once or _solved_now(model, config) else None
    if cut is None:
        return _Part(model, dataset.photos, dataset.photos if views is None else views, views, fixed=False)
    extractor, head = split_model(model, cut)

    def features(photos: Any, of: str, more: dict[str, Any]) -> npt.NDArray[np.float32]:
        key = {
            **more,
            "photos": dataset.manifest["files"][dataset.manifest["cache"]["file"]],
            "side_px": dataset.side_px,
            **{name: version(name) for name in ("tensorflow", "keras", "albumentations")},
            "architecture": architecture_digest(extractor),
            "weights": weights_digest(extractor),
        }
        with progress_bar(f"Features of {of}", len(photos)) as bar:
            return cached_features(extractor, photos, folder=dataset.folder / FEATURES, key=key, progress=bar.advance)

    inputs = features(dataset.photos, "photos", {})
    learnt_from = inputs if views is None else features(views, "views", dict(views.key))
    return _Part(head, inputs, learnt_from, views, fixed=True)


def _solved_now(model: Any, config: TrainConfig) -> bool:
    """Return whether only a head is left to train, and is solved at once."""
    return config.solves_head and not any(layer.trainable for layer in backbone_layers(model))


def _probe_phase(part: _Part, rows: TrainTable, seed: int) -> ProbePhase:
    """Return the probe of the training rows' features; with views, of the photos as they are and of each view."""
    index, views = rows.photo_index, part.views
    features = np.asarray(part.inputs[index])
    if views is not None:
        of_views = [part.learnt_from[views.rows_of(np.full_like(index, view), index)] for view in range(views.views)]
        features = np.concatenate([features, *of_views])
        rows = rows.take(np.tile(np.arange(len(index)), 1 + views.views))
    return ProbePhase(part.network, part.inputs, rows, seed, features)


def _batches(part: _Part, config: TrainConfig, rows: TrainTable) -> Batches:
    """Return batches of features or photos: unchanged, a fixed number of views, or augmented again every epoch."""
    size, limits = config.fit.batch_size, config.fit
    batches: Batches
    if part.fixed or part.views is not None:
        batches = FeatureBatches(rows, part.learnt_from, batch_size=size, seed=config.seed, views=part.views)
    else:
        batches = TrainingBatches(rows, part.inputs, batch_size=size, policy=config.policy, seed=config.seed)
    return batches if limits.steps_per_epoch == "auto" else EqualEpochs(batches, limits.steps_per_epoch)


def _views(config: TrainConfig, dataset: PreparedDataset, rows: TrainTable) -> AugmentedViews | None:
    """Return a fixed number of augmented copies of each training photo, if ``views`` asks for them."""
    if config.policy is None or not config.views:
        return None
    chosen = rows.frame["photo_index"].to_numpy(dtype=np.intp)
    return AugmentedViews(dataset.photos, chosen, config.policy, config.views, config.seed)
