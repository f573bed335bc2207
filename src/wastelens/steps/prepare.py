"""``prepare``: turn annotations and photos into a prepared dataset, and draw figures to look at before training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from wastelens.config.base import flatten
from wastelens.config.prepare import PrepareConfig
from wastelens.data.annotations.labels import AnnotatedPhotos, tabulate
from wastelens.data.annotations.layout import ANNOTATIONS
from wastelens.data.annotations.materials import MAPPING_FILE
from wastelens.data.annotations.sources import prepared_from
from wastelens.data.photos.cache import PhotoSource, earlier_photos
from wastelens.data.photos.shards import ShardedCache
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.sample import render_sample
from wastelens.engine.engine import opened
from wastelens.figures.preparation import look_at
from wastelens.preparing import corrections, photo_split, reading, stages, summary
from wastelens.preparing.writing import DatasetTables, Preparation, write_preparation
from wastelens.system.console import progress_bar, say
from wastelens.tracking.tracker import Run, Tracker

_LOGGED = {
    *(prepared.MANIFEST, prepared.LABELS, prepared.BALANCED, prepared.PROBLEMS, prepared.CORRECTIONS, MAPPING_FILE)
}


@dataclass(frozen=True)
class Prepared:
    """The prepared dataset, opened, and the MLflow run that describes it with its metrics."""

    dataset: PreparedDataset
    run_id: str
    metrics: dict[str, float]


def run(config: PrepareConfig, tracker: Tracker) -> Prepared:
    """Prepare a dataset, and log figures and metrics that describe it.

    Raises:
        InputError: the annotations, the mapping, the photos or the settings cannot be used; nothing is left behind.
    """
    source = reading.raw_data(config)
    say(source.summary)
    name = config.name or source.name
    with tracker.start(f"prepare {name}") as tracked:
        tracked.log_parameters(flatten(config))
        if source.name == "sample" and not (source.place / ANNOTATIONS).exists():
            with progress_bar("Rendering the sample", 240) as bar:
                render_sample(source.place, progress=lambda done, total: bar.advance())
        coco = reading.read_annotations(source, config)
        mapping = reading.mapping_for(source, coco, config.materials)
        wanted = corrections.read_corrections(config.corrections, mapping.materials)
        annotated = tabulate(coco, mapping)
        folder = config.data_folder / "prepared" / name
        summary.warn_of_replacing(folder, source, config.image_side_px)
        photo_split.check_group_by(source, config)
        with prepared.draft(folder) as draft:
            photos = reading.photo_sources(source, annotated.labels)
            annotated = reading.with_passed_over(annotated, coco, source, config)
            cached = _decode(annotated, photos, draft, folder, config)
            split = photo_split.split_photos(cached, mapping, source, config)
            corrected = corrections.changes(wanted, split.frame, mapping.materials, correct_test=config.correct_test)
            assignments = [one.split for one in (split.assignment, *split.folds)]
            splits = [prepared.split_tables(corrected.labels(one), one, mapping.materials) for one in assignments]
            split = replace(split, frame=corrected.labels(split.assignment.split))
            balanced = stages.balance(splits, config)
            controls = stages.score_all_controls(splits, cached.photos, config.seed)
            problems = photo_split.with_leaks(cached.problems, split)
            tables = DatasetTables(split.frame, cached.objects, problems, splits, balanced, controls, corrected.table)
            made = Preparation(coco, mapping, cached, split, tables, config.find_augmented_copies)
            write_preparation(draft, made, source, config)
        dataset = prepared.load_prepared(folder)
        metrics = {**summary.metrics(dataset, made), **corrected.metrics()}
        tracked.log_metrics(metrics)
        _log(tracked, dataset, made)
        corrected.report()
        summary.report(dataset, made)
        return Prepared(dataset, tracked.id, metrics)


def _decode(
    annotated: AnnotatedPhotos, photos: list[PhotoSource], draft: Path, folder: Path, config: PrepareConfig
) -> stages.CachedPhotos:
    """Decode the photos into the draft on the engine; copy those that the folder's finished dataset has."""
    cache = ShardedCache(draft.absolute(), config.image_side_px, config.max_megapixels)
    earlier = earlier_photos(folder, config.image_side_px) if prepared.earlier_cache(folder) else None
    with opened(config.engine, retries=config.retries) as engine, progress_bar("Decoding photos", len(photos)) as bar:
        stages.check_seen(draft, photos, engine)
        return stages.cache_photos(annotated, photos, cache, config, engine, earlier=earlier, progress=bar.advance)


def _log(tracked: Run, dataset: PreparedDataset, made: Preparation) -> None:
    manifest, labels = dataset.manifest, made.split.frame
    tracked.set_tags(
        {
            "step": "prepare",
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "annotations_digest": manifest["annotations_digest"],
            "materials_digest": manifest["files"][MAPPING_FILE],
            "cache_digest": manifest["files"][manifest["cache"]["file"]],
            "split_rule": made.split.groups.rule,
            **summary.about(tracked.id, dataset, made),
        }
    )
    tracked.log_dataset(
        labels, source=prepared_from(manifest), name=dataset.name, digest=dataset.digest, context="preparation"
    )
    logged = {prepared.MANIFEST: "", **manifest["files"]}.keys() & _LOGGED
    for name in sorted(logged):
        tracked.log_file(dataset.folder / name)
    figures, tables = look_at(dataset, made)
    for name, figure in figures.items():
        tracked.log_figure(figure, f"sight/{name}.png", f"{dataset.name}: {len(labels):,} photos")
    for name, table in tables.items():
        tracked.log_table(table, f"sight/{name}.csv")
