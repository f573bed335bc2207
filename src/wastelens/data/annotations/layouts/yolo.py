"""YOLO: ``data.yaml``, photos in images/, and a text file of boxes or polygons per photo in labels/."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
import yaml

from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.layout import (
    LAYOUTS,
    OWN_SPLIT,
    Layout,
    Marked,
    assemble,
    combined_digest,
    name_below,
    names_below,
    refuse_unwritable,
)
from wastelens.data.annotations.materials import label_name
from wastelens.data.photos.files import PHOTO_SUFFIXES, exists, find_photo
from wastelens.errors import AnnotationsError
from wastelens.system.files import file_digest

DATA_FILES = ("data.yaml", "data.yml")
_SPLITS = ("train", "val", "test")
_PHOTOS, _LABELS = "images", "labels"
_LARGEST_BYTES = 1_000_000  # of data.yaml
_LEAVES = "leaves the dataset's folder"


class _Content(NamedTuple):
    """data.yaml: class number → name, and the photos' folders or lists of each split, below the root."""

    names: dict[int, str]
    places: dict[str, list[str]]


@LAYOUTS.register("yolo")
@dataclass(frozen=True)
class YoloLabels(Layout):
    """Boxes and polygons in fractions of the photo; a photo without a label file shows no litter."""

    file: Path
    kind: ClassVar[str] = "yolo"
    title: ClassVar[str] = "YOLO"
    suffixes: ClassVar[tuple[str, ...]] = (".yaml", ".yml")

    @classmethod
    def find(cls, folder: Path) -> list[YoloLabels]:
        """Return the dataset of a folder's ``data.yaml`` or ``data.yml``, or one of each."""
        return [cls.of_file(folder / name) for name in DATA_FILES if (folder / name).is_file()]

    @classmethod
    def of_file(cls, file: Path) -> YoloLabels:
        return cls(file.parent, file)

    @classmethod
    def sought(cls, folder: Path) -> str:
        return f"{DATA_FILES[0]} (YOLO)"

    @property
    def annotations(self) -> Path:
        return self.file

    @property
    def recognised(self) -> str:
        splits = [name for name, places in self._content.places.items() if places]
        text = f"YOLO labels of {len(self._photos):,} photos in {self.file}"
        return f"{text}, of {', '.join(splits)} together; {OWN_SPLIT}" if len(splits) > 1 else text

    def read(self) -> CocoDataset:
        """Read every photo and its objects; a label file without a photo becomes a missing photo."""
        refuse_unwritable(self.root, self._photos)
        refuse_unwritable(self.root, self._orphans)
        names = self._content.names
        photos = {
            name: _read_objects(self.root / label, names, self.file)
            for name, label in (self._photos | self._orphans).items()
        }
        return assemble(self.file, self.root, photos, has_outlines=True)

    def own_splits(self, photos: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the splits whose folders or lists in data.yaml have each photo."""
        places = self._content.places.items()
        return [
            (flat_name(name), split) for split, of_one in places for place in of_one for name in self._photos_of(place)
        ]

    def digest(self) -> str:
        """Return a digest of data.yaml, the photos' names and their label files; no label file means no litter."""
        labels = ((name, self.root / label) for name, label in sorted((self._photos | self._orphans).items()))
        photos = ((name, file_digest(label) if label.is_file() else "") for name, label in labels)
        return combined_digest([(self.file.name, file_digest(self.file)), *photos])

    def label_files(self) -> list[Path]:
        """Return data.yaml, lists of photos, the label files, and the folders that photos and label files are in."""
        names = self._photos | self._orphans
        below = [name for pair in names.items() for name in pair if (self.root / name).is_file()]
        folders = {parent.as_posix() for name in below for parent in PurePosixPath(name).parents}
        lists = {place for places in self._content.places.values() for place in places}
        labels = {label for label in names.values() if (self.root / label).is_file()}
        return [self.file, *(self.root / name for name in sorted(folders | lists | labels))]

    def of_label(self, label: str) -> str:
        return f"{self.file}: class '{label}'"

    @cached_property
    def _content(self) -> _Content:
        content = self._loaded()
        names = _names(content.get("names"))
        if names is None:
            raise self._error("has no 'names'", "Add the classes' names in their order: names: [plastic, paper]")
        base = self._base(content.get("path"))
        places = {split: self._places(content, split, base) for split in _SPLITS}
        if not any(places.values()):
            if not (self.root / _PHOTOS).is_dir():
                raise self._error("names no photos", "Add train: images/train and val: images/val")
            places = {"train": [_PHOTOS]}
        return _Content(names, places)

    def _loaded(self) -> dict[str, Any]:
        try:
            with self.file.open(encoding="utf-8-sig") as file:
                content = yaml.safe_load(file.read(_LARGEST_BYTES))
        except OSError as error:
            raise self._error(f"cannot be read ({error.strerror})", "Repair the file or its permissions") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise self._error(f"is not YAML ({reason})", "Export it again, or correct it") from None
        if not isinstance(content, dict):
            raise self._error("holds no keys", "Write names:, train: and val: into it")
        return content

    def _base(self, path: object) -> str:
        """Return the folder that the splits' paths start from, below the root; '.' is the root."""
        if path in (None, "", "."):
            return "."
        fix = "Remove it: the splits' paths start from the folder of data.yaml"
        if not isinstance(path, str) or "\0" in path:
            raise self._error("'path' is not a path", fix)
        if (self.root / path).resolve() == self.root.resolve():
            return "."
        below = name_below(self.root, path)
        if below is None:
            raise self._error(f"'path' is '{path}', outside of {self.root}", fix)
        return below

    def _places(self, content: dict[str, Any], split: str, base: str) -> list[str]:
        """Return where a split's photos are, below the root."""
        value = content.get(split, content.get("valid") if split == "val" else None)
        texts = value if isinstance(value, list) else [value] if value else []
        places = [self._place(split, text, base) for text in texts]
        there = [place for place in places if (self.root / place).exists()]
        missing = next((place for place in places if place not in there), None)
        if missing is not None and split != "test":  # exporters name a test split even if they made none
            raise self._error(
                f"'{split}' is '{missing}', which is not there", "Put the photos there, or correct the path"
            )
        return there

    def _place(self, split: str, text: object, base: str) -> str:
        if not isinstance(text, str):
            raise self._error(f"'{split}' is not a path", "Write a folder below the dataset's, like images/train")
        below = name_below(self.root, text if Path(text).is_absolute() else f"{base}/{text}")
        if below is None and text.startswith("../") and text != "../":
            below = name_below(self.root, text.removeprefix("../"))  # Roboflow writes it beside train/images
        if below is None:
            raise self._error(f"'{split}' is '{text}', which {_LEAVES}", "Use a path below the folder")
        return below

    @cached_property
    def _photos(self) -> dict[str, str]:
        """Photo's name → name of its label file, both below the root; the label file need not exist."""
        places = dict.fromkeys(place for of_split in self._content.places.values() for place in of_split)
        names = dict.fromkeys(name for place in places for name in self._photos_of(place))
        if not names:
            raise self._error(f"no photo is in {', '.join(places)}", "Put the photos there, or correct the paths")
        return {name: _label_file(name) for name in names}

    def _photos_of(self, place: str) -> Iterator[str]:
        if (self.root / place).is_dir():
            yield from names_below(self.root, place, PHOTO_SUFFIXES)
            return
        if not (self.root / place).is_file():
            raise self._error(f"'{place}' is neither a folder nor a list of photos", "Correct the path")
        try:
            lines = (self.root / place).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._error(f"the list '{place}' cannot be read ({error})", "Save it as UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if text := line.strip():
                yield self._listed(place, number, text)

    def _listed(self, place: str, number: int, text: str) -> str:
        """Return the photo that a line of a list names.

        A path that starts with ./ is relative to the list, as in Ultralytics; other tools also mean the root. If the
        photo is in neither place, it is a missing one.
        """
        below_root, beside_list = name_below(self.root, text), None
        if below_root is not None or text.startswith("."):
            beside_list = name_below(self.root, os.path.join(PurePosixPath(place).parent, text))
        both = (beside_list, below_root) if text.startswith(("./", ".\\")) else (below_root, beside_list)
        names = [name for name in both if name is not None]
        if not names or "." in names:
            fact = f"line {number} of '{place}' is '{text}', which {'is not a photo' if names else _LEAVES}"
            raise self._error(fact, "Use paths of photos below the folder")
        return next((name for name in names if exists(find_photo(self.root, name))), names[0])

    @cached_property
    def _orphans(self) -> dict[str, str]:
        """Name of a missing photo → its label file, for label files beside the others that belong to no photo.

        Lists of photos, classes.txt and notes may be there too.
        """
        folders = {PurePosixPath(name).parent.as_posix() for name in self._photos}
        photos = {name for folder in folders for name in names_below(self.root, folder, PHOTO_SUFFIXES)}
        known = {_label_file(name) for name in photos | set(self._photos)}
        of_labels = {PurePosixPath(_label_file(name)).parent.as_posix() for name in self._photos}
        texts = {name for folder in of_labels for name in names_below(self.root, folder, frozenset({".txt"}))}
        places = {place for of_split in self._content.places.values() for place in of_split}
        orphans = (name for name in sorted(texts - known - places) if _holds_labels(self.root / name))
        # labels/train/1.txt → images/train/1: the suffix of a missing photo is unknown
        return {_swapped(label, _LABELS, _PHOTOS).with_suffix("").as_posix(): label for label in orphans}

    def _error(self, fact: str, fix: str) -> AnnotationsError:
        return AnnotationsError(f"{self.file}: {fact}. {fix}.")


def _names(value: object) -> dict[int, str] | None:
    """Return class number → name, from a list or a dict; None if there are none."""
    pairs = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    names = {}
    for number, name in pairs:
        if not str(number).isdecimal() or not isinstance(name, str | int | float) or not label_name(str(name)):
            return None
        names[int(number)] = label_name(str(name))
    return names or None


def _label_file(photo: str) -> str:
    """Return labels/train/1.txt for images/train/1.jpg; beside the photo if no folder is called images."""
    return _swapped(photo, _PHOTOS, _LABELS).with_suffix(".txt").as_posix()


def _swapped(path: str, old: str, new: str) -> PurePosixPath:
    """Return the path with the last folder of one name renamed, as in Ultralytics' loader."""
    *folders, name = PurePosixPath(path).parts
    if old in folders:
        folders[len(folders) - 1 - folders[::-1].index(old)] = new
    return PurePosixPath(*folders, name)


_TOLERANCE = 1e-3  # exporters round
_LIKE_LABELS = re.compile(r"\s*\d+(\s+[-+.\de]+){4,}\s*", re.IGNORECASE)


def _read_objects(path: Path, names: Mapping[int, str], data_file: Path) -> list[Marked]:
    """Read the objects of a label file, none if there is no such file; names: class number → name."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationsError(f"{path}: cannot be read ({error}). Repair the file.") from None
    numbered = ((f"{path}, line {number}", line.split()) for number, line in enumerate(lines, 1) if line.strip())
    return [_object(where, words, names, data_file) for where, words in numbered]


def _holds_labels(path: Path) -> bool:
    """Return whether a text file that belongs to no photo holds labels: it is empty or has a line like a label's."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return path.is_file()  # reading its objects will report the error
    return not text.strip() or any(_LIKE_LABELS.fullmatch(line) for line in text.splitlines())


def _object(where: str, words: list[str], names: Mapping[int, str], data_file: Path) -> Marked:
    """Parse a line: the class number, then centre and size of a box, or the points of a polygon."""
    try:
        number, *values = [float(word) for word in words]
    except ValueError:
        raise AnnotationsError(f"{where}: holds something that is not a number. Correct it.") from None
    name = names.get(int(number)) if math.isfinite(number) and number == int(number) else None
    if name is None:
        raise AnnotationsError(
            f"{where}: class {words[0]} is not one of the {len(names)} names in {data_file}. Correct the number, or "
            "add the name."
        )
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise AnnotationsError(
            f"{where}: {len(values)} numbers after the class are neither a box (4) nor a polygon (x and y of three "
            "points or more). Correct the line."
        )
    shares = np.array(values)
    if not ((shares >= -_TOLERANCE) & (shares <= 1 + _TOLERANCE)).all():
        outside = next(word for word, share in zip(words[1:], values, strict=True) if not 0 <= share <= 1)
        raise AnnotationsError(
            f"{where}: {outside} is outside 0 to 1. Give coordinates in fractions of the photo's width and height."
        )
    if len(values) > 4:
        return Marked(name, shares.reshape(-1, 2))
    x, y, width, height = values
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return Marked(name, np.array([(left, top), (right, top), (right, bottom), (left, bottom)]))
