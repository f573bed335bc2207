"""From a training's settings to a fitted network, on train and val alone: what ``train`` and ``tune`` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastelens.config.networks import DbnNetworkConfig, EncoderNetworkConfig, TransferConfig
from wastelens.config.train import TrainConfig
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.prepared.dataset import LearningTables, PreparedDataset
from wastelens.experiment.epoch_log import EpochWatcher
from wastelens.experiment.finished_runs import FinishedRun, find_run, network_of, with_learner_of
from wastelens.experiment.pretrain_one import pretrain_one, say_reconstruction
from wastelens.models.backend import load_backend
from wastelens.models.belief_network import set_visible_statistics
from wastelens.models.encoders import copy_weights
from wastelens.models.precision import precision
from wastelens.models.registry import build_model
from wastelens.models.weights import check_weights_available, load_backbone_weights
from wastelens.preparing.training_rows import training_rows
from wastelens.system.console import progress_bar, say, warn
from wastelens.tracking.tracker import Run, Tracker
from wastelens.training.checkpoint import Checkpoint, CheckpointKeeper, Progress
from wastelens.training.fit import Validation, fit
from wastelens.training.phases import Phase, check_freezing, fine_tuning_phase, first_phase
from wastelens.training.visible_photos import pixel_statistics

PRETRAINED_RUN = "pretrained_run"
WEIGHTS_DIGEST = "weights_digest"
AfterEpoch = Callable[[int, float], None]


def run_name(config: TrainConfig) -> str:
    """``base augmented seed 0``: what tells runs apart at a glance."""
    words = [config.model, "augmented" if config.policy else "plain"]
    if isinstance(config.network, EncoderNetworkConfig):
        words.append("from scratch" if config.pretrained == "none" else f"from {config.network.method}")
    if isinstance(config.network, TransferConfig):
        words.append("from random weights" if config.weights == "none" else f"from {Path(config.weights).name}")
    words.append(f"seed {config.seed}")
    return " ".join([*words, f"fold {config.fold}"] if config.fold else words)


@dataclass(frozen=True)
class Start:
    """A network that is ready to be trained.

    Attributes:
        config: how; with the layers of the encoder that it starts from.
        model: the network, with the weights it starts from.
        tags: that tell of these.
        encoder: the pretrain run that they are from, if from any.
    """

    config: TrainConfig
    model: Any
    tags: dict[str, str]
    encoder: FinishedRun | None


def ready_to_train(config: TrainConfig, tracker: Tracker, dataset: PreparedDataset) -> Start:
    """Build the network and give it the weights it starts from: all that can be refused before a run is opened.

    Raises:
        RunError: the run to start from cannot be used.
        ConfigError: weights that cannot be had or do not fit, or layers to freeze that the network has not.
    """
    encoder = _given_encoder(config, tracker, dataset)
    config = _with_learner(config, encoder)
    load_backend()
    if isinstance(config.network, TransferConfig):
        check_weights_available(config.network.backbone, config.weights)
    model, tags = _network(config, dataset, encoder)
    return Start(config, model, tags, encoder)


def pretrained_below(start: Start, tracker: Tracker, tracked: Run, dataset: PreparedDataset) -> Start:
    """Pretrain in a run below this one and take its encoder over, where ``pretrained=auto`` asks for that."""
    if start.config.pretrained != "auto":
        return start
    encoder = _pretrained_here(start.config, tracker, tracked, dataset)
    return with_encoder(start, encoder)


def with_encoder(start: Start, encoder: FinishedRun) -> Start:
    """The same start from an encoder's weights."""
    return replace(start, tags={**start.tags, **_take_over(encoder, start.model)}, encoder=encoder)


def _given_encoder(config: TrainConfig, tracker: Tracker, dataset: PreparedDataset) -> FinishedRun | None:
    """The encoder of the run that ``pretrained`` names, if it names one."""
    if config.pretrained in ("auto", "none"):
        return None
    return find_run(tracker, config.pretrained, dataset, config.fold, ["pretrain"])


def _with_learner(config: TrainConfig, encoder: FinishedRun | None) -> TrainConfig:
    """The settings with the layers of the encoder that is started from."""
    if encoder is None or not isinstance(config.network, EncoderNetworkConfig):
        return config
    network = with_learner_of(config.network, encoder)
    say(f"The encoder is that of run {encoder.id}: method={network.method}, with that run's network.learner settings.")
    return config.model_copy(update={"network": network})


def _pretrained_here(config: TrainConfig, tracker: Tracker, tracked: Run, dataset: PreparedDataset) -> FinishedRun:
    """Pretrain in a run below this one; one that was begun or finished before an interruption is used."""
    begun = tracker.stored(tracked.id).tags.get(PRETRAINED_RUN, "")
    if begun and tracker.stored(begun).status == "FINISHED":
        return find_run(tracker, begun, dataset, config.fold, ["pretrain"])
    done = pretrain_one(
        config.pretraining(resume=begun), tracker, started=lambda run_id: tracked.set_tags({PRETRAINED_RUN: run_id})
    )
    say_reconstruction(done)
    return find_run(tracker, done.run_id, dataset, config.fold, ["pretrain"])


