"""Read COCO annotations: checked, in little memory, with outlines decoded one at a time."""

from __future__ import annotations

import codecs
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from wastelens.data.annotations.materials import label_name
from wastelens.errors import AnnotationsError
from wastelens.system.arrays import FloatArray

# JSON has no NaN or Infinity, but Python's own writer emits them: they become null, and outlines are checked for null.
# Strings are matched first, so that a NaN inside a string is left alone.
_TEXTS_AND_NOT_JSON_NUMBERS = re.compile(rb'("(?:[^"\\]|\\.)*+")|-?(?:NaN|Infinity)')
_NOT_READABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# Far beyond any camera; larger numbers are corrupt and would overflow areas.
LARGEST_COORDINATE_PX = 1e6
LARGEST_MASK_PX = 500_000_000  # a mask takes a byte per pixel while it is drawn


class Image(msgspec.Struct, frozen=True, gc=False):
    """A photo as annotated; ``width`` and ``height`` are the annotated size in pixels, not the file's."""

    id: int
    file_name: str
    width: float
    height: float


class Category(msgspec.Struct, frozen=True, gc=False):
    """A kind of litter."""

    id: int
    name: str
    supercategory: str | None = ""


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One object. ``segmentation`` stays raw JSON until its outline is needed."""

    image_id: int
    category_id: int
    id: int = -1
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: int | bool | None = 0


class _File(msgspec.Struct, gc=False):
    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


@dataclass(frozen=True)
class CocoDataset:
    """A checked COCO file: ids are unique, every annotation refers to a known image and category."""

    path: Path  # the file, or the file or folder of another layout's annotations
    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]
    has_outlines: bool = True  # whether the layout has outlines at all; class folders have none


@dataclass(frozen=True)
class Outline:
    """An annotation's segmentation, in the annotated photo's pixels."""

    polygons: tuple[FloatArray, ...]  # each (points, 2), x and y; empty for run-length encodings
    rle: Mapping[str, Any] | None  # the run-length encoding in pycocotools' form
    area_share: float  # the fraction of the photo it covers, 0 to 1
    problem: str = ""  # why the outline cannot be used


def read_coco(path: Path) -> CocoDataset:
    """Read and check a COCO file.

    Raises:
        AnnotationsError: missing, empty, not JSON, not COCO, or inconsistent; one line that names file and record.
    """
    content = _decode(path, _bytes_of(path))
    _refuse_repeats(path, "image", [image.id for image in content.images])
    _refuse_repeats(path, "category", [category.id for category in content.categories])
    if not content.images:
        raise AnnotationsError(f"{path}: 'images' is empty. Give annotations of at least one photo.")
    _check_references(path, content)
    check_names(path, content.images)
    # Outer spaces are an exporter's mistake; the rows of a mapping are stripped too.
    categories = [msgspec.structs.replace(category, name=label_name(category.name)) for category in content.categories]
    return CocoDataset(path, tuple(content.images), tuple(content.annotations), tuple(categories))


def _bytes_of(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise AnnotationsError(f"{path}: there is no such file. A dataset folder needs annotations.json.") from None
    except OSError as error:
        raise AnnotationsError(
            f"{path}: cannot be read ({error.strerror}). Repair the file or its permissions."
        ) from None
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        raise AnnotationsError(f"{path}: the file is empty. Download or export the annotations again.")
    return raw


def _decode(path: Path, raw: bytes) -> _File:
    try:
        return msgspec.json.decode(raw, type=_File)
    except msgspec.ValidationError as error:
        reason = str(error).replace("`", "'").replace("$.", "")
        raise AnnotationsError(
            f"{path}: not a COCO file: {reason}. It needs 'images', 'annotations' and 'categories' as TACO has them."
        ) from None
    except _NOT_READABLE as error:
        without_nan = _without_nan(raw)
        if without_nan == raw:
            raise AnnotationsError(
                f"{path}: not complete JSON ({error}). Download or export the annotations again."
            ) from None
    return _decode(path, without_nan)


def _without_nan(raw: bytes) -> bytes:
    return _TEXTS_AND_NOT_JSON_NUMBERS.sub(lambda found: found[1] or b"null", raw)


def _refuse_repeats(path: Path, kind: str, ids: list[int]) -> None:
    for one, times in Counter(ids).items():
        if times > 1:
            raise AnnotationsError(f"{path}: {kind} id {one} occurs twice. Give every {kind} an id of its own.")


def _check_references(path: Path, content: _File) -> None:
    known = {"image": {one.id for one in content.images}, "category": {one.id for one in content.categories}}
    for annotation in content.annotations:
        for kind, wanted in (("image", annotation.image_id), ("category", annotation.category_id)):
            if wanted not in known[kind]:
                raise AnnotationsError(
                    f"{path}: annotation {annotation.id} is of unknown {kind} {wanted}. "
                    f"Add that {kind} or remove the annotation."
                )


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
    """Read the images with all their fields, for ``group_by=COLUMN``."""

    class _Images(msgspec.Struct):
        images: list[dict[str, Any]]

    return msgspec.json.decode(_without_nan(_bytes_of(path)), type=_Images).images


def outline(annotation: Annotation, image: Image) -> Outline:
    """Decode an annotation's segmentation; one that cannot be used is returned with its ``problem``."""
    try:
        segmentation = msgspec.json.decode(annotation.segmentation)
    except _NOT_READABLE as error:
        return _broken(f"its outline cannot be read ({error})")
    if isinstance(segmentation, dict):
        return _run_length_outline(segmentation, image)
    if not isinstance(segmentation, list) or not segmentation:
        return _broken("it has no outline")
    return _polygon_outline(segmentation, image)


