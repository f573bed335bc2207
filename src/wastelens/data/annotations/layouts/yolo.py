"""YOLO: a file of class names, photos in images/, and a text file of boxes or polygons per photo in labels/."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.label_matching import (
    SUFFIX,
    Matched,
    beside,
    folders_like,
    label_file,
    match,
    photo_of,
)
from wastelens.data.annotations.layout import (
    LAYOUTS,
    OWN_SPLIT,
    Layout,
    assemble,
    combined_digest,
    name_below,
    names_below,
    refuse_unwritable,
)
from wastelens.data.annotations.yolo_data import (
    CLASSES,
    DARKNET_SUFFIX,
    LEAVES,
    PHOTOS,
    YAML_SUFFIXES,
    YoloData,
    error,
    is_data,
    moved_here,
    read_data,
)
from wastelens.data.annotations.yolo_lines import check_all, holds_labels, read_lines
from wastelens.data.photos.files import PHOTO_SUFFIXES, UNREAD_PHOTO_SUFFIXES, exists, files_called, find_photo
from wastelens.system.digests import file_digest
from wastelens.system.files import read_text
from wastelens.system.text import one_line

DATA_FILES = ("data.yaml", "data.yml")
_LABELS = "labels"
_LARGEST_LIST_BYTES = 100_000_000


@LAYOUTS.register("yolo")
@dataclass(frozen=True)
class YoloLabels(Layout):
    """Boxes and polygons in fractions of the photo; a photo without a label file shows no litter.

    The file of class names is ``data.yaml``, or another YAML file with ``names``, or darknet's ``obj.data``, or the
    ``classes.txt`` of Label Studio.
    """

    file: Path
    kind: ClassVar[str] = "yolo"
    title: ClassVar[str] = "YOLO"
    suffixes: ClassVar[tuple[str, ...]] = (*YAML_SUFFIXES, DARKNET_SUFFIX)

    @classmethod
    def find(cls, folder: Path) -> list[YoloLabels]:
        """Return the dataset of a folder's ``data.yaml`` or ``data.yml``, or one of each, or of another file."""
        if named := [folder / name for name in DATA_FILES if (folder / name).is_file()]:
            return [cls.of_file(file) for file in named]
        files = [file for suffix in cls.suffixes for file in files_called(folder, suffix)]
        if like := [file for file in files if is_data(file)]:
            return [cls.of_file(file) for file in like]
        has_labels = (folder / _LABELS).is_dir() and (folder / PHOTOS).is_dir()
        return [cls.of_file(folder / CLASSES)] if has_labels and (folder / CLASSES).is_file() else []

    @classmethod
    def of_file(cls, file: Path) -> YoloLabels:
        return cls(file.parent, file)

    @classmethod
    def sought(cls, folder: Path) -> str:
        """Return the file of class names, and whether only that is missing."""
        lacks = (folder / _LABELS).is_dir() or next(iter(files_called(folder, SUFFIX)), None) is not None
        hint = "; to read the label files here, write data.yaml: names: [first, second], train: images" if lacks else ""
        return f"{DATA_FILES[0]} (YOLO{hint})"

    @property
    def annotations(self) -> Path:
        return self.file

    @property
    def recognised(self) -> str:
        splits = [name for name, places in self._data.places.items() if places]
        text = f"YOLO labels of {len(self._photos):,} photos in {self.file}"
        return f"{text}, of {', '.join(splits)} together; {OWN_SPLIT}" if len(splits) > 1 else text

    def read(self) -> CocoDataset:
        """Read every photo and its objects; a label file without a photo becomes a missing photo.

        What overruns the photo is clipped. An outline far outside is left out and listed, its label kept. A line whose
        class or number of numbers is wrong is refused.
        """
        pairs = self._pairs
        refuse_unwritable(self.root, pairs)
        lines = {
            name: read_lines(self.root / label, self._data, self.file) if label else [] for name, label in pairs.items()
        }
        check_all((line for of_photo in lines.values() for line in of_photo), self._data, self.file)
        photos = {name: [line.marked() for line in of_photo] for name, of_photo in lines.items()}
        return assemble(self.file, self.root, photos, has_outlines=True)

    def own_splits(self, photos: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the splits whose folders or lists in data.yaml have each photo."""
        places = self._data.places.items()
        return [
            (flat_name(name), split) for split, of_one in places for place in of_one for name in self._photos_of(place)
        ]

    def digest(self) -> str:
        """Return a digest of the file of class names, the photos' names and their label files."""
        labels = ((name, self.root / label if label else None) for name, label in sorted(self._pairs.items()))
        photos = ((name, file_digest(label) if label else "") for name, label in labels)
        return combined_digest([(self.file.name, file_digest(self.file)), *photos])

    def label_files(self) -> list[Path]:
        """Return data.yaml, lists of photos, the label files, and the folders that photos and label files are in."""
        below = [name for pair in self._pairs.items() for name in pair if name and os.path.isfile(self.root / name)]
        folders = {parent.as_posix() for name in below for parent in PurePosixPath(name).parents}
        lists = {place for places in self._data.places.values() for place in places}
        labels = {label for label in self._pairs.values() if label}
        return [self.file, *(self.root / name for name in sorted(folders | lists | labels))]

    def of_label(self, label: str) -> str:
        return f"{self.file}: class '{one_line(label, 100)}'"

    @cached_property
    def _data(self) -> YoloData:
        return read_data(self.file)

    @cached_property
    def _photos(self) -> list[str]:
        """The photos' names below the root."""
        places = dict.fromkeys(place for of_split in self._data.places.values() for place in of_split)
        names = dict.fromkeys(name for place in places for name in self._photos_of(place))
        if not names:
            raise error(self.file, f"no photo is in {', '.join(places)}", "Put the photos there, or correct the paths")
        return list(names)

    def _photos_of(self, place: str) -> Iterator[str]:
        if (self.root / place).is_dir():
            yield from names_below(self.root, place, PHOTO_SUFFIXES)
            return
        if not (self.root / place).is_file():
            raise error(self.file, f"'{place}' is neither a folder nor a list of photos", "Correct the path")
        try:
            lines = read_text(self.root / place, _LARGEST_LIST_BYTES).splitlines()
        except OSError as reason:
            fact = f"the list '{place}' cannot be read ({reason.strerror})"
            raise error(self.file, fact, "Repair the file or its permissions") from None
        except ValueError as reason:
            raise error(self.file, f"the list '{place}' {reason}", "Save it as UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if text := line.strip():
                yield self._listed(place, number, text)

    def _listed(self, place: str, number: int, text: str) -> str:
        """Return the photo that a line of a list names.

        A path that starts with ./ is relative to the list, as in Ultralytics; other tools also mean the root, or begin
        with folders of their own machine. If the photo is in none of these places, it is a missing one.
        """
        below_root, beside_list = name_below(self.root, text), None
        if below_root is not None or text.startswith("."):
            beside_list = name_below(self.root, os.path.join(PurePosixPath(place).parent, text))
        both = (beside_list, below_root) if text.startswith(("./", ".\\")) else (below_root, beside_list)
        names = [name for name in both if name is not None]
        there = next((name for name in names if name != "." and exists(find_photo(self.root, name))), None)
        moved = there or moved_here(self.root, text, fewest=2)
        if "." in names or not (names or moved):
            fact = f"line {number} of '{place}' is '{text}', which {'is not a photo' if names else LEAVES}"
            raise error(self.file, fact, "Use paths of photos below the folder")
        return moved or names[0]

    def no_labels(self) -> str:
        """Return which files were looked for in vain, or that none of them holds an object."""
        count = f"{self.file}: none of its {len(self._photos):,} photos"
        first = find_photo(self.root, self._photos[0])
        if not any(exists(find_photo(self.root, name)) for name in self._photos):
            return f"{count} is there; the first was looked for at {first}. Put the photos there, or correct the paths."
        if self._matched.label_of:
            return f"{count} has an object in its label file. Export the labels again."
        place = self.root / label_file(self._photos[0])
        return f"{count} has a label file; the first was looked for at {place}. Put the label files there."

    @cached_property
    def _matched(self) -> Matched:
        """Photos and label files; of the label files, those that hold labels, and of photos that were asked for."""
        of_labels = {PurePosixPath(label_file(name)).parent.as_posix() for name in self._photos}
        folders = dict.fromkeys(like for folder in sorted(of_labels) for like in folders_like(self.root, folder))
        matched = self._match_in(folders, label_file)
        if matched.label_of or matched.orphans:
            return matched
        of_photos = {PurePosixPath(name).parent.as_posix() for name in self._photos}
        return self._match_in(dict.fromkeys(sorted(of_photos)), beside)

    def _match_in(self, folders: dict[str, None], expect: Callable[[str], str]) -> Matched:
        texts = dict.fromkeys(
            name for folder in folders for name in names_below(self.root, folder, frozenset({SUFFIX}))
        )
        lists = {place for of_split in self._data.places.values() for place in of_split}
        files = [name for name in texts if name not in lists and self.root / name != self.file]
        matched = match(self._photos, files, expect)
        # Other photos, whether asked for or not, readable or not, have label files too.
        of_photos = {PurePosixPath(name).parent.as_posix() for name in self._photos}
        suffixes = PHOTO_SUFFIXES | UNREAD_PHOTO_SUFFIXES
        there = {name for folder in of_photos for name in names_below(self.root, folder, suffixes)}
        others = match(sorted(there - set(self._photos)), matched.orphans, expect)
        return matched._replace(orphans=[name for name in others.orphans if holds_labels(self.root / name)])

    @cached_property
    def _pairs(self) -> dict[str, str]:
        """Photo's name → name of its label file, "" if it has none; of an orphan, the name of a missing photo."""
        matched = self._matched
        with_objects = [name for name in matched.orphans if os.path.getsize(self.root / name)]
        if with_objects and matched.without_label:
            fact = (
                f"{len(matched.without_label):,} photos have no label file (the first: {matched.without_label[0]}) and "
                f"{len(with_objects):,} label files have no photo (the first: {with_objects[0]}), so it is not clear "
                "which photos show no litter"
            )
            fix = (
                "Name each label file after its photo, or remove those without a photo, or give each photo without "
                "litter an empty label file"
            )
            raise error(self.file, fact, fix)
        photos_of = {photo_of(label): label for label in matched.orphans}
        return {name: matched.label_of.get(name, "") for name in self._photos} | photos_of
