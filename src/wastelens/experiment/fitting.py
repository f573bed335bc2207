"""From a training's settings to a fitted network, on train and val alone: shared by ``train`` and ``tune``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wastelens.config.files import load_config
from wastelens.config.networks import EncoderNetworkConfig
from wastelens.config.train import TrainConfig
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.prepared.dataset import LearningTables, PreparedDataset
from wastelens.experiment.finished_runs import FinishedRun, find_run, network_of, unusual, with_learner_of
from wastelens.experiment.pretrain_one import pretrain_one, say_reconstruction
from wastelens.experiment.resuming import EpochWatcher, last_logged_epoch
from wastelens.models.backend import load_backend, precision
from wastelens.models.encoders import copy_weights
from wastelens.preparing.balance import training_rows
from wastelens.system.console import progress_bar, say, warn
from wastelens.tracking.tracker import Run, Tracker
from wastelens.training.checkpoint import Checkpoint, CheckpointKeeper, Progress
from wastelens.training.objects import check_outlines
from wastelens.training.phases import Phase, check_freezing, fine_tuning_phase, first_phase

PRETRAINED_RUN = "pretrained_run"
WEIGHTS_DIGEST = "weights_digest"


def run_name(config: TrainConfig) -> str:
    """Return a name that tells runs apart at a glance, such as ``base +aug``: the model, and what is unusual."""
    words = [Path(config.model).stem, *(["+aug"] if config.policy else [])]
    if isinstance(config.network, EncoderNetworkConfig):
        if config.pretrained == "none":
            words.append("from scratch")
        elif config.network.method.removeprefix("conv_") != config.model:
            words.append(f"from {config.network.method}")
    if config.network.takes_weights and config.weights != "imagenet":
        words.append("from random weights" if config.weights == "none" else f"from {Path(config.weights).name}")
    return " ".join([*words, *_unusual_side(config), *unusual(config)])


def _unusual_side(config: TrainConfig) -> list[str]:
    """Return the side at which a backbone, or the whole model, sees photos, unless it is that of the model's file."""
    usual = load_config("train", parameters={"model": config.model})
    assert isinstance(usual, TrainConfig)
    side_px = getattr(config.network, "side_px", 0)
    if side_px == getattr(usual.network, "side_px", side_px):
        side_px = 0 if config.seen_side_px == usual.seen_side_px else config.seen_side_px
    return [f"@{side_px}px"] if side_px else []


def seen_by(config: TrainConfig, tracker: Tracker, dataset: PreparedDataset) -> PreparedDataset:
    """Return the dataset at the side that the model sees: that of the encoder it starts from, or of its settings.

    Raises:
        RunError: the run to start from cannot be used.
    """
    if config.pretrained in ("auto", "none"):
        return dataset.at_side(config.seen_side_px)
    return dataset.at_side(find_run(tracker, config.pretrained, dataset, config.fold, ["pretrain"]).image_side_px)


@dataclass(frozen=True)
class Start:
    """A network that is ready to be trained.

    Attributes:
        config: of the training; its encoder's settings are those of the encoder it starts from.
        model: the network, with its initial weights.
        tags: about these.
        encoder: the pretrain run that the weights come from, if any.
    """

    config: TrainConfig
    model: Any
    tags: dict[str, str]
    encoder: FinishedRun | None


def ready_to_train(config: TrainConfig, tracker: Tracker, dataset: PreparedDataset) -> Start:
    """Build the network and load its initial weights: all that can be refused before a run is opened.

    The dataset is at the side that :func:`seen_by` gives.

    Raises:
        RunError: the run to start from cannot be used.
        ConfigError: weights that are unavailable or do not fit, layers to freeze that the network does not have, or no
            outlines to learn from.
    """
    encoder = None
    if config.pretrained not in ("auto", "none"):
        encoder = find_run(tracker, config.pretrained, dataset, config.fold, ["pretrain"])
        network, method = with_learner_of(config.network, encoder), encoder.config["method"]
        say(f"Using the encoder of run {encoder.id}: method={method}, with its network.learner settings.")
        # A probe of an encoder needs no backbone's weights.
        config = config.model_copy(update={"network": network, "weights": "none"})
    if config.network.learns_from_outlines:
        check_outlines(dataset, config.fold)
    load_backend()
    config.network.check_weights(config.weights)
    with precision(config.mixed_precision) as policy:
        model = config.network.build(image_side_px=dataset.side_px, outputs=len(dataset.materials), seed=config.seed)
    check_freezing(model, config)
    tags = {"precision": policy}
    if config.network.takes_weights:
        tags[WEIGHTS_DIGEST] = config.network.load_weights(model, config.weights)
        if config.weights == "none" and config.freeze not in (0, ""):
            warn(f"freeze={config.freeze} freezes random weights (weights=none): only the head learns. Thaw: freeze=0.")
    start = Start(config, model, tags, None)
    if encoder is not None:
        return with_encoder(start, encoder)
    if isinstance(config.network, EncoderNetworkConfig):
        photos = PhotoRows([(dataset.photos, dataset.learning(config.fold).train.photo_index)])
        config.network.learner.standardise(model, photos, dataset.folder)
    return start


