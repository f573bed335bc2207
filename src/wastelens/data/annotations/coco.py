"""Read COCO annotations: checked, in little memory, with outlines decoded one at a time."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from wastelens.data.annotations.materials import label_name
from wastelens.errors import AnnotationsError
from wastelens.system.arrays import FloatArray
from wastelens.system.text import reason_of

# JSON has no NaN or Infinity, but Python's own writer emits them: they become null, and outlines are checked for null.
# Strings are matched first, so that a NaN inside a string is left alone; one without an end reaches to the file's end,
# as a search from each of its quotes would take quadratic time.
_TEXTS_AND_NOT_JSON_NUMBERS = re.compile(rb'("(?:[^"\\]|\\.)*+"?)|-?(?:NaN|Infinity)', re.DOTALL)
NOT_READABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Far beyond any camera; larger numbers are corrupt and would overflow areas.
LARGEST_COORDINATE_PX = 1e6
LARGEST_FILE_BYTES = 2_000_000_000  # COCO's own files have 500 MB, LVIS' 1.1 GB
_LARGEST_ID = 2**63 - 1
_HEAD_BYTES = 65_536


class Image(msgspec.Struct, frozen=True, gc=False):
    """A photo as annotated; ``width`` and ``height`` are the annotated size in pixels, not the file's.

    They are NaN where the annotations do not tell them, until ``frames.fit_to_photos`` has read the photo's header.
    """

    id: int
    file_name: str
    width: float
    height: float
    orientation: int = 1  # EXIF's; other than 1 if the outlines are annotated as stored, and turned by ``outline``
    misfit: str = ""  # why none of its outlines fits the photo


class Category(msgspec.Struct, frozen=True, gc=False):
    """A kind of litter."""

    id: int
    name: str
    supercategory: str | None = ""


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One object. ``segmentation`` and ``bbox`` stay raw JSON until its outline is needed."""

    image_id: int
    category_id: int
    id: int = -1
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: int | bool | None = 0
    bbox: msgspec.Raw = msgspec.Raw(b"null")  # x, y, width, height


class _ImageRecord(msgspec.Struct, gc=False):
    id: int
    file_name: str | int | float
    width: float | None = None
    height: float | None = None


class _CategoryRecord(msgspec.Struct, gc=False):
    id: int
    name: str | int | float
    supercategory: str | int | float | None = ""


class _File(msgspec.Struct, gc=False):
    images: list[_ImageRecord]
    annotations: list[Annotation]
    categories: list[_CategoryRecord]


_RECORDS: dict[str, type[msgspec.Struct]] = {
    "images": _ImageRecord,
    "annotations": Annotation,
    "categories": _CategoryRecord,
}


@dataclass(frozen=True)
class CocoDataset:
    """A checked COCO file: ids are unique, every annotation refers to a known image and category."""

    path: Path  # the file, or the file or folder of another layout's annotations
    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]
    has_outlines: bool = True  # whether the layout has outlines at all; class folders have none
    sizes_are_told: bool = True  # whether the annotations tell the photos' sizes; otherwise their headers did
    notes: tuple[str, ...] = ()  # sentences about what was put together, for the user
    disagreements: Mapping[int, str] = field(default_factory=dict)  # id of a photo listed several times → who says what

    def used_categories(self) -> list[Category]:
        """Return the categories that an object has."""
        used = {annotation.category_id for annotation in self.annotations}
        return [category for category in self.categories if category.id in used]


def read_coco(path: Path) -> CocoDataset:
    """Read and check a COCO file.

    Ids may be written as text or as 1.0, names as numbers; one photo under several ids is read as one.

    Raises:
        AnnotationsError: missing, empty, not JSON, not COCO, or inconsistent; one line that names file and record.
    """
    content = _decode(path, json_bytes(path))
    # Outer spaces are an exporter's mistake; the rows of a mapping are stripped too.
    categories = [
        Category(one.id, label_name(str(one.name)), None if one.supercategory is None else str(one.supercategory))
        for one in content.categories
    ]
    images = [Image(one.id, str(one.file_name), _side(one.width), _side(one.height)) for one in content.images]
    _refuse_repeats(path, "image", [image.id for image in images])
    _refuse_repeats(path, "category", [category.id for category in categories])
    if not images:
        raise AnnotationsError(f"{path}: 'images' is empty. Give annotations of at least one photo.")
    _check_references(path, content)
    disagreements = _disagreements(images, content.annotations, categories)
    images, annotations, notes = _one_image_a_photo(path, images, content.annotations)
    check_names(path, images)
    return CocoDataset(
        path, tuple(images), tuple(annotations), tuple(categories), notes=notes, disagreements=disagreements
    )


