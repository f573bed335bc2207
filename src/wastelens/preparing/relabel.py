"""Relabel a prepared dataset by another mapping or by corrections, with the same photos, groups, splits and folds.

A study's factors ``mapping`` and ``corrections`` compare such datasets.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from wastelens.config.engine import LOCAL
from wastelens.config.prepare import PrepareConfig
from wastelens.config.study import CORRECTIONS, DATASET_FACTORS, MAPPING, Factor
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
from wastelens.data.prepared.dataset import (
    PreparedDataset,
    SplitTables,
    split_tables,
)
from wastelens.data.prepared.raw_files import read_raw_files, write_raw_files
from wastelens.errors import BalanceError, ConfigError, DatasetError, PreparedDatasetError
from wastelens.preparing import stages
from wastelens.preparing.corrections import changes, read_corrections
from wastelens.preparing.reading import mapping_path
from wastelens.preparing.writing import DatasetTables, write_dataset
from wastelens.system import interrupts
from wastelens.system.console import say

RELABELLED_FROM = "relabelled_from"
NO_CORRECTIONS = "none"
_POLL_SECONDS = 1.0


def datasets_of_levels(
    factors: Sequence[Factor], dataset: PreparedDataset, data_folder: Path
) -> dict[str, PreparedDataset]:
    """Return level of the factor ``mapping`` or ``corrections`` → dataset with its labels.

    Without such a factor, it is "" → the dataset itself.

    Raises:
        ConfigError: both factors are given; two levels give the same labels or have the same name; or as for
            :func:`relabelled` and :func:`corrected`.
        InputError: as for :func:`relabelled`.
    """
    chosen = [factor for factor in factors if factor.name in DATASET_FACTORS]
    if not chosen:
        return {"": dataset}
    if len(chosen) > 1:
        raise ConfigError(
            f"{chosen[0].name} and {chosen[1].name} both change the labels. Give one of them as a factor."
        )
    name, levels = chosen[0].name, chosen[0].levels
    of_mapping = name == MAPPING
    make, file = (relabelled, prepared.OBJECTS) if of_mapping else (corrected, prepared.CORRECTIONS)
    stems = {level: (mapping_path(level) if of_mapping else Path(level)).stem for level in levels}
    if twins := _same(stems):
        raise ConfigError(f"{name}={'|'.join(twins)}: both are called {stems[twins[0]]}. Rename one of the files.")
    datasets = {level: make(dataset, level, data_folder) for level in levels}
    labels = {level: one.manifest["files"].get(file, "") for level, one in datasets.items()}
    if twins := _same(labels):
        same = f"every object of {dataset.name} the same material" if of_mapping else "every photo the same labels"
        raise ConfigError(f"{name}={'|'.join(twins)}: both give {same}. Leave one out.")
    return datasets


def _same(value_of: dict[str, str]) -> list[str]:
    """Return the first levels that share a value, if any."""
    sharing = ([level for level in value_of if value_of[level] == value] for value in value_of.values())
    return next((levels for levels in sharing if len(levels) > 1), [])


@dataclass(frozen=True)
class _Labels:
    """Other labels of a dataset's photos.

    Attributes:
        given: the factor and its level, as ``mapping=predecessor``.
        folder: of the relabelled dataset, in the data folder.
        mapping: of the categories to materials.
        objects: objects.csv.
        splits: the tables of the main split, then of each fold.
        labels: labels.csv.
        corrections: corrections.csv; empty where there are none.
    """

    given: str
    folder: str
    mapping: MaterialMapping
    objects: pd.DataFrame
    splits: list[SplitTables]
    labels: pd.DataFrame
    corrections: pd.DataFrame = field(default_factory=pd.DataFrame)


def relabelled(dataset: PreparedDataset, mapping: str, data_folder: Path) -> PreparedDataset:
    """Return the dataset with another mapping's labels; its own mapping returns the dataset itself.

    The relabelled dataset is written once, into ``mappings/<mapping>/prepared/<dataset>`` of the data folder, and again
    when the dataset or the mapping has changed. It can be opened like any prepared dataset.

    Raises:
        MappingError, ConfigError: as of :func:`other_mapping`; or the dataset has corrections.
        BalanceError: the training photos of a split cannot be balanced with these labels.
        PreparedDatasetError: the dataset was prepared by another version.
        DatasetError: a file is in the relabelled dataset's place.
    """
    other = other_mapping(dataset, mapping)
    if other.material_of == own_mapping(dataset).material_of:
        return dataset
    _refuse_corrected(dataset, MAPPING)
    objects = relabelled_objects(dataset, other)
    labelled = relabelled_photos(dataset, objects)
    splits = [labelled.split(fold) for fold in _folds(dataset)]
    labels = _Labels(f"{MAPPING}={mapping}", f"mappings/{other.path.stem}", other, objects, splits, labelled.frame)
    return _written_once(dataset, labels, {"materials": mapping}, data_folder)


def corrected(dataset: PreparedDataset, file: str, data_folder: Path) -> PreparedDataset:
    """Return the dataset with corrected labels; ``none`` returns the dataset itself.

    Labels that photos are tested by stay, so that all levels are tested by the same. The dataset is written once, into
    ``corrections/<file>/prepared/<dataset>`` of the data folder, as :func:`relabelled` writes it.

    Raises:
        ConfigError: the file cannot be used, or the dataset has corrections already.
        BalanceError, PreparedDatasetError, DatasetError: as of :func:`relabelled`.
    """
    _refuse_corrected(dataset, CORRECTIONS)
    if file == NO_CORRECTIONS:
        return dataset
    read = read_corrections(file, dataset.materials)
    found = changes(read, dataset.frame, dataset.materials, correct_test=False)
    found.report()
    columns = [dataset.assignment(fold) for fold in _folds(dataset)]
    splits = [split_tables(found.labels(column), column, dataset.materials) for column in columns]
    objects, labels = read_as_text(dataset.folder / prepared.OBJECTS), found.labels(columns[0])
    given, folder = f"{CORRECTIONS}={file}", f"corrections/{Path(file).stem}"
    other = _Labels(given, folder, own_mapping(dataset), objects, splits, labels, found.table)
    return _written_once(dataset, other, {"corrections": file}, data_folder)


def _folds(dataset: PreparedDataset) -> range:
    return range(dataset.manifest["split"]["folds"] + 1)


def _refuse_corrected(dataset: PreparedDataset, factor: str) -> None:
    if prepared.CORRECTIONS in dataset.manifest["files"]:
        raise ConfigError(
            f"{dataset.folder} was prepared with corrections, and the factor {factor} starts from labels as annotated. "
            "Prepare it without corrections=, with another name=."
        )


def _written_once(
    dataset: PreparedDataset, labels: _Labels, settings: Mapping[str, str], data_folder: Path
) -> PreparedDataset:
    """Return the dataset with these labels from its place in the data folder; write it unless it is there."""
    folder = data_folder / labels.folder / "prepared" / dataset.name
    told = False
    while not (found := _already_relabelled(folder, dataset, labels)):
        try:
            with prepared.draft(folder) as draft:
                _write(draft, dataset, labels, settings)
            return prepared.load_prepared(folder)
        except DatasetError:
            if folder.is_file():
                raise
        if not told:  # the processes of a study start together: one writes, the others wait for the same dataset
            say(f"Waiting for another process, which relabels {dataset.name} with {labels.given}.")
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


def _already_relabelled(folder: Path, dataset: PreparedDataset, labels: _Labels) -> PreparedDataset | None:
    """Return the relabelled dataset in a folder; None if there is none, or one of another dataset or other labels."""
    try:
        found = prepared.load_prepared(folder)
    except PreparedDatasetError:
        return None
    of_dataset = _origin(found, found.manifest.get(RELABELLED_FROM)) == _origin(dataset, dataset.digest)
    same_mapping = mapping_frame(own_mapping(found)).equals(mapping_frame(labels.mapping))
    columns = list(dataset.materials)
    same_labels = found.corrections().equals(labels.corrections) and found.frame[columns].equals(labels.labels[columns])
    return found if of_dataset and same_mapping and same_labels else None


def _origin(dataset: PreparedDataset, digest: object) -> tuple[object, ...]:
    """Return the facts that a relabelled dataset shares with the dataset of this digest that it was made from."""
    manifest = dataset.manifest
    return digest, manifest["annotations_digest"], manifest["files"].get(prepared.OUTLINES)


def _write(draft: Path, dataset: PreparedDataset, other: _Labels, settings: Mapping[str, str]) -> None:
    """Write the files of the relabelled dataset, as ``prepare`` does."""
    dataset.check_outlines()
    config = _settings(dataset, settings)
    try:
        balanced = stages.balance(other.splits, config)
    except BalanceError as error:
        raise BalanceError(f"{other.given}: {error}") from None
    say(f"Relabelling {dataset.name} with {other.given}; photos and splits stay the same.")
    controls = stages.score_all_controls(other.splits, dataset.photos, config.seed)
    labels, problems = other.labels.drop(columns="photo_index"), read_as_text(dataset.folder / prepared.PROBLEMS)
    for name in (*cache_files(dataset.manifest["cache"]), prepared.OUTLINES):
        share_file(dataset.folder / name, draft)
    write_raw_files(draft, read_raw_files(dataset.folder))
    tables = DatasetTables(labels, other.objects, problems, other.splits, balanced, controls, other.corrections)
    write_dataset(draft, tables, other.mapping, {**dataset.manifest, RELABELLED_FROM: dataset.digest}, config)


def _settings(dataset: PreparedDataset, changed: Mapping[str, str]) -> PrepareConfig:
    """Return the settings that the dataset was prepared with, but for those that changed."""
    try:
        later = {
            "name": "",
            "engine": LOCAL,
            "retries": 0,
            "outlines_frame": "upright",
            "split": "made",
            "find_augmented_copies": False,
            "corrections": "",
            "correct_test": False,
        }
        settings = {**later, **dataset.manifest["settings"], **changed}
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