def _network(config: TrainConfig, dataset: PreparedDataset, encoder: FinishedRun | None) -> tuple[Any, dict[str, str]]:
    """The network with the weights it starts from, and tags that tell them."""
    with precision(config.mixed_precision) as policy:
        model = build_model(
            config.network,
            image_side_px=dataset.manifest["cache"]["image_side_px"],
            outputs=len(dataset.materials),
            seed=config.seed,
        )
    check_freezing(model, config)
    tags = {"precision": policy}
    if isinstance(config.network, TransferConfig):
        tags[WEIGHTS_DIGEST] = load_backbone_weights(model, config.network.backbone, config.weights)
        if config.weights == "none" and config.freeze not in (0, ""):
            warn(f"freeze={config.freeze} freezes random weights (weights=none): only the head learns. Thaw: freeze=0.")
    if isinstance(config.network, DbnNetworkConfig) and encoder is None:
        _standardise(model, config, dataset)
    if encoder is not None:
        tags.update(_take_over(encoder, model))
    return model, tags


def _standardise(model: Any, config: TrainConfig, dataset: PreparedDataset) -> None:
    """Let a stack that was not pretrained see its pixels as a pretrained one does, or the control has another task."""
    assert isinstance(config.network, DbnNetworkConfig)
    if config.network.learner.visible == "gaussian":
        rows = dataset.learning(config.fold).train.frame["photo_index"].to_numpy(dtype=np.intp)
        photos = PhotoRows([(dataset.photos, rows)])
        set_visible_statistics(model, *pixel_statistics(photos, config.network.learner, dataset.folder))


def _take_over(encoder: FinishedRun, model: Any) -> dict[str, str]:
    """Put an encoder's weights into the network's layers of the same names; returns tags that tell of it."""
    copy_weights(network_of(encoder), model)
    return {PRETRAINED_RUN: encoder.id, "pretraining": str(encoder.config["method"])}


@dataclass
class _Watcher(EpochWatcher):
    after_epoch: AfterEpoch

    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None:
        super().epoch_done(epoch, metrics, progress, checkpoint)
        self.after_epoch(epoch, progress.best_value)

    def figures(self, epoch: int, metrics: dict[str, float], progress: Progress) -> str:
        return (
            f"epoch {epoch}: loss {metrics['loss']:.3f}, val_macro_ap {metrics['val_macro_ap']:.3f} "
            f"(best {progress.best_value:.3f} at {progress.best_epoch})"
        )


@dataclass(frozen=True)
class Fitting:
    """How a network is trained on a dataset: both phases, or what is left of them.

    Attributes:
        start: the network and its settings.
        dataset: whose photos it sees.
        tables: the rows it learns from, and those it is watched on; there are no test rows here.
        tracked: the run that is told of every epoch.
        keeper: of checkpoints; None: an interrupted training is lost.
        after_epoch: is called with the epoch's number (from 1) and the best val_macro_ap so far; what it raises ends
            the training.
    """

    start: Start
    dataset: PreparedDataset
    tables: LearningTables
    tracked: Run
    keeper: CheckpointKeeper | None = None
    after_epoch: AfterEpoch = lambda epoch, best_value: None

    def run(self, checkpoint: Checkpoint | None = None) -> tuple[Phase, Progress]:
        """Train, from a checkpoint on if there is one; returns the last phase, the best weights of both in place.

        Raises:
            NonFiniteLossError: training diverged.
        """
        config, model = self.start.config, self.start.model
        rows = training_rows(
            self.dataset,
            fold=config.fold,
            balanced=config.balanced,
            balance_target=config.balance_target,
            labels_percent=config.labels_percent,
            seed=config.seed,
        )
        if checkpoint is None or checkpoint.progress.phase == 0:
            phase = first_phase(model, config, self.dataset, rows, progress_bar)
            progress = self._fit(phase, None, checkpoint)
            checkpoint = None
        else:
            progress = checkpoint.progress
        if config.fine_tune.epochs:
            phase = fine_tuning_phase(model, config, self.dataset, rows)
            progress = self._fit(phase, progress, checkpoint)
        return phase, progress

    def _fit(self, phase: Phase, before: Progress | None, checkpoint: Checkpoint | None) -> Progress:
        config = self.start.config
        done = checkpoint.progress.epochs_done - checkpoint.progress.phase_began if checkpoint else 0
        what = f"{'Fine-tuning' if before else 'Training'} {run_name(config)}"
        with progress_bar(what, (phase.limits.epochs - done) * len(phase.batches)) as bar:
            return fit(
                phase.network,
                phase.batches,
                Validation(self.tables.val, phase.inputs),
                loss=config.loss.__call__,
                optimizer=config.optimizer.build(),
                schedule=phase.schedule,
                limits=phase.limits,
                watcher=_Watcher(self.tracked, bar, self.keeper, self.after_epoch),
                before=before,
                resume_from=checkpoint,
            )
