"""COCO: one file with photos beside or below it, or a file per split, as from Roboflow, COCO and TACO's script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from wastelens.data.annotations.coco import (
    Annotation,
    Category,
    CocoDataset,
    Image,
    annotation_content,
    check_names,
    flat_name,
    image_columns,
    json_bytes,
    path_text,
    read_coco,
    same_size,
)
from wastelens.data.annotations.layout import (
    ANNOTATIONS,
    COCO,
    LAYOUTS,
    OWN_SPLIT,
    SPLIT_NAMES,
    Layout,
    combined_digest,
    first_names,
    split_called,
    split_folders,
)
from wastelens.data.photos.files import exists, files_called, find_photo
from wastelens.errors import AnnotationsError
from wastelens.system.digests import file_digest

# Found beside TACO's annotations.json: earlier versions, which download keeps, the unreviewed set, and splits.
_BESIDE_ANNOTATIONS = re.compile(r"annotations(\.[0-9a-f]{8}|_unofficial|_\d+_(train|val|test))\.json")
_INSTANCES = "instances_"
_FOLDER_OF_FILES = "annotations"
_NAMED_BY_ROBOFLOW = "_annotations.coco.json"
_PHOTO_FOLDERS = ("", "data/", "images/", "photos/")  # where a file's photos are below its own folder
# The last word of a file's name that names a split, perhaps with COCO's year: instances_train2017, annotations_0_train.
_SPLIT_IN_NAME = re.compile(rf"(.*)(?<![a-z])({'|'.join(SPLIT_NAMES)})(?![a-z])(\d*)(.*)", re.IGNORECASE)


@LAYOUTS.register(COCO)
@dataclass(frozen=True)
class CocoFiles(Layout):
    """COCO annotations in one file or several.

    Several files are joined: photos are named below the root, ids are renumbered, and categories are matched by name.
    """

    files: tuple[Path, ...]
    kind: ClassVar[str] = COCO
    title: ClassVar[str] = "COCO"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    @classmethod
    def find(cls, folder: Path) -> list[CocoFiles]:
        """Return the COCO annotations of a folder; ``annotations.json`` counts as such whatever it contains."""
        apart = files_called(folder / _FOLDER_OF_FILES, ".json")
        instances = tuple(file for file in apart if file.name.startswith(_INSTANCES))
        main, beside = folder / ANNOTATIONS, files_called(folder, ".json")
        if exists(main):
            beside = [one for one in beside if not one.samefile(main) and not _BESIDE_ANNOTATIONS.fullmatch(one.name)]
        others = [_kept(files) for files in _joined([*beside, *(() if instances else apart)])]
        found = ((main,) if exists(main) else (), *_in_split_folders(folder), instances, *others)
        return [cls(folder, files) for files in found if files]

    @classmethod
    def of_file(cls, file: Path) -> CocoFiles:
        root = file.parent.parent if file.parent.name == _FOLDER_OF_FILES else file.parent
        return cls(root, (file,))

    @classmethod
    def sought(cls, folder: Path) -> str:
        return f"COCO file ({ANNOTATIONS} or another .json, also in annotations/, train/ and valid/)"

    @property
    def annotations(self) -> Path:
        return self.files[0]

    @property
    def recognised(self) -> str:
        if len(self.files) == 1:
            return f"COCO annotations in {self.files[0]}"
        names = ", ".join(str(file.relative_to(self.root)) for file in self.files)
        return f"COCO annotations in {len(self.files)} files of {self.root} ({names}); {OWN_SPLIT}"

    def read(self) -> CocoDataset:
        """Read the file, or join all files; a photo in two files becomes one, with the objects of both.

        The objects of both are kept, and a note says so, as files may have a category or an annotator each. That the
        photos of one name are different ones cannot be seen.
        """
        parts = [(file, read_coco(file)) for file in self.files]
        prefixes = [self._prefix(file, [image.file_name for image in part.images]) for file, part in parts]
        if len(parts) == 1 and not prefixes[0]:
            return parts[0][1]
        names = sorted({category.name for _, part in parts for category in part.categories})
        identity = {name: number for number, name in enumerate(names, 1)}
        images: dict[str, Image] = {}
        annotations: list[Annotation] = []
        notes = [note for _, part in parts for note in part.notes]
        named_in: dict[int, list[Path]] = {}
        differing: set[int] = set()
        for (file, part), prefix in zip(parts, prefixes, strict=True):
            before = len(images)
            renumbered = {image.id: _added(images, image, prefix, file) for image in part.images}
            category = {one.id: identity[one.name] for one in part.categories}
            moved = [
                msgspec.structs.replace(one, image_id=renumbered[one.image_id], category_id=category[one.category_id])
                for one in part.annotations
            ]
            repeated = {number for number in renumbered.values() if number <= before}
            new = _new(moved, annotations, repeated)
            differing |= _differing(moved, new, annotations, repeated)
            for number in renumbered.values():
                named_in.setdefault(number, []).append(file)
            annotations += [
                msgspec.structs.replace(one, id=number) for number, one in enumerate(new, len(annotations) + 1)
            ]
        check_names(self.files[0].parent, list(images.values()))
        supercategory = {one.name: one.supercategory for _, part in parts for one in part.categories}
        categories = tuple(Category(number, name, supercategory[name]) for name, number in identity.items())
        photos = tuple(images.values())
        if differing:
            notes.append(self._note_on({photos[n - 1].file_name: named_in[n] for n in sorted(differing)}))
        return CocoDataset(self.files[0].parent, photos, tuple(annotations), categories, notes=tuple(notes))

    def _note_on(self, differing: dict[str, list[Path]]) -> str:
        """Return the sentence on photos that several files name with different objects."""
        files = dict.fromkeys(file for of_photo in differing.values() for file in of_photo)
        named = ", ".join(str(file.relative_to(self.root)) for file in files)
        return (
            f"Photos that several files name with different objects: {len(differing):,} ({first_names([*differing])}), "
            f"in {named}. The objects of all were put together. If these are different photos of one name, rename "
            f"them, or take one file alone: dataset={next(iter(files))}"
        )

    def _prefix(self, file: Path, names: Sequence[str]) -> str:
        """Return the prefix that makes a file's photo names relative to the root, such as ``train/``, or ""."""
        apart = file.parent not in (self.root, self.root / _FOLDER_OF_FILES)
        own = f"{file.parent.relative_to(self.root).as_posix()}/" if apart else ""
        above = [own] if apart else [*(f"{folder}/" for folder in _folders_of_split(file.stem)), ""]
        places = dict.fromkeys(one + below for one in above for below in _PHOTO_FOLDERS)
        # Photos in images/ and photos/ of the root are found without a prefix.
        found = (place for place in places if self._has_photo(place, names))
        place = next(found, own)
        return "" if place in ("images/", "photos/") else place

    def _has_photo(self, prefix: str, names: Sequence[str]) -> bool:
        below = (self.root / prefix).is_dir() or any((self.root / place / prefix).is_dir() for place in _PHOTO_FOLDERS)
        return below and any(exists(find_photo(self.root, prefix + _slashed(name))) for name in names)

    def label_files(self) -> list[Path]:
        return list(self.files)

    def digest(self) -> str:
        if len(self.files) == 1:
            return file_digest(self.files[0])
        return combined_digest((file.relative_to(self.root).as_posix(), file_digest(file)) for file in self.files)

    def of_label(self, label: str) -> str:
        return f"{self.annotations}: category '{label}'"

    def own_splits(self, photos: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the split of the file, or of the files, that have each photo; of one file, its column or folders."""
        if len(self.files) == 1:
            return super().own_splits(photos)
        return [
            (photo, split) for file in self.files for photo, _ in self._columns(file) if (split := self._split_of(file))
        ]

    def _split_of(self, file: Path) -> str:
        """Return the split that a file's name or its folder below the root means; "" for neither."""
        words = [*_folders_of_split(file.stem), *file.relative_to(self.root).parts[:-1]]
        return next((split for word in words if (split := split_called(word))), "")

    def image_columns(self) -> list[tuple[str, dict[str, Any]]]:
        return [row for file in self.files for row in self._columns(file)]

    def _columns(self, file: Path) -> list[tuple[str, dict[str, Any]]]:
        images = image_columns(file)
        prefix = self._prefix(file, [image["file_name"] for image in images])
        return [(flat_name(prefix + image["file_name"]), image) for image in images]


def _added(images: dict[str, Image], image: Image, prefix: str, file: Path) -> int:
    """Add a file's image to those of all files, unless it is there, and return its id among them."""
    name = prefix + image.file_name
    new = Image(len(images) + 1, name, image.width, image.height)
    known = images.setdefault(path_text(name), new)
    if not same_size(known, new):
        raise AnnotationsError(
            f"{file}: image {image.id}, '{name}', is {image.width:g} x {image.height:g} pixels, in another file of "
            f"annotations {known.width:g} x {known.height:g}. Correct one, or rename one of the photos."
        )
    return known.id


def _new(annotations: list[Annotation], earlier: Sequence[Annotation], repeated: set[int]) -> list[Annotation]:
    """Return the annotations that no earlier file has; repeated: ids of images that earlier files have too."""
    if not repeated:
        return annotations
    known = {annotation_content(one) for one in earlier if one.image_id in repeated}
    return [one for one in annotations if one.image_id not in repeated or annotation_content(one) not in known]


def _differing(
    annotations: list[Annotation], new: list[Annotation], earlier: Sequence[Annotation], repeated: set[int]
) -> set[int]:
    """Return the repeated images whose objects in this file are not those in the earlier files."""
    here, added, before = (
        Counter(one.image_id for one in of if one.image_id in repeated) for of in (annotations, new, earlier)
    )
    return {number for number in repeated if added[number] or here[number] != before[number]}


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _folders_of_split(stem: str) -> list[str]:
    """Return the folders that a file's name may point to, train2017 for instances_train2017; none if it names none."""
    found = _SPLIT_IN_NAME.fullmatch(stem)
    whole = [stem.removeprefix(_INSTANCES)] if stem.startswith(_INSTANCES) else []
    return [*dict.fromkeys([*whole, *([found[2] + found[3], found[2]] if found else [])])]


def _in_split_folders(folder: Path) -> list[tuple[Path, ...]]:
    """Return the COCO files of the folders of splits, those of one name together."""
    together: dict[str, list[Path]] = {}
    for split in split_folders(entry.name for entry in folder.iterdir()):
        for file in files_called(folder / split, ".json"):
            together.setdefault(file.name, []).append(file)
    return [_kept(of_name) for of_name in together.values()]


def _kept(files: Sequence[Path]) -> tuple[Path, ...]:
    """Return the COCO files of a group, with those that are no JSON at all: a damaged part is no reason to go without.

    There are none if no file of the group is COCO.
    """
    if _NAMED_BY_ROBOFLOW in {file.name for file in files}:
        return tuple(files)
    is_coco = {file: _is_coco(file) for file in files}
    return tuple(file for file, is_one in is_coco.items() if is_one is not False) if True in is_coco.values() else ()


def _joined(files: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Group the files of a folder whose names differ only in the name of a split, train first."""
    together: dict[tuple[Path, str], list[tuple[int, Path]]] = {}
    for file in files:
        found = _SPLIT_IN_NAME.fullmatch(file.stem)
        rest = f"{found[1]}*{found[3]}{found[4]}" if found else file.stem
        order = SPLIT_NAMES.index(found[2].lower()) if found else 0
        together.setdefault((file.parent, rest), []).append((order, file))
    return [tuple(file for _, file in sorted(of_one)) for of_one in together.values()]


class _Keys(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


def _is_coco(file: Path) -> bool | None:
    """Return whether a JSON file has COCO's three keys; None if it is damaged, or too large to look at."""
    try:
        msgspec.json.decode(json_bytes(file), type=_Keys)
    except msgspec.ValidationError:
        return False
    except (AnnotationsError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return True
