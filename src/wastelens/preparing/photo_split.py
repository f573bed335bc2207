"""Group the photos and split them by whole groups, or keep the split that the data came with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from wastelens.config.prepare import PATTERN, PrepareConfig
from wastelens.data.annotations.labels import problem_frame, problem_row
from wastelens.data.annotations.layout import COCO
from wastelens.data.annotations.materials import MaterialMapping
from wastelens.data.annotations.sources import DatasetSource
from wastelens.data.prepared import dataset as prepared
from wastelens.errors import ConfigError, SplitError
from wastelens.preparing.groups import Copies, Groups, assign_groups, find_copies
from wastelens.preparing.split import (
    SplitAssignment,
    assign_splits,
    cross_validation_splits,
    given_splits,
    torn_groups,
)
from wastelens.preparing.stages import CachedPhotos
from wastelens.system.console import warn

GROUPING_RULES = ("auto", "batch", "scene", "photo", "stem")
PHOTO_BY_PHOTO = "photo by photo, copies together; group_by=scene also joins neighbours that look alike"
TOLD_SOURCE = "extra.name"  # COCO's column, as Roboflow writes it


@dataclass(frozen=True)
class Split:
    """The main split of the photos and those for cross-validation.

    Attributes:
        frame: labels with ``group`` and ``split``.
        groups: the group of each photo.
        assignment: the main split.
        folds: those for cross-validation.
        torn: group → its splits, for the groups that the split that the data came with tears.
        made: the splits that were made although the data came with some: val, or test.
    """

    frame: pd.DataFrame
    groups: Groups
    assignment: SplitAssignment
    folds: list[SplitAssignment]
    torn: dict[str, list[str]]
    made: list[str]

    def leaks(self) -> list[tuple[str, ...]]:
        """Return a row of problems.csv for each photo of a torn group."""
        columns = (self.frame[name] for name in ("file_name", "source_file", "group"))
        return [
            problem_row(flat, file, f"photo kept, its group is in {' and '.join(self.torn[group])}: {group}")
            for flat, file, group in zip(*columns, strict=True)
            if group in self.torn
        ]


def check_group_by(source: DatasetSource, config: PrepareConfig) -> None:
    """Raise ConfigError if ``group_by`` is neither a rule nor a column, or the column has two values for a photo."""
    if _is_column(config.group_by):
        _column(source, config.group_by)


def split_photos(cached: CachedPhotos, mapping: MaterialMapping, source: DatasetSource, config: PrepareConfig) -> Split:
    """Group the photos, then split them by whole groups; seeded, and independent of the order of the JSON.

    With ``split=given``, keep the split that the data came with, and tell the groups that it tears. Where
    ``group_by=auto`` chose scenes that are too large for a split, take photo by photo, with a warning.
    """
    told = _told_splits(source, cached.labels) if config.split == "given" else []
    groups = group_photos(cached, source, config)
    try:
        return _split_by(groups, told, cached.labels, mapping, config)
    except SplitError:
        if config.group_by != "auto" or not groups.rule.startswith("scene"):
            raise
    warn(
        "Scenes (runs of neighbouring photos that look alike) are too large to fill the splits, so photos are "
        "split one by one, copies together: test photos may resemble training photos, and scores come out higher than "
        "on new photos. Add photos of other places."
    )
    files = [str(file) for file in cached.labels["source_file"]]
    groups = replace(assign_groups(files, cached.photos, groups.copies, "photo"), rule=PHOTO_BY_PHOTO)
    return _split_by(groups, told, cached.labels, mapping, config)


def _split_by(
    groups: Groups, told: list[list[str]], labels: pd.DataFrame, mapping: MaterialMapping, config: PrepareConfig
) -> Split:
    matrix = labels[list(mapping.materials)].to_numpy(dtype=np.uint8)
    arguments = (matrix, groups.names, mapping.materials, config.fractions)
    rng = np.random.default_rng([config.seed, 0])
    if told:
        given = np.array([splits[-1] for splits in told])
        assignment = given_splits(*arguments, given, rng)
    else:
        assignment = assign_splits(*arguments, rng)
    rng = np.random.default_rng([config.seed, 1])
    folds = cross_validation_splits(*arguments, folds=config.folds, rng=rng) if config.folds else []
    made = [name for name in prepared.SPLITS if told and name not in given]
    return Split(
        labels.assign(group=groups.names, split=assignment.split),
        groups,
        assignment,
        folds,
        torn_groups(groups.names, told) if told else {},
        made,
    )


def with_leaks(problems: pd.DataFrame, split: Split) -> pd.DataFrame:
    """Return problems.csv with a row for each photo whose group the split that the data came with tears."""
    return problem_frame([*problems.itertuples(index=False, name=None), *split.leaks()])


def _copies(cached: CachedPhotos, source: DatasetSource, config: PrepareConfig) -> Copies:
    labels = cached.labels
    files = [str(file) for file in labels["source_file"]]
    columns = source.layout.image_columns()
    flat = {photo: _told_source(fields) for photo, fields in columns}
    told = {file: flat.get(str(photo), "") for photo, file in zip(labels["file_name"], files, strict=True)}
    return find_copies(
        files,
        cached.photos,
        told_sources=told,
        max_distance=config.near_duplicate_distance,
        warped=config.find_augmented_copies,
    )


def group_photos(cached: CachedPhotos, source: DatasetSource, config: PrepareConfig) -> Groups:
    """Return the group of each photo, by ``group_by`` and by the copies that are found."""
    labels, copies = cached.labels, _copies(cached, source, config)
    files = [str(file) for file in labels["source_file"]]
    column = labels["file_name"].map(_column(source, config.group_by)) if _is_column(config.group_by) else None
    # Only in COCO is the first folder a batch: elsewhere it is a class, or the dataset's own split. A split that the
    # data came with is asked about copies: it need not keep batches whole.
    without_batches = config.group_by == "auto" and (source.layout.kind != COCO or config.split == "given")
    groups = assign_groups(files, cached.photos, copies, "photo" if without_batches else config.group_by, column)
    return replace(groups, rule=PHOTO_BY_PHOTO) if without_batches else groups


def _is_column(group_by: str) -> bool:
    return group_by not in GROUPING_RULES and not group_by.startswith(PATTERN)


def _column(source: DatasetSource, name: str) -> dict[str, str]:
    """Return photo's flat name → its value in a column, as text, for photos that have one."""
    rows = source.layout.image_columns()
    columns = sorted({column for _, fields in rows for column in fields})
    if name not in columns:
        raise ConfigError(
            f"group_by={name} is neither {', '.join(GROUPING_RULES)}, {PATTERN}REGEX nor a column of the images in "
            f"{source.annotations}, which has {', '.join(columns) or 'none'}."
        )
    told = ((photo, str(fields[name]).strip()) for photo, fields in rows if fields.get(name) is not None)
    values: dict[str, str] = {}
    for photo, value in told:
        if value and values.setdefault(photo, value) != value:
            raise ConfigError(
                f"group_by={name}: {source.annotations} has both '{values[photo]}' and '{value}' in that column for "
                f"the photo {photo}. Correct one of them, or group by something else."
            )
    return values


