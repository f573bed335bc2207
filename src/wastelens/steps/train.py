"""``train``: one model on a prepared dataset, evaluated once on test, with everything needed to believe it."""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config import TrainConfig, flatten
from wastelens.console import Bar, progress_bar, say
from wastelens.data.digests import file_digest
from wastelens.data.pipeline import TrainingBatches
from wastelens.data.prepared import MANIFEST, PreparedDataset, SplitTables, load_prepared
from wastelens.data.sources import choose_source
from wastelens.errors import PreparedDatasetError, RunError
from wastelens.evaluation.verdict import Verdict, judge
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
from wastelens.models.registry import build_model
from wastelens.tracking import PyfuncModel, Run, Tracker, to_json
from wastelens.training.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from wastelens.training.fit import Validation, build_optimizer, fit, predict
from wastelens.training.losses import build_loss

CONFIG_ARTIFACT = "config.json"
CURVES = ["loss", "val_loss", "val_macro_ap", "learning_rate"]


@dataclass(frozen=True)
class Trained:
    """What ``train`` made: a run, and its verdict."""

    run_id: str
    name: str
    verdict: Verdict


def run(config: TrainConfig, tracker: Tracker) -> Trained:
    """Train, evaluate and log one model.

    Raises:
        InputError: there is no such prepared dataset, or the run to resume cannot be resumed.
        NonFiniteLossError: training diverged; the run is FAILED.
    """
    dataset = open_dataset(config)
    config = _settings_of_resumed(tracker, config, dataset) if config.resume else config
    load_backend()
    with (
        tracker.start(run_name(config), resume=config.resume, system_metrics=True) as tracked,
        _telling_how_to_resume(tracked.id, config),
    ):
        checkpoint = None
        if config.resume:
            checkpoint = _checkpoint_of(tracked)
        else:
            _describe(tracked, config, dataset)
        tables = dataset.split(config.fold)
        model = build_model(
            config.network,
            image_side_px=dataset.manifest["cache"]["image_side_px"],
            outputs=len(dataset.materials),
            seed=config.seed,
        )
        progress = _fit(model, config, dataset, tables, tracked, checkpoint)
        verdict = _evaluate(model, config, dataset, tables)
        _log_results(tracked, model, config, dataset, tables, verdict, progress)
        say(f"Run {tracked.id} is complete. See it: {tracker.finished_hint()}")
        say(verdict.sentence, "green" if verdict.above_controls else "yellow")
        return Trained(tracked.id, run_name(config), verdict)


def run_name(config: TrainConfig) -> str:
    """``base augmented seed 0``: what tells runs apart at a glance."""
    words = [config.model, "augmented" if config.augment else "plain", f"seed {config.seed}"]
    return " ".join([*words, f"fold {config.fold}"] if config.fold else words)


def open_dataset(config: TrainConfig) -> PreparedDataset:
    """The prepared dataset that ``dataset=`` means.

    Raises:
        PreparedDatasetError: not prepared yet, changed since, or prepared from another folder of that name.
    """
    source = choose_source(config.dataset, config.data_folder)
    dataset = load_prepared(config.data_folder / "prepared" / source.name)
    if Path(dataset.manifest["source"]) != source.folder.resolve():
        raise PreparedDatasetError(
            f"{dataset.folder} was prepared from {dataset.manifest['source']}, not from {source.folder}. "
            f"Run prepare with dataset={config.dataset} again."
        )
    return dataset


@contextlib.contextmanager
def _telling_how_to_resume(run_id: str, config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        dataset = shlex.quote(config.dataset)
        say(f"Run {run_id} was interrupted. Go on with: -P dataset={dataset} -P resume={run_id}", "yellow")
        raise


def _describe(tracked: Run, config: TrainConfig, dataset: PreparedDataset) -> None:
    """Log what a new run is about."""
    tracked.log_parameters(flatten(config))
    about = {"config": config.model_dump(mode="json"), "dataset_digest": dataset.digest}
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
            "seed": config.seed,
            "fold": config.fold,
        }
    )
    source = Path(dataset.manifest["source"]) / "annotations.json"
    for context, table in vars(dataset.split(config.fold)).items():
        tracked.log_dataset(table.frame, source=source, name=dataset.name, digest=dataset.digest, context=context)