def with_encoder(start: Start, encoder: FinishedRun) -> Start:
    """Copy an encoder's weights into the layers of the same names; return the same start with tags about it."""
    copy_weights(network_of(encoder), start.model)
    tags = {**start.tags, PRETRAINED_RUN: encoder.id, "pretraining": str(encoder.config["method"])}
    return replace(start, tags=tags, encoder=encoder)


def pretrained_below(start: Start, tracker: Tracker, tracked: Run, dataset: PreparedDataset) -> Start:
    """If ``pretrained=auto``, pretrain in a nested run and start from its encoder.

    After an interruption, resume or reuse the nested run that was begun.
    """
    config = start.config
    if config.pretrained != "auto":
        return start
    encoder_run = tracker.stored(tracked.id).tags.get(PRETRAINED_RUN, "")
    if not encoder_run or tracker.stored(encoder_run).status != "FINISHED":
        pretraining = config.pretraining(resume=encoder_run)
        done = pretrain_one(
            pretraining, tracker, started=lambda run_id: tracked.set_tags({PRETRAINED_RUN: run_id}), dataset=dataset
        )
        say_reconstruction(done)
        encoder_run = done.run_id
    return with_encoder(start, find_run(tracker, encoder_run, dataset, config.fold, ["pretrain"]))


def _summary(epoch: int, metrics: dict[str, float], progress: Progress) -> str:
    return (
        f"epoch {epoch}: loss {metrics['loss']:.3f}, val macro AP {metrics['val/macro_ap']:.3f} "
        f"(best {progress.best_value:.3f} at {progress.best_epoch})"
    )


@dataclass(frozen=True)
class Fitting:
    """Training of a network on a dataset, in both phases or those that are left.

    Attributes:
        start: the network and its settings.
        dataset: whose photos it sees.
        tables: train and val rows; there are no test rows here.
        tracked: the run to log every epoch to.
        keeper: of checkpoints.
        after_epoch: is called with the epoch's number (from 1) and the best val_macro_ap so far; an exception ends
            the training.
    """

    start: Start
    dataset: PreparedDataset
    tables: LearningTables
    tracked: Run
    keeper: CheckpointKeeper
    after_epoch: Callable[[int, float], None] = lambda epoch, best_value: None

    def run(self, checkpoint: Checkpoint | None = None) -> tuple[Phase, Progress]:
        """Train, from a checkpoint if there is one; return the last phase, with the best weights of both in place.

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
            phase = first_phase(model, config, self.dataset, rows)
            progress = self._fit(phase, None, checkpoint)
            checkpoint = None
        else:
            progress = checkpoint.progress
        if config.fine_tune.epochs:
            phase = fine_tuning_phase(model, config, self.dataset, rows)
            progress = self._fit(phase, progress, checkpoint)
            self._tell_of_fine_tuning(progress)
        return phase, progress

    def _tell_of_fine_tuning(self, progress: Progress) -> None:
        """Tag whether fine-tuning was of use on val, and warn where the weights from before it are kept."""
        kept = progress.best_epoch > progress.phase_began
        self.tracked.set_tags({"fine_tuning_kept": kept})
        if not kept:
            history = self.tracked.metric_history(["val/macro_ap"])
            tuned = max(row.get("val/macro_ap", 0.0) for row in history if row["epoch"] > progress.phase_began)
            frozen, rate = self.start.config.freeze == 1.0, self.start.config.fine_tune.learning_rate
            warn(
                f"Fine-tuning made the features worse than {'the frozen ones' if frozen else 'they were'}: val macro "
                f"AP {tuned:.3f} at best, {progress.best_value:.3f} before it. The weights from before it are kept. "
                f"Lower fine_tune.learning_rate (now {rate:g}) or fine_tune.layer_decay."
            )

    def _fit(self, phase: Phase, before: Progress | None, checkpoint: Checkpoint | None) -> Progress:
        config = self.start.config
        done = checkpoint.progress.epochs_done - checkpoint.progress.phase_began if checkpoint else 0
        title = f"{'Fine-tuning' if before else 'Training'} {run_name(config)}"
        with progress_bar(title, phase.steps(done)) as bar:
            logged_until = last_logged_epoch(self.tracked, "loss")
            watcher = EpochWatcher(self.tracked, bar, self.keeper, _summary, self.after_epoch, logged_until)
            return phase.fit(self.tables.val, config, watcher, before, checkpoint)
