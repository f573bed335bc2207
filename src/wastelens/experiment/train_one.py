"""Train one model as a run: fit it, evaluate it once on test, and log everything needed to believe it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config.base import flatten
from wastelens.config.networks import TransferConfig
from wastelens.config.train import TrainConfig
from wastelens.data.annotations.sources import prepared_from
from wastelens.data.prepared.dataset import MANIFEST, PreparedDataset, SplitTables
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import ConfigError, RunError
from wastelens.evaluation.verdict import Verdict, judge
from wastelens.experiment.finished_runs import CONFIG_ARTIFACT, usable_with
from wastelens.experiment.fitting import WEIGHTS_DIGEST, Fitting, pretrained_below, ready_to_train, run_name
from wastelens.experiment.resuming import checkpoint_of, settings_of_resumed, telling_how_to_resume
from wastelens.figures.verdict import verdict_figures
from wastelens.models.backend import load_backend
from wastelens.models.export import (
    SERVED_CODE,
    SERVED_COLUMNS,
    SERVED_SETTINGS,
    export,
    png_bytes,
    served_package,
    served_requirements,
)
from wastelens.models.weights import check_weights_available
from wastelens.system.digests import file_digest
from wastelens.tracking.tracker import PyfuncModel, Run, Tracker, to_json
from wastelens.training.checkpoint import CHECKPOINT_FOLDER, CheckpointKeeper, Progress
from wastelens.training.fit import predict
from wastelens.training.phases import Phase

CURVES = ["loss", "val_loss", "val_macro_ap", "learning_rate"]


@dataclass(frozen=True)
class Trained:
    """What ``train`` made: a run, its verdict, and the pretrain run it started from, if from any."""

    run_id: str
    name: str
    verdict: Verdict
    pretrained_run: str = ""


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
    start = ready_to_train(config, tracker, dataset)
    config = start.config
    if config.resume:
        _check_same_start(tracker, config, start.tags)
    with (
        tracker.start(name or run_name(config), resume=config.resume, system_metrics=True, tags=tags) as tracked,
        telling_how_to_resume(tracked.id, config, "train") if tags is None else nullcontext(),
    ):
        checkpoint = checkpoint_of(tracked) if config.resume else None
        if not config.resume:
            _describe(tracked, config, dataset)
        start = pretrained_below(start, tracker, tracked, dataset)
        tracked.set_tags(start.tags)
        tables = dataset.split(config.fold)
        keeper = CheckpointKeeper(tracked, checkpoint)
        phase, progress = Fitting(start, dataset, tables, tracked, keeper).run(checkpoint)
        verdict = _evaluate(phase, config, dataset, tables)
        _log_results(tracked, start.model, dataset, tables, verdict, progress)
        tracked.log_metrics({"minutes": (time.monotonic() - started) / 60})
        tracked.delete(CHECKPOINT_FOLDER)
        return Trained(tracked.id, name or run_name(config), verdict, start.encoder.id if start.encoder else "")


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
            "augment": config.policy is not None,
            "balanced": config.balanced,
            "mapping": Path(dataset.manifest["settings"]["materials"]).stem,
            "pretraining": "none",
            "weights": Path(config.weights).name,
            "seed": config.seed,
            "fold": config.fold,
        }
    )
    source = prepared_from(dataset.manifest)
    for context, table in vars(dataset.split(config.fold)).items():
        tracked.log_dataset(table.frame, source=source, name=dataset.name, digest=dataset.digest, context=context)


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
    for name, figure in verdict_figures(verdict, history, progress.best_epoch).items():
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
