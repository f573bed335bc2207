"""``explain``: where a model looks, shown photo by photo and scored against the outlines of the litter."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.explain import ExplainConfig
from wastelens.data.annotations.outlines import AnnotatedOutlines
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.data.prepared.tables import LabelTable
from wastelens.errors import ConfigError, RunError, did_you_mean
from wastelens.experiment.finished_runs import BEST_BY, FinishedRun, best_model, find_run, network_of
from wastelens.explain.examination import Clock, Examination
from wastelens.explain.methods.registry import build_methods, fitting_methods, layer_of
from wastelens.explain.page.pictures import Pictures
from wastelens.explain.page.report import header, notes_on, table_rows
from wastelens.explain.page.shown_photos import ShownPhotos
from wastelens.explain.scoring.scores import CONTROL, PairScores, Summary, score_frame, summarise
from wastelens.models.backend import load_backend
from wastelens.models.initialisers import randomised_copy
from wastelens.system.console import progress_bar, say, table, warn
from wastelens.tracking.tracker import Run, Tracker, to_json

ARTIFACTS = "explanations"


@dataclass(frozen=True)
class Explanations:
    """What ``explain`` added to a model run."""

    run_id: str
    summary: Summary


def run(config: ExplainConfig, tracker: Tracker) -> Explanations:
    """Explain a model's decisions on some photos, score the explanations, and log both into the model's own run.

    Raises:
        InputError: there is no such prepared dataset or model run, its network is gone, a photo, layer or method cannot
            be had, or the dataset was prepared without outlines.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    found = _model_run(config, tracker, dataset)
    photos = _chosen_photos(config, dataset, int(found.config["fold"]))
    outlines = dataset.outlines()
    load_backend()
    examination, layer = _examination(config, dataset, found, outlines)
    shown = ShownPhotos(dataset)
    methods = list(examination.methods)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = Pictures(
            folder,
            photos=shown,
            outlines=outlines,
            methods=methods,
            materials=dataset.materials,
            split=config.split,
        )
        with pictures:
            summary = _summary(config, dataset, methods, _explain(config, examination, photos, dataset, pictures))
            notes = notes_on(summary, chosen=len(photos), gone=shown.gone)
            pictures.finish(header(summary, found.stored.name, found.id, dataset, config.split, notes))
        used = {**config.model_dump(mode="json"), "run_id": found.id, "methods": methods, "layer": layer}
        (folder / "scores.csv").write_text(summary.frame.to_csv(index=False), encoding="utf-8")
        (folder / "settings.json").write_text(to_json(used), encoding="utf-8")
        with tracker.added_to(found.id) as tracked:
            _log(tracked, found, summary, folder, used)
    _report(summary, notes, found, tracker)
    return Explanations(found.id, summary)


def check(config: ExplainConfig, tracker: Tracker, dataset: PreparedDataset, fold: int) -> None:
    """Look, before any training, whether what is to be explained can be had for a model of this dataset and fold.

    Raises:
        InputError: there is no such run, photo, or number of background photos, or the dataset was prepared without
            outlines.
    """
    if config.run_id:
        fold = int(find_run(tracker, config.run_id, dataset, None, ["train"]).config["fold"])
    _chosen_photos(config, dataset, fold)
    _background_rows(config, dataset, fold)
    dataset.check_outlines()


def _model_run(config: ExplainConfig, tracker: Tracker, dataset: PreparedDataset) -> FinishedRun:
    """The run that was named, or the best; says which."""
    found = find_run(tracker, config.run_id or best_model(tracker, dataset), dataset, None, ["train"])
    stored = found.stored
    chosen = "" if config.run_id else f", the best of {dataset.name} by {BEST_BY} ({stored.metrics[BEST_BY]:.3f})"
    say(f"Explaining run {found.id}, {stored.name}{chosen}.")
    if stored.tags.get("collapsed") == "true":
        warn("This model is collapsed: it says the same of nearly every photo, and its maps explain little.")
    missing = [name for name in dataset.materials if f"threshold_{name}" not in stored.metrics]
    if missing:
        raise RunError(f"Run {found.id} has no threshold_{missing[0]}: it is of another version. Train it again.")
    return found


