"""``explain``: show where a model looks, photo by photo, and score it against the outlines of the litter."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wastelens.config.explain import ExplainConfig
from wastelens.config.explanation_methods import MethodInputs
from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.data.prepared.tables import LabelTable
from wastelens.errors import ConfigError, did_you_mean
from wastelens.experiment.finished_runs import BEST_BY, FinishedRun, best_model, find_run, network_of, rule_of
from wastelens.explain.examination import (
    Examination,
    build_methods,
    check_methods,
    chosen_layer,
    fitting_methods,
)
from wastelens.explain.page.gallery import GalleryWriter, ShownPhoto
from wastelens.explain.page.report import header, notes_on, table_rows
from wastelens.explain.page.shown_photos import ShownPhotos
from wastelens.explain.scoring.scores import CONTROL, PairScores, Summary, score_frame, summarise
from wastelens.models.backend import load_backend
from wastelens.models.layers import randomised_copy
from wastelens.system.arrays import PhotoArray
from wastelens.system.console import next_command, progress_bar, say, table, warn
from wastelens.system.tables import csv_text, for_spreadsheets
from wastelens.tracking.tracker import Run, Tracker, to_json

ARTIFACTS = "explanations"


@dataclass(frozen=True)
class Explanations:
    """The explanations that were added to a model run."""

    run_id: str
    summary: Summary


def run(config: ExplainConfig, tracker: Tracker) -> Explanations:
    """Explain a model's decisions, and print where they are and what to do next.

    Raises:
        As :func:`explained`.
    """
    made = explained(config, tracker)
    say(f"See the page: {tracker.finished_hint(made.run_id, f'{ARTIFACTS}/index.html')}", "green")
    proven = tracker.stored(made.run_id).tags.get("above_controls") == "true"
    use = {"model": made.run_id, "photos": "FOLDER", "accept_unproven": "" if proven else "true"}
    say(f"Next: {next_command('predict', use, config.data_folder)}")
    return made


def explained(config: ExplainConfig, tracker: Tracker) -> Explanations:
    """Explain a model's decisions on some photos, score the explanations, and log both into the model's own run.

    Raises:
        InputError: there is no such prepared dataset, model run, photo, layer or method; the run's network is gone; or
            the dataset was prepared without outlines.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    found = _model_run(config, tracker, dataset)
    dataset = dataset.at_side(found.image_side_px)
    photos = _chosen_photos(config, dataset, int(found.config["fold"]))
    outlines = dataset.outlines()
    load_backend()
    examination, layer = _examination(config, dataset, found, outlines)
    shown = ShownPhotos(dataset)
    methods = list(examination.methods)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with GalleryWriter(folder) as gallery:
            rows = _explain(config, examination, photos, dataset, shown, gallery)
            summary = summarise(
                score_frame(rows),
                methods=(*methods, CONTROL),
                seed=config.seed,
                resamples=config.bootstrap_resamples,
            )
            notes = notes_on(summary, chosen=len(photos), gone=shown.gone)
            gallery.finish(header(summary, found.stored.name, found.id, dataset, config.split, notes))
        used = {**config.model_dump(mode="json"), "run_id": found.id, "methods": methods, "layer": layer}
        (folder / "scores.csv").write_text(csv_text(for_spreadsheets(summary.frame)), encoding="utf-8")
        (folder / "settings.json").write_text(to_json(used), encoding="utf-8")
        with tracker.added_to(found.id) as tracked:
            _log(tracked, found, summary, folder, used)
    columns, lines = table_rows(summary)
    table("Do the maps find the litter? (energy: 1 is chance; in brackets: 95 % intervals)", columns, lines)
    for note in notes:
        say(note)
    for sentence in summary.sentences():
        say(sentence, "bold")
    return Explanations(found.id, summary)


def check(config: ExplainConfig, tracker: Tracker, dataset: PreparedDataset, fold: int) -> None:
    """Check, before any training, that a model of this dataset and fold can be explained with this config.

    Raises:
        InputError: there is no such run or photo, a method needs more training photos, or the dataset was prepared
            without outlines.
    """
    if config.run_id:
        fold = int(find_run(tracker, config.run_id, dataset, None, ["train"]).config["fold"])
    _chosen_photos(config, dataset, fold)
    check_methods(config, len(dataset.split(fold).train), dataset.name)
    dataset.check_outlines()


