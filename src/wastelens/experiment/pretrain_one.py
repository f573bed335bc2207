"""Pretrain one encoder as a run: learn from photos without labels, and log the encoder."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wastelens.config.base import flatten
from wastelens.config.pretrain import PretrainConfig
from wastelens.data.annotations.sources import prepared_from
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.duplicates.search import NEAR_DUPLICATE_BITS
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import RunError
from wastelens.experiment.finished_runs import ENCODER, about_run, describe_run, unusual, without_dataset
from wastelens.experiment.resuming import (
    EpochWatcher,
    checkpoint_of,
    keeper_of,
    last_logged_epoch,
    settings_of_resumed,
    training_run,
)
from wastelens.figures.pretraining import learning_curves
from wastelens.models.backend import load_backend, precision
from wastelens.models.export import served_model
from wastelens.models.features import feature_network
from wastelens.models.onnx_export import PHOTOS_COMPARED
from wastelens.system.console import next_command, progress_bar, say
from wastelens.system.machine import worker_count
from wastelens.tracking.metric_names import log_closing
from wastelens.tracking.tracker import Run, Tracker, run_note
from wastelens.training.checkpoint import CHECKPOINT_FOLDER, Progress
from wastelens.training.learners import Learning
from wastelens.training.unlabelled import UNLABELLED_CACHE, Unlabelled, find_photos, load_unlabelled
from wastelens.training.visible_photos import visible_photos

CURVES = ["reconstruction_error", "val/reconstruction_error", "pseudo_likelihood", "val/pseudo_likelihood"]
CURVES += ["free_energy_gap", "layer"]
# Metric → what it is the error of.
FLOORS = {
    "floor/reconstruction_error": "the mean training photo",
    "floor/mean_colour_reconstruction_error": "each photo's mean colour",
    "floor/pca_reconstruction_error": "a linear code as wide (PCA)",
}


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining: the run with the encoder, and its closing metrics."""

    run_id: str
    name: str
    metrics: dict[str, float]


