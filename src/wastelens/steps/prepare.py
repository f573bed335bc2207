"""``prepare``: turn annotations and photos into a prepared dataset, and draw figures to look at before training."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.config.base import flatten
from wastelens.config.prepare import PrepareConfig
from wastelens.data.annotations.coco import CocoDataset
from wastelens.data.annotations.labels import tabulate
from wastelens.data.annotations.layout import ANNOTATIONS, COCO
from wastelens.data.annotations.materials import MAPPING_FILE, MaterialMapping
from wastelens.data.annotations.outlines import outlines_json
from wastelens.data.annotations.sources import (
    NAMED,
    DatasetSource,
    choose_source,
    manifest_entries,
    prepared_from,
)
from wastelens.data.photos.cache import PhotoCache
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import PreparedDataset, SplitTables
from wastelens.data.sample import render_sample
from wastelens.errors import DatasetError, PreparedDatasetError
from wastelens.evaluation.controls import Controls, neighbour_warning
from wastelens.figures import dataset as sight
from wastelens.figures.contact_sheet import contact_sheet, near_duplicate_sheet, near_duplicate_table
from wastelens.preparing import stages
from wastelens.preparing.balance import Oversampled
from wastelens.preparing.groups import coarser_grouping
from wastelens.system.console import next_command, progress_bar, say, table, warn
from wastelens.system.machine import software_versions
from wastelens.tracking.tracker import Run, Tracker


@dataclass(frozen=True)
class Prepared:
    """The prepared dataset, opened, and the MLflow run that describes it with its metrics."""

    dataset: PreparedDataset
    run_id: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Parts:
    """Everything known before the manifest is written; ``balanced``, ``controls``: the main split, then each fold."""

    coco: CocoDataset
    mapping: MaterialMapping
    cached: stages.CachedPhotos
    split: stages.Split
    balanced: list[Oversampled]
    controls: list[tuple[Controls, SplitTables]]


def run(config: PrepareConfig, tracker: Tracker) -> Prepared:
    """Prepare a dataset, and log figures and metrics that describe it.

    Raises:
        InputError: the annotations, the mapping, the photos or the settings cannot be used; nothing is left behind.
    """
    source = raw_data(config)
    say(source.summary)
    with tracker.start(f"prepare {source.name}") as tracked:
        tracked.log_parameters(flatten(config))
        if source.name == "sample" and not (source.place / ANNOTATIONS).exists():
            with progress_bar("Rendering the sample", 240) as bar:
                render_sample(source.place, progress=lambda done, total: bar.advance())
        coco = source.layout.read()
        mapping = stages.mapping_for(source.layout, coco, config.materials)
        annotated = tabulate(coco, mapping)
        folder = config.data_folder / "prepared" / source.name
        _warn_of_namesake(folder, source)
        stages.check_group_by(source, config)
        with prepared.draft(folder) as draft:
            photos = stages.photo_sources(source, annotated.labels)
            cache = PhotoCache(draft, config.image_side_px, config.max_megapixels)
            with progress_bar("Decoding photos", len(photos)) as bar:
                earlier = prepared.earlier_cache(folder)
                cached = stages.cache_photos(annotated, photos, cache, config, earlier=earlier, progress=bar.advance)
            split = stages.split_photos(cached, mapping, source, config)
            assignments = (split.assignment, *split.folds)
            tables = [prepared.split_tables(split.frame, one.split, mapping.materials) for one in assignments]
            balanced = stages.balance(tables, config)
            controls = stages.score_all_controls(tables, cached.photos, config.seed)
            parts = _Parts(coco, mapping, cached, split, balanced, controls)
            _write(draft, parts, source, config)
        dataset = prepared.load_prepared(folder)
        metrics = _metrics(parts)
        _log(tracked, dataset, parts, metrics, config)
        _report(dataset, parts, metrics)
        return Prepared(dataset, tracked.id, metrics)


def raw_data(config: PrepareConfig) -> DatasetSource:
    """Return the raw data that are to be prepared.

    Raises:
        DatasetError: they are not there, are of no known layout, or are a prepared dataset.
    """
    if config.dataset not in NAMED and prepared.is_prepared(Path(config.dataset)):
        raise DatasetError(
            f"{config.dataset} is a prepared dataset. Give prepare the raw data that it was made from; all other steps "
            "take the prepared folder."
        )
    return choose_source(config.dataset, config.data_folder)


def _warn_of_namesake(folder: Path, source: DatasetSource) -> None:
    with contextlib.suppress(PreparedDatasetError):
        before = prepared.load_prepared(folder).manifest["source"]
        if before != str(source.place.resolve()):
            warn(f"{folder} was prepared from {before} and will be replaced. Rename the folder to keep both.")


def _write(draft: Path, parts: _Parts, source: DatasetSource, config: PrepareConfig) -> None:
    """Write all files, and last of all the manifest with their digests."""
    split = parts.split
    tables: dict[str, pd.DataFrame] = {
        prepared.LABELS: split.frame,
        prepared.PROBLEMS: parts.cached.problems,
        prepared.OBJECTS: parts.cached.objects,
        **stages.tables_from_labels(parts.balanced, parts.controls),
    }
    if split.folds:
        tables[prepared.FOLDS] = split.fold_frame(parts.balanced[1:])
    manifest = _manifest(parts, source, config)
    (draft / prepared.OUTLINES).write_bytes(outlines_json(parts.coco, split.frame["file_name"]))
    files = zip(split.frame["file_name"], split.frame["source_file"], strict=True)
    photos = {name: source.find_photo(file) for name, file in files}
    prepared.write_raw_files(draft, prepared.raw_file_table(source.folder, photos, source.layout.label_files()))
    stages.write_files(draft, tables, parts.mapping, manifest)


def _manifest(parts: _Parts, source: DatasetSource, config: PrepareConfig) -> dict[str, Any]:
    split = parts.split
    frame = split.frame
    return {
        "name": source.name,
        **manifest_entries(source),
        "annotations_digest": source.layout.digest(),
        "materials": list(parts.mapping.materials),
        "cache": {"file": parts.cached.cache_file.name, "photos": len(frame), "image_side_px": config.image_side_px},
        "counts": {
            "photos": len(frame),
            "photos_left_out": parts.cached.left_out,
            "objects": len(parts.cached.objects),
            **{name: int((frame["split"] == name).sum()) for name in prepared.SPLITS},
            "materials": {material: int(frame[material].sum()) for material in parts.mapping.materials},
        },
        "split": {
            "group_by": config.group_by,
            "rule": split.groups.rule,
            "near_duplicate_distance": config.near_duplicate_distance,
            "groups": int(frame["group"].nunique()),
            "method": split.assignment.method,
            "largest_share_difference": split.assignment.largest_share_difference,
            "folds": len(split.folds),
        },
        **stages.figures_from_labels(parts.balanced, parts.controls, config),
        "settings": config.model_dump(mode="json"),
        "versions": software_versions(),
    }


def _metrics(parts: _Parts) -> dict[str, float]:
    """Return the metrics to compare preparations by: counts, the split's evenness, balance, and the controls."""
    frame, balanced = parts.split.frame, parts.balanced[0]
    metrics: dict[str, float] = {
        "photos": len(frame),
        "photos_left_out": parts.cached.left_out,
        "objects": len(parts.cached.objects),
        "groups": int(frame["group"].nunique()),
        "near_duplicate_pairs": len(parts.split.groups.near_duplicate_pairs),
        "largest_share_difference": parts.split.assignment.largest_share_difference,
        "balance_rows_before": balanced.rows_before,
        "balance_rows_after": balanced.rows_after,
        "balance_most_copies": balanced.most_copies,
        "balance_smallest_share": min(balanced.share_of_commonest.values()),
    }
    metrics |= {f"photos_{name}": int((frame["split"] == name).sum()) for name in prepared.SPLITS}
    metrics |= {f"photos_{material}": int(frame[material].sum()) for material in parts.mapping.materials}
    return metrics | parts.controls[0][0].metrics()