def _model_run(config: ExplainConfig, tracker: Tracker, dataset: PreparedDataset) -> FinishedRun:
    """Find the named run, or the best one, and say which."""
    found = find_run(tracker, config.run_id or best_model(tracker, dataset), dataset, None, ["train"])
    stored = found.stored
    chosen = "" if config.run_id else f", the best of {dataset.name} by val macro AP ({stored.metrics[BEST_BY]:.3f})"
    say(f"Explaining run {found.id}, {stored.name}{chosen}.")
    if stored.tags.get("collapsed") == "true":
        warn("This model is collapsed: it predicts the same for nearly every photo, so its maps explain little.")
    return found


def _chosen_photos(config: ExplainConfig, dataset: PreparedDataset, fold: int) -> LabelTable:
    """Choose the photos to explain, in the order of their names, from the dataset as split for the model."""
    tables: dict[str, LabelTable] = vars(dataset.split(fold))
    names = tables[config.split].file_names
    for name in set(config.file_names) - set(names):
        elsewhere = [split for split, table in tables.items() if name in table.file_names]
        hint = f" It is in split={elsewhere[0]}." if elsewhere else did_you_mean(name, names)
        hint = hint or f" The names are in {dataset.folder / 'labels.csv'}."
        raise ConfigError(f"file_names: '{name}' is not a photo in split={config.split} of {dataset.name}.{hint}")
    if config.file_names:
        rows = [names.index(name) for name in sorted(set(config.file_names))]
    else:
        order = np.random.default_rng([config.seed, 0]).permutation(len(names))
        rows = np.sort(order[: config.photos]).tolist()
    return tables[config.split].take(np.array(rows, dtype=np.intp))


def _examination(
    config: ExplainConfig, dataset: PreparedDataset, found: FinishedRun, outlines: AnnotatedOutlines
) -> tuple[Examination, str]:
    """Prepare the network and its methods; also return the layer whose map is drawn."""
    network = network_of(found)
    fold = int(found.config["fold"])
    check_methods(config, len(dataset.split(fold).train), dataset.name)
    names = fitting_methods(network, config.methods)
    layer = chosen_layer(network, names, config.layer)
    inputs = MethodInputs(layer, partial(_training_photos, config, dataset, fold), config.seed)
    examination = Examination(
        network=network,
        methods=build_methods(network, names, config, inputs),
        randomised=build_methods(randomised_copy(network, config.seed), names, config, inputs),
        rule=rule_of(found).of(dataset.materials),
        outlines=outlines,
        steps=config.steps,
        randomised_photos=config.randomised_photos,
    )
    return examination, layer


def _training_photos(config: ExplainConfig, dataset: PreparedDataset, fold: int, number: int) -> PhotoArray:
    """Draw training photos, in the order of the cache: uint8 (number, side, side, 3)."""
    train = dataset.split(fold).train.photo_index
    drawn = np.random.default_rng([config.seed, 1]).choice(train, number, replace=False)
    photos: PhotoArray = dataset.photos[np.sort(drawn)]
    return photos


def _explain(
    config: ExplainConfig,
    examination: Examination,
    photos: LabelTable,
    dataset: PreparedDataset,
    shown: ShownPhotos,
    gallery: GalleryWriter,
) -> list[PairScores]:
    """Explain every photo, add it to the gallery, and return the scores."""
    rows = list[PairScores]()
    with progress_bar("Explaining", len(photos)) as bar:
        for row, pairs in examination.explain(photos, dataset.photos, config.batch_size, bar):
            if pairs:
                name = photos.file_names[row]
                photo = ShownPhoto(name, shown[name], examination.outlines.drawn(name), config.split)
                gallery.add(photo, pairs)
                rows += [scores for pair in pairs for scores in pair.scores.values()]
    return rows


def _log(tracked: Run, found: FinishedRun, summary: Summary, folder: Path, used: Mapping[str, Any]) -> None:
    """Replace everything that an earlier call logged: first the files, then metrics and tags.

    Metrics cannot be removed, so those that only the earlier call logged become NaN.
    """
    tracked.replace_folder(folder, ARTIFACTS)
    earlier = [name for name in found.stored.metrics if name.startswith("explain")]
    tracked.log_metrics(dict.fromkeys(earlier, float("nan")) | summary.metrics())
    how = {"explained_by": ", ".join(used["methods"]), "explained_layer": used["layer"]}
    tracked.set_tags({**how, "explained_split": used["split"], "explanations": " ".join(summary.sentences())})
