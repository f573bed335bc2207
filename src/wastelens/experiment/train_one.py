"""Train one model as a run: fit it, evaluate it once on test, and log the evidence."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wastelens.config.base import flatten
from wastelens.config.files import short_keys
from wastelens.config.train import TrainConfig
from wastelens.data.annotations.sources import prepared_from
from wastelens.data.prepared.dataset import MANIFEST, PreparedDataset, SplitTables
from wastelens.data.prepared.opening import open_dataset
from wastelens.data.prepared.tables import LabelTable
from wastelens.errors import ConfigError, RunError
from wastelens.evaluation.abstention import Wish
from wastelens.evaluation.object_evidence import ObjectEvidence
from wastelens.evaluation.verdict import Verdict, judge
from wastelens.experiment.finished_runs import describe_run, without_dataset
from wastelens.experiment.fitting import WEIGHTS_DIGEST, Fitting, pretrained_below, ready_to_train, run_name, seen_by
from wastelens.experiment.resuming import checkpoint_of, keeper_of, settings_of_resumed, training_run
from wastelens.experiment.start_control import start_answers
from wastelens.figures.object_evidence import object_evidence
from wastelens.figures.verdict import verdict_figures
from wastelens.models.backend import load_backend
from wastelens.models.card import TEST_PREDICTIONS, ModelCard
from wastelens.models.export import export, served_model
from wastelens.models.familiarity import FILE as FAMILIARITY
from wastelens.models.familiarity import Familiarity
from wastelens.models.onnx_export import PHOTOS_COMPARED
from wastelens.system.console import next_command, say
from wastelens.system.digests import file_digest
from wastelens.system.tables import for_spreadsheets, write_csv
from wastelens.tracking.metric_names import log_closing
from wastelens.tracking.tracker import Run, Tracker, run_note
from wastelens.training.checkpoint import CHECKPOINT_FOLDER, Progress
from wastelens.training.objects import ObjectsPhase
from wastelens.training.phases import SolvedPhase

CURVES = ["loss", "val/loss", "val/macro_ap", "learning_rate"]


@dataclass(frozen=True)
class Trained:
    """A finished training: the run, its verdict, and the pretrain run it started from, if any."""

    run_id: str
    name: str
    verdict: Verdict
    pretrained_run: str = ""

    def use_command(self, data_folder: Path) -> str:
        """Return the command that uses the model on new photos."""
        accepted = "" if self.verdict.above_controls else "true"
        return next_command(
            "predict", {"model": self.run_id, "photos": "FOLDER", "accept_unproven": accepted}, data_folder
        )


def train_one(
    config: TrainConfig,
    tracker: Tracker,
    tags: Mapping[str, object] | None = None,
    name: str = "",
    dataset: PreparedDataset | None = None,
) -> Trained:
    """Train, evaluate and log one model.

    Args:
        config: of the training.
        tracker: to open the run with.
        tags: of the run, set when it is opened.
        name: of the run; by default that of :func:`run_name`.
        dataset: to train on; by default the one that the settings name.

    Raises:
        InputError: there is no such prepared dataset, the run to resume or to start from cannot be used, or weights
            are not available.
        NonFiniteLossError: training diverged; the run is FAILED.
    """
    started = time.monotonic()
    dataset = dataset or open_dataset(config.dataset, config.data_folder)
    config = settings_of_resumed(tracker, config, dataset, "train") if config.resume else config
    dataset = seen_by(config, tracker, dataset)
    start = ready_to_train(config, tracker, dataset)
    config = start.config
    if config.resume:
        # A checkpoint holds the trained layers, not the frozen ones.
        begun_with = tracker.stored(config.resume).tags.get(WEIGHTS_DIGEST, "")
        if begun_with and begun_with != start.tags.get(WEIGHTS_DIGEST):
            raise RunError(
                f"weights={config.weights} are not those that run {config.resume} was started with. Put the old ones "
                "back, or start a new run."
            )
    by_user = tags is None
    with training_run(tracker, name or run_name(config), config, "train", tags=tags, by_user=by_user) as tracked:
        checkpoint = checkpoint_of(tracked, config.data_folder) if config.resume else None
        if not config.resume:
            _describe(tracked, config, dataset)
        start = pretrained_below(start, tracker, tracked, dataset)
        tracked.set_tags(start.tags)
        tables = dataset.split(config.fold)
        keeper = keeper_of(tracked, config.data_folder, checkpoint)
        phase, progress = Fitting(start, dataset, tables, tracked, keeper).run(checkpoint)
        say("Judging it on test, beside floors and controls.", "dim")
        verdict = judge(  # calibrates thresholds on val, then scores test once
            tables.val,
            phase.predict(tables.val),
            tables.test,
            phase.predict(tables.test),
            controls=dataset.controls(config.fold),
            control_macro_ap=dataset.control_macro_ap(config.fold),
            seed=config.seed,
            resamples=config.bootstrap_resamples,
            start=start_answers(config, dataset),
            wish=Wish(config.precision, config.recall),
            val_chose_weights=not isinstance(phase, SolvedPhase),
        )
        say("Writing figures, predictions and the model.", "dim")
        familiarity = phase.familiarity(tables.train, tables.test)
        _log_results(tracked, config, start.model, dataset, tables, verdict, familiarity, progress)
        if isinstance(phase, ObjectsPhase):
            _log_evidence(tracked, phase.evidence_on(tables.test), _caption(config, dataset, test=tables.test))
        tracked.log_metrics({"minutes": (time.monotonic() - started) / 60})
        tracked.delete(CHECKPOINT_FOLDER)
        return Trained(tracked.id, name or run_name(config), verdict, start.encoder.id if start.encoder else "")


def check_weights(models: Iterable[tuple[str, TrainConfig]], ways: str) -> None:
    """Check that the weights of many trainings are available: before hours of work, not after them.

    Args:
        models: names and settings.
        ways: what else the user can do about a model, with ``{0}`` for its name.

    Raises:
        ConfigError: they are not.
    """
    asked = {(name, config.weights): config.network for name, config in models}
    for (name, weights), network in asked.items():
        if network.takes_weights:
            load_backend()
            try:
                network.check_weights(weights)
            except ConfigError as error:
                raise ConfigError(f"{error} {ways.format(name)}") from None


def _describe(tracked: Run, config: TrainConfig, dataset: PreparedDataset) -> None:
    """Log a new run's settings and dataset."""
    tracked.log_parameters(short_keys(flatten(config)))
    describe_run(tracked, "train", config, dataset)
    tags = {
        "manifest_digest": file_digest(dataset.folder / MANIFEST),
        "materials_digest": dataset.manifest["files"]["materials.csv"],
        "model": config.model,
        "augment": config.policy is not None,
        "balanced": config.balanced,
        "mapping": Path(dataset.manifest["settings"]["materials"]).stem,
        "corrections": Path(dataset.manifest["settings"].get("corrections") or "none").stem,
        "pretraining": "none",
        "weights": Path(config.weights).name,
        "seed": config.seed,
        "fold": config.fold,
    }
    tracked.set_tags(tags)
    source = prepared_from(dataset.manifest)
    for context, table in vars(dataset.split(config.fold)).items():
        tracked.log_dataset(table.frame, source=source, name=dataset.name, digest=dataset.digest, context=context)


