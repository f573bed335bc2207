"""The annotated objects' outlines by photo: for masks, for drawing, and in the file that a prepared dataset keeps."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from wastelens.data.annotations.coco import (
    Annotation,
    Category,
    CocoDataset,
    Image,
    annotations_by_image,
    flat_name,
)
from wastelens.data.annotations.segmentation import LARGEST_DRAWN_PX, Outline, mask_pixels, outline, parts
from wastelens.system.arrays import FloatArray

_LARGEST_TRACED_PX = 4_000_000


@dataclass(frozen=True)
class DrawnOutline:
    """An object's outline, ready to draw over a photo of any size."""

    material: str
    polygons: tuple[FloatArray, ...]  # each (points, 2), in fractions of the photo's width and height; may be empty
    is_box: bool = False
    category: str = ""  # as annotated; empty where it was not asked for


def drawn_outline(outline: Outline, image: Image, material: str) -> DrawnOutline:
    """Return an outline in fractions of the photo's width and height; run-length masks are traced."""
    size = np.array([image.width, image.height])
    polygons = outline.polygons if outline.rle is None else _traced(outline.rle)
    return DrawnOutline(material, tuple(polygon / size for polygon in polygons), outline.is_box)


def _traced(rle: Mapping[str, Any]) -> tuple[FloatArray, ...]:
    """Trace the outer contours of a run-length mask, through the pixels' centres; of a large one, every n-th pixel."""
    import cv2

    height, width = rle["size"]
    step = math.ceil(math.sqrt(height * width / _LARGEST_TRACED_PX)) if height * width > LARGEST_DRAWN_PX else 1
    pixels = mask_pixels(rle, step)
    if pixels is None:  # a strip so thin that every n-th row is still too many
        return ()
    contours, _ = cv2.findContours(np.ascontiguousarray(pixels), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple((contour.reshape(-1, 2).astype(np.float64) + 0.5) * step for contour in contours)


class AnnotatedOutlines:
    """A dataset's usable outlines by photo, decoded on demand, as most photos' outlines are never used.

    Every method takes a photo's flat file name and raises KeyError for an unknown photo.
    """

    def __init__(self, dataset: CocoDataset, material_of: Mapping[str, str]) -> None:
        """Sort the annotations by photo; material_of: category → material, for every category that an object has."""
        known = (category for category in dataset.categories if category.name in material_of)
        self._material_of = {category.id: material_of[category.name] for category in known}
        self._category_of = {category.id: category.name for category in dataset.categories}
        self._annotated: dict[str, tuple[Image, list[Annotation]]] = {
            flat_name(image.file_name): (image, of_image) for image, of_image in annotations_by_image(dataset)
        }

    def image(self, flat: str) -> Image:
        """Return the photo as annotated, with its annotated size in pixels."""
        return self._annotated[flat][0]

    def of(self, flat: str) -> list[tuple[Outline, str]]:
        """Return each usable outline, including crowds, with its object's material."""
        image, annotations = self._annotated[flat]
        decoded = [(outline(one, image), self._material_of[one.category_id]) for one in annotations]
        return [(one, material) for one, material in decoded if not one.problem]

    def drawn(self, flat: str) -> list[DrawnOutline]:
        """Return each usable outline, ready to draw."""
        image, annotations = self._annotated[flat]
        decoded = [(outline(one, image), one.category_id) for one in annotations]
        return [
            replace(drawn_outline(one, image, self._material_of[category]), category=self._category_of[category])
            for one, category in decoded
            if not one.problem
        ]


def outlines_json(dataset: CocoDataset, file_names: Collection[str]) -> bytes:
    """Return the usable outlines of some photos as a small COCO file, which ``read_coco`` reads.

    It holds what :class:`AnnotatedOutlines` needs and nothing else, with every number as it was annotated, so that
    masks made from it are the same to the last digit; only outlines of photos as stored are turned upright. A box has a
    ``bbox`` and no segmentation, and ``is_box`` says so. The file does not depend on the order of the annotations.
    ``file_names`` are the photos' flat names.
    """
    photos = {flat_name(image.file_name): (image, of_image) for image, of_image in annotations_by_image(dataset)}
    name_of = {category.id: category.name for category in dataset.categories}
    identity = {name: number for number, name in enumerate(sorted(set(name_of.values())), 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for flat in sorted(file_names):
        image, of_image = photos[flat]
        images.append({"id": image.id, "file_name": flat, "width": image.width, "height": image.height})
        usable = [(one, found) for one in of_image if not (found := outline(one, image)).problem]
        kept = [_kept(one, found, image, identity[name_of[one.category_id]]) for one, found in usable]
        annotations += sorted(kept, key=lambda one: (one["id"], one["category_id"], msgspec.json.encode(one)))
    categories = [Category(number, name) for name, number in identity.items()]
    return msgspec.json.encode({"images": images, "annotations": annotations, "categories": categories})


def _kept(annotation: Annotation, found: Outline, image: Image, category_id: int) -> dict[str, Any]:
    """Return an annotation as it is kept, with its outline in the upright photo."""
    segmentation = msgspec.json.decode(annotation.segmentation)
    if found.is_box:
        segmentation = []
    elif image.orientation != 1 or found.left_out:
        segmentation = _as_segmentation(found)
    elif isinstance(segmentation, list):
        segmentation = parts(segmentation)
    return {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "iscrowd": annotation.iscrowd,
        "bbox": _box(found) if found.is_box else None,
        "is_box": found.is_box,
    }


def _box(found: Outline) -> list[float]:
    """Return the x and y of a box's upper left corner, its width and its height."""
    corner = found.polygons[0].min(axis=0)
    return [*corner.tolist(), *(found.polygons[0].max(axis=0) - corner).tolist()]


def _as_segmentation(found: Outline) -> dict[str, Any] | list[list[float]]:
    if found.rle is None:
        return [polygon.ravel().tolist() for polygon in found.polygons]
    counts = found.rle["counts"]
    return {"size": list(found.rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}
