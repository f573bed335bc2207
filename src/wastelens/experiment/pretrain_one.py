"""Pretrain one encoder as a run: learn from photos without their labels, and log the encoder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config.base import flatten
from wastelens.config.pretrain import PretrainConfig
from wastelens.data.annotations.sources import prepared_from
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.duplicates.search import NEAR_DUPLICATE_BITS
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.data.prepared.tables import LabelTable
from wastelens.errors import RunError
from wastelens.experiment.epoch_log import EpochWatcher
from wastelens.experiment.finished_runs import CONFIG_ARTIFACT, ENCODER, about_run, usable_with
from wastelens.experiment.resuming import checkpoint_of, settings_of_resumed, telling_how_to_resume
from wastelens.figures.pretraining import learning_curves
from wastelens.models.backend import load_backend
from wastelens.models.export import (
    SERVED_COLUMNS,
    SERVED_ENCODER_CODE,
    SERVED_SETTINGS,
    png_bytes,
    served_package,
    served_requirements,
)
from wastelens.models.features import feature_network, features_of
from wastelens.models.precision import precision
from wastelens.preparing.unlabelled import UNLABELLED_CACHE, Unlabelled, find_photos, load_unlabelled
from wastelens.system.console import progress_bar, say
from wastelens.system.machine import worker_count
from wastelens.tracking.tracker import PyfuncModel, Run, Tracker, to_json
from wastelens.training.checkpoint import CHECKPOINT_FOLDER, Checkpoint, CheckpointKeeper, Progress
from wastelens.training.learning import Learning, build_learning
from wastelens.training.visible_photos import VisiblePhotos, visible_photos

CURVES = ["reconstruction_error", "pseudo_likelihood", "free_energy_gap", "layer"]
CURVES += [f"val_{name}" for name in CURVES[:2]]


@dataclass(frozen=True)
class Pretrained:
    """What ``pretrain`` made: a run with an encoder, and how well val is rebuilt."""

    run_id: str
    name: str
    metrics: dict[str, float]


def pretrain_one(
    config: PretrainConfig,
    tracker: Tracker,
    started: Callable[[str], None] | None = None,
    tags: Mapping[str, object] | None = None,
) -> Pretrained:
    """Learn from the training photos, and log the encoder.

    Args:
        config: what to learn, and how.
        tracker: where runs go.
        started: is told the run's id as soon as there is one, where another run is waiting for it.
        tags: are given to the run when it is opened.

    Raises:
        InputError: there is no such prepared dataset, no usable unlabelled photos, or the run cannot be resumed.
        NonFiniteLossError: the learning diverged; the run is FAILED.
    """
    began = time.monotonic()
    dataset = open_dataset(config.dataset, config.data_folder)
    config = settings_of_resumed(tracker, config, dataset, "pretrain") if config.resume else config
    unlabelled = _unlabelled(config, dataset) if config.unlabelled else None
    if config.resume:
        _check_same_photos(tracker, config, unlabelled)
    load_backend()
    with (
        tracker.start(run_name(config), resume=config.resume, system_metrics=True, tags=tags) as tracked,
        telling_how_to_resume(tracked.id, config, "pretrain") if started is None and tags is None else nullcontext(),
    ):
        if started is not None:
            started(tracked.id)
        checkpoint = checkpoint_of(tracked) if config.resume else None
        if not config.resume:
            _describe(tracked, config, dataset, unlabelled)
        photos = _photos(config, dataset, unlabelled)
        with precision(config.mixed_precision) as policy:
            tracked.set_tags({"precision": policy})
            learning = build_learning(
                config.learner,
                photos,
                seed=config.seed,
                mixed_precision=policy != "float32",
                folder=dataset.folder,
            )
            _fit(learning, config, tracked, checkpoint)
            metrics = _log_results(tracked, learning, config, dataset)
        tracked.log_metrics({"minutes": (time.monotonic() - began) / 60})
        tracked.delete(CHECKPOINT_FOLDER)
        return Pretrained(tracked.id, run_name(config), metrics)


def run_name(config: PretrainConfig) -> str:
    """``pretrain dbn seed 0``."""
    words = ["pretrain", config.method, f"seed {config.seed}"]
    return " ".join([*words, f"fold {config.fold}"] if config.fold else words)


def _unlabelled(config: PretrainConfig, dataset: PreparedDataset) -> Unlabelled:
    """The photos of the folder without labels, none of them a near-duplicate of a val or test photo."""
    tables = dataset.split(config.fold)
    forbidden = PhotoRows([(dataset.photos, _rows(part)) for part in (tables.val, tables.test)])
    folder = Path(config.unlabelled)
    with progress_bar("Photos without labels", len(find_photos(folder).names)) as bar:
        found = load_unlabelled(
            folder,
            cache_folder=dataset.folder.parent / UNLABELLED_CACHE,
            side_px=int(dataset.manifest["cache"]["image_side_px"]),
            max_problem_share=config.max_problem_share,
            workers=worker_count("auto"),
            forbidden=forbidden,
            near_duplicate_distance=int(dataset.manifest["split"].get("near_duplicate_distance", NEAR_DUPLICATE_BITS)),
            progress=bar.advance,
        )
    say(f"{len(found.rows)} photos without labels; {len(found.problems)} left out: see unlabelled_problems.csv.")
    return found


def _check_same_photos(tracker: Tracker, config: PretrainConfig, unlabelled: Unlabelled | None) -> None:
    """Go on only with the photos that the run began with: their order and the samples hang on their number.

    Raises:
        RunError: the folder of unlabelled photos has changed.
    """
    begun_with = about_run(tracker.stored(config.resume)).get("unlabelled_digest", "")
    if begun_with != (unlabelled.digest if unlabelled else ""):
        raise RunError(
            f"The photos in unlabelled='{config.unlabelled}' are not those that run {config.resume} began with. "
            "Put the old ones back, or start a new run."
        )


def _rows(photos: LabelTable) -> npt.NDArray[np.intp]:
    return photos.frame["photo_index"].to_numpy(dtype=np.intp)


def _describe(tracked: Run, config: PretrainConfig, dataset: PreparedDataset, unlabelled: Unlabelled | None) -> None:
    """Log what a new run is about."""
    tables = dataset.split(config.fold)
    photos = len(tables.train) + (len(unlabelled.rows) if unlabelled else 0)
    more = {"unlabelled_digest": unlabelled.digest} if unlabelled else {}
    tracked.log_parameters({**flatten(config), "training_photos": photos, **more})
    about = {"step": "pretrain", "config": config.model_dump(mode="json"), **usable_with(dataset), **more}
    tracked.log_text(to_json(about), CONFIG_ARTIFACT)
    tags = {"step": "pretrain", "dataset": dataset.name, "dataset_digest": dataset.digest}
    tracked.set_tags({**tags, "method": config.method, "seed": config.seed, "fold": config.fold})
    source = prepared_from(dataset.manifest)
    for context, table in {"train": tables.train, "val": tables.val}.items():
        tracked.log_dataset(table.frame, source=source, name=dataset.name, digest=dataset.digest, context=context)
    if unlabelled:
        tracked.log_table(unlabelled.problems, "unlabelled_problems.csv")


def _photos(config: PretrainConfig, dataset: PreparedDataset, unlabelled: Unlabelled | None) -> VisiblePhotos:
    """All that is learnt from, and what the learning is measured on."""
    tables = dataset.split(config.fold)
    more = [(unlabelled.photos, unlabelled.rows)] if unlabelled else []
    return visible_photos(
        PhotoRows([(dataset.photos, _rows(tables.train)), *more]),
        PhotoRows([(dataset.photos, _rows(tables.val))]),
        config.learner,
        labelled=len(tables.train),
        folder=dataset.folder,
        seed=config.seed,
    )


class _Watcher(EpochWatcher):
    def figures(self, epoch: int, metrics: dict[str, float], progress: Progress) -> str:
        return (
            f"epoch {epoch}: reconstruction_error {metrics['reconstruction_error']:.4f}, "
            f"on val {metrics['val_reconstruction_error']:.4f}"
        )


def _fit(learning: Learning, config: PretrainConfig, tracked: Run, checkpoint: Checkpoint | None) -> None:
    with progress_bar(f"Learning {run_name(config)}", learning.steps) as bar:
        if checkpoint:
            bar.advance(learning.steps * checkpoint.progress.epochs_done // learning.epochs)
        learning.fit(_Watcher(tracked, bar, CheckpointKeeper(tracked, checkpoint)), checkpoint)


def _log_results(
    tracked: Run, learning: Learning, config: PretrainConfig, dataset: PreparedDataset
) -> dict[str, float]:
    """Metrics, figures, and the encoder: as a network to start from, and as a model to call."""
    metrics = learning.closing_metrics()
    history = tracked.metric_history(CURVES)
    tracked.log_metrics(metrics, step=int(history[-1]["epoch"]))
    curves = learning_curves(history, metrics["floor_reconstruction_error"])
    for name, figure in {**learning.figures(), "learning_curves": curves}.items():
        tracked.log_figure(figure, f"figures/{name}.png")
    encoder = learning.encoder(int(dataset.manifest["cache"]["image_side_px"]))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        encoder.save(folder / Path(ENCODER).name)
        tracked.log_file(folder / Path(ENCODER).name, str(Path(ENCODER).parent))
        tracked.log_file(learning.save(folder), str(Path(ENCODER).parent))
        _log_model(tracked, encoder, dataset, config.fold, folder)
    return metrics


def _log_model(tracked: Run, encoder: Any, dataset: PreparedDataset, fold: int, folder: Path) -> None:
    """The encoder as pyfunc: photos to vectors."""
    network = feature_network(encoder)
    network.save(folder / "features.keras")
    first = _rows(dataset.split(fold).val)[:1]
    tracked.log_model(
        PyfuncModel(
            code=SERVED_ENCODER_CODE,
            files={"network": folder / "features.keras"},
            columns=SERVED_COLUMNS,
            settings=SERVED_SETTINGS,
            input_example=pd.DataFrame({"image": [png_bytes(dataset.photos[int(first[0])])]}),
            output_example=features_of(network, dataset.photos, first),
            packages=served_package(folder),
            requirements=served_requirements(),
        ),
        "model",
    )


def say_reconstruction(pretrained: Pretrained) -> None:
    """Say how well val photos are rebuilt, beside the floor."""
    metrics = pretrained.metrics
    error, floor = metrics["val_reconstruction_error"], metrics["floor_reconstruction_error"]
    say(
        f"Photos of val are rebuilt with a mean squared error of {error:.4f}; the mean training photo has {floor:.4f}.",
        "green" if error < floor else "yellow",
    )