def _side(told: float | None) -> float:
    return math.nan if told is None else told


def json_bytes(path: Path) -> bytes:
    """Return a JSON file as UTF-8, whatever encoding of Unicode it is saved in.

    Raises:
        AnnotationsError: it is missing, empty, too large, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            encoding = json.detect_encoding(head)
            # What does not begin like JSON is not read to its end, which may be far away.
            is_json = head.decode(encoding, "ignore").lstrip().startswith(("{", "["))
            if is_json and is_too_large(path):
                raise AnnotationsError(
                    f"{path}: has {path.stat().st_size / 1e9:.1f} GB; the limit is {LARGEST_FILE_BYTES / 1e9:g} GB. "
                    "Divide it into a file for each split."
                )
            raw = head + file.read(LARGEST_FILE_BYTES) if is_json else head
    except FileNotFoundError:
        raise AnnotationsError(f"{path}: there is no such file. A dataset folder needs annotations.json.") from None
    except OSError as error:
        raise AnnotationsError(
            f"{path}: cannot be read ({error.strerror}). Repair the file or its permissions."
        ) from None
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if is_json and not encoding.startswith("utf-8"):
        try:
            raw = raw.decode(encoding).encode()
        except UnicodeError:
            raise AnnotationsError(f"{path}: its text is damaged ({encoding}). Save it as UTF-8.") from None
    if not raw.strip():
        raise AnnotationsError(f"{path}: the file is empty. Download or export the annotations again.")
    return raw


def is_too_large(path: Path) -> bool:
    """Return whether a file of annotations is above the limit."""
    return path.is_file() and path.stat().st_size > LARGEST_FILE_BYTES


def _decode(path: Path, raw: bytes) -> _File:
    try:
        try:
            return msgspec.json.decode(raw, type=_File, strict=False)  # not strict: "1" and 1.0 are 1
        except msgspec.ValidationError as error:
            fault = _fault(raw) or reason_of(error)
    except NOT_READABLE as error:
        without_nan = _without_nan(raw)
        if without_nan != raw:
            return _decode(path, without_nan)
        fault = f"not complete JSON ({reason_of(error)}). Download or export the annotations again."
        if raw.lstrip().startswith(b"{") and not _is_utf8(raw):
            fault = "its text is not UTF-8. Save it as UTF-8."
    raise AnnotationsError(f"{path}: {fault}")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_nan(raw: bytes) -> bytes:
    return _TEXTS_AND_NOT_JSON_NUMBERS.sub(lambda found: found[1] or b"null", raw)


def _fault(raw: bytes) -> str:
    """Return what is wrong with JSON that is not COCO, and how to correct it: the first part or record at fault."""
    needed = "A COCO file is an object with the lists 'images', 'annotations' and 'categories'."
    try:
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return f"holds {_shown(raw)}. {needed}"
    for name, record_type in _RECORDS.items():
        if name not in parts:
            return f"has no '{name}'. {needed}"
        try:
            records = msgspec.json.decode(parts[name], type=list[msgspec.Raw])
        except msgspec.ValidationError:
            return f"'{name}' is {_shown(parts[name])}, not a list. {needed}"
        for place, record in enumerate(records):
            try:
                msgspec.json.decode(record, type=record_type, strict=False)
            except msgspec.ValidationError as error:
                return _fault_of_record(f"{name}[{place}]", record, str(error))
    return ""


# What a field must be, in words.
_FIELDS = {
    **dict.fromkeys(("id", "image_id", "category_id"), "a whole number"),
    **dict.fromkeys(("width", "height"), "a number of pixels, or leave it out"),
    "file_name": "the photo's path below the dataset's folder",
    **dict.fromkeys(("name", "supercategory"), "a text"),
    "iscrowd": "0 or 1",
}


def _fault_of_record(where: str, record: bytes, error: str) -> str:
    """Return what is wrong with a record, given msgspec's error, which names the field behind ``$.`` or in quotes."""
    try:
        values = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return f"{where} is {_shown(record)}. Write an object with keys and values, or remove it."
    named = "".join(f" ({key} {_shown(values[key])})" for key in ("id",) if key in values)
    field = next((name for name in _FIELDS if re.search(rf"`(\$\.)?{name}`", error)), "")
    if not field:
        return f"{where}{named}: {error}. Correct it."
    if field not in values:
        return f"{where}{named} has no '{field}'. Write {_FIELDS[field]}."
    return f"{where}{named}: '{field}' is {_shown(values[field])}. Write {_FIELDS[field]}."


