"""The stages of ``prepare``, each from tables to tables: cache photos, group, split, balance, score controls."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config.files import conf_folder
from wastelens.config.prepare import PATTERN, PrepareConfig
from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.frames import fit_to_photos
from wastelens.data.annotations.labels import IMPOSSIBLE_SIZE, AnnotatedPhotos, problem_frame, problem_row
from wastelens.data.annotations.layout import COCO, first_names
from wastelens.data.annotations.materials import (
    MaterialMapping,
    check_covers,
    mapping_of_labels,
    read_mapping,
    with_materials,
)
from wastelens.data.annotations.sources import NAMED, DatasetSource, choose_source
from wastelens.data.photos.cache import CacheEntry, EarlierPhotos, PhotoSource
from wastelens.data.photos.files import PHOTO_SUFFIXES, UNREAD_PHOTO_SUFFIXES, exists, how_to_read
from wastelens.data.photos.passed_over import passed_over
from wastelens.data.photos.shards import ShardedCache, open_photos
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import SplitTables
from wastelens.engine.task import Engine
from wastelens.errors import (
    AnnotationsError,
    BalanceError,
    ConfigError,
    DatasetError,
    EngineError,
    MappingError,
    SplitError,
    did_you_mean,
)
from wastelens.evaluation.controls import Controls, score_controls
from wastelens.preparing.balance import Oversampled, oversample
from wastelens.preparing.groups import Copies, Groups, assign_groups, find_copies
from wastelens.preparing.split import (
    SplitAssignment,
    assign_splits,
    cross_validation_splits,
    given_splits,
    torn_groups,
)
from wastelens.system.arrays import PhotoArray
from wastelens.system.console import progress_bar, say, warn
from wastelens.system.machine import worker_count

FIRST_PROBLEMS_SHOWN = 3
# What download, collect, TACO and Windows keep beside the photos.
_KEPT_BESIDE = re.compile(
    r"annotations.*\.json|(download|collected)\.csv|ATTRIBUTION.*|(.*/)?(Thumbs\.db|desktop\.ini)"
)
GROUPING_RULES = ("auto", "batch", "scene", "photo", "stem")
PHOTO_BY_PHOTO = "photo by photo, copies together; group_by=scene also joins neighbours that look alike"
TOLD_SOURCE = "extra.name"  # COCO's column, as Roboflow writes it


@dataclass(frozen=True)
class CachedPhotos:
    """The usable photos, uint8 (photos, side, side, 3), memory-mapped; row i of ``labels`` describes ``photos[i]``.

    ``objects`` are those on the usable photos; ``problems`` is problems.csv, including the photos that were left out.
    """

    labels: pd.DataFrame
    objects: pd.DataFrame
    photos: npt.NDArray[np.uint8]
    problems: pd.DataFrame
    left_out: int
    cache: dict[str, Any]


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


def raw_data(config: PrepareConfig) -> DatasetSource:
    """Return the raw data that are to be prepared.

    Raises:
        DatasetError: they are not there, are of no known layout, or are a prepared dataset.
        MappingError: there is no such mapping.
    """
    if config.dataset not in NAMED and prepared.is_prepared(Path(config.dataset)):
        raise DatasetError(
            f"{config.dataset} is a prepared dataset. Give prepare the raw data that it was made from; all other steps "
            "take the prepared folder."
        )
    mapping = read_mapping(mapping_path(config.materials))
    return choose_source(config.dataset, config.data_folder, frozenset({*mapping.material_of, *mapping.materials}))


def mapping_path(materials: str) -> Path:
    """Return the CSV file that ``materials=default|predecessor|trashnet|FILE`` means, or raise MappingError."""
    shipped = conf_folder() / "materials"
    path = Path(materials) if materials.endswith(".csv") else shipped / f"{materials}.csv"
    if not path.is_file():
        known = sorted(file.stem for file in shipped.glob("*.csv"))
        raise MappingError(
            f"There is no material mapping '{materials}'.{did_you_mean(materials, known)} "
            f"Give one of {', '.join(known)}, or a .csv file."
        )
    return path


def mapping_for(source: DatasetSource, dataset: CocoDataset, materials: str) -> MaterialMapping:
    """Return the mapping that ``materials=`` means, checked against a dataset.

    Only labels that occur need a row, and only materials that occur are kept. COCO's file lists its categories, so a
    row for none of them is refused.

    Raises:
        AnnotationsError: no photo has a label.
        MappingError: there is no such mapping, or it does not fit.
    """
    layout, place = source.layout, source.place
    mapping = read_mapping(mapping_path(materials))
    names = [category.name for category in dataset.categories]
    if layout.kind == COCO:
        used = {category.name for category in dataset.used_categories()}
        unused = [name for name in names if name not in used]
        check_covers(mapping, names, layout.annotations, place, unused=unused)
        if without := [name for name in unused if name not in mapping.material_of]:
            say(f"Categories that no annotated object has, and so need no material: {first_names(without)}.")
        return _without_unused(mapping, used)
    if not names:
        raise AnnotationsError(layout.no_labels())
    return mapping_of_labels(
        mapping, names, layout.of_label, sorted((conf_folder() / "materials").glob("*.csv")), place
    )


def with_passed_over(
    annotated: AnnotatedPhotos, dataset: CocoDataset, source: DatasetSource, config: PrepareConfig
) -> AnnotatedPhotos:
    """Say which files in the dataset's folders are not read, by suffix, and add them to the problems."""
    named = (source.find_photo(image.file_name.replace("\\", "/")) for image in dataset.images)
    read = [*named, *source.layout.label_files(), mapping_path(config.materials)]
    leave = [config.data_folder / "prepared", Path("mlruns"), source.folder / "__MACOSX"]
    rows = [
        row
        for suffix, names in passed_over(source.folder, read, leave).items()
        if (others := [name for name in names if not _KEPT_BESIDE.fullmatch(name)])
        for row in _passed_over_rows(suffix, others)
    ]
    problems = [*annotated.problems.itertuples(index=False, name=None), *rows]
    return replace(annotated, problems=problem_frame(problems)) if rows else annotated