def pretrain_one(
    config: PretrainConfig,
    tracker: Tracker,
    started: Callable[[str], None] | None = None,
    tags: Mapping[str, object] | None = None,
    dataset: PreparedDataset | None = None,
) -> Pretrained:
    """Learn from the training photos, and log the encoder.

    Args:
        config: of the pretraining.
        tracker: to open the run with.
        started: is called with the run's id as soon as there is one, where another run is waiting for it.
        tags: of the run, set when it is opened.
        dataset: to learn from; by default the one that the settings name.

    Raises:
        InputError: there is no such prepared dataset, no usable unlabelled photos, or the run cannot be resumed.
        NonFiniteLossError: learning diverged; the run is FAILED.
    """
    began = time.monotonic()
    dataset = dataset or open_dataset(config.dataset, config.data_folder)
    config = settings_of_resumed(tracker, config, dataset, "pretrain") if config.resume else config
    dataset = dataset.at_side(config.image_side_px)
    unlabelled = _unlabelled(config, dataset) if config.unlabelled else None
    digest = unlabelled.digest if unlabelled else ""
    if config.resume and digest != about_run(tracker.stored(config.resume)).get("unlabelled_digest", ""):
        # The number of photos sets their order and the samples.
        raise RunError(
            f"The photos in unlabelled='{config.unlabelled}' are not those that run {config.resume} began with. "
            "Put the old ones back, or start a new run."
        )
    load_backend()
    by_user = started is None and tags is None
    with training_run(tracker, run_name(config), config, "pretrain", tags=tags, by_user=by_user) as tracked:
        if started is not None:
            started(tracked.id)
        checkpoint = checkpoint_of(tracked, config.data_folder) if config.resume else None
        if not config.resume:
            _describe(tracked, config, dataset, unlabelled)
        tables = dataset.split(config.fold)
        more = [(unlabelled.photos, unlabelled.rows)] if unlabelled else []
        photos = visible_photos(
            PhotoRows([(dataset.photos, tables.train.photo_index), *more]),
            PhotoRows([(dataset.photos, tables.val.photo_index)]),
            config.learner,
            labelled=len(tables.train),
            folder=dataset.folder,
            seed=config.seed,
        )
        with precision(config.mixed_precision) as policy:
            tracked.set_tags({"precision": policy})
            learning: Learning = config.learner.learning(
                photos, seed=config.seed, mixed_precision=policy != "float32", folder=dataset.folder
            )
            with progress_bar(f"Learning {run_name(config)}", learning.steps) as bar:
                if checkpoint:
                    bar.advance(learning.steps * checkpoint.progress.epochs_done // learning.epochs)
                keeper = keeper_of(tracked, config.data_folder, checkpoint)
                logged_until = last_logged_epoch(tracked, "reconstruction_error")
                learning.fit(EpochWatcher(tracked, bar, keeper, _summary, logged_until=logged_until), checkpoint)
            encoder = learning.encoder(dataset.side_px)
            metrics = {**learning.closing_metrics(), **photos.floors(math.prod(encoder.output.shape[1:]))}
            _log_results(tracked, learning, encoder, metrics, config, dataset)
        tracked.log_metrics({"minutes": (time.monotonic() - began) / 60})
        tracked.delete(CHECKPOINT_FOLDER)
        return Pretrained(tracked.id, run_name(config), metrics)


def run_name(config: PretrainConfig) -> str:
    """Return a name such as ``pretrain dbn``."""
    return " ".join(["pretrain", config.method, *unusual(config)])


def _unlabelled(config: PretrainConfig, dataset: PreparedDataset) -> Unlabelled:
    """Load the folder of unlabelled photos, without near-duplicates of val or test photos."""
    tables = dataset.split(config.fold)
    forbidden = PhotoRows([(dataset.photos, part.photo_index) for part in (tables.val, tables.test)])
    folder = Path(config.unlabelled)
    with progress_bar("Unlabelled photos", len(find_photos(folder).names)) as bar:
        found = load_unlabelled(
            folder,
            cache_folder=dataset.folder.parent / UNLABELLED_CACHE,
            side_px=dataset.side_px,
            max_problem_share=config.max_problem_share,
            workers=worker_count("auto"),
            forbidden=forbidden,
            near_duplicate_distance=int(dataset.manifest["split"].get("near_duplicate_distance", NEAR_DUPLICATE_BITS)),
            progress=bar.advance,
        )
    say(f"{len(found.rows)} unlabelled photos; {len(found.problems)} left out: see unlabelled_problems.csv.")
    return found


def _describe(tracked: Run, config: PretrainConfig, dataset: PreparedDataset, unlabelled: Unlabelled | None) -> None:
    """Log a new run's settings, photos and dataset."""
    tables = dataset.split(config.fold)
    photos = len(tables.train) + (len(unlabelled.rows) if unlabelled else 0)
    more = {"unlabelled_digest": unlabelled.digest} if unlabelled else {}
    tracked.log_parameters({**flatten(config), "training_photos": photos, **more})
    describe_run(tracked, "pretrain", config, dataset, more)
    tracked.set_tags({"method": config.method, "seed": config.seed, "fold": config.fold})
    source = prepared_from(dataset.manifest)
    for context, table in {"train": tables.train, "val": tables.val}.items():
        tracked.log_dataset(table.frame, source=source, name=dataset.name, digest=dataset.digest, context=context)
    if unlabelled:
        tracked.log_table(unlabelled.problems, "unlabelled_problems.csv")


def _summary(epoch: int, metrics: dict[str, float], progress: Progress) -> str:
    return (
        f"epoch {epoch}: reconstruction error {metrics['reconstruction_error']:.4f}, "
        f"on val {metrics['val/reconstruction_error']:.4f}"
    )


def _log_results(
    tracked: Run,
    learning: Learning,
    encoder: Any,
    metrics: Mapping[str, float],
    config: PretrainConfig,
    dataset: PreparedDataset,
) -> None:
    """Log metrics, figures, and the encoder: as a network to start from, and as a model to call."""
    history = tracked.metric_history(CURVES)
    log_closing(tracked, metrics, CURVES, int(history[-1]["epoch"]))
    drawn = learning.figures()
    if len(history) > 1:  # no curve of one point
        drawn["learning_curves"] = learning_curves(history, {text: metrics[name] for name, text in FLOORS.items()})
    parameters = {"dataset": config.dataset, "model": config.learner.network_kind, "pretrained": tracked.id}
    about = run_note(
        tracked.id,
        f"**{_verdict(metrics)}**",
        command=next_command("train", parameters, config.data_folder),
        pictures=[f"figures/{name}.png" for name in ("reconstructions", "learning_curves") if name in drawn],
    )
    tracked.set_tags({"collapsed": has_collapsed(metrics), "verdict": _verdict(metrics), **about})
    val = f"val ({len(dataset.split(config.fold).val):,} photos)"
    shown = {"learning_curves": f": train, {val}", "reconstructions": f": some of {val}"}
    for name, figure in drawn.items():
        caption = f"{without_dataset(run_name(config))} on {dataset.name}{shown.get(name, '')}"
        tracked.log_figure(figure, f"figures/{name}.png", caption)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        encoder.save(folder / Path(ENCODER).name)
        tracked.log_file(folder / Path(ENCODER).name, str(Path(ENCODER).parent))
        tracked.log_file(learning.save(folder), str(Path(ENCODER).parent))
        # As pyfunc: photos to feature vectors.
        network = feature_network(encoder)
        file = folder / "features.keras"
        network.save(file)
        photos = dataset.photos[dataset.split(config.fold).val.photo_index[:PHOTOS_COMPARED]]
        tracked.log_model(served_model(network, {"network": file}, photos, folder), "model")


def has_collapsed(metrics: Mapping[str, float]) -> bool:
    """Return whether the code tells no more of a photo than its mean colour, or than nothing: the mean photo."""
    floor = min(metrics["floor/reconstruction_error"], metrics["floor/mean_colour_reconstruction_error"])
    return metrics["val/reconstruction_error"] >= floor


def say_reconstruction(pretrained: Pretrained) -> None:
    """Print how well val photos are rebuilt, beside the floors."""
    say(_verdict(pretrained.metrics), "green" if beats_all(pretrained.metrics) else "yellow")


def _verdict(metrics: Mapping[str, float]) -> str:
    error = metrics["val/reconstruction_error"]
    floors = "; ".join(f"{text} {metrics[name]:.4f}" for name, text in FLOORS.items())
    fact = ""
    if has_collapsed(metrics):
        fact = "Collapsed: the code tells no more of a photo than its mean colour. "
    elif not beats_all(metrics):
        fact = "A linear code of the same width does no worse. "
    return f"{fact}Val photos are rebuilt with a mean squared error of {error:.4f}. To be beaten: {floors}."


def beats_all(metrics: Mapping[str, float]) -> bool:
    """Return whether val photos are rebuilt better than every floor does."""
    return metrics["val/reconstruction_error"] < min(metrics[name] for name in FLOORS)
