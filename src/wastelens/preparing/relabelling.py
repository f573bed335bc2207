"""The factor ``mapping`` of a study: a prepared dataset once more, with the labels of another mapping."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wastelens.config.prepare import PrepareConfig
from wastelens.config.study import MAPPING, Factor
from wastelens.data.annotations.layout import COCO
from wastelens.data.annotations.materials import MAPPING_FILE, MaterialMapping, mapping_frame
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.raw_files import read_raw_files, write_raw_files
from wastelens.errors import BalanceError, ConfigError, DatasetError, PreparedDatasetError
from wastelens.preparing.relabelled import (
    RELABELLED_FROM,
    already_relabelled,
    as_text,
    fold_table,
    label_figures,
    other_mapping,
    own_mapping,
    relabelled_objects,
    relabelled_photos,
    share_file,
)
from wastelens.preparing.stages import balance, mapping_path
from wastelens.preparing.write import figures_from_labels, score_all_controls, tables_from_labels, write_files
from wastelens.system import interrupts
from wastelens.system.console import say
from wastelens.system.machine import software_versions

_MAPPINGS_FOLDER = "mappings"
_SECONDS_BETWEEN_LOOKS = 1.0


def datasets_of_levels(
    factors: Sequence[Factor], dataset: PreparedDataset, data_folder: Path
) -> dict[str, PreparedDataset]:
    """Level of the factor ``mapping`` → the dataset with its labels; the dataset itself under "" without that factor.

    Raises:
        ConfigError: two levels give the same labels or would lie in the same place; or as :func:`relabelled`.
        InputError: as :func:`relabelled`.
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
    """The first levels that share a value, or none."""
    sharing = ([level for level in value_of if value_of[level] == value] for value in value_of.values())
    return next((levels for levels in sharing if len(levels) > 1), [])


def relabelled(dataset: PreparedDataset, mapping: str, data_folder: Path) -> PreparedDataset:
    """The dataset with another mapping's labels: same photos, groups, split and folds; made once.

    It lies in ``mappings/<mapping>/prepared/<dataset>`` of the data folder and is opened as any prepared dataset. A
    dataset or a mapping file that has changed makes it anew. With its own mapping a dataset is what it was.

    Args:
        dataset: as ``prepare`` made it.
        mapping: ``default``, ``predecessor``, ``trashnet`` or a CSV file.
        data_folder: where to put it.

    Raises:
        MappingError: there is no such mapping, or it has not the annotations' categories.
        ConfigError: its materials are not the dataset's.
        BalanceError: the training photos of a split cannot be balanced with these labels.
        PreparedDatasetError: the dataset's settings are those of another version.
        DatasetError: a file stands where the dataset should go.
    """
    other = other_mapping(dataset, mapping)
    if other.material_of == own_mapping(dataset).material_of:
        return dataset
    folder = data_folder / _MAPPINGS_FOLDER / other.path.stem / "prepared" / dataset.name
    told = False
    while not (found := already_relabelled(folder, dataset, other)):
        try:
            with prepared.draft(folder) as draft:
                _write(draft, dataset, other, mapping)
            return prepared.load_prepared(folder)
        except DatasetError:
            if folder.is_file():
                raise
        if not told:  # the processes of a study begin at the same time: one writes, the others want the same
            say(f"Another process labels {dataset.name} with {MAPPING}={mapping}: waiting for it.")
            told = True
        interrupts.check()
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return found


def _write(draft: Path, dataset: PreparedDataset, other: MaterialMapping, mapping: str) -> None:
    """The files of the relabelled dataset, as ``prepare`` writes them."""
    dataset.check_outlines()
    config = _settings(dataset, mapping)
    objects = relabelled_objects(dataset, other)
    labelled = relabelled_photos(dataset, objects)
    tables = [labelled.split(fold) for fold in range(labelled.manifest["split"]["folds"] + 1)]
    try:
        balanced = balance(tables, config)
    except BalanceError as error:
        raise BalanceError(f"{MAPPING}={mapping}: {error}") from None
    say(f"{dataset.name} gets the labels of {MAPPING}={mapping}; photos and splits stay as they are.")
    controls = score_all_controls(tables, labelled.photos, config.seed)
    files = {
        prepared.LABELS: labelled.frame.drop(columns="photo_index"),
        prepared.OBJECTS: objects,
        prepared.PROBLEMS: as_text(dataset.folder / prepared.PROBLEMS),
        **tables_from_labels(balanced, controls),
    }
    if len(tables) > 1:
        files[prepared.FOLDS] = fold_table(dataset, [one.table for one in balanced[1:]])
    manifest: dict[str, Any] = {
        **dataset.manifest,
        **label_figures(labelled),
        **figures_from_labels(balanced, controls, config),
        "settings": config.model_dump(mode="json"),
        "versions": software_versions(),
        RELABELLED_FROM: dataset.digest,
    }
    for name in (manifest["cache"]["file"], prepared.OUTLINES):
        share_file(dataset.folder / name, draft)
    write_raw_files(draft, read_raw_files(dataset.folder))
    if manifest.get("layout", COCO) == COCO:
        write_files(draft, files, other.path, manifest)
    else:
        write_files(draft, {**files, MAPPING_FILE: mapping_frame(other)}, None, manifest)


def _settings(dataset: PreparedDataset, mapping: str) -> PrepareConfig:
    """What the dataset was prepared with, but for the mapping."""
    try:
        return PrepareConfig.model_validate({**dataset.manifest["settings"], "materials": mapping})
    except ValidationError:
        raise PreparedDatasetError(
            f"{dataset.folder} was prepared by another version of Wastelens. Run prepare again."
        ) from None
