"""Which layout a folder or a file of annotations has; one, or an error that tells what was looked for and found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wastelens.data.layouts import class_folders, coco_files, label_table, yolo
from wastelens.data.layouts.layout import Layout
from wastelens.errors import DatasetError

_ENTRIES_NAMED = 5


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
        tables = label_table.look(place)
        found: list[Layout] = [*coco_files.look(place), *yolo.look(place), *tables]
        if not found or (found == tables and not any("/" in table.first_photo() for table in tables)):
            found += class_folders.look(place)
    except OSError as error:
        raise DatasetError(f"{place} cannot be read ({error.strerror}). Make the folder readable.") from None
    if not found:
        raise _nothing(place)
    if len(found) > 1:
        others = [table for table in tables if table.is_other_list()]
        found = [one for one in found if one not in others] or found
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


def _ambiguous(place: Path, found: Sequence[Layout]) -> DatasetError:
    files = [str(one.annotations) for one in found if one.annotations != place]
    listed = "; ".join(one.recognised for one in found)
    return DatasetError(
        f"{place} can be read in {len(found)} ways: {listed}. Name the file that is meant, such as dataset={files[0]}, "
        "or move the others away."
    )


def _nothing(place: Path) -> DatasetError:
    return DatasetError(
        f"{place} has no {coco_files.ANNOTATIONS} nor another COCO file (also looked for in annotations/, train/ and "
        f"valid/), no CSV with a column {label_table.FILE_COLUMNS[0]} or the like, no {yolo.DATA_FILES[0]} (YOLO), and "
        f"no two class folders with photos. It holds {_held(place)}. Put the annotations there, or correct the path."
    )


def _held(place: Path) -> str:
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in place.iterdir())
    if not entries:
        return "nothing"
    more = f" and {len(entries) - _ENTRIES_NAMED:,} more" if len(entries) > _ENTRIES_NAMED else ""
    named = ", ".join(entries[:_ENTRIES_NAMED]).encode("utf-8", "backslashreplace").decode()
    return f"{named}{more}"
