"""Recognise the layout of a folder or of a file of annotations; raise an error where none or several fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from wastelens.data.annotations.layout import LAYOUTS, Layout, first_names
from wastelens.errors import DatasetError


def recognise(place: Path) -> Layout:
    """Return the layout of a dataset.

    Folders count as classes only where no file tells what the photos show: annotated photos are in folders too.

    Args:
        place: its folder, or its file of annotations.

    Raises:
        DatasetError: no layout fits, several fit, or a folder cannot be read.
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
    for layout in LAYOUTS.parts.values():
        if file.suffix.lower() in layout.suffixes:
            return layout.of_file(file)
    known = ", ".join(f"{one.suffixes[0]} ({one.title})" for one in LAYOUTS.parts.values() if one.suffixes)
    raise DatasetError(f"{file} is not a file of annotations. Give one of {known}, or a folder.")


def _candidates(folder: Path) -> list[Layout]:
    """Return every way to read a folder."""
    last_resorts = [layout for layout in LAYOUTS.parts.values() if layout.is_last_resort]
    candidates = _found(folder, (layout for layout in LAYOUTS.parts.values() if not layout.is_last_resort))
    with_labels = [one for one in candidates if one.tells_labels]
    if not any(one.accounts_for_folders for one in with_labels):
        with_labels += _found(folder, last_resorts)
    return with_labels or candidates  # a list without labels is refused, with what it lacks, where it is all there is


def _found(folder: Path, layouts: Iterable[type[Layout]]) -> list[Layout]:
    return [one for layout in layouts for one in layout.find(folder)]


def _ambiguous(place: Path, found: Sequence[Layout]) -> DatasetError:
    # Where annotations are in several files, naming one would leave out the others.
    files = [one.annotations for one in found if one.annotations.is_file() and _of_file(one.annotations) == one]
    name = (
        f"Name the file that is meant, such as dataset={files[0]}, or move the others" if files else "Move all but one"
    )
    ways = "; ".join(one.recognised for one in found)
    return DatasetError(f"{place} can be read in {len(found)} ways: {ways}. {name} away.")


def _nothing(place: Path) -> DatasetError:
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in place.iterdir())
    missing = ", ".join(f"no {layout.sought(place)}" for layout in LAYOUTS.parts.values())
    return DatasetError(
        f"{place} holds no dataset of a known layout: {missing}. It holds {first_names(entries) or 'nothing'}. Put the "
        "annotations there, or correct the path."
    )
