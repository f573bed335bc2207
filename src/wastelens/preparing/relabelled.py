"""A prepared dataset's photos, splits and folds with other labels: another mapping of categories to materials."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.data.annotations.layout import COCO
from wastelens.data.annotations.materials import (
    MAPPING_FILE,
    MaterialMapping,
    check_covers,
    mapping_frame,
    mapping_of_labels,
    read_mapping,
)
from wastelens.data.annotations.sources import prepared_from
from wastelens.data.prepared.dataset import FOLDS, OBJECTS, OUTLINES, PreparedDataset, load_prepared
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import ConfigError, PreparedDatasetError
from wastelens.preparing.stages import mapping_path

RELABELLED_FROM = "relabelled_from"


def own_mapping(dataset: PreparedDataset) -> MaterialMapping:
    """The mapping that a dataset was prepared with; it has a row for each category of the annotations."""
    return read_mapping(dataset.folder / MAPPING_FILE)


def other_mapping(dataset: PreparedDataset, mapping: str) -> MaterialMapping:
    """The mapping ``default|predecessor|trashnet|FILE``, if it can give a prepared dataset other labels.

    Raises:
        MappingError: there is none, or it has not the annotations' categories.
        ConfigError: its materials are not the dataset's.
    """
    other = _fitting(dataset, read_mapping(mapping_path(mapping)))
    if set(other.materials) != set(dataset.materials):
        raise ConfigError(
            f"{other.path} has the materials {', '.join(other.materials)}, but {dataset.name} was prepared with "
            f"{', '.join(dataset.materials)}. Mappings are compared on the same materials: give both the same names."
        )
    return other


def _fitting(dataset: PreparedDataset, other: MaterialMapping) -> MaterialMapping:
    """A mapping as it fits a dataset's labels, by the rule of the layout that it was prepared from."""
    labels, annotations = list(own_mapping(dataset).material_of), prepared_from(dataset.manifest)
    if dataset.manifest.get("layout", COCO) != COCO:
        return mapping_of_labels(other, labels, lambda label: f"{annotations}: label '{label}'")
    check_covers(other, labels, annotations)
    return other


def as_text(table: Path) -> pd.DataFrame:
    """A CSV file with every cell as the text it is, so that written again it is the same file."""
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def relabelled_objects(dataset: PreparedDataset, mapping: MaterialMapping) -> pd.DataFrame:
    """objects.csv with the materials of another mapping, all cells as text."""
    objects = as_text(dataset.folder / OBJECTS)
    return objects.assign(material=objects["category"].map(mapping.material_of))


def relabelled_photos(dataset: PreparedDataset, objects: pd.DataFrame) -> PreparedDataset:
    """The dataset, in memory, with the labels that its objects' materials make; its files stay as they are.

    Args:
        dataset: its photos, groups, split, folds and order of materials are kept.
        objects: of its photos, with the columns ``file_name`` and ``material``.
    """
    shown = pd.crosstab(objects["file_name"], objects["material"]).clip(upper=1)
    labels = shown.reindex(index=dataset.frame["file_name"], columns=list(dataset.materials), fill_value=0)
    columns = {material: labels[material].to_numpy(dtype=np.int64) for material in dataset.materials}
    return replace(dataset, frame=dataset.frame.assign(**columns))


def label_figures(dataset: PreparedDataset) -> dict[str, Any]:
    """The parts of a manifest that speak of labels and splits: ``counts`` and ``split``."""
    labels = dataset.frame[list(dataset.materials)]
    shares = labels.groupby(dataset.frame["split"]).mean()
    counts, split = dataset.manifest["counts"], dataset.manifest["split"]
    return {
        "counts": {**counts, "materials": {name: int(count) for name, count in labels.sum().items()}},
        "split": {**split, "largest_share_difference": float((shares.max() - shares.min()).max())},
    }


def fold_table(dataset: PreparedDataset, balanced: Sequence[TrainTable]) -> pd.DataFrame:
    """folds.csv with the same folds, and the copies of each photo in other balanced training rows, one table a fold."""
    folds = as_text(dataset.folder / FOLDS)
    copies = {
        f"copies_{fold}": np.bincount(rows.frame["photo_index"], minlength=len(folds))
        for fold, rows in enumerate(balanced, start=1)
    }
    return folds.assign(**copies)


def share_file(file: Path, folder: Path) -> None:
    """Put a file into a folder without taking its space again: a hard link, or a copy where the disk has none.

    Finished photo caches are never written to, only replaced, so each of the two names keeps what it has.
    """
    target = folder / file.name
    target.unlink(missing_ok=True)  # an interrupted run's link: a copy would be written through it
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)


def already_relabelled(folder: Path, dataset: PreparedDataset, mapping: MaterialMapping) -> PreparedDataset | None:
    """What was made in a folder before; None where there is nothing, or it is of another dataset or mapping."""
    try:
        found = load_prepared(folder)
    except PreparedDatasetError:
        return None
    same_mapping = _rows(own_mapping(found)) == _rows(mapping)
    return (
        found
        if same_mapping and _origin(found, found.manifest.get(RELABELLED_FROM)) == _origin(dataset, dataset.digest)
        else None
    )


def _origin(dataset: PreparedDataset, digest: object) -> tuple[object, ...]:
    """Return what has to be the same in a relabelled dataset and in the one that it was made from."""
    manifest = dataset.manifest
    return digest, manifest["annotations_digest"], manifest["files"].get(OUTLINES)


def _rows(mapping: MaterialMapping) -> list[tuple[str, ...]]:
    return list(mapping_frame(mapping).itertuples(index=False, name=None))
