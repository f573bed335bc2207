"""A folder per class, as in TrashNet, possibly below folders for train, val and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from wastelens.data.annotations.coco import CocoDataset
from wastelens.data.annotations.layout import (
    LAYOUTS,
    OWN_SPLIT,
    Layout,
    Marked,
    assemble,
    combined_digest,
    first_names,
    names_below,
    refuse_unwritable,
    split_folders,
)
from wastelens.data.annotations.materials import label_name
from wastelens.data.photos.files import PHOTO_SUFFIXES, UNREAD_PHOTO_SUFFIXES, how_to_read
from wastelens.errors import DatasetError
from wastelens.system.text import one_line

_DEEPEST = 5  # folders around everything


@LAYOUTS.register("class_folders")
@dataclass(frozen=True)
class ClassFolders(Layout):
    """Photos with one label each, the name of their folder; without outlines."""

    class_of: dict[str, str]  # photo's name below the root, with forward slashes → its class
    splits: tuple[str, ...]  # the folders above the classes, if any
    outside: int  # number of photos that are in no class folder
    above: str  # the folder around everything, below the root; '.' if there is none
    kind: ClassVar[str] = "class_folders"
    title: ClassVar[str] = "class folders"
    is_last_resort: ClassVar[bool] = True

    @classmethod
    def find(cls, folder: Path) -> list[ClassFolders]:
        """Return the class folders of a folder, if at least two hold photos; raise DatasetError if others are empty."""
        above, photos, splits, class_of = _contents(folder)
        if len(set(class_of.values())) < 2:
            return []
        if empty := _empty(folder / above, splits, class_of):
            raise DatasetError(
                f"{folder}: class folders without a photo: {first_names(empty)}{_unread(folder)}. Put photos there, or "
                "remove the folders."
            )
        outside = sum(map(len, photos.values())) - len(class_of) + _photos_in(folder)
        return [cls(folder, class_of, splits, outside, above)]

    @classmethod
    def sought(cls, folder: Path) -> str:
        """Return that two class folders are needed, and which ones are empty."""
        above, _, splits, class_of = _contents(folder)
        empty = _empty(folder / above, splits, class_of)
        return "two class folders with photos" + (f" (empty: {first_names(empty)})" if empty else "") + _unread(folder)

    @property
    def annotations(self) -> Path:
        return self.root

    @property
    def recognised(self) -> str:
        classes = len(set(self.class_of.values()))
        text = f"{len(self.class_of):,} photos in {classes:,} class folders of {self.root / self.above}"
        if self.splits:
            text += f", of {', '.join(self.splits)} together; {OWN_SPLIT}"
        return f"{text}; {self.outside:,} photos outside of class folders are left out" if self.outside else text

    def read(self) -> CocoDataset:
        """Return an annotation per photo."""
        refuse_unwritable(self.root, self.class_of)
        photos = {name: [Marked(label)] for name, label in self.class_of.items()}
        return assemble(self.root, self.root, photos, has_outlines=False)

    def own_splits(self, photos: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the split folder of each photo; without split folders, a folder called test is a class."""
        return super().own_splits(photos) if self.splits else []

    def digest(self) -> str:
        """Return a digest of the photos' names and sizes in bytes."""
        return combined_digest((name, _size(self.root / name)) for name in sorted(self.class_of))

    def label_files(self) -> list[Path]:
        """Return all folders: they change when a photo or a class is added, removed or renamed."""
        return sorted({self.root / parent for name in self.class_of for parent in PurePosixPath(name).parents})

    def of_label(self, label: str) -> str:
        """Return a class folder, and why it is one."""
        why = "has no annotations.json, so its folders are classes"
        return f"{self.root} {why}, and the class folder '{one_line(label, 100)}'"


def _contents(folder: Path) -> tuple[str, dict[str, list[str]], tuple[str, ...], dict[str, str]]:
    """Return the folder of classes or splits; folder in it → names below the root of all its photos; splits; classes.

    There are no splits if other folders hold photos too: "test" may be a class. Classes are those of the photos: name
    below the root → class. Photos outside of class folders have none.
    """
    above = _above(folder)
    photos = {name: list(names_below(folder, f"{above}/{name}", PHOTO_SUFFIXES)) for name in _folders(folder / above)}
    with_photos = [name for name, of_folder in photos.items() if of_folder]
    splits = tuple(split_folders(with_photos))
    splits = splits if len(splits) == len(with_photos) else ()
    depth = len(PurePosixPath(above).parts) + (1 if splits else 0)
    names = (name for of_folder in photos.values() for name in of_folder if name.count("/") > depth)
    return above, photos, splits, {name: label_name(name.split("/")[depth]) for name in names}


def _above(folder: Path) -> str:
    """Return the folder, below the root, that holds the folders of classes or splits: '.' is the root.

    Archives often have a folder or two around everything.
    """
    above = PurePosixPath()
    for _ in range(_DEEPEST):
        names = _folders(folder / above)
        if (
            len(names) != 1
            or split_folders(names)
            or _photos_in(folder / above)
            or _photos_in(folder / above / names[0])
        ):
            break
        above /= names[0]
    return above.as_posix() if len(_folders(folder / above)) > 1 or split_folders(_folders(folder / above)) else "."


def _photos_in(folder: Path) -> int:
    return sum(path.suffix.lower() in PHOTO_SUFFIXES for path in folder.iterdir() if path.is_file())


def _folders(folder: Path) -> list[str]:
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir())
    return sorted(entry.name for entry in entries if entry.name != "__MACOSX")  # macOS adds it to its archives


def _empty(folder: Path, splits: Sequence[str], class_of: Mapping[str, str]) -> list[str]:
    """Return the class folders without a photo; with splits, without one in any split."""
    names = {name for above in splits or ("",) for name in _folders(folder / above)}
    classes = set(class_of.values())
    return sorted(name for name in names if label_name(name) not in classes)


def _unread(folder: Path) -> str:
    """Return which photos are there but cannot be read, and what to do, in brackets; "" for none."""
    counts = Counter(PurePosixPath(name).suffix.lower() for name in names_below(folder, ".", UNREAD_PHOTO_SUFFIXES))
    return "".join(f" ({count:,} {suffix} files are there: {how_to_read(suffix)})" for suffix, count in counts.items())


def _size(photo: Path) -> str:
    """Return the size in bytes; "" for a broken link, which is a missing photo."""
    try:
        return str(photo.stat().st_size)
    except OSError:
        return ""