def _settings_of_resumed(tracker: Tracker, config: TrainConfig, dataset: PreparedDataset) -> TrainConfig:
    """The settings that the run to resume was started with; nothing is written before they are found to fit.

    Raises:
        RunError: no such run, no training run, a finished one, or one on another preparation of the dataset.
    """
    stored = tracker.stored(config.resume)
    with tempfile.TemporaryDirectory() as folder:
        file = stored.run.download(CONFIG_ARTIFACT, Path(folder))
        if file is None:
            raise RunError(f"Run {config.resume} is no training run: it has no {CONFIG_ARTIFACT}. Start a new one.")
        about = json.loads(file.read_text(encoding="utf-8"))
    if stored.status == "FINISHED":
        raise RunError(f"Run {config.resume} is finished; there is nothing to resume. Start a new one.")
    if about["dataset_digest"] != dataset.digest:
        raise RunError(
            f"Run {config.resume} was trained on another preparation of {dataset.name}. "
            "Prepare it as it was then, or start a new run."
        )
    try:
        return TrainConfig.model_validate({**about["config"], "resume": config.resume})
    except ValueError:
        raise RunError(
            f"Run {config.resume} was started by another version of Wastelens, whose settings this one does not know. "
            "Start a new one."
        ) from None


def _checkpoint_of(tracked: Run) -> Checkpoint | None:
    """The last whole checkpoint of a resumed run, if it came so far."""
    checkpoint = load_checkpoint(tracked)
    done = checkpoint.progress.epochs_done if checkpoint else 0
    say(f"Going on with run {tracked.id} after {done} finished epochs, with the settings it was started with.")
    return checkpoint


@dataclass
class _Watcher:
    """Logs each epoch, keeps a checkpoint of it, and moves the bar."""

    tracked: Run
    bar: Bar

    def batch_done(self, epoch: int) -> None:
        self.bar.advance()

    def epoch_done(self, epoch: int, metrics: dict[str, float], checkpoint: Checkpoint) -> None:
        self.tracked.log_metrics(metrics, step=epoch)
        save_checkpoint(checkpoint, self.tracked)
        best = checkpoint.progress
        self.bar.show(
            f"epoch {epoch}: loss {metrics['loss']:.3f}, val_macro_ap {metrics['val_macro_ap']:.3f} "
            f"(best {best.best_value:.3f} at {best.best_epoch})"
        )


def _fit(
    model: Any,
    config: TrainConfig,
    dataset: PreparedDataset,
    tables: SplitTables,
    tracked: Run,
    checkpoint: Checkpoint | None,
) -> Progress:
    rows = dataset.balanced_train(config.fold) if config.balanced else tables.train
    policy = config.augmentation if config.augment else None
    batches = TrainingBatches(rows, dataset.photos, batch_size=config.fit.batch_size, policy=policy, seed=config.seed)
    done = checkpoint.progress.epochs_done if checkpoint else 0
    with progress_bar(f"Training {run_name(config)}", (config.fit.epochs - done) * len(batches)) as bar:
        return fit(
            model,
            batches,
            Validation(tables.val, dataset.photos),
            loss=build_loss(config.loss),
            optimizer=build_optimizer(config.optimizer),
            schedule=config.schedule,
            limits=config.fit,
            watcher=_Watcher(tracked, bar),
            resume_from=checkpoint,
        )


def _evaluate(model: Any, config: TrainConfig, dataset: PreparedDataset, tables: SplitTables) -> Verdict:
    """Thresholds from val, then test, once."""
    return judge(
        tables.val,
        predict(model, dataset.photos, tables.val),
        tables.test,
        predict(model, dataset.photos, tables.test),
        controls=dataset.controls(config.fold),
        control_macro_ap=dataset.control_macro_ap(config.fold),
        seed=config.seed,
        resamples=config.bootstrap_resamples,
    )


def _log_results(
    tracked: Run,
    model: Any,
    config: TrainConfig,
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