def _caption(config: TrainConfig, dataset: PreparedDataset, **splits: LabelTable) -> str:
    """Return what a figure shows: the model, the dataset, and the photos."""
    photos = ", ".join(f"{name} ({len(table):,} photos)" for name, table in splits.items())
    return f"{without_dataset(run_name(config))} on {dataset.name}: {photos}"


def _log_evidence(tracked: Run, evidence: ObjectEvidence, caption: str) -> None:
    """Log and say how well a model that learnt from outlines finds the objects."""
    tracked.log_metrics(evidence.metrics())
    tracked.set_tags({"evidence": evidence.sentence})
    tracked.log_figure(object_evidence(evidence), "figures/objects.png", caption)
    say(evidence.sentence)


def _log_results(
    tracked: Run,
    config: TrainConfig,
    model: Any,
    dataset: PreparedDataset,
    tables: SplitTables,
    verdict: Verdict,
    familiarity: Familiarity,
    progress: Progress,
) -> None:
    """Log metrics, tags, figures, predictions and the model itself."""
    history = tracked.metric_history(CURVES)
    closing = {**verdict.metrics(), "best_epoch": progress.best_epoch}
    log_closing(tracked, closing, CURVES, progress.epochs_done)
    added = [verdict.start.sentence] if verdict.start else []
    added += [one for one in (verdict.calibration.sentence, verdict.no_guarantee) if one]
    drawn = verdict_figures(verdict, history, progress.best_epoch)
    pictures = [f"figures/{name}.png" for name in ("average_precision", "learning_curves") if name in drawn]
    explain = next_command("explain", {"dataset": config.dataset, "run_id": tracked.id}, config.data_folder)
    about = run_note(tracked.id, f"**{verdict.sentence}**", *added, command=explain, pictures=pictures)
    tracked.set_tags({**verdict.tags(), **about})
    for name, figure in drawn.items():
        splits = {"train": tables.train, "val": tables.val} if name == "learning_curves" else {"test": tables.test}
        tracked.log_figure(figure, f"figures/{name}.png", _caption(config, dataset, **splits))
    # The model twice: as pyfunc with thresholds and preprocessing inside, and as plain Keras files.
    photos = dataset.photos[tables.val.photo_index[:PHOTOS_COMPARED]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = export(model, folder, rule=verdict.rule, image_side_px=dataset.side_px)
        for name in ("network", "architecture", "weights", "decision_rule"):
            tracked.log_file(files[name], "export")
        for name, frame in verdict.tables().items():
            tracked.log_table(frame, name)
        predictions = folder / TEST_PREDICTIONS
        write_csv(for_spreadsheets(verdict.predictions()), predictions)
        tracked.log_file(predictions)
        familiarity.write(folder / FAMILIARITY)
        served = {name: files[name] for name in ("network", "decision_rule")}
        served |= {"test_predictions": predictions, "familiarity": folder / FAMILIARITY}
        tracked.log_model(served_model(model, served, photos, folder, _card(config, dataset, verdict)), "model")


def _card(config: TrainConfig, dataset: PreparedDataset, verdict: Verdict) -> ModelCard:
    """Return what is written on the logged model."""
    return ModelCard(
        model=run_name(config),
        materials=dataset.materials,
        thresholds=verdict.thresholds,
        calibration=verdict.calibration.kind,
        bands=dict(verdict.rule.bands),
        no_guarantee=verdict.no_guarantee,
        image_side_px=dataset.side_px,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        fold=config.fold,
        collapsed=verdict.collapse.collapsed,
        above_controls=verdict.above_controls,
        strongest_control=verdict.strongest_control,
        verdict=verdict.sentence,
        metrics={name: round(float(value), 6) for name, value in verdict.metrics().items() if math.isfinite(value)},
    )
