"""The annotated objects' outlines: by photo, as masks are made from them and as they are drawn."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.data.annotations.coco import (
    Annotation,
    CocoDataset,
    Image,
    Outline,
    annotations_by_image,
    flat_name,
    outline,
)
from wastelens.data.annotations.materials import MAPPING_FILE, mapping_of_labels, read_mapping
from wastelens.data.annotations.recognise import recognise
from wastelens.data.annotations.sources import prepared_from
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import DatasetError

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DrawnOutline:
    """An object's outline, ready to draw over a photo of any size.

    Attributes:
        material: what the object is made of.
        polygons: each float (points, 2), x and y in 0 to 1 of the photo's width and height; may be empty.
    """

    material: str
    polygons: tuple[Points, ...]


def drawn_outline(outline: Outline, image: Image, material: str) -> DrawnOutline:
    """An annotation's outline in shares of the photo's width and height; run-length masks are traced."""
    size = np.array([image.width, image.height])
    polygons = outline.polygons if outline.rle is None else _traced(outline.rle)
    return DrawnOutline(material, tuple(polygon / size for polygon in polygons))


def _traced(rle: Mapping[str, Any]) -> tuple[Points, ...]:
    """The outer contours of a run-length mask, through the pixels' centres."""
    import cv2
    from pycocotools import mask

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools 2.0 converts arrays as numpy 1 did
        pixels = mask.decode(rle)
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(contour.reshape(-1, 2).astype(np.float64) + 0.5 for contour in contours)


class AnnotatedOutlines:
    """A dataset's usable outlines by photo, decoded when they are asked for: of most photos nobody wants to see them.

    Every method takes a photo's flat file name, and raises KeyError where the annotations know no such photo.
    """

    def __init__(self, dataset: CocoDataset, material_of: Mapping[str, str]) -> None:
        """material_of: category → material, for every category of the dataset (``check_covers``)."""
        self._material_of = {category.id: material_of[category.name] for category in dataset.categories}
        self._annotated: dict[str, tuple[Image, list[Annotation]]] = {
            flat_name(image.file_name): (image, of_image) for image, of_image in annotations_by_image(dataset)
        }

    def image(self, flat: str) -> Image:
        """The photo as annotated, with its annotated size in pixels."""
        return self._annotated[flat][0]

    def of(self, flat: str) -> list[tuple[Outline, str]]:
        """Each usable outline, crowds included, with its object's material."""
        image, annotations = self._annotated[flat]
        decoded = [(outline(one, image), self._material_of[one.category_id]) for one in annotations]
        return [(one, material) for one, material in decoded if not one.problem]

    def drawn(self, flat: str) -> list[DrawnOutline]:
        """Each usable outline, ready to draw."""
        image = self.image(flat)
        return [drawn_outline(one, image, material) for one, material in self.of(flat)]


def read_outlines(dataset: PreparedDataset) -> AnnotatedOutlines:
    """The outlines of a prepared dataset, from the annotations that it was prepared from.

    Raises:
        DatasetError: the annotations are gone, cannot be read, or have changed since.
    """
    path = prepared_from(dataset.manifest)
    try:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        layout = recognise(Path(dataset.manifest["source"]))
        digest = layout.digest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}). Restore it, or run prepare again.") from None
    if digest != dataset.manifest["annotations_digest"]:
        what = "folder" if path.is_dir() else "file"
        raise DatasetError(
            f"{path} is not the {what} that the dataset was prepared from. Restore it, or run prepare again."
        )
    read = layout.read()
    labels = [category.name for category in read.categories]
    mapping = mapping_of_labels(read_mapping(dataset.folder / MAPPING_FILE), labels, layout.of_label)
    return AnnotatedOutlines(read, mapping.material_of)