def _passed_over_rows(suffix: str, names: list[str]) -> list[tuple[str, ...]]:
    """Say that files with a suffix are not read, and return a row for each picture, or one for all other files."""
    texts = [first_names([name]) for name in names]
    files = f"{len(names):,} {suffix or 'other'} file{'s' if len(names) > 1 else ''}"
    if suffix in UNREAD_PHOTO_SUFFIXES:
        how = how_to_read(suffix)
        warn(f"{files} not read, the first {texts[0]}: {how}.")
        return [problem_row(flat_name(name), name, f"not read: a {suffix} file: {how}") for name in texts]
    why = "photos that the annotations do not name" if suffix in PHOTO_SUFFIXES else "neither photos nor labels"
    say(f"{files} not read, the first {texts[0]}: {why}.")
    return [problem_row(flat_name(texts[0]), texts[0], f"{files} not read, this is the first: {why}")]


def _without_unused(mapping: MaterialMapping, used: Collection[str]) -> MaterialMapping:
    """Return the mapping without materials that no object has, and say which."""
    kept = with_materials(mapping, {mapping.material_of[name] for name in used})
    if left_out := [material for material in mapping.materials if material not in kept.materials]:
        say(f"Materials that no annotated object has are left out: {', '.join(left_out)}.")
    return kept


def read_annotations(source: DatasetSource, config: PrepareConfig) -> CocoDataset:
    """Read the annotations, fit their outlines to the photos, and say what had to be decided.

    Raises:
        AnnotationsError, DatasetError: they cannot be read.
    """
    read = source.layout.read()
    fitted = fit_to_photos(read, source.find_photo, config.outlines_frame)
    for note in fitted.notes:
        say(note)
    for warning in (*read.notes, *fitted.warnings):
        warn(warning)
    return fitted.dataset


def photo_sources(source: DatasetSource, labels: pd.DataFrame) -> list[PhotoSource]:
    """Return where each photo is, or raise DatasetError if none is there."""
    sources = [
        PhotoSource(str(flat), source.find_photo(str(file)).absolute())
        for flat, file in zip(labels["file_name"], labels["source_file"], strict=True)
    ]
    if not any(exists(one.path) for one in sources):
        raise DatasetError(
            f"None of the {len(sources):,} photos in {source.annotations} was found below {source.folder}, its "
            f"photos/ or its images/ (the first is {labels['source_file'].iloc[0]}). Put the photos there."
        )
    return sources


