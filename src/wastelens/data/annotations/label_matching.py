"""Match photos with a label file of the same name each, as exporters and copying change names."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from wastelens.data.photos.files import PHOTO_SUFFIXES

SUFFIX = ".txt"
_PHOTOS, _LABELS = "images", "labels"


class Matched(NamedTuple):
    """Photo → its label file; photos without one; label files without a photo. All are names below one folder."""

    label_of: dict[str, str]
    without_label: list[str]
    orphans: list[str]


def match(photos: Iterable[str], label_files: Iterable[str], expect: Callable[[str], str]) -> Matched:
    """Match photos and label files; ``expect`` returns the name that a photo's label file should have.

    First by the exact name, which several photos may share; then among the rest, where one photo and one label file
    agree but for capitals, accents, escapes (``%20``) and a doubled suffix (``a.jpg.txt``).
    """
    found = set(label_files)
    names = list(photos)
    label_of = {photo: expected for photo in names if (expected := expect(photo)) in found}
    rest = found - set(label_of.values())
    by_key: dict[str, list[str]] = {}
    for label in sorted(rest):
        by_key.setdefault(_key(label), []).append(label)
    waiting: dict[str, list[str]] = {}
    for photo in names:
        if photo not in label_of:
            waiting.setdefault(_key(expect(photo)), []).append(photo)
    label_of |= {
        of_key[0]: by_key[key][0]
        for key, of_key in waiting.items()
        if len(of_key) == 1 and len(by_key.get(key, [])) == 1
    }
    without_label = [photo for photo in names if photo not in label_of]
    return Matched(label_of, without_label, sorted(rest - set(label_of.values())))


def beside(photo: str) -> str:
    """Return images/train/1.txt for images/train/1.jpg."""
    return PurePosixPath(photo).with_suffix(SUFFIX).as_posix()


def label_file(photo: str) -> str:
    """Return labels/train/1.txt for images/train/1.jpg; beside the photo if no folder is called images."""
    return swapped(photo, _PHOTOS, _LABELS).with_suffix(SUFFIX).as_posix()


def photo_of(label: str) -> str:
    """Return images/train/1 for labels/train/1.txt: the suffix of a missing photo is unknown."""
    return swapped(label, _LABELS, _PHOTOS).with_suffix("").as_posix()


def swapped(path: str, old: str, new: str) -> PurePosixPath:
    """Return the path with the last folder of one name, in upper or lower case, renamed, as in Ultralytics' loader."""
    *folders, name = PurePosixPath(path).parts
    lower = [folder.lower() for folder in folders]
    if old in lower:
        folders[len(folders) - 1 - lower[::-1].index(old)] = new
    return PurePosixPath(*folders, name)


def folders_like(root: Path, folder: str) -> Iterator[str]:
    """Yield the folders below the root with this name, in upper or lower case."""
    found = [PurePosixPath()]
    for part in PurePosixPath(folder).parts:
        entries = [(above, entry) for above in found for entry in _folders(root / above)]
        found = [above / entry for above, entry in entries if entry.casefold() == part.casefold()]
    yield from (name.as_posix() for name in found)


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _key(label: str) -> str:
    path = PurePosixPath(label).with_suffix("")
    name = path.with_suffix("") if path.suffix.lower() in PHOTO_SUFFIXES else path
    return unicodedata.normalize("NFC", unquote(name.as_posix())).casefold()
