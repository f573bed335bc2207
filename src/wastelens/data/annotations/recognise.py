"""Which layout a folder or a file of annotations has; one, or an error that tells what was looked for and found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wastelens.data.annotations import class_folders, coco_files, yolo
from wastelens.data.annotations import label_csv as label_table
from wastelens.data.annotations.layout import Layout, listed
from wastelens.errors import DatasetError


def recognise(place: Path) -> Layout:
    """The layout of a dataset.

    Folders are classes only where no file tells what the photos show: the photos of annotations lie in folders too.

    Args:
        place: its folder, or its file of annotations.

    Raises:
        DatasetError: none or two of them, or a folder of them cannot be used.
    """
    if place.is_file():
        return _of_file(place)
    try:
        found = _candidates(place)
        if not found:
            raise _nothing(place)
    except OSError as error:
        raise DatasetError(f"{place} cannot be read ({error.strerror}). Make the folder readable.") from None
    if len(found) > 1:
        raise _ambiguous(place, found)
    return found[0]


def _of_file(file: Path) -> Layout:
    suffix = file.suffix.lower()
    if suffix == ".json":
        return coco_files.of_file(file)
    if suffix == ".csv":
        return label_table.of_file(file)
    if suffix in (".yaml", ".yml"):
        return yolo.of_file(file)
    raise DatasetError(
        f"{file} is no file of annotations. Give a .json (COCO), .csv (labels) or .yaml (YOLO), or a folder."
    )


def _candidates(folder: Path) -> list[Layout]:
    """All that a folder can be read as."""
    tables = label_table.look(folder)
    of_labels = [table for table in tables if table.tells_labels()]
    found: list[Layout] = [*coco_files.look(folder), *yolo.look(folder), *of_labels]
    if found == of_labels and not any("/" in table.first_photo() for table in of_labels):
        found += class_folders.look(folder)
    return found or list(tables)  # a table that tells no labels, where there is nothing else, says what it lacks


def _ambiguous(place: Path, found: Sequence[Layout]) -> DatasetError:
    # Of annotations in several files, naming one would leave out the others.
    files = [one.annotations for one in found if one.annotations.is_file() and _of_file(one.annotations) == one]
    name = (
        f"Name the file that is meant, such as dataset={files[0]}, or move the others" if files else "Move all but one"
    )
    ways = "; ".join(one.recognised for one in found)
    return DatasetError(f"{place} can be read in {len(found)} ways: {ways}. {name} away.")


def _nothing(place: Path) -> DatasetError:
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in place.iterdir())
    empty = class_folders.without_photos(place)
    return DatasetError(
        f"{place} has no {coco_files.ANNOTATIONS} nor another COCO file (also looked for in annotations/, train/ and "
        f"valid/), no CSV with a column {label_table.FILE_COLUMNS[0]} or the like, no {yolo.DATA_FILES[0]} (YOLO), and "
        f"no two class folders with photos{f' (without one: {listed(empty)})' if empty else ''}. It holds "
        f"{listed(entries) or 'nothing'}. Put the annotations there, or correct the path."
    )
