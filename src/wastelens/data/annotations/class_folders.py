"""A folder a class, as TrashNet has it; also with train, val and test folders above the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from wastelens.data.annotations.coco import CocoDataset
from wastelens.data.annotations.layout import (
    OWN_SPLIT,
    Layout,
    Marked,
    assemble,
    combined_digest,
    listed,
    names_below,
    refuse_unwritable,
    split_folders,
)
from wastelens.data.annotations.materials import label_name
from wastelens.data.photos.files import PHOTO_SUFFIXES
from wastelens.errors import DatasetError

_NO_CLASSES = ("__MACOSX",)


@dataclass(frozen=True)
class ClassFolders(Layout):
    """Photos with one label each, the name of their folder.

    Attributes:
        class_of: photo's name below the root, with forward slashes → its class.
        splits: the folders above the classes, if there are any.
        outside: how many photos lie in no class folder.
    """

    class_of: dict[str, str]
    splits: tuple[str, ...]
    outside: int
    kind: ClassVar[str] = "class_folders"

    @property
    def annotations(self) -> Path:
        """The folder."""
        return self.root

    @property
    def recognised(self) -> str:
        """What was recognised."""
        text = f"{len(self.class_of):,} photos in {len(set(self.class_of.values())):,} class folders of {self.root}"
        if self.splits:
            text += f", of {', '.join(self.splits)} together; {OWN_SPLIT}"
        return f"{text}; {self.outside:,} photos in no class folder are left out" if self.outside else text

    def read(self) -> CocoDataset:
        """A photo an annotation, without outlines."""
        refuse_unwritable(self.root, self.class_of)
        photos = {name: [Marked(label)] for name, label in self.class_of.items()}
        return assemble(self.root, self.root, photos, has_outlines=False)

    def digest(self) -> str:
        """Of the photos' names and sizes in bytes."""
        return combined_digest((name, _size(self.root / name)) for name in sorted(self.class_of))

    def label_files(self) -> list[Path]:
        """Return all folders: they change when a photo or a class is added, removed or renamed."""
        return [self.root, *sorted({folder for name in self.class_of for folder in self._folders_of(name)})]

    def _folders_of(self, photo: str) -> Iterator[Path]:
        yield from (self.root / parent for parent in PurePosixPath(photo).parents if parent.parts)

    def of_label(self, label: str) -> str:
        """A class folder, and why it is one."""
        return f"{self.root} has no annotations.json, so its folders are classes, and the class folder '{label}'"


def look(folder: Path) -> list[ClassFolders]:
    """Class folders of a folder, if there are two with photos.

    Raises:
        DatasetError: empty ones among them, or folders that cannot be read.
    """
    photos = _photos(folder)
    splits = _splits(photos)
    class_of = _classes(photos, splits)
    if len(set(class_of.values())) < 2:
        return []
    if empty := _empty(folder, splits, class_of):
        raise DatasetError(
            f"{folder}: class folders without a photo: {listed(empty)}. Put photos there, or remove the folders."
        )
    beside = sum(path.suffix.lower() in PHOTO_SUFFIXES for path in folder.iterdir() if path.is_file())
    outside = sum(map(len, photos.values())) - len(class_of) + beside
    return [ClassFolders(folder, class_of, splits, outside)]


def without_photos(folder: Path) -> list[str]:
    """The folders that would be classes if photos lay in them."""
    photos = _photos(folder)
    splits = _splits(photos)
    return _empty(folder, splits, _classes(photos, splits))


def _photos(folder: Path) -> dict[str, list[str]]:
    """Folder → names below the root of all photos in it."""
    return {name: list(names_below(folder, name, PHOTO_SUFFIXES)) for name in _folders(folder)}


def _folders(folder: Path) -> list[str]:
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())
    return sorted(entry.name for entry in entries if entry.name not in _NO_CLASSES)


def _splits(photos: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The folders of splits above the classes; none where others hold photos too: a class may be called test."""
    with_photos = [name for name, of_folder in photos.items() if of_folder]
    splits = split_folders(with_photos)
    return tuple(splits) if len(splits) == len(with_photos) else ()


def _classes(photos: Mapping[str, Sequence[str]], splits: Sequence[str]) -> dict[str, str]:
    """Photo → its class, of all photos that lie in a class folder."""
    depth = 1 if splits else 0
    names = (name for of_folder in photos.values() for name in of_folder if name.count("/") > depth)
    return {name: label_name(name.split("/")[depth]) for name in names}


def _empty(folder: Path, splits: Sequence[str], class_of: Mapping[str, str]) -> list[str]:
    """Class folders without a photo; with splits, those that have none in any of them."""
    names = {name for above in splits or ("",) for name in _folders(folder / above)}
    return sorted(name for name in names if label_name(name) not in class_of.values())


def _size(photo: Path) -> str:
    """In bytes; nothing for a link to nowhere, which is a photo that is missing."""
    try:
        return str(photo.stat().st_size)
    except OSError:
        return ""
