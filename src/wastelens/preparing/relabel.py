"""Relabel a prepared dataset by another mapping, with the same photos, groups, splits and folds.

A study's factor ``mapping`` compares such datasets.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from wastelens.config.engine import LOCAL
from wastelens.config.prepare import PrepareConfig
from wastelens.config.study import MAPPING, Factor
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
from wastelens.data.photos.shards import cache_files
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import PreparedDataset, read_raw_files, write_raw_files
from wastelens.errors import BalanceError, ConfigError, DatasetError, PreparedDatasetError
from wastelens.preparing import stages
from wastelens.preparing.reading import mapping_path
from wastelens.preparing.writing import DatasetTables, write_dataset
from wastelens.system import interrupts
from wastelens.system.console import say

RELABELLED_FROM = "relabelled_from"
_MAPPINGS_FOLDER = "mappings"
_POLL_SECONDS = 1.0


def datasets_of_levels(
    factors: Sequence[Factor], dataset: PreparedDataset, data_folder: Path
) -> dict[str, PreparedDataset]:
    """Return level of the factor ``mapping`` → relabelled dataset; without that factor, "" → the dataset itself.

    Raises:
        ConfigError: two levels give the same labels or have the same name; or as for :func:`relabelled`.
        InputError: as for :func:`relabelled`.
    """
    levels = next((factor.levels for factor in factors if factor.name == MAPPING), ())
    if not levels:
        return {"": dataset}
    stems = {level: mapping_path(level).stem for level in levels}
    if twins := _same(stems):
        raise ConfigError(f"{MAPPING}={'|'.join(twins)}: both are called {stems[twins[0]]}. Rename one of the files.")
    datasets = {level: relabelled(dataset, level, data_folder) for level in levels}
    labels = {level: one.manifest["files"][prepared.OBJECTS] for level, one in datasets.items()}
    if twins := _same(labels):
        raise ConfigError(
            f"{MAPPING}={'|'.join(twins)}: both give every object of {dataset.name} the same material. Leave one out."
        )
    return datasets


def _same(value_of: dict[str, str]) -> list[str]:
    """Return the first levels that share a value, if any."""
    sharing = ([level for level in value_of if value_of[level] == value] for value in value_of.values())
    return next((levels for levels in sharing if len(levels) > 1), [])


def relabelled(dataset: PreparedDataset, mapping: str, data_folder: Path) -> PreparedDataset:
    """Return the dataset with another mapping's labels; its own mapping returns the dataset itself.

    The relabelled dataset is written once, into ``mappings/<mapping>/prepared/<dataset>`` of the data folder, and again
    when the dataset or the mapping has changed. It can be opened like any prepared dataset.

    Raises:
        MappingError, ConfigError: as of :func:`other_mapping`.
        BalanceError: the training photos of a split cannot be balanced with these labels.
        PreparedDatasetError: the dataset was prepared by another version.
        DatasetError: a file is in the relabelled dataset's place.
    """
    other = other_mapping(dataset, mapping)
    if other.material_of == own_mapping(dataset).material_of:
        return dataset
    folder = data_folder / _MAPPINGS_FOLDER / other.path.stem / "prepared" / dataset.name
    told = False
    while not (found := _already_relabelled(folder, dataset, other)):
        try:
            with prepared.draft(folder) as draft:
                _write(draft, dataset, other, mapping)
            return prepared.load_prepared(folder)
        except DatasetError:
            if folder.is_file():
                raise
        if not told:  # the processes of a study start together: one writes, the others wait for the same dataset
            say(f"Waiting for another process, which relabels {dataset.name} with {MAPPING}={mapping}.")
            told = True
        interrupts.check()
        time.sleep(_POLL_SECONDS)
    return found


def own_mapping(dataset: PreparedDataset) -> MaterialMapping:
    """Read the mapping that a dataset was prepared with; it has a row for each category of the annotations."""
    return read_mapping(dataset.folder / MAPPING_FILE)


def other_mapping(dataset: PreparedDataset, mapping: str) -> MaterialMapping:
    """Return the mapping ``default|predecessor|trashnet|FILE``, checked against a prepared dataset.

    Raises:
        MappingError: there is no such mapping, or it does not fit the annotations' categories.
        ConfigError: its materials are not the dataset's.
    """
    other = read_mapping(mapping_path(mapping))
    labels, annotations = list(own_mapping(dataset).material_of), prepared_from(dataset.manifest)
    if dataset.manifest.get("layout", COCO) != COCO:
        other = mapping_of_labels(other, labels, lambda label: f"{annotations}: label '{label}'")
    else:
        check_covers(other, labels, annotations)
    if set(other.materials) != set(dataset.materials):
        raise ConfigError(
            f"{other.path} has the materials {', '.join(other.materials)}, but {dataset.name} was prepared with "
            f"{', '.join(dataset.materials)}. Mappings are compared on the same materials: give both the same names."
        )
    return other


def _already_relabelled(folder: Path, dataset: PreparedDataset, mapping: MaterialMapping) -> PreparedDataset | None:
    """Return the relabelled dataset in a folder; None if there is none, or one of another dataset or mapping."""
    try:
        found = prepared.load_prepared(folder)
    except PreparedDatasetError:
        return None
    of_dataset = _origin(found, found.manifest.get(RELABELLED_FROM)) == _origin(dataset, dataset.digest)
    return found if of_dataset and mapping_frame(own_mapping(found)).equals(mapping_frame(mapping)) else None


def _origin(dataset: PreparedDataset, digest: object) -> tuple[object, ...]:
    """Return the facts that a relabelled dataset shares with the dataset of this digest that it was made from."""
    manifest = dataset.manifest
    return digest, manifest["annotations_digest"], manifest["files"].get(prepared.OUTLINES)


def _write(draft: Path, dataset: PreparedDataset, other: MaterialMapping, mapping: str) -> None:
    """Write the files of the relabelled dataset, as ``prepare`` does."""
    dataset.check_outlines()
    config = _settings(dataset, mapping)
    objects = relabelled_objects(dataset, other)
    labelled = relabelled_photos(dataset, objects)
    splits = [labelled.split(fold) for fold in range(labelled.manifest["split"]["folds"] + 1)]
    try:
        balanced = stages.balance(splits, config)
    except BalanceError as error:
        raise BalanceError(f"{MAPPING}={mapping}: {error}") from None
    say(f"Relabelling {dataset.name} with {MAPPING}={mapping}; photos and splits stay the same.")
    controls = stages.score_all_controls(splits, labelled.photos, config.seed)
    labels, problems = labelled.frame.drop(columns="photo_index"), read_as_text(dataset.folder / prepared.PROBLEMS)
    for name in (*cache_files(dataset.manifest["cache"]), prepared.OUTLINES):
        share_file(dataset.folder / name, draft)
    write_raw_files(draft, read_raw_files(dataset.folder))
    tables = DatasetTables(labels, objects, problems, splits, balanced, controls)
    write_dataset(draft, tables, other, {**dataset.manifest, RELABELLED_FROM: dataset.digest}, config)


def _settings(dataset: PreparedDataset, mapping: str) -> PrepareConfig:
    """Return the settings that the dataset was prepared with, but for the mapping."""
    try:
        later = {
            "name": "",
            "engine": LOCAL,
            "retries": 0,
            "outlines_frame": "upright",
            "split": "made",
            "find_augmented_copies": False,
        }
        settings = {**later, **dataset.manifest["settings"], "materials": mapping}
        return PrepareConfig.model_validate(settings)
    except ValidationError:
        raise PreparedDatasetError(
            f"{dataset.folder} was prepared by another version of Wastelens. Run prepare again."
        ) from None


def read_as_text(table: Path) -> pd.DataFrame:
    """Read a CSV file with every cell as text, so that writing it gives the same file."""
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def relabelled_objects(dataset: PreparedDataset, mapping: MaterialMapping) -> pd.DataFrame:
    """Return objects.csv with the materials of another mapping, all cells as text."""
    objects = read_as_text(dataset.folder / prepared.OBJECTS)
    return objects.assign(material=objects["category"].map(mapping.material_of))


def relabelled_photos(dataset: PreparedDataset, objects: pd.DataFrame) -> PreparedDataset:
    """Return the dataset, in memory, with the labels that follow from its objects' ``file_name`` and ``material``."""
    shown = pd.crosstab(objects["file_name"], objects["material"]).clip(upper=1)
    labels = shown.reindex(index=dataset.frame["file_name"], columns=list(dataset.materials), fill_value=0)
    columns = {material: labels[material].to_numpy(dtype=np.int64) for material in dataset.materials}
    return replace(dataset, frame=dataset.frame.assign(**columns))


def share_file(file: Path, folder: Path) -> None:
    """Put a file into a folder without taking its space again: by a hard link, or a copy where there are no links.

    Photo caches and outlines are never written to once they are finished, only replaced, so that both names keep their
    content.
    """
    target = folder / file.name
    target.unlink(missing_ok=True)  # a link left by an interrupted run: a copy would be written through it
    try:
        os.link(file.resolve(), target)
    except OSError:
        shutil.copyfile(file, target)
