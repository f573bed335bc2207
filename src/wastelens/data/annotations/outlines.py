"""The annotated objects' outlines by photo: for masks, for drawing, and in the file that a prepared dataset keeps."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from wastelens.data.annotations.coco import (
    Annotation,
    Category,
    CocoDataset,
    Image,
    Outline,
    annotations_by_image,
    flat_name,
    outline,
)
from wastelens.system.arrays import FloatArray


@dataclass(frozen=True)
class DrawnOutline:
    """An object's outline, ready to draw over a photo of any size."""

    material: str
    polygons: tuple[FloatArray, ...]  # each (points, 2), in fractions of the photo's width and height; may be empty


def drawn_outline(outline: Outline, image: Image, material: str) -> DrawnOutline:
    """Return an outline in fractions of the photo's width and height; run-length masks are traced."""
    size = np.array([image.width, image.height])
    polygons = outline.polygons if outline.rle is None else _traced(outline.rle)
    return DrawnOutline(material, tuple(polygon / size for polygon in polygons))


def _traced(rle: Mapping[str, Any]) -> tuple[FloatArray, ...]:
    """Trace the outer contours of a run-length mask, through the pixels' centres."""
    import cv2
    from pycocotools import mask

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0 converts arrays in numpy 1's way
        pixels = mask.decode(rle)
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(contour.reshape(-1, 2).astype(np.float64) + 0.5 for contour in contours)


class AnnotatedOutlines:
    """A dataset's usable outlines by photo, decoded on demand, as most photos' outlines are never used.

    Every method takes a photo's flat file name and raises KeyError for an unknown photo.
    """

    def __init__(self, dataset: CocoDataset, material_of: Mapping[str, str]) -> None:
        """Sort the annotations by photo; material_of: category → material, for every category of the dataset."""
        self._material_of = {category.id: material_of[category.name] for category in dataset.categories}
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
        image = self.image(flat)
        return [drawn_outline(one, image, material) for one, material in self.of(flat)]


def outlines_json(dataset: CocoDataset, file_names: Collection[str]) -> bytes:
    """Return the usable outlines of some photos as a small COCO file, which ``read_coco`` reads.

    It holds what :class:`AnnotatedOutlines` needs and nothing else, with every number as it was annotated, so that
    masks made from it are the same to the last digit. It does not depend on the order of the annotations.
    ``file_names`` are the photos' flat names.
    """
    photos = {flat_name(image.file_name): (image, of_image) for image, of_image in annotations_by_image(dataset)}
    name_of = {category.id: category.name for category in dataset.categories}
    identity = {name: number for number, name in enumerate(sorted(set(name_of.values())), 1)}
    images: list[Image] = []
    annotations: list[Annotation] = []
    for flat in sorted(file_names):
        image, of_image = photos[flat]
        images.append(msgspec.structs.replace(image, file_name=flat))
        usable = []
        for one in of_image:
            if not outline(one, image).problem:
                compact = msgspec.Raw(msgspec.json.encode(msgspec.json.decode(one.segmentation)))
                category_id = identity[name_of[one.category_id]]
                usable.append(msgspec.structs.replace(one, category_id=category_id, segmentation=compact))
        annotations += sorted(usable, key=lambda one: (one.id, one.category_id, bytes(one.segmentation)))
    categories = [Category(number, name) for name, number in identity.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return msgspec.json.encode(content)
