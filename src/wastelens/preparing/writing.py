"""Write a prepared dataset: its tables, and last of all the manifest that vouches for every file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.config.prepare import PrepareConfig
from wastelens.data.annotations.coco import CocoDataset
from wastelens.data.annotations.layout import COCO
from wastelens.data.annotations.materials import MAPPING_FILE, MaterialMapping, mapping_frame, read_mapping
from wastelens.data.annotations.outlines import outlines_json
from wastelens.data.annotations.sources import DatasetSource, manifest_entries
from wastelens.data.photos.shards import photos_digest
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import SPLITS, SplitTables
from wastelens.data.prepared.raw_files import raw_file_table, write_raw_files
from wastelens.evaluation.controls import Controls, controls_frame
from wastelens.preparing.balance import Oversampled
from wastelens.preparing.photo_split import Split
from wastelens.preparing.stages import CachedPhotos
from wastelens.system.digests import file_digest
from wastelens.system.machine import software_versions
from wastelens.system.tables import for_spreadsheets, write_csv


@dataclass(frozen=True)
class DatasetTables:
    """Labels, objects.csv and problems.csv; for the main split, then each fold: its tables and what follows from them.

    ``labels`` is labels.csv; row i of it is the photo with the ``photo_index`` i. ``corrections`` is corrections.csv,
    which there is only where it has rows.
    """

    labels: pd.DataFrame
    objects: pd.DataFrame
    problems: pd.DataFrame
    splits: list[SplitTables]
    balanced: list[Oversampled]
    controls: list[Controls]
    corrections: pd.DataFrame = field(default_factory=pd.DataFrame)

    def by_file(self) -> dict[str, pd.DataFrame]:
        """Return file name → table, for every table of a prepared dataset but raw_files.csv."""
        tables = {
            prepared.LABELS: self.labels,
            prepared.PROBLEMS: self.problems,
            prepared.OBJECTS: self.objects,
            prepared.BALANCED: self.balanced[0].table.frame.drop(columns="photo_index"),
            prepared.CONTROLS: pd.concat(
                [
                    controls_frame(scored, {"val": of.val, "test": of.test}).assign(fold=fold)
                    for fold, (scored, of) in enumerate(zip(self.controls, self.splits, strict=True))
                ]
            ),
        }
        if len(self.corrections):
            tables[prepared.CORRECTIONS] = self.corrections
        return tables if len(self.splits) == 1 else {**tables, prepared.FOLDS: self.fold_table()}

    def fold_table(self) -> pd.DataFrame:
        """Return folds.csv: file_name, then per fold each photo's split and its number of balanced training rows."""
        columns: dict[str, Any] = {"file_name": self.labels["file_name"]}
        for fold, (of, rows) in enumerate(zip(self.splits[1:], self.balanced[1:], strict=True), start=1):
            split = np.empty(len(self.labels), dtype=object)
            for name in SPLITS:
                split[getattr(of, name).photo_index] = name
            columns[f"fold_{fold}"] = split
            columns[f"copies_{fold}"] = np.bincount(rows.table.photo_index, minlength=len(split))
        return pd.DataFrame(columns)


def write_dataset(
    draft: Path, tables: DatasetTables, mapping: MaterialMapping, manifest: Mapping[str, Any], config: PrepareConfig
) -> None:
    """Write the tables, and last of all the manifest that vouches for them, the photo cache and the outlines.

    ``draft`` holds the photo cache and the outlines already; ``manifest`` is all of it but the digests, the settings
    and the figures that follow from labels and splits. For COCO, the mapping's file is copied, unless rows of it
    were left out.
    """
    frames = tables.by_file()
    for name, frame in frames.items():
        write_csv(for_spreadsheets(frame) if name in prepared.FOR_PEOPLE else frame, draft / name)
    if manifest.get("layout", COCO) == COCO and mapping == read_mapping(mapping.path):
        shutil.copyfile(mapping.path, draft / MAPPING_FILE)
    else:
        write_csv(mapping_frame(mapping), draft / MAPPING_FILE)
    names = [*frames, MAPPING_FILE, prepared.OUTLINES]
    cache = manifest["cache"]
    complete = {
        **manifest,
        **_figures(tables, manifest, config),
        "settings": config.model_dump(mode="json", exclude={"engine", "retries"}),
        "versions": software_versions(),
        "files": {
            **{name: file_digest(draft / name) for name in names},
            cache["file"]: photos_digest(draft, cache),
        },
    }
    complete["digest"] = prepared.manifest_digest(complete)
    prepared.remove_strays(draft, complete)
    (draft / prepared.MANIFEST).write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")


def _figures(tables: DatasetTables, manifest: Mapping[str, Any], config: PrepareConfig) -> dict[str, Any]:
    """Return the parts of the manifest that follow from labels and splits."""
    materials, balanced = list(manifest["materials"]), tables.balanced[0]
    shares = tables.labels.groupby("split")[materials].mean()
    return {
        "counts": {**manifest["counts"], "materials": {name: int(tables.labels[name].sum()) for name in materials}},
        "split": {
            **manifest["split"],
            "largest_share_difference": float((shares.max() - shares.min()).max()),
            "folds": len(tables.splits) - 1,
        },
        "balance": {
            "target": config.balance_target,
            "max_copies": config.max_copies,
            "cap_used": balanced.max_copies,
            "rows_before": balanced.rows_before,
            "rows_after": balanced.rows_after,
            "most_copies": balanced.most_copies,
        },
        "control_macro_ap": [
            {name: scores["test"] for name, scores in scored.macro_ap.items()} for scored in tables.controls
        ],
    }


@dataclass(frozen=True)
class Preparation:
    """Everything known before the manifest is written."""

    coco: CocoDataset
    mapping: MaterialMapping
    cached: CachedPhotos
    split: Split
    tables: DatasetTables
    checked_warps: bool  # whether augmented copies were looked for


def write_preparation(draft: Path, made: Preparation, source: DatasetSource, config: PrepareConfig) -> None:
    """Write all files of a dataset that is prepared from raw data; ``draft`` holds the photo cache already."""
    labels = made.split.frame
    (draft / prepared.OUTLINES).write_bytes(outlines_json(made.coco, labels["file_name"]))
    files = zip(labels["file_name"], labels["source_file"], strict=True)
    photos = {name: source.find_photo(file) for name, file in files}
    write_raw_files(draft, raw_file_table(source.folder, photos, source.layout.label_files()))
    write_dataset(draft, made.tables, made.mapping, _manifest(made, source, config), config)


def _manifest(made: Preparation, source: DatasetSource, config: PrepareConfig) -> dict[str, Any]:
    labels, cached, copies = made.split.frame, made.cached, made.split.groups.copies
    return {
        "name": config.name or source.name,
        **manifest_entries(source),
        "annotations_digest": source.layout.digest(),
        "materials": list(made.mapping.materials),
        "cache": cached.cache,
        "counts": {
            "photos": len(labels),
            "photos_left_out": cached.left_out,
            "objects": len(cached.objects),
            **{name: int((labels["split"] == name).sum()) for name in SPLITS},
        },
        "split": {
            "group_by": config.group_by,
            "rule": made.split.groups.rule,
            "near_duplicate_distance": config.near_duplicate_distance,
            "groups": int(labels["group"].nunique()),
            "method": made.split.assignment.method,
            "near_duplicate_pairs": len(copies.near_duplicates),
            "augmented_pairs": len(copies.warped) if config.find_augmented_copies else None,
            "photos_sharing_a_named_source": copies.named_photos()[0],
            "groups_in_several_splits": len(made.split.torn),
        },
    }