def _shown(value: bytes) -> str:
    """Return a JSON value as it is named in a message: short, and a list or an object by its kind."""
    kinds = {b"[": "a list", b"{": "an object"}
    text = bytes(value).strip()
    return kinds.get(text[:1]) or text[:60].decode("utf-8", "replace")


def _refuse_repeats(path: Path, kind: str, ids: list[int]) -> None:
    for one, times in Counter(ids).items():
        if times > 1:
            raise AnnotationsError(f"{path}: {kind} id {one} occurs twice. Give every {kind} an id of its own.")
        if abs(one) > _LARGEST_ID:
            raise AnnotationsError(f"{path}: {kind} id {str(one)[:20]}… is too large. Give numbers below 2^63.")


def _check_references(path: Path, content: _File) -> None:
    known = {"image": {one.id for one in content.images}, "category": {one.id for one in content.categories}}
    for annotation in content.annotations:
        if abs(annotation.id) > _LARGEST_ID:
            raise AnnotationsError(
                f"{path}: annotation id {str(annotation.id)[:20]}… is too large. Give a smaller one."
            )
        for kind, wanted in (("image", annotation.image_id), ("category", annotation.category_id)):
            if wanted not in known[kind]:
                raise AnnotationsError(
                    f"{path}: annotation {annotation.id} is of unknown {kind} {wanted}. "
                    f"Add that {kind} or remove the annotation."
                )


def _one_image_a_photo(
    path: Path, images: list[Image], annotations: list[Annotation]
) -> tuple[list[Image], list[Annotation], tuple[str, ...]]:
    """Put the objects of photos that are listed under several ids together, and say so.

    Raises:
        AnnotationsError: the sizes of such a photo differ.
    """
    first: dict[str, Image] = {}
    moved: dict[int, int] = {}
    for image in images:
        known = first.setdefault(path_text(image.file_name), image)
        if known is image:
            continue
        if not same_size(known, image):
            raise AnnotationsError(
                f"{path}: the photo {image.file_name} has two images, ids {known.id} and {image.id}, of "
                f"{known.width:g} x {known.height:g} and {image.width:g} x {image.height:g} pixels. Correct one."
            )
        moved[image.id] = known.id
    if not moved:
        return images, annotations, ()
    together = without_copies(
        [msgspec.structs.replace(one, image_id=moved.get(one.image_id, one.image_id)) for one in annotations],
        set(moved.values()),
    )
    other, one = next(iter(moved.items()))
    name = next(image.file_name for image in images if image.id == one)
    note = (
        f"{path}: {len(moved):,} {'photo is' if len(moved) == 1 else 'photos are'} listed under two ids, the first "
        f"{name} under {one} and {other}; the objects of both were put together."
    )
    return list(first.values()), together, (note,)


def _disagreements(images: list[Image], annotations: list[Annotation], categories: list[Category]) -> dict[int, str]:
    """Return the first id of each photo whose several images show other categories → the categories under each id."""
    name_of = {category.id: category.name for category in categories}
    ids_of: dict[str, list[int]] = defaultdict(list)
    for image in images:
        ids_of[path_text(image.file_name)].append(image.id)
    several = {one: set[str]() for ids in ids_of.values() if len(ids) > 1 for one in ids}
    for annotation in annotations:
        if annotation.image_id in several:
            several[annotation.image_id].add(name_of[annotation.category_id])
    return {
        ids[0]: "; ".join(f"id {one}: {', '.join(sorted(several[one])) or 'nothing'}" for one in ids)
        for ids in ids_of.values()
        if len(ids) > 1 and any(several[one] != several[ids[0]] for one in ids)
    }