def _told_source(fields: Mapping[str, Any]) -> str:
    """Return the name of a photo's source that its columns tell, or ""."""
    nested = fields.get("extra")
    name = fields.get(TOLD_SOURCE, nested.get("name") if isinstance(nested, dict) else None)
    return name.strip() if isinstance(name, str) else ""


def _told_splits(source: DatasetSource, labels: pd.DataFrame) -> list[list[str]]:
    """Return the splits that the data put each photo in, in the order of SPLITS, at least one.

    Raises:
        ConfigError: the data have no split of their own, or none for some photos.
    """
    names = {str(flat): str(file) for flat, file in zip(labels["file_name"], labels["source_file"], strict=True)}
    told: dict[str, set[str]] = {}
    for photo, split in source.layout.own_splits(names):
        told.setdefault(photo, set()).add(split)
    without = [file for flat, file in names.items() if flat not in told]
    if len(without) == len(names):
        raise ConfigError(
            f"split=given: {source.annotations} tells no split: there are no folders train, val and test, no file for "
            "each of them, and no column 'split' with these words. Use split=made."
        )
    if without:
        raise ConfigError(
            f"split=given: {len(without):,} of {len(names):,} photos are in no split, the first {without[0]}. Put them "
            "into train, val or test, or use split=made."
        )
    return [sorted(told[flat], key=prepared.SPLITS.index) for flat in names]