def _chosen_photos(config: ExplainConfig, dataset: PreparedDataset, fold: int) -> LabelTable:
    """The photos to explain, of the split that the model was trained on, in the order of their names.

    Raises:
        ConfigError: a file name that is not in the split.
    """
    tables: dict[str, LabelTable] = vars(dataset.split(fold))
    names = tables[config.split].file_names
    for name in set(config.file_names) - set(names):
        elsewhere = [split for split, table in tables.items() if name in table.file_names]
        hint = f" It is in split={elsewhere[0]}." if elsewhere else did_you_mean(name, names)
        hint = hint or f" The names are in labels.csv of {dataset.folder}."
        raise ConfigError(f"file_names: '{name}' is no photo of split={config.split} of {dataset.name}.{hint}")
    if config.file_names:
        rows = [names.index(name) for name in sorted(set(config.file_names))]
    else:
        order = np.random.default_rng([config.seed, 0]).permutation(len(names))
        rows = np.sort(order[: config.photos]).tolist()
    return tables[config.split].take(np.array(rows, dtype=np.intp))


def _examination(
    config: ExplainConfig, dataset: PreparedDataset, found: FinishedRun, outlines: AnnotatedOutlines
) -> tuple[Examination, str]:
    """The network with its methods, and the layer that is drawn."""
    network = network_of(found)
    names = fitting_methods(network, config.methods)
    layer = layer_of(network, names, config.layer)
    background = dataset.photos[_background_rows(config, dataset, int(found.config["fold"]))]
    thresholds = [found.stored.metrics[f"threshold_{material}"] for material in dataset.materials]
    examination = Examination(
        network=network,
        methods=build_methods(network, names, config, layer=layer, background=background),
        randomised=build_methods(
            randomised_copy(network, config.seed), names, config, layer=layer, background=background
        ),
        materials=dataset.materials,
        thresholds=np.array(thresholds),
        outlines=outlines,
        steps=config.steps,
        randomised_photos=config.randomised_photos,
    )
    return examination, layer


def _background_rows(config: ExplainConfig, dataset: PreparedDataset, fold: int) -> npt.NDArray[np.intp]:
    """Where in the cache the training photos are that stand for "nothing in particular": (background photos,)."""
    rows = dataset.split(fold).train.frame["photo_index"].to_numpy(dtype=np.intp)
    if config.background_photos > len(rows):
        raise ConfigError(
            f"background_photos={config.background_photos}, but {dataset.name} has {len(rows)} training photos. Give "
            f"{len(rows)} or less."
        )
    drawn = np.random.default_rng([config.seed, 1]).choice(rows, config.background_photos, replace=False)
    return np.sort(drawn)


def _explain(
    config: ExplainConfig,
    examination: Examination,
    photos: LabelTable,
    dataset: PreparedDataset,
    pictures: Pictures,
) -> list[PairScores]:
    """Every photo into the pictures; returns the scores."""
    clock, rows = Clock(), list[PairScores]()
    with progress_bar("Explaining", len(photos)) as bar:
        explained = examination.explain(photos, dataset.photos, config.batch_size, clock)
        for done, (row, pairs) in enumerate(explained, start=1):
            if pairs:
                pictures.draw(photos.file_names[row], pairs)
                rows += [scores for pair in pairs for scores in pair.scores.values()]
                clock.lap("pictures")
            computed = min(-(-done // config.batch_size) * config.batch_size, len(photos))
            bar.advance()
            bar.show(clock.per_photo(computed))
    return rows


def _summary(
    config: ExplainConfig, dataset: PreparedDataset, methods: Sequence[str], rows: Sequence[PairScores]
) -> Summary:
    return summarise(
        score_frame(rows),
        materials=dataset.materials,
        methods=(*methods, CONTROL),
        seed=config.seed,
        resamples=config.bootstrap_resamples,
    )


def _log(tracked: Run, found: FinishedRun, summary: Summary, folder: Path, used: Mapping[str, Any]) -> None:
    """Everything at once, in place of what an earlier call left; metrics and tags when the files are there.

    A metric cannot be removed: one of an earlier call that this one has not becomes NaN.
    """
    tracked.replace_folder(folder, ARTIFACTS)
    earlier = [name for name in found.stored.metrics if name.startswith("explain_")]
    tracked.log_metrics(dict.fromkeys(earlier, float("nan")) | summary.metrics())
    tracked.set_tags(
        {
            "explained_by": ", ".join(used["methods"]),
            "explained_layer": used["layer"],
            "explained_split": used["split"],
            "explanations": " ".join(summary.sentences()),
        }
    )


def _report(summary: Summary, notes: Sequence[str], found: FinishedRun, tracker: Tracker) -> None:
    columns, rows = table_rows(summary)
    table("Do the maps find the litter? (1 = chance for energy; in brackets: 95 % intervals)", columns, rows)
    for note in notes:
        say(note)
    for sentence in summary.sentences():
        say(sentence, "bold")
    say(f"Read them: {ARTIFACTS}/index.html among the artifacts of run {found.id}. {tracker.finished_hint()}", "green")