def _log(
    tracked: Run, dataset: PreparedDataset, parts: _Parts, metrics: dict[str, float], config: PrepareConfig
) -> None:
    tracked.log_metrics(metrics)
    tracked.set_tags(
        {
            "step": "prepare",
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "annotations_digest": dataset.manifest["annotations_digest"],
            "materials_digest": dataset.manifest["files"][MAPPING_FILE],
            "cache_digest": dataset.manifest["files"][dataset.manifest["cache"]["file"]],
            "split_rule": parts.split.groups.rule,
        }
    )
    source = prepared_from(dataset.manifest)
    tracked.log_dataset(
        parts.split.frame, source=source, name=dataset.name, digest=dataset.digest, context="preparation"
    )
    for name in (prepared.MANIFEST, prepared.LABELS, prepared.BALANCED, prepared.PROBLEMS, MAPPING_FILE):
        tracked.log_file(dataset.folder / name)
    _log_sight(tracked, dataset, parts, config)


def _log_sight(tracked: Run, dataset: PreparedDataset, parts: _Parts, config: PrepareConfig) -> None:
    """Draw the figures to look at before any training."""
    frame, objects, materials = parts.split.frame, parts.cached.objects, parts.mapping.materials
    drawn = dataset.outlines().drawn
    sheet = contact_sheet(frame, dataset.photos, drawn, materials, rng=np.random.default_rng(config.seed))
    figures = {
        "contact_sheet": sheet,
        "photos_per_material": sight.photos_per_material(frame, materials),
        "photos_per_category": sight.photos_per_category(objects, materials),
        "material_cooccurrence": sight.material_cooccurrence(frame, materials),
        "photos_per_group": sight.photos_per_group(frame),
    }
    if parts.coco.has_outlines:
        figures["object_size"] = sight.object_size(objects, materials, image_side_px=config.image_side_px)
    pairs = near_duplicate_table(frame, dataset.photos, parts.split.groups.near_duplicate_pairs)
    if len(pairs):
        figures["near_duplicates"] = near_duplicate_sheet(pairs, frame, dataset.photos)
    for name, figure in figures.items():
        tracked.log_figure(figure, f"sight/{name}.png")
    tracked.log_table(pairs, "sight/near_duplicates.csv")
    tracked.log_table(
        sight.category_table(objects, parts.mapping.material_of, parts.mapping.reasons), "sight/categories.csv"
    )


