"""YOLO: ``data.yaml``, photos in images/ and a text file of boxes or polygons a photo in labels/."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import yaml

from wastelens.data.coco import CocoDataset
from wastelens.data.digests import file_digest
from wastelens.data.layouts.layout import (
    OWN_SPLIT,
    FloatArray,
    Layout,
    Marked,
    assemble,
    combined_digest,
    name_below,
    refuse_unwritable,
)
from wastelens.data.materials import label_name
from wastelens.data.photo_files import PHOTO_SUFFIXES, files_below
from wastelens.errors import AnnotationsError, DatasetError

DATA_FILES = ("data.yaml", "data.yml")
_SPLITS = ("train", "val", "test")
_PHOTOS, _LABELS = "images", "labels"
_NO_LABELS = ("classes.txt",)  # the names once more, which annotation tools write beside the labels
_TOLERANCE = 1e-3  # exporters round
_LARGEST_BYTES = 1_000_000  # of data.yaml


@dataclass(frozen=True)
class _Content:
    """data.yaml: class number → name, and the photos' folders or lists of each split, below the root."""

    names: dict[int, str]
    places: dict[str, list[str]]


@dataclass(frozen=True)
class YoloLabels(Layout):
    """Boxes and polygons in shares of the photo; a photo without a label file is one without litter."""

    file: Path
    kind: ClassVar[str] = "yolo"

    @property
    def annotations(self) -> Path:
        """The file data.yaml."""
        return self.file

    @property
    def recognised(self) -> str:
        """What was recognised."""
        splits = [name for name, places in self._content.places.items() if places]
        text = f"YOLO labels of {len(self._photos):,} photos in {self.file}"
        return f"{text}, of {', '.join(splits)} together; {OWN_SPLIT}" if len(splits) > 1 else text

    def read(self) -> CocoDataset:
        """Every photo with its objects; labels without a photo become a photo that is missing."""
        refuse_unwritable(self.root, self._photos)
        refuse_unwritable(self.root, self._orphans)
        photos = {name: self._objects(label) for name, label in (self._photos | self._orphans).items()}
        return assemble(self.file, self.root, photos, has_outlines=True)

    def digest(self) -> str:
        """Of data.yaml and all label files."""
        labels = sorted({label for label in (self._photos | self._orphans).values() if (self.root / label).is_file()})
        files = ((label, file_digest(self.root / label)) for label in labels)
        return combined_digest([(self.file.name, file_digest(self.file)), *files])

    def of_label(self, label: str) -> str:
        """A class, and the file."""
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
            raise self._error(f"cannot be read ({error.strerror})", "Mend the file or its permissions") from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise self._error(f"is not YAML ({reason})", "Export it again, or correct it") from None
        if not isinstance(content, dict):
            raise self._error("holds no keys", "Write names:, train: and val: there")
        return content

    def _base(self, path: object) -> str:
        """The folder that the splits' paths begin at, below the root; '.' is the root."""
        if path in (None, "", "."):
            return "."
        if not isinstance(path, str) or "\0" in path:
            raise self._error("'path' is no path", "Remove it: the splits' paths begin where data.yaml lies")
        if (self.root / path).resolve() == self.root.resolve():
            return "."
        below = name_below(self.root, path)
        if below is None:
            raise self._error(
                f"'path' is '{path}', outside of {self.root}", "Remove it: the splits' paths begin where data.yaml lies"
            )
        return below

    def _places(self, content: dict[str, Any], split: str, base: str) -> list[str]:
        """Where a split's photos are, below the root."""
        value = content.get(split, content.get("valid") if split == "val" else None)
        texts = value if isinstance(value, list) else [value] if value else []
        places = [self._place(split, text, base) for text in texts]
        missing = next((place for place in places if not (self.root / place).exists()), None)
        if missing is not None and split != "test":  # exporters name a test split that they did not make
            raise self._error(
                f"'{split}' is '{missing}', which is not there", "Put the photos there, or correct the path"
            )
        return [place for place in places if (self.root / place).exists()]

    def _place(self, split: str, text: object, base: str) -> str:
        if not isinstance(text, str):
            raise self._error(f"'{split}' is no path", "Write a folder below it, like images/train")
        below = name_below(self.root, text if Path(text).is_absolute() else f"{base}/{text}")
        if below is None and text.startswith("../"):  # Roboflow writes ../train/images beside train/images
            below = name_below(self.root, text.removeprefix("../"))
        if below is None:
            raise self._error(f"'{split}' is '{text}', which leaves the dataset's folder", "Use a path below it")
        return below

    @cached_property
    def _photos(self) -> dict[str, str]:
        """Photo's name → name of its label file, both below the root; the file need not be there."""
        places = dict.fromkeys(place for of_split in self._content.places.values() for place in of_split)
        names = dict.fromkeys(name for place in places for name in self._photos_of(place))
        if not names:
            raise self._error(f"no photo is in {', '.join(places)}", "Put the photos there, or correct the paths")
        return {name: _label_file(name) for name in names}

    def _photos_of(self, place: str) -> Iterator[str]:
        if (self.root / place).is_dir():
            yield from _files(self.root, place, PHOTO_SUFFIXES)
            return
        if not (self.root / place).is_file():
            raise self._error(f"'{place}' is neither a folder nor a list of photos", "Correct the path")
        try:
            lines = (self.root / place).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._error(f"the list '{place}' cannot be read ({error})", "Save it as UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if text := line.strip():
                name = name_below(self.root, text) if text != "." else None
                if name is None:
                    fact = f"line {number} of '{place}' is '{text}', which leaves the dataset's folder"
                    raise self._error(fact, "Use paths below it")
                yield name

    @cached_property
    def _orphans(self) -> dict[str, str]:
        """The same of label files beside the others that no photo has; the photo is named as the label is."""
        folders = {PurePosixPath(name).parent.as_posix() for name in self._photos}
        photos = {name for folder in folders for name in _files(self.root, folder, PHOTO_SUFFIXES)}
        known = {_label_file(name) for name in photos | set(self._photos)}
        of_labels = {PurePosixPath(_label_file(name)).parent.as_posix() for name in self._photos}
        labels = {name for folder in of_labels for name in _files(self.root, folder, frozenset({".txt"}))}
        orphans = (label for label in labels - known if PurePosixPath(label).name not in _NO_LABELS)
        return {_photo_of(label): label for label in sorted(orphans)}

    def _objects(self, label: str) -> list[Marked]:
        path = self.root / label
        if not path.is_file():
            return []
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AnnotationsError(f"{path}: cannot be read ({error}). Mend the file.") from None
        return [self._object(path, number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]

    def _object(self, path: Path, line: int, words: list[str]) -> Marked:
        """A line: the class's number, then centre and size of a box, or the points of a polygon."""
        try:
            number, *values = [float(word) for word in words]
        except ValueError:
            raise AnnotationsError(f"{path}, line {line}: holds something that is no number. Correct it.") from None
        name = self._content.names.get(int(number)) if math.isfinite(number) and number == int(number) else None
        if name is None:
            raise AnnotationsError(
                f"{path}, line {line}: class {words[0]} is none of the {len(self._content.names)} names in "
                f"{self.file}. Correct the number, or add the name."
            )
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise AnnotationsError(
                f"{path}, line {line}: {len(values)} numbers after the class are neither a box (4) nor a polygon (x "
                "and y of three points or more). Correct the line."
            )
        shares = np.array(values)
        if not ((shares >= -_TOLERANCE) & (shares <= 1 + _TOLERANCE)).all():
            outside = next(word for word, share in zip(words[1:], values, strict=True) if not 0 <= share <= 1)
            raise AnnotationsError(
                f"{path}, line {line}: {outside} is outside 0 to 1. Coordinates are shares of the photo's width "
                "and height."
            )
        return Marked(name, _rectangle(*values) if len(values) == 4 else shares.reshape(-1, 2))

    def _error(self, fact: str, fix: str) -> AnnotationsError:
        return AnnotationsError(f"{self.file}: {fact}. {fix}.")


def _names(value: object) -> dict[int, str] | None:
    """Class number → name, from a list or a dict of them; None where there are none."""
    pairs = (
        list(enumerate(value)) if isinstance(value, list) else list(value.items()) if isinstance(value, dict) else []
    )
    names = {}
    for number, name in pairs:
        if not str(number).isdecimal() or not isinstance(name, str | int | float) or not label_name(str(name)):
            return None
        names[int(number)] = label_name(str(name))
    return names or None


def _files(root: Path, folder: str, suffixes: frozenset[str]) -> Iterator[str]:
    """Names below the root of all files in a folder with these suffixes, if there is such a folder."""
    for path, error in files_below(root / folder) if (root / folder).is_dir() else ():
        if error is not None:
            raise DatasetError(f"{path} cannot be read ({error.strerror}). Make the folder readable.")
        if path.suffix.lower() in suffixes:
            yield path.relative_to(root).as_posix()


def _label_file(photo: str) -> str:
    """images/train/1.jpg → labels/train/1.txt; beside the photo where no folder is called images."""
    return _swapped(PurePosixPath(photo), _PHOTOS, _LABELS).with_suffix(".txt").as_posix()


def _photo_of(label: str) -> str:
    """labels/train/1.txt → images/train/1: of a photo that is not there, nobody knows the suffix."""
    return _swapped(PurePosixPath(label), _LABELS, _PHOTOS).with_suffix("").as_posix()


def _swapped(path: PurePosixPath, old: str, new: str) -> PurePosixPath:
    """The path with the last folder of one name renamed, as Ultralytics' loader does it."""
    folders = list(path.parts[:-1])
    if old in folders:
        folders[len(folders) - 1 - folders[::-1].index(old)] = new
    return PurePosixPath(*folders, path.name)


def _rectangle(x: float, y: float, width: float, height: float) -> FloatArray:
    """The corners of a box given by its centre and size, float (4, 2)."""
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def of_file(file: Path) -> YoloLabels:
    """The file that was named."""
    return YoloLabels(file.parent, file)


def look(folder: Path) -> list[YoloLabels]:
    """``data.yaml`` of a folder."""
    return [of_file(folder / name) for name in DATA_FILES if (folder / name).is_file()][:1]
