"""``train``: one model on a prepared dataset, evaluated once on test, with everything needed to believe it."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config import TrainConfig, flatten
from wastelens.console import progress_bar, say, warn
from wastelens.data.digests import file_digest
from wastelens.data.opening import open_dataset
from wastelens.data.photo_rows import PhotoRows
from wastelens.data.prepared import MANIFEST, PreparedDataset, SplitTables
from wastelens.data.training_rows import training_rows
from wastelens.errors import ConfigError, RunError
from wastelens.evaluation.verdict import Verdict, judge
from wastelens.models.backend import load_backend
from wastelens.models.belief_network import set_visible_statistics
from wastelens.models.encoders import copy_weights
from wastelens.models.export import (
    SERVED_CODE,
    SERVED_COLUMNS,
    SERVED_SETTINGS,
    export,
    png_bytes,
    served_package,
    served_requirements,
)
from wastelens.models.precision import precision
from wastelens.models.registry import build_model
from wastelens.models.weights import check_weights_available, load_backbone_weights
from wastelens.network_config import DbnNetworkConfig, EncoderNetworkConfig, TransferConfig
from wastelens.steps import pretrain
from wastelens.steps.finished_runs import (
    CONFIG_ARTIFACT,
    FinishedRun,
    find_run,
    network_of,
    usable_with,
    with_learner_of,
)
from wastelens.steps.resuming import checkpoint_of, settings_of_resumed, telling_how_to_resume
from wastelens.steps.watching import EpochWatcher
from wastelens.tracking import PyfuncModel, Run, Tracker, to_json
from wastelens.training.checkpoint import CHECKPOINT_FOLDER, Checkpoint, CheckpointKeeper, Progress
from wastelens.training.fit import Validation, build_optimizer, fit, predict
from wastelens.training.losses import build_loss
from wastelens.training.phases import Phase, check_freezing, fine_tuning_phase, first_phase
from wastelens.training.visible_photos import pixel_statistics

CURVES = ["loss", "val_loss", "val_macro_ap", "learning_rate"]
PRETRAINED_RUN = "pretrained_run"
WEIGHTS_DIGEST = "weights_digest"


@dataclass(frozen=True)
class Trained:
    """What ``train`` made: a run, its verdict, and the pretrain run it started from, if from any."""

    run_id: str
    name: str
    verdict: Verdict
    pretrained_run: str = ""


def run(config: TrainConfig, tracker: Tracker) -> Trained:
    """Train, evaluate and log one model, and say what to do next.

    Raises:
        As :func:`train_one`.
    """
    trained = train_one(config, tracker)
    say(f"Run {trained.run_id} is complete. See it: {tracker.finished_hint()}")
    say(
        f"Where it looks: mlflow run . -e explain --env-manager local -P dataset={shlex.quote(config.dataset)} "
        f"-P run_id={trained.run_id}"
    )
    say(trained.verdict.sentence, "green" if trained.verdict.above_controls else "yellow")
    return trained


def train_one(
    config: TrainConfig, tracker: Tracker, tags: Mapping[str, object] | None = None, name: str = ""
) -> Trained:
    """Train, evaluate and log one model.

    Args:
        config: what to train, and how.
        tracker: where the run goes.
        tags: given to the run when it is opened.
        name: of the run, where it is not to be that of :func:`run_name`.

    Raises:
        InputError: there is no such prepared dataset, the run to resume or to start from cannot be used, or weights
            cannot be had.
        NonFiniteLossError: training diverged; the run is FAILED.
    """
    started = time.monotonic()
    dataset = open_dataset(config.dataset, config.data_folder)
    config = settings_of_resumed(tracker, config, dataset, "train") if config.resume else config
    encoder = _given_encoder(config, tracker, dataset)
    config = _with_learner(config, encoder)
    load_backend()
    if isinstance(config.network, TransferConfig):
        check_weights_available(config.network.backbone, config.weights)
    model, start = _network(config, dataset, encoder)
    if config.resume:
        _check_same_start(tracker, config, start)
    with (
        tracker.start(name or run_name(config), resume=config.resume, system_metrics=True, tags=tags) as tracked,
        telling_how_to_resume(tracked.id, config.dataset, "train"),
    ):
        checkpoint = checkpoint_of(tracked) if config.resume else None
        if not config.resume:
            _describe(tracked, config, dataset)
        if config.pretrained == "auto":
            encoder = _pretrained_here(config, tracker, tracked, dataset)
            start.update(_take_over(encoder, model))
        tracked.set_tags(start)
        tables = dataset.split(config.fold)
        phase, progress = _fit(model, config, dataset, tables, tracked, checkpoint)
        verdict = _evaluate(phase, config, dataset, tables)
        _log_results(tracked, model, dataset, tables, verdict, progress)
        tracked.log_metrics({"minutes": (time.monotonic() - started) / 60})
        tracked.delete(CHECKPOINT_FOLDER)
        return Trained(tracked.id, name or run_name(config), verdict, encoder.id if encoder else "")


def check_weights(models: Iterable[tuple[str, TrainConfig]], ways: str) -> None:
    """See whether the weights of many trainings can be had: before hours of work, not after them.

    Args:
        models: names, and what they are trained with.
        ways: what else can be done about a model, whose name takes the place of ``{0}``.

    Raises:
        ConfigError: they cannot.
    """
    asked = {(name, config.weights): config.network for name, config in models}
    for (name, weights), network in asked.items():
        if isinstance(network, TransferConfig):
            load_backend()
            try:
                check_weights_available(network.backbone, weights)
            except ConfigError as error:
                raise ConfigError(f"{error} {ways.format(name)}") from None


def run_name(config: TrainConfig) -> str:
    """``base augmented seed 0``: what tells runs apart at a glance."""
    words = [config.model, "augmented" if config.augment else "plain"]
    if isinstance(config.network, EncoderNetworkConfig):
        words.append("from scratch" if config.pretrained == "none" else f"from {config.network.method}")
    if isinstance(config.network, TransferConfig):
        words.append("from random weights" if config.weights == "none" else f"from {Path(config.weights).name}")
    words.append(f"seed {config.seed}")
    return " ".join([*words, f"fold {config.fold}"] if config.fold else words)


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


def _check_same_start(tracker: Tracker, config: TrainConfig, start: Mapping[str, str]) -> None:
    """A checkpoint holds what is trained, not what is frozen: that has to be what it was.

    Raises:
        RunError: the weights are not those that the run was started with.
    """
    begun_with = tracker.stored(config.resume).tags.get(WEIGHTS_DIGEST, "")
    if begun_with and begun_with != start.get(WEIGHTS_DIGEST):
        raise RunError(
            f"weights={config.weights} are not those that run {config.resume} was started with. Put the old ones back, "
            "or start a new run."
        )


def _pretrained_here(config: TrainConfig, tracker: Tracker, tracked: Run, dataset: PreparedDataset) -> FinishedRun:
    """Pretrain in a run below this one; one that was begun or finished before an interruption is used."""
    begun = tracker.stored(tracked.id).tags.get(PRETRAINED_RUN, "")
    if begun and tracker.stored(begun).status == "FINISHED":
        return find_run(tracker, begun, dataset, config.fold, ["pretrain"])
    done = pretrain.run(
        config.pretraining(resume=begun), tracker, started=lambda run_id: tracked.set_tags({PRETRAINED_RUN: run_id})
    )
    return find_run(tracker, done.run_id, dataset, config.fold, ["pretrain"])


def _network(config: TrainConfig, dataset: PreparedDataset, encoder: FinishedRun | None) -> tuple[Any, dict[str, str]]:
    """The network with the weights it starts from, and tags that tell them; checked before a run is opened.

    Raises:
        ConfigError: weights that do not fit, or layers to freeze that it has not.
    """
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
        rows = dataset.split(config.fold).train.frame["photo_index"].to_numpy(dtype=np.intp)
        photos = PhotoRows([(dataset.photos, rows)])
        set_visible_statistics(model, *pixel_statistics(photos, config.network.learner, dataset.folder))


def _take_over(encoder: FinishedRun, model: Any) -> dict[str, str]:
    """Put an encoder's weights into the network's layers of the same names; returns tags that tell of it."""
    copy_weights(network_of(encoder), model)
    return {PRETRAINED_RUN: encoder.id, "pretraining": str(encoder.config["method"])}


def _describe(tracked: Run, config: TrainConfig, dataset: PreparedDataset) -> None:
    """Log what a new run is about."""
    tracked.log_parameters(flatten(config))
    about = {"step": "train", "config": config.model_dump(mode="json"), **usable_with(dataset)}
    tracked.log_text(to_json(about), CONFIG_ARTIFACT)
    tracked.set_tags(
        {
            "step": "train",
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "manifest_digest": file_digest(dataset.folder / MANIFEST),
            "materials_digest": dataset.manifest["files"]["materials.csv"],
            "model": config.model,
            "augment": config.augment,
            "balanced": config.balanced,
            "mapping": Path(dataset.manifest["settings"]["materials"]).stem,
            "pretraining": "none",
            "weights": Path(config.weights).name,
            "seed": config.seed,
            "fold": config.fold,
        }
    )
    source = Path(dataset.manifest["source"]) / "annotations.json"
    for context, table in vars(dataset.split(config.fold)).items():
        tracked.log_dataset(table.frame, source=source, name=dataset.name, digest=dataset.digest, context=context)


class _Watcher(EpochWatcher):
    def figures(self, epoch: int, metrics: dict[str, float], progress: Progress) -> str:
        return (
            f"epoch {epoch}: loss {metrics['loss']:.3f}, val_macro_ap {metrics['val_macro_ap']:.3f} "
            f"(best {progress.best_value:.3f} at {progress.best_epoch})"
        )


def _fit(
    model: Any,
    config: TrainConfig,
    dataset: PreparedDataset,
    tables: SplitTables,
    tracked: Run,
    checkpoint: Checkpoint | None,
) -> tuple[Phase, Progress]:
    """Both phases, or what is left of them; returns the last, with the best weights of both in place."""
    rows = training_rows(
        dataset,
        fold=config.fold,
        balanced=config.balanced,
        labels_percent=config.labels_percent,
        seed=config.seed,
    )
    keeper = CheckpointKeeper(tracked, checkpoint)
    if checkpoint is None or checkpoint.progress.phase == 0:
        phase = first_phase(model, config, dataset, rows, progress_bar)
        progress = _fit_phase(phase, config, tables, tracked, keeper, None, checkpoint)
        checkpoint = None
    else:
        progress = checkpoint.progress
    if config.fine_tune.epochs:
        phase = fine_tuning_phase(model, config, dataset, rows)
        progress = _fit_phase(phase, config, tables, tracked, keeper, progress, checkpoint)
    return phase, progress


def _fit_phase(
    phase: Phase,
    config: TrainConfig,
    tables: SplitTables,
    tracked: Run,
    keeper: CheckpointKeeper,
    before: Progress | None,
    checkpoint: Checkpoint | None,
) -> Progress:
    done = checkpoint.progress.epochs_done - checkpoint.progress.phase_began if checkpoint else 0
    what = f"{'Fine-tuning' if before else 'Training'} {run_name(config)}"
    with progress_bar(what, (phase.limits.epochs - done) * len(phase.batches)) as bar:
        return fit(
            phase.network,
            phase.batches,
            Validation(tables.val, phase.inputs),
            loss=build_loss(config.loss),
            optimizer=build_optimizer(config.optimizer),
            schedule=phase.schedule,
            limits=phase.limits,
            watcher=_Watcher(tracked, bar, keeper),
            before=before,
            resume_from=checkpoint,
        )


def _evaluate(phase: Phase, config: TrainConfig, dataset: PreparedDataset, tables: SplitTables) -> Verdict:
    """Thresholds from val, then test, once."""
    return judge(
        tables.val,
        predict(phase.network, phase.inputs, tables.val),
        tables.test,
        predict(phase.network, phase.inputs, tables.test),
        controls=dataset.controls(config.fold),
        control_macro_ap=dataset.control_macro_ap(config.fold),
        seed=config.seed,
        resamples=config.bootstrap_resamples,
    )


def _log_results(
    tracked: Run,
    model: Any,
    dataset: PreparedDataset,
    tables: SplitTables,
    verdict: Verdict,
    progress: Progress,
) -> None:
    """Metrics, tags, figures, predictions and the model itself."""
    history = tracked.metric_history(CURVES)
    # At the last epoch's step: val_macro_ap then ends on the value of the restored weights.
    closing = {**verdict.metrics(), "best_epoch": progress.best_epoch}
    tracked.log_metrics(closing, step=progress.epochs_done)
    tracked.set_tags(verdict.tags())
    for name, figure in verdict.figures(history, progress.best_epoch).items():
        tracked.log_figure(figure, f"figures/{name}.png")
    tracked.log_table(verdict.predictions(), "predictions_test.csv")
    _log_model(tracked, model, dataset, tables, verdict)


def _log_model(tracked: Run, model: Any, dataset: PreparedDataset, tables: SplitTables, verdict: Verdict) -> None:
    """The model twice: as pyfunc with thresholds and preprocessing inside, and as plain Keras files."""
    example_photo = _first_photo(dataset.photos, tables)
    side_px = int(dataset.manifest["cache"]["image_side_px"])
    with tempfile.TemporaryDirectory() as temporary:
        files = export(model, Path(temporary), thresholds=verdict.thresholds, image_side_px=side_px)
        tracked.log_file(files.network, "export")
        tracked.log_file(files.architecture, "export")
        tracked.log_file(files.weights, "export")
        probabilities = np.asarray(model.predict_on_batch(example_photo[None]), dtype=np.float64)
        tracked.log_model(
            PyfuncModel(
                code=SERVED_CODE,
                files={"network": files.network, "decision_rule": files.decision_rule},
                columns=SERVED_COLUMNS,
                settings=SERVED_SETTINGS,
                input_example=pd.DataFrame({"image": [png_bytes(example_photo)]}),
                output_example=verdict.answer_frame(probabilities),
                packages=served_package(Path(temporary)),
                requirements=served_requirements(),
            ),
            "model",
        )


def _first_photo(photos: npt.NDArray[np.uint8], tables: SplitTables) -> npt.NDArray[np.uint8]:
    return np.asarray(photos[int(tables.val.frame["photo_index"].iloc[0])])
