"""Read what is to be prepared: the raw data, the annotations, the mapping, and which files are passed over."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pandas as pd

from wastelens.config.files import conf_folder
from wastelens.config.prepare import PrepareConfig
from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.frames import fit_to_photos
from wastelens.data.annotations.labels import AnnotatedPhotos, problem_frame, problem_row
from wastelens.data.annotations.layout import COCO, first_names
from wastelens.data.annotations.materials import (
    MaterialMapping,
    check_covers,
    mapping_of_labels,
    read_mapping,
    with_materials,
)
from wastelens.data.annotations.sources import NAMED, DatasetSource, choose_source
from wastelens.data.photos.cache import PhotoSource
from wastelens.data.photos.files import PHOTO_SUFFIXES, UNREAD_PHOTO_SUFFIXES, exists, how_to_read
from wastelens.data.photos.passed_over import passed_over
from wastelens.data.prepared import dataset as prepared
from wastelens.errors import AnnotationsError, DatasetError, MappingError, did_you_mean
from wastelens.system.console import say, warn

# What download, collect, TACO and Windows keep beside the photos.
_KEPT_BESIDE = re.compile(
    r"annotations.*\.json|(download|collected)\.csv|ATTRIBUTION.*|(.*/)?(Thumbs\.db|desktop\.ini)"
)


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


def with_passed_over(
    annotated: AnnotatedPhotos, dataset: CocoDataset, source: DatasetSource, config: PrepareConfig
) -> AnnotatedPhotos:
    """Say which files in the dataset's folders are not read, by suffix, and add them to the problems."""
    named = (source.find_photo(image.file_name.replace("\\", "/")) for image in dataset.images)
    given = [Path(config.corrections)] if config.corrections else []
    read = [*named, *source.layout.label_files(), mapping_path(config.materials), *given]
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
