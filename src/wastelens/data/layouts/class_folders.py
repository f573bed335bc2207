"""A folder a class, as TrashNet has it; also with train, val and test folders above the classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wastelens.data.coco import CocoDataset
from wastelens.data.layouts.layout import (
    OWN_SPLIT,
    SPLIT_FOLDERS,
    Layout,
    Marked,
    assemble,
    combined_digest,
    refuse_unwritable,
)
from wastelens.data.materials import label_name
from wastelens.data.photo_files import PHOTO_SUFFIXES, files_below
from wastelens.errors import DatasetError

_NO_CLASSES = ("__MACOSX",)
_NAMED = 5  # empty folders spelled out


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

    def of_label(self, label: str) -> str:
        """A class folder, and why it is one."""
        return f"{self.root} has no annotations.json, so its folders are classes, and the class folder '{label}'"


def look(folder: Path) -> list[ClassFolders]:
    """Class folders of a folder, if there are two with photos.

    Raises:
        DatasetError: empty ones among them, or folders that cannot be read.
    """
    folders = _folders(folder)
    photos = {name: _photos(folder, name) for name in folders}
    with_photos = [name for name in folders if photos[name]]
    splits = tuple(name for name in SPLIT_FOLDERS if name in with_photos)
    if splits and len(splits) < len(with_photos):
        splits = ()  # a class may be called test
    depth = 1 if splits else 0
    named = [name for of_folder in photos.values() for name in of_folder]
    class_of = {name: label_name(name.split("/")[depth]) for name in named if name.count("/") > depth}
    if len(set(class_of.values())) < 2:
        return []
    classes = {(folder / split, name) for split in splits for name in _folders(folder / split)}
    names = {name for _, name in classes} if splits else set(folders)
    _refuse_empty(folder, sorted(name for name in names if label_name(name) not in class_of.values()))
    beside = sum(path.suffix.lower() in PHOTO_SUFFIXES for path in folder.iterdir() if path.is_file())
    return [ClassFolders(folder, class_of, splits, len(named) - len(class_of) + beside)]


def _folders(folder: Path) -> list[str]:
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())
    return sorted(entry.name for entry in entries if entry.name not in _NO_CLASSES)


def _photos(root: Path, name: str) -> list[str]:
    """Names below the root of all photos in one of its folders, at any depth."""
    found = []
    for path, error in files_below(root / name):
        if error is not None:
            raise DatasetError(f"{path} cannot be read ({error.strerror}). Make the folder readable.")
        if path.suffix.lower() in PHOTO_SUFFIXES:
            found.append(path.relative_to(root).as_posix())
    return found


def _size(photo: Path) -> str:
    """In bytes; nothing for a link to nowhere, which is a photo that is missing."""
    try:
        return str(photo.stat().st_size)
    except OSError:
        return ""


def _refuse_empty(folder: Path, empty: list[str]) -> None:
    if empty:
        more = f" and {len(empty) - _NAMED:,} more" if len(empty) > _NAMED else ""
        raise DatasetError(
            f"{folder}: class folders without a photo: {', '.join(empty[:_NAMED])}{more}. Put photos there, or remove "
            "the folders."
        )
