"""``explain``: where a model looks, shown photo by photo and scored against the outlines of the litter."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config import ExplainConfig
from wastelens.console import progress_bar, say, table, warn
from wastelens.data.opening import open_dataset
from wastelens.data.outlines import AnnotatedOutlines, read_outlines
from wastelens.data.prepared import PreparedDataset
from wastelens.data.tables import LabelTable
from wastelens.errors import ConfigError, RunError, did_you_mean
from wastelens.explain.examination import Clock, Examination, ExplainedPair
from wastelens.explain.gallery import GalleryWriter, ShownPair, ShownPhoto
from wastelens.explain.localisation import COVERED_TOO_MUCH
from wastelens.explain.methods import SIGNED, build_methods, fitting_methods, layer_of
from wastelens.explain.photo_figures import photo_figure
from wastelens.explain.report import header, notes_on, table_rows
from wastelens.explain.scores import CONTROL, METHOD_TITLES, PairScores, Summary, score_frame, summarise
from wastelens.explain.shown_photos import ShownPhotos
from wastelens.models.backend import load_backend
from wastelens.models.initialisers import randomised_copy
from wastelens.steps.finished_runs import BEST_BY, FinishedRun, best_model, find_run, network_of
from wastelens.tracking import Run, Tracker, to_json

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
            be had, or the annotations have changed since the dataset was prepared.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    found = _model_run(config, tracker, dataset)
    photos = _chosen_photos(config, dataset, found)
    outlines = read_outlines(dataset)
    load_backend()
    examination, layer = _examination(config, dataset, found, outlines)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shown = ShownPhotos(dataset)
        with GalleryWriter(folder) as gallery:
            rows = _explain(config, examination, photos, dataset, shown, gallery, folder)
            summary = summarise(
                score_frame(rows),
                materials=dataset.materials,
                methods=(*examination.methods, CONTROL),
                seed=config.seed,
                resamples=config.bootstrap_resamples,
            )
            notes = notes_on(summary, chosen=len(photos), gone=shown.gone)
            gallery.finish(
                header(
                    summary,
                    title=found.stored.name,
                    run_id=found.id,
                    dataset=dataset.name,
                    split=config.split,
                    materials=dataset.materials,
                    notes=notes,
                )
            )
        (folder / "scores.csv").write_text(summary.frame.to_csv(index=False), encoding="utf-8")
        (folder / "settings.json").write_text(to_json({**config.model_dump(mode="json"), "layer": layer}))
        with tracker.added_to(found.id) as tracked:
            _log(tracked, config, summary, folder, examination.methods, layer)
    _report(summary, notes, found, tracker)
    return Explanations(found.id, summary)


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


def _chosen_photos(config: ExplainConfig, dataset: PreparedDataset, found: FinishedRun) -> LabelTable:
    """The photos to explain, of the split that the model was trained on, in the order of their names.

    Raises:
        ConfigError: a file name that is not in the split.
    """
    of_split: LabelTable = vars(dataset.split(int(found.config["fold"])))[config.split]
    names = of_split.file_names
    for name in config.file_names:
        if name not in names:
            hint = did_you_mean(name, names) or f" Its photos are in labels.csv of {dataset.folder}."
            raise ConfigError(f"file_names: '{name}' is no photo of split={config.split} of {dataset.name}.{hint}")
    if config.file_names:
        rows = [names.index(name) for name in sorted(set(config.file_names))]
    else:
        order = np.random.default_rng([config.seed, 0]).permutation(len(names))
        rows = np.sort(order[: config.photos]).tolist()
    return of_split.take(np.array(rows, dtype=np.intp))


def _examination(
    config: ExplainConfig, dataset: PreparedDataset, found: FinishedRun, outlines: AnnotatedOutlines
) -> tuple[Examination, str]:
    """The network with its methods, and the layer that is drawn."""
    network = network_of(found)
    names = fitting_methods(network, config.methods)
    layer = layer_of(network, names, config.layer)
    background = _background(config, dataset, found)
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


def _background(config: ExplainConfig, dataset: PreparedDataset, found: FinishedRun) -> npt.NDArray[np.uint8]:
    """Training photos that stand for "nothing in particular": uint8 (background photos, side, side, 3)."""
    rows = dataset.split(int(found.config["fold"])).train.frame["photo_index"].to_numpy(dtype=np.intp)
    if config.background_photos > len(rows):
        raise ConfigError(
            f"background_photos={config.background_photos}, but {dataset.name} has {len(rows)} training photos. Give "
            f"{len(rows)} or less."
        )
    drawn = np.random.default_rng([config.seed, 1]).choice(rows, config.background_photos, replace=False)
    return np.asarray(dataset.photos[np.sort(drawn)])


def _explain(
    config: ExplainConfig,
    examination: Examination,
    photos: LabelTable,
    dataset: PreparedDataset,
    shown: ShownPhotos,
    gallery: GalleryWriter,
    folder: Path,
) -> list[PairScores]:
    """Every photo into the gallery and into a figure a method; returns the scores."""
    clock, rows = Clock(), list[PairScores]()
    with progress_bar("Explaining", len(photos)) as bar:
        explained = examination.explain(photos, dataset.photos, config.batch_size, clock)
        for done, (row, pairs) in enumerate(explained, start=1):
            name = photos.file_names[row]
            if pairs:
                photo = ShownPhoto(name, shown[name], examination.outlines.drawn(name), config.split)
                shown_pairs = [_shown(pair) for pair in pairs]
                gallery.add(photo, shown_pairs)
                _write_figures(photo, shown_pairs, list(examination.methods), dataset.materials, folder)
                rows += [scores for pair in pairs for scores in pair.scores.values()]
                clock.lap("pictures")
            bar.advance()
            bar.show(clock.per_photo(min(-(-done // config.batch_size) * config.batch_size, len(photos))))
    return rows


def _shown(pair: ExplainedPair) -> ShownPair:
    about = pair.about
    return ShownPair(
        material=about.material,
        label=about.label,
        decision=about.decision,
        probability=about.probability,
        threshold=about.threshold,
        overlays=pair.maps,
        scores={name: _numbers(scores) for name, scores in pair.scores.items() if name != CONTROL},
        localised=about.localised,
        note=_why_not_localised(about),
    )


def _numbers(scores: PairScores) -> dict[str, float]:
    return {key: value for key, value in asdict(scores).items() if isinstance(value, float)}


def _why_not_localised(about: PairScores) -> str:
    if about.localised or not about.label:
        return ""
    if about.area_share > COVERED_TOO_MUCH:
        return "its outlines cover more than half of the photo"
    return "it has no usable outline"


def _write_figures(
    photo: ShownPhoto, pairs: Sequence[ShownPair], methods: Sequence[str], materials: Sequence[str], folder: Path
) -> None:
    """explanations/<method>/<photo>.png"""
    for method in methods:
        (folder / method).mkdir(exist_ok=True)
        png = photo_figure(
            photo, pairs, method, title=METHOD_TITLES[method], signed=method in SIGNED, materials=materials
        )
        (folder / method / f"{photo.file_name}.png").write_bytes(png)


def _log(tracked: Run, config: ExplainConfig, summary: Summary, folder: Path, methods: Any, layer: str) -> None:
    """Everything at once, in place of what an earlier call left; metrics and tags when the files are there."""
    tracked.delete(ARTIFACTS)
    tracked.log_folder(folder, ARTIFACTS)
    tracked.log_metrics(summary.metrics())
    tracked.set_tags(
        {
            "explained_by": ", ".join(methods),
            "explained_layer": layer,
            "explained_split": config.split,
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