def _broken(problem: str) -> Outline:
    return Outline(polygons=(), rle=None, area_share=0.0, problem=problem)


def _polygon_outline(parts: list[Any], image: Image) -> Outline:
    polygons = []
    for part in parts:
        if not isinstance(part, list) or len(part) % 2 or len(part) < 6:
            return _broken("its polygon has fewer than three points, or half a point")
        if not all(_is_finite(number) for number in part):
            return _broken("its polygon holds something that is not a finite number")
        polygons.append(np.asarray(part, dtype=np.float64).reshape(-1, 2))
    size = np.array([image.width, image.height])
    inside = [_within(polygon, size) for polygon in polygons]
    area = sum(polygon_area(polygon) for polygon in inside if len(polygon) > 2)
    if area <= 0:
        return _broken("its polygon lies outside the photo or covers nothing")
    drawn = tuple(polygon for polygon in inside if len(polygon) > 2)
    return Outline(drawn, None, min(1.0, area / (image.width * image.height)))


def _is_finite(number: object) -> bool:
    try:
        return isinstance(number, int | float) and math.isfinite(number) and abs(number) <= LARGEST_COORDINATE_PX
    except OverflowError:  # an integer of hundreds of digits
        return False


def _within(polygon: FloatArray, size: FloatArray) -> FloatArray:
    """Clip a polygon, (points, 2), to the photo; the result may be empty (Sutherland & Hodgman 1974)."""
    for axis in (0, 1):
        for sign, limit in ((1.0, 0.0), (-1.0, -size[axis])):
            depth = sign * polygon[:, axis] - limit
            if (depth >= 0).all():
                continue
            points = []
            steps = zip(polygon, np.roll(polygon, -1, axis=0), depth, np.roll(depth, -1), strict=True)
            for point, ahead, here, there in steps:
                if here >= 0:
                    points.append(point)
                if (here >= 0) != (there >= 0):
                    points.append(point + (ahead - point) * (here / (here - there)))
            polygon = np.array(points, dtype=np.float64).reshape(-1, 2)
    return polygon


def polygon_area(polygon: FloatArray) -> float:
    """Return the area of a polygon, (points, 2), in square pixels by the shoelace formula."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _run_length_outline(segmentation: dict[str, Any], image: Image) -> Outline:
    from pycocotools import mask

    size = [int(image.height), int(image.width)]
    if problem := _run_length_problem(segmentation, size):
        return _broken(problem)
    counts = segmentation["counts"]
    if isinstance(counts, list):
        rle = mask.frPyObjects({"size": size, "counts": counts}, *size)
    else:
        rle = {"size": size, "counts": counts.encode()}
    area = float(mask.area(rle))
    if area <= 0:
        return _broken("its run-length encoding covers nothing")
    return Outline((), rle, min(1.0, area / (image.width * image.height)))


def _run_length_problem(segmentation: dict[str, Any], size: list[int]) -> str:
    """Return why a run-length encoding does not fit a photo of this (height, width), or ""."""
    counts, pixels = segmentation.get("counts"), size[0] * size[1]  # checked here: pycocotools checks nothing
    if segmentation.get("size") != size:
        return f"its run-length encoding has size {segmentation.get('size')}, the photo has {size}"
    if pixels > LARGEST_MASK_PX:
        return f"its run-length encoding has {pixels:,} pixels, more than any photo"
    if not isinstance(counts, list | str) or not counts:
        return "its run-length encoding has no counts"
    runs = _counts_of(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != pixels:
        return "its run-length counts do not add up to the photo's pixels"
    return ""


def _counts_of(text: str) -> list[int]:
    """Decode COCO's text of run lengths: 5 bits per character, differences from the third on; [] if it is broken."""
    counts: list[int] = []
    number, shift = 0, 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64:
            return []
        number |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number, shift = 0, 0
    return counts if not shift and all(count >= 0 for count in counts) else []


def annotations_by_image(dataset: CocoDataset) -> Iterator[tuple[Image, list[Annotation]]]:
    """Yield each image with its annotations, in the file's order of images."""
    of_image: dict[int, list[Annotation]] = {image.id: [] for image in dataset.images}
    for annotation in dataset.annotations:
        of_image[annotation.image_id].append(annotation)
    for image in dataset.images:
        yield image, of_image[image.id]
