"""COCO: one file with photos beside or below it, or a file a split, as Roboflow and COCO itself have them."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from wastelens.data.coco import Annotation, Category, CocoDataset, Image, check_names, image_columns, read_coco
from wastelens.data.digests import file_digest
from wastelens.data.layouts.layout import COCO, OWN_SPLIT, SPLIT_FOLDERS, Layout, combined_digest
from wastelens.data.photo_files import exists, files_called, find_photo

ANNOTATIONS = "annotations.json"
_ROBOFLOW = "_annotations.coco.json"
_INSTANCES = "instances_"
_FOLDER_OF_FILES = "annotations"


@dataclass(frozen=True)
class CocoFiles(Layout):
    """COCO annotations; of several files, with the photos' names below the root, ids renumbered, categories by name."""

    files: tuple[Path, ...]
    kind: ClassVar[str] = COCO

    @property
    def annotations(self) -> Path:
        """The file, or the first of them."""
        return self.files[0]

    @property
    def recognised(self) -> str:
        """What was recognised."""
        if self.files == (self.root / ANNOTATIONS,):
            return f"COCO annotations in {self.root}"
        if len(self.files) == 1:
            return f"COCO annotations in {self.files[0]}"
        names = ", ".join(str(file.relative_to(self.root)) for file in self.files)
        return f"COCO annotations in {len(self.files)} files of {self.root} ({names}); {OWN_SPLIT}"

    def read(self) -> CocoDataset:
        """The one file as it is, or all of them as one."""
        parts = [(file, read_coco(file)) for file in self.files]
        prefixes = [self._prefix(file, part.images) for file, part in parts]
        if len(parts) == 1 and not prefixes[0]:
            return parts[0][1]
        names = sorted({category.name for _, part in parts for category in part.categories})
        identity = {name: number for number, name in enumerate(names, 1)}
        images: list[Image] = []
        annotations: list[Annotation] = []
        for (_, part), prefix in zip(parts, prefixes, strict=True):
            renumbered = {image.id: number for number, image in enumerate(part.images, len(images) + 1)}
            category = {one.id: identity[one.name] for one in part.categories}
            images += [Image(renumbered[one.id], prefix + one.file_name, one.width, one.height) for one in part.images]
            for number, one in enumerate(part.annotations, len(annotations) + 1):
                moved = {"id": number, "image_id": renumbered[one.image_id], "category_id": category[one.category_id]}
                annotations.append(msgspec.structs.replace(one, **moved))
        check_names(self.files[0].parent, images)
        supercategory = {one.name: one.supercategory for _, part in parts for one in part.categories}
        categories = tuple(Category(number, name, supercategory[name]) for name, number in identity.items())
        return CocoDataset(self.files[0].parent, tuple(images), tuple(annotations), categories)

    def _prefix(self, file: Path, images: tuple[Image, ...]) -> str:
        """What stands before a file's photo names to make them names below the root: ``train/``, or nothing."""
        if file.parent not in (self.root, self.root / _FOLDER_OF_FILES):
            return f"{file.parent.relative_to(self.root).as_posix()}/"
        split = file.stem.removeprefix(_INSTANCES)
        names = [image.file_name.replace("\\", "/") for image in images]
        there = (name for name in names if exists(find_photo(self.root, f"{split}/{name}")))
        return f"{split}/" if file.stem.startswith(_INSTANCES) and next(there, None) else ""

    def digest(self) -> str:
        """Of the file, or of all of them."""
        if len(self.files) == 1:
            return file_digest(self.files[0])
        return combined_digest((file.relative_to(self.root).as_posix(), file_digest(file)) for file in self.files)

    def of_label(self, label: str) -> str:
        """A category, and the file."""
        return f"{self.annotations}: category '{label}'"

    def image_columns(self) -> list[dict[str, Any]]:
        """The images with all their fields, their ids as :meth:`read` has them."""
        return _renumbered(self.read().images, [image for file in self.files for image in image_columns(file)])


def _renumbered(images: tuple[Image, ...], columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**fields, "id": image.id} for image, fields in zip(images, columns, strict=True)]


def of_file(file: Path) -> CocoFiles:
    """The one file that was named."""
    root = file.parent.parent if file.parent.name == _FOLDER_OF_FILES else file.parent
    return CocoFiles(root, (file,))


def look(folder: Path) -> list[CocoFiles]:
    """COCO annotations of a folder; ``annotations.json`` is taken as that, whatever is in it."""
    if exists(folder / ANNOTATIONS):
        return [CocoFiles(folder, (folder / ANNOTATIONS,))]
    of_splits = [folder / name / _ROBOFLOW for name in SPLIT_FOLDERS if (folder / name / _ROBOFLOW).is_file()]
    apart = files_called(folder / _FOLDER_OF_FILES, ".json")
    instances = [file for file in apart if file.name.startswith(_INSTANCES)]
    beside = [*files_called(folder, ".json"), *(() if instances else apart)]
    single = [(file,) for file in beside if _is_coco(file)]
    return [CocoFiles(folder, files) for files in (tuple(of_splits), tuple(instances), *single) if files]


class _Keys(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


def _is_coco(file: Path) -> bool:
    """Whether a json file has the three keys."""
    try:
        msgspec.json.decode(file.read_bytes().removeprefix(codecs.BOM_UTF8), type=_Keys)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