def check_seen(draft: Path, sources: list[PhotoSource], engine: Engine) -> None:
    """Check that all workers see the folder to write and the photos to read.

    Raises:
        EngineError: one does not.
    """
    for place in (draft.absolute(), sources[0].path.parent):
        for worker, sees in engine.send(os.path.isdir, place).items():
            if sees is not True:
                raise EngineError(
                    f"The worker {worker} does not see {place}. The workers of prepare need data_folder and the raw "
                    "photos on a shared drive; or use engine=processes:N."
                )


def cache_photos(
    annotated: AnnotatedPhotos,
    sources: list[PhotoSource],
    cache: ShardedCache,
    config: PrepareConfig,
    engine: Engine,
    *,
    earlier: EarlierPhotos | None,
    progress: Callable[[int], None],
) -> CachedPhotos:
    """Decode all photos into the cache; leave out the unusable ones, or raise DatasetError if they are too many."""
    labels = annotated.labels
    workers = worker_count(config.workers) if engine.is_local else 1  # each worker decodes a shard
    entries = cache.fill(sources, engine=engine, workers=workers, earlier=earlier, progress=progress)
    zero_sized = int(annotated.problems["problem"].str.contains(IMPOSSIBLE_SIZE, regex=False).sum())
    _check_problem_share(entries, zero_sized, config.max_problem_share)
    keep = np.array([row for row, entry in enumerate(entries) if not entry.problem], dtype=np.intp)
    entry = cache.finish(keep)
    photos = open_photos(cache.folder, entry)
    problems = problem_frame(
        [*annotated.problems.itertuples(index=False, name=None), *_photo_problems(labels, entries)]
    )
    kept = labels.iloc[keep].reset_index(drop=True)
    objects = annotated.objects[annotated.objects["file_name"].isin(kept["file_name"])].reset_index(drop=True)
    return CachedPhotos(kept, objects, photos, problems, len(labels) - len(kept) + zero_sized, entry)


def _check_problem_share(entries: list[CacheEntry], zero_sized: int, allowed: float) -> None:
    reasons = pd.Series([entry.problem for entry in entries if entry.problem] + [IMPOSSIBLE_SIZE] * zero_sized)
    total = len(entries) + zero_sized
    if len(reasons) <= allowed * total and len(reasons) < total:
        return
    counts = reasons.value_counts()
    named = "; ".join(f"{count:,} {reason}" for reason, count in counts.head(FIRST_PROBLEMS_SHOWN).items())
    raise DatasetError(
        f"{len(reasons):,} of {total:,} photos ({len(reasons) / total:.1%}) cannot be used, more than "
        f"max_problem_share={allowed:g}: {named}. Complete the photos, or raise max_problem_share."
    )


def _photo_problems(labels: pd.DataFrame, entries: list[CacheEntry]) -> list[tuple[str, ...]]:
    told = zip(labels["file_name"], labels["source_file"], entries, strict=True)
    return [problem_row(flat, file, f"photo left out: {entry.problem}") for flat, file, entry in told if entry.problem]


def check_group_by(source: DatasetSource, config: PrepareConfig) -> None:
    """Raise ConfigError if ``group_by`` is neither a rule nor a column, or the column has two values for a photo."""
    if _is_column(config.group_by):
        _column(source, config.group_by)


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


def balance(tables: list[SplitTables], config: PrepareConfig) -> list[Oversampled]:
    """Repeat training rows of rare materials, no more than needed, for the main split, then for each fold."""
    balanced = []
    for fold, of_split in enumerate(tables):
        try:
            balanced.append(oversample(of_split.train, config.balance_target, config.max_copies))
        except BalanceError as error:
            raise BalanceError(f"Fold {fold}: {error}" if fold else str(error)) from None
    return balanced


def score_all_controls(tables: list[SplitTables], photos: PhotoArray, seed: int) -> list[Controls]:
    """Score the controls, which predict without looking at the litter, for the main split and for each fold."""
    scored = []
    with progress_bar("Scoring controls", len(tables)) as bar:
        for one in tables:
            others = {"val": one.val, "test": one.test}
            scored.append(score_controls(one.train, others, photos=photos, seed=seed))
            bar.advance()
    return scored
