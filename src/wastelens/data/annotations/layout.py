"""What all layouts have in common, and what those without COCO annotations share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from wastelens.data.annotations.coco import Annotation, Category, CocoDataset, Image, check_names
from wastelens.data.photos.files import files_below, find_photo, upright_sizes
from wastelens.errors import DatasetError

COCO = "coco"
OWN_SPLIT = "the split they come with is not taken over, prepare makes one without leaks"
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")  # in lower case
_NAMED = 5  # spelled out where many are meant

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layout(ABC):
    """A dataset as it was recognised; nothing of its content is read before it is asked for.

    Attributes:
        kind: the layout's name, as the manifest of a prepared dataset keeps it.
        root: the folder that photos' names are relative to.
    """

    root: Path
    kind: ClassVar[str]

    @property
    @abstractmethod
    def annotations(self) -> Path:
        """The file of annotations, the first of several; the folder where folders are the annotations."""

    @property
    @abstractmethod
    def recognised(self) -> str:
        """What was recognised, as part of a sentence."""

    @abstractmethod
    def read(self) -> CocoDataset:
        """Read and check it.

        Raises:
            AnnotationsError: one line that names file and record.
            DatasetError: a folder or file cannot be read.
        """

    @abstractmethod
    def digest(self) -> str:
        """A digest that changes when the annotations do.

        Raises:
            OSError: they cannot be read.
        """

    @abstractmethod
    def of_label(self, label: str) -> str:
        """A label and where it stands, as the subject of a sentence."""

    def label_files(self) -> list[Path]:
        """Return the files and folders that tell the labels: as long as none of them changes, the digest does not."""
        return [self.annotations]

    def image_columns(self) -> list[tuple[str, dict[str, Any]]]:
        """Photos' flat names with what else is told of them, for groups by a column; one photo may come repeatedly."""
        return []


@dataclass(frozen=True)
class Marked:
    """An object on a photo.

    Attributes:
        label: its category.
        outline: polygon, float (points, 2) in shares of the upright photo's width and height; None without one.
    """

    label: str
    outline: FloatArray | None = None


def assemble(path: Path, root: Path, photos: Mapping[str, Sequence[Marked]], *, has_outlines: bool) -> CocoDataset:
    """A dataset of photos and what is marked on them, photos and labels sorted by name; sizes come from the headers.

    Args:
        path: what messages name.
        root: folder of the photos, which may lie in its photos/ or images/.
        photos: file name below the root, with forward slashes → its objects.
        has_outlines: whether outlines are marked at all.

    Raises:
        AnnotationsError: two names become one flat name.
    """
    names = sorted(photos)
    sizes = upright_sizes([find_photo(root, name) for name in names])
    images = [
        Image(number, name, width, height)
        for number, (name, (width, height)) in enumerate(zip(names, sizes, strict=True), 1)
    ]
    check_names(path, images)
    labels = sorted({marked.label for of_photo in photos.values() for marked in of_photo})
    categories = {label: Category(number, label) for number, label in enumerate(labels, 1)}
    annotations: list[Annotation] = []
    for image in images:
        for marked in photos[image.file_name]:
            outline = _segmentation(marked, image)
            annotations.append(Annotation(image.id, categories[marked.label].id, len(annotations) + 1, outline))
    return CocoDataset(path, tuple(images), tuple(annotations), tuple(categories.values()), has_outlines)


def _segmentation(marked: Marked, image: Image) -> msgspec.Raw:
    """COCO's polygon in pixels, as json."""
    if marked.outline is None:
        return msgspec.Raw(b"null")
    pixels = marked.outline * np.array([image.width, image.height])
    return msgspec.Raw(msgspec.json.encode([pixels.ravel().tolist()]))


def name_below(root: Path, name: str) -> str | None:
    """A file name as it is relative to a folder, with forward slashes; '.' is the folder, None is outside of it."""
    slashed = name.replace("\\", "/")
    if "\0" in name or (PureWindowsPath(name).drive and not Path(name).is_absolute()):
        return None
    inside = os.path.relpath(os.path.join(os.path.abspath(root), slashed), os.path.abspath(root))
    parts = PurePosixPath(inside).parts
    return None if parts[:1] == ("..",) else "/".join(parts) or "."


def names_below(root: Path, folder: str, suffixes: frozenset[str]) -> Iterator[str]:
    """Names below the root, with forward slashes, of all files with these suffixes in one of its folders, at any depth.

    Raises:
        DatasetError: a folder that cannot be read.
    """
    for path, error in files_below(root / folder) if (root / folder).is_dir() else ():
        if error is not None:
            raise DatasetError(f"{path} cannot be read ({error.strerror}). Make the folder readable.")
        if path.suffix.lower() in suffixes:
            yield path.relative_to(root).as_posix()


def split_folders(names: Iterable[str]) -> list[str]:
    """Those that are called as splits are, in any case, in the order of ``SPLIT_NAMES``."""
    of_splits = (name for name in names if name.lower() in SPLIT_NAMES)
    return sorted(of_splits, key=lambda name: (SPLIT_NAMES.index(name.lower()), name))


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}".encode("utf-8", "backslashreplace").decode()


def combined_digest(parts: Iterable[tuple[str, str]]) -> str:
    """One digest of names and of what each of them has, BLAKE2b of 128 bits in hexadecimal."""
    digest = blake2b(digest_size=16)
    for name, content in parts:
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def refuse_unwritable(folder: Path, names: Iterable[str]) -> None:
    """Refuse file names that are no text: no table can hold them.

    Raises:
        DatasetError: the first such name.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise DatasetError(f"{folder}: the file name '{shown}' is not UTF-8 text. Rename the file.") from None