def _report(dataset: PreparedDataset, parts: _Parts, metrics: dict[str, float]) -> None:
    """Print the closing tables, the warnings, and the next command."""
    _report_split(dataset, parts)
    _report_controls(parts, dataset.manifest["layout"])
    if left_out := parts.cached.left_out:
        problems = parts.cached.problems
        first = problems[problems["problem"].str.startswith("photo left out")].iloc[0]
        warn(
            f"{left_out:,} photos were left out, the first {first['source_file']} "
            f"({first['problem'].removeprefix('photo left out: ')}); "
            f"{dataset.folder / prepared.PROBLEMS} gives the reason for each."
        )
    settings = dataset.manifest["settings"]
    command = next_command("train", {"dataset": settings["dataset"]}, Path(settings["data_folder"]))
    say(f"Prepared {len(dataset.frame):,} photos in {dataset.folder}. Next: {command}", "green")


def _report_split(dataset: PreparedDataset, parts: _Parts) -> None:
    assignment, balanced, frame = parts.split.assignment, parts.balanced[0], parts.split.frame
    rows = []
    for name in (*prepared.SPLITS, "train, balanced"):
        of = balanced.table.frame if name == "train, balanced" else frame[frame["split"] == name]
        rows.append([name, f"{len(of):,}", *(f"{of[material].mean():.1%}" for material in parts.mapping.materials)])
    table(
        f"{dataset.name}: photos, and the share of them that shows each material",
        ["split", "photos", *parts.mapping.materials],
        rows,
    )
    say(
        f"{frame['group'].nunique():,} groups ({parts.split.groups.rule}); {assignment.method} split, largest "
        f"difference of a material's share {100 * assignment.largest_share_difference:.1f} percentage points. "
        f"Balanced: {balanced.rows_before:,} → {balanced.rows_after:,} rows, at most {balanced.most_copies} copies."
    )
    for note in parts.split.groups.merged:
        say(note)
    if pairs := len(parts.split.groups.near_duplicate_pairs):
        say(f"Near-duplicate pairs: {pairs:,}; sight/near_duplicates.png in this run shows the most similar.")


def _report_controls(parts: _Parts, layout: str) -> None:
    controls = parts.controls[0][0]
    rows = [
        [name, *(f"{controls.macro_ap[name][split]:.3f}" for split in ("val", "test"))] for name in controls.macro_ap
    ]
    table("Controls: predictions without looking at the litter (macro AP)", ["control", "val", "test"], rows)
    if controls.note:
        say(controls.note)
    files, rule = parts.split.frame["source_file"].tolist(), parts.split.groups.rule
    if warning := neighbour_warning(controls, coarser_grouping(files, rule, folders_are_batches=layout == COCO)):
        warn(warning)
