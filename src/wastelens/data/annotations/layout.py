"""The base of all layouts, their registry, recognising them, and helpers for those without COCO annotations.

To add a layout, write one file in ``layouts/``: a subclass of :class:`Layout` with ``@LAYOUTS.register(kind)``. It is
found, named in messages and tested by the contract test without being listed anywhere else.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, Self

import numpy as np

from wastelens.data.annotations.coco import Annotation, Category, CocoDataset, Image, check_names, outlined
from wastelens.data.photos.files import files_below, find_photo, upright_sizes
from wastelens.errors import DatasetError
from wastelens.system.arrays import FloatArray
from wastelens.system.registry import Registry
from wastelens.system.text import one_line

COCO = "coco"
ANNOTATIONS = "annotations.json"  # COCO's file, as in TACO
OWN_SPLIT = "prepare makes a new split, unless split=given keeps theirs"
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")  # in lower case
_SPLIT_COLUMNS = ("split", "subset", "set")
_FIRST = 5  # named in a message where there are many
_FOLDERS_TRIED = 20  # where a folder holds no dataset itself


@dataclass(frozen=True)
class Layout(ABC):
    """A dataset of a recognised layout; its content is read on demand."""

    root: Path  # the folder that the photos' names are relative to
    kind: ClassVar[str]  # the layout's name, which the manifest of a prepared dataset keeps
    title: ClassVar[str]  # the layout's name in messages
    suffixes: ClassVar[tuple[str, ...]] = ()  # of the file of annotations, if it can be named in place of its folder
    is_last_resort: ClassVar[bool] = False  # whether it is considered only where no other accounts for the folders

    @classmethod
    @abstractmethod
    def find(cls, folder: Path) -> Sequence[Self]:
        """Return the datasets of this layout in a folder, usually none or one.

        Raises:
            DatasetError: there is one, but it cannot be used.
            OSError: the folder cannot be read.
        """

    @classmethod
    def of_file(cls, file: Path) -> Self:
        """Return the dataset of a file of annotations; only for layouts with ``suffixes``."""
        raise NotImplementedError(f"{cls.__name__} has no file of annotations")

    @classmethod
    @abstractmethod
    def sought(cls, folder: Path) -> str:
        """Return the files that a folder of this layout would have, to follow "no" in a message."""

    @property
    @abstractmethod
    def annotations(self) -> Path:
        """The file of annotations, the first of several, or the folder where its folders are the annotations."""

    @property
    @abstractmethod
    def recognised(self) -> str:
        """The recognised dataset, as part of a sentence."""

    @property
    def tells_labels(self) -> bool:
        """Whether it tells labels at all; False for a list of photos with other columns."""
        return True

    @property
    def accounts_for_folders(self) -> bool:
        """Whether the folders that photos are in need no other explanation, such as being classes."""
        return True

    @abstractmethod
    def read(self) -> CocoDataset:
        """Read and check the annotations.

        Raises:
            AnnotationsError: one line that names file and record.
            DatasetError: a folder or file cannot be read.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return a digest that changes when the annotations do.

        Raises:
            OSError: they cannot be read.
        """

    @abstractmethod
    def of_label(self, label: str) -> str:
        """Return a label and where it was found, as the subject of a sentence."""

    def told(self, labels: frozenset[str]) -> Layout:
        """Return the layout, told which labels and materials the mapping knows: columns of a table may be such."""
        return self

    def no_labels(self) -> str:
        """Return a message for the case that no photo has a label: the fact and the fix."""
        return f"{self.annotations}: no photo has a label. Add labels."

    def label_files(self) -> list[Path]:
        """Return the files and folders that tell the labels: as long as none of them changes, the digest does not."""
        return [self.annotations]

    def image_columns(self) -> list[tuple[str, dict[str, Any]]]:
        """Return photos' flat names with their other columns, for ``group_by=COLUMN``; a photo may have several."""
        return []

    def own_splits(self, photos: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return photos' flat names, each with a split that the data put it in: train, val or test.

        This is for layouts whose split is a column, or folders called train, val and test that photos are in. A photo
        may be in several splits, or in none.

        photos: flat name → name below the root, with forward slashes.
        """
        told = ((photo, fields.get(column)) for photo, fields in self.image_columns() for column in _SPLIT_COLUMNS)
        by_column = [(photo, split) for photo, value in told if (split := split_called(str(value)))]
        return by_column or [
            (photo, split)
            for photo, name in photos.items()
            for folder in PurePosixPath(name).parts[:-1]
            if (split := split_called(folder))
        ]


LAYOUTS: Registry[type[Layout]] = Registry("layout", "wastelens.data.annotations.layouts")


@dataclass(frozen=True)
class Marked:
    """An annotated object on a photo."""

    label: str  # its category
    outline: FloatArray | None = None  # polygon (points, 2), in fractions of the upright photo's width and height
    is_box: bool = False  # whether the outline was annotated as a box, whose corners it has


def assemble(path: Path, root: Path, photos: Mapping[str, Sequence[Marked]], *, has_outlines: bool) -> CocoDataset:
    """Return a dataset of photos and their objects, both sorted by name; sizes are read from the photos' headers.

    Args:
        path: the path to name in messages.
        root: the folder of the photos, which may be in its photos/ or images/.
        photos: file name below the root, with forward slashes → its objects.
        has_outlines: whether the layout has outlines at all.

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
        size = np.array([image.width, image.height])
        for marked in photos[image.file_name]:
            annotation = Annotation(image.id, categories[marked.label].id, len(annotations) + 1)
            if marked.outline is not None:
                annotation = outlined(annotation, marked.outline * size, is_box=marked.is_box)
            annotations.append(annotation)
    parts = tuple(images), tuple(annotations), tuple(categories.values())
    return CocoDataset(path, *parts, has_outlines=has_outlines, sizes_are_told=False)


def name_below(root: Path, name: str) -> str | None:
    """Return a file name relative to a folder, with forward slashes; '.' is the folder, None is outside of it."""
    slashed = name.replace("\\", "/")
    if "\0" in name or (PureWindowsPath(name).drive and not Path(name).is_absolute()):
        return None
    inside = os.path.relpath(os.path.join(os.path.abspath(root), slashed), os.path.abspath(root))
    parts = PurePosixPath(inside).parts
    return None if parts[:1] == ("..",) else "/".join(parts) or "."


def names_below(root: Path, folder: str, suffixes: frozenset[str]) -> Iterator[str]:
    """Yield the files with these suffixes in one of the root's folders, at any depth, named below the root with "/".

    Raises:
        DatasetError: a folder cannot be read.
    """
    for path, error in files_below(root / folder) if os.path.isdir(root / folder) else ():
        if error is not None:
            raise DatasetError(f"{path} cannot be read ({error.strerror}). Make the folder readable.")
        if path.suffix.lower() in suffixes:
            yield path.relative_to(root).as_posix()


def split_folders(names: Iterable[str]) -> list[str]:
    """Return the names that are a split's, in upper or lower case, in the order of ``SPLIT_NAMES``."""
    of_splits = (name for name in names if name.lower() in SPLIT_NAMES)
    return sorted(of_splits, key=lambda name: (SPLIT_NAMES.index(name.lower()), name))


def split_called(name: str) -> str:
    """Return the split that a word means, perhaps with a year behind it: train, val or test; "" for other words."""
    word = name.strip().lower().rstrip("0123456789")
    return next((split for split in ("train", "val", "test") if word.startswith(split) and word in SPLIT_NAMES), "")


def first_names(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _FIRST:,} more" if len(names) > _FIRST else ""
    return f"{', '.join(one_line(name, 100) for name in names[:_FIRST])}{more}"


def combined_digest(parts: Iterable[tuple[str, str]]) -> str:
    """Return one digest of pairs of name and content: BLAKE2b, 128 bits, in hexadecimal."""
    digest = blake2b(digest_size=16)
    for name, content in parts:
        digest.update(f"{name}\0{content}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def refuse_unwritable(folder: Path, names: Iterable[str]) -> None:
    """Raise DatasetError, naming the file, if a file name is not text: no table can hold it."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise DatasetError(f"{folder}: the file name '{shown}' is not UTF-8 text. Rename the file.") from None


def recognise(place: Path, labels: frozenset[str] = frozenset()) -> Layout:
    """Return the layout of a dataset, given its folder or its file of annotations.

    Folders count as classes only where no file tells what the photos show: annotated photos are in folders too.

    Args:
        place: the folder or file.
        labels: the labels and materials that the mapping knows.

    Raises:
        DatasetError: no layout fits, several fit, or a folder cannot be read.
    """
    if place.is_file():
        return _of_file(place).told(labels)
    try:
        found = _candidates(place, labels)
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


def _candidates(folder: Path, labels: frozenset[str]) -> list[Layout]:
    """Return every way to read a folder."""
    layouts = LAYOUTS.parts.values()
    candidates = [one.told(labels) for layout in layouts if not layout.is_last_resort for one in layout.find(folder)]
    with_labels = [one for one in candidates if one.tells_labels]
    if not any(one.accounts_for_folders for one in with_labels):
        with_labels += [one for layout in layouts if layout.is_last_resort for one in layout.find(folder)]
    return with_labels or candidates  # a list without labels is refused, with what it lacks, where it is all there is


def _ambiguous(place: Path, found: Sequence[Layout]) -> DatasetError:
    # Where annotations are in several files, naming one would leave out the others.
    files = [one.annotations for one in found if _is_all_of_it(one.annotations, one)]
    name = (
        f"Name the file that is meant, such as dataset={files[0]}, or move the others" if files else "Move all but one"
    )
    ways = "; ".join(one.recognised for one in found)
    return DatasetError(f"{place} can be read in {len(found)} ways: {ways}. {name} away.")


def _is_all_of_it(file: Path, layout: Layout) -> bool:
    """Return whether naming a file means the whole of a dataset: others have several files, or none."""
    return file.is_file() and file.suffix.lower() in layout.suffixes and layout.of_file(file) == layout


def _nothing(place: Path) -> DatasetError:
    entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in place.iterdir())
    missing = ", ".join(f"no {layout.sought(place)}" for layout in LAYOUTS.parts.values())
    return DatasetError(
        f"{place} holds no dataset of a known layout: {missing}. It holds {first_names(entries) or 'nothing'}. "
        f"{_readable_below(place) or 'Put the annotations there, or correct the path.'}"
    )


def _readable_below(place: Path) -> str:
    """Return which folder in a folder could be read instead; "" for none."""
    visible = sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for folder in visible[:_FOLDERS_TRIED]:
        with contextlib.suppress(DatasetError, OSError):
            if _candidates(folder, frozenset()):
                return f"{folder.name}/ in it can be read: give dataset={folder}"
    return ""