def same_size(one: Image, other: Image) -> bool:
    """Return whether two images have the same annotated size, or none."""
    told = ((a, b) for a, b in ((one.width, other.width), (one.height, other.height)))
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in told)


def outlined(annotation: Annotation, polygon: FloatArray, *, is_box: bool = False) -> Annotation:
    """Return an annotation with a polygon, (points, 2) in pixels, as its segmentation, or as its box."""
    if not is_box:
        return msgspec.structs.replace(annotation, segmentation=_raw([polygon.ravel().tolist()]))
    corner = polygon.min(axis=0)
    return msgspec.structs.replace(annotation, bbox=_raw([*corner.tolist(), *(polygon.max(axis=0) - corner).tolist()]))


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def path_text(file_name: str) -> str:
    """Return a photo's path with forward slashes, without ``./`` and doubled slashes."""
    return PurePosixPath(file_name.replace("\\", "/")).as_posix()


def without_copies(annotations: list[Annotation], images: set[int]) -> list[Annotation]:
    """Return the annotations without those that an earlier one of the same image equals but for its id.

    Only annotations of these images are compared.
    """
    known = set[tuple[int, int, bool, str]]()
    kept = []
    for one in annotations:
        if one.image_id in images:
            if (content := annotation_content(one)) in known:
                continue
            known.add(content)
        kept.append(one)
    return kept


def annotation_content(annotation: Annotation) -> tuple[int, int, bool, str]:
    """Return an annotation's content, independent of its id and of white space in its JSON."""
    outline = repr([_loaded(annotation.segmentation), _loaded(annotation.bbox)])
    return annotation.image_id, annotation.category_id, bool(annotation.iscrowd), outline


def _loaded(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except NOT_READABLE:
        return bytes(raw)


def check_names(path: Path, images: list[Image]) -> None:
    """Raise AnnotationsError if a photo is outside of the dataset's folder, or two have the same flat name."""
    seen: dict[str, str] = {}
    for image in images:
        name = image.file_name.replace("\\", "/")
        parts = PurePosixPath(name).parts
        leaves = name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name
        if leaves or not parts or not name.strip():
            raise AnnotationsError(
                f"{path}: image {image.id} has file_name '{image.file_name}', which leaves the dataset's folder. "
                "Use a path below it, like 'batch_1/000006.jpg'."
            )
        if (flat := flat_name(name)) in seen:
            raise AnnotationsError(
                f"{path}: '{seen[flat]}' and '{image.file_name}' both become '{flat}'. Rename one of them."
            )
        seen[flat] = image.file_name


def flat_name(file_name: str) -> str:
    """Return ``batch_1_000006.jpg`` for ``batch_1/000006.jpg``."""
    return "_".join(PurePosixPath(file_name.replace("\\", "/")).parts)


def image_columns(path: Path) -> list[dict[str, Any]]:
    """Read the images with all their fields, for ``group_by=COLUMN``; a field in a field is named ``extra.name``."""

    class _Images(msgspec.Struct):
        images: list[dict[str, Any]]

    found = msgspec.json.decode(_without_nan(json_bytes(path)), type=_Images).images
    return [dict(_flat_fields(image)) | {"file_name": str(image["file_name"])} for image in found]


def _flat_fields(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flat_fields(value, f"{before}{key}.")
        else:
            yield before + key, value


def annotations_by_image(dataset: CocoDataset) -> Iterator[tuple[Image, list[Annotation]]]:
    """Yield each image with its annotations, in the file's order of images."""
    of_image: dict[int, list[Annotation]] = {image.id: [] for image in dataset.images}
    for annotation in dataset.annotations:
        of_image[annotation.image_id].append(annotation)
    for image in dataset.images:
        yield image, of_image[image.id]
