"""``predict``: use a trained model on new photos, and say how far its answers can be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wastelens.config.base import flatten
from wastelens.config.predict import PredictConfig
from wastelens.errors import ConfigError, RunError
from wastelens.system.console import say, table, warn
from wastelens.system.files import alone_in
from wastelens.system.machine import worker_count
from wastelens.tracking.tracker import Run, Tracker
from wastelens.using import output
from wastelens.using.chosen_model import ChosenModel, open_model
from wastelens.using.output import Summary
from wastelens.using.page.report import ChosenPhotos, write_report
from wastelens.using.photo_list import PhotoList, photos_of
from wastelens.using.predicting import Predictor, predict


@dataclass(frozen=True)
class Predictions:
    """Finished predictions: their folder, what they add up to, and their run."""

    folder: Path
    summary: Summary
    run_id: str


def run(config: PredictConfig, tracker: Tracker) -> Predictions:
    """Predict photos, and write a table of all, a page about them, and a run with both.

    Raises:
        InputError: the model, the photos or the folder to write to cannot be used; or the model is unproven, and that
            was not accepted.
    """
    if not config.model:
        raise ConfigError("No model is given. Give model=: a train run's id, or models:/NAME@ALIAS.")
    leave = Path(config.output) if config.output else config.data_folder / "predictions"
    photos = photos_of(config.photos, config.dataset, config.data_folder, leave)
    folder = output.output_folder(config, photos)
    with open_model(tracker, config.model) as model:
        _check_proven(model, accepted=config.accept_unproven)
        say(f"Model: {model.title}, of {model.card.dataset}. Photos: {len(photos):,}, from {photos.title}.")
        predictor = Predictor(model, evidence=config.evidence)
        if config.evidence and not predictor.has_evidence:
            say("This network has no layer with a map, so there is no evidence to show.")
        with output.disk_errors(folder), alone_in(folder, "output"):
            unfinished = output.blocks_folder(folder, config, model, photos)
            with tracker.start(f"predict {photos.title}", tags=_tags(model, photos)) as tracked:
                tracked.log_parameters(flatten(config))
                blocks = predict(photos, predictor, unfinished, config)
                summary = _write(blocks, photos, predictor, folder, config)
                output.forget_blocks(folder)
                _log(tracked, summary, folder)
        _report(summary, model, folder)
    say(f"The same in MLflow: {tracker.finished_hint(tracked.id)}")
    return Predictions(folder, summary, tracked.id)


def _check_proven(model: ChosenModel, *, accepted: bool) -> None:
    """Raise RunError for a model that has not shown that it looks at the litter, unless the user knows."""
    if model.is_proven:
        return
    if not accepted:
        raise RunError(
            f"The model is unproven: {model.card.verdict} Train a better one, or use it all the same with "
            "accept_unproven=true."
        )
    warn(f"The model is unproven: {model.card.verdict}")


def _tags(model: ChosenModel, photos: PhotoList) -> dict[str, object]:
    return {
        "step": "predict",
        "predicted_by": model.address,
        "model_run": model.run_id,
        "photos": photos.title,
        "photos_digest": photos.digest,
        "model_proven": model.is_proven,
        "verdict": output.verdict_on(model),
    }


def _write(
    blocks: Sequence[Path], photos: PhotoList, predictor: Predictor, folder: Path, config: PredictConfig
) -> Summary:
    """Add up the rows of all blocks, and write the tables, the page and the file about them."""
    model = predictor.model
    summary = Summary(learnt_from=_learnt_from(model, photos))
    chosen = ChosenPhotos(model.materials, model.thresholds, config.gallery_photos)
    for rows in output.read_blocks(blocks):
        summary.add(rows, model.rule)
        chosen.add(rows)
    summary.estimate(model, config.seed, config.bootstrap_resamples)
    output.remove_files(folder)  # a kill from here on leaves no page beside the table of another run
    output.write_tables(blocks, folder)
    shown, workers = chosen.least_sure_first(), worker_count(config.workers)
    write_report(folder, summary, shown, photos, predictor, max_megapixels=config.max_megapixels, workers=workers)
    output.write_about(summary, model, photos, config, folder)
    return summary


def _learnt_from(model: ChosenModel, photos: PhotoList) -> str:
    """Return the name of the dataset if the model was trained on these very photos, "" otherwise."""
    return model.card.dataset if photos.dataset_digest == model.card.dataset_digest else ""


def _log(tracked: Run, summary: Summary, folder: Path) -> None:
    metrics = {"photos": float(summary.photos), "problems": float(summary.problems)}
    for material, share in summary.shares.items():
        metrics |= {f"yes/{material}": float(summary.yes[material])}
        known = {"": share.estimate, "_low": share.low, "_high": share.high}
        metrics |= {f"share/{material}{end}": value for end, value in known.items() if math.isfinite(value)}
    tracked.log_metrics(metrics)
    for name in output.FILES:
        tracked.log_file(folder / name)


def _report(summary: Summary, model: ChosenModel, folder: Path) -> None:
    """Print the closing table."""
    rows = [
        [
            name,
            f"{summary.yes[name]:,}",
            *([f"{summary.unsure[name]:,}"] if model.rule.bands else []),
            f"{100 * share.estimate:.0f} %" if math.isfinite(share.estimate) else "cannot be told",
            f"{100 * share.low:.0f} to {100 * share.high:.0f} %",
        ]
        for name, share in summary.shares.items()
    ]
    unsure = ["unsure"] if model.rule.bands else []
    columns = ["material", "decision yes", *unsure, "estimated share", "95 % interval"]
    table(f"What {summary.usable:,} photos show, by {model.title}", columns, rows)
    for note in (model.card.no_guarantee, *summary.notes):
        if note:
            say(note)
    if summary.doubt:
        warn(summary.doubt)
    if summary.problems:
        file, problem = summary.first_problems[0]
        if summary.problems == 1:
            warn(f"1 file has no answer, {file}: {problem}. It is in {output.CSV}, too.")
        else:
            warn(f"{summary.problems:,} files have no answer, the first {file}: {problem}. All are in {output.CSV}.")
    say(f"The table: {folder / output.CSV}. The page: {folder / output.REPORT}", "green")
