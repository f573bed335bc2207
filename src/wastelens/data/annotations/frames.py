"""Fit annotated outlines to the photos, which are looked at upright whatever way they are stored.

A camera stores a turned photo as it is and notes in EXIF how to turn it. Some tools annotate the upright photo, others
the stored one. Where turning swaps the sides, the annotated size tells which; elsewhere a setting does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from wastelens.data.annotations.coco import LARGEST_COORDINATE_PX, Annotation, CocoDataset, Image, outlined
from wastelens.data.annotations.labels import misfit
from wastelens.data.photos.files import UNKNOWN_HEADER, PhotoHeader, photo_headers

OutlinesFrame = Literal["upright", "stored"]
_NEARER = 0.005  # by how much more one frame's aspect ratio has to fit than the other's, as a logarithm


@dataclass(frozen=True)
class FittedDataset:
    """A dataset whose sizes are the upright photos', with sentences for the user about orientations and misfits."""

    dataset: CocoDataset
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def fit_to_photos(dataset: CocoDataset, find_photo: Callable[[str], Path], frame: OutlinesFrame) -> FittedDataset:
    """Read the photos' headers, and let each image say how its outlines lie in the upright photo.

    Sizes that the annotations do not tell are those of the header. Photos that cannot be read stay as annotated.

    Args:
        dataset: as it was read.
        find_photo: returns the file of a photo, given its file name with forward slashes.
        frame: what outlines were drawn on, where the annotated size does not tell: the upright or the stored photo.
    """
    if not dataset.has_outlines:
        return FittedDataset(dataset, (), ())
    headers = photo_headers([find_photo(image.file_name.replace("\\", "/")) for image in dataset.images])
    fits = [
        _fit(image, header, frame, sizes_are_told=dataset.sizes_are_told)
        for image, header in zip(dataset.images, headers, strict=True)
    ]
    outlined = {annotation.image_id for annotation in dataset.annotations}
    turned = {fit.image.id: fit.header for fit in fits if fit.image.orientation != 1}
    annotations = dataset.annotations
    if not dataset.sizes_are_told:
        annotations = tuple(_on_stored(one, turned) for one in annotations)
    fitted = replace(dataset, images=tuple(fit.image for fit in fits), annotations=annotations)
    with_objects = [fit for fit in fits if fit.image.id in outlined]
    return FittedDataset(fitted, _notes(fits, with_objects), _warnings(with_objects, frame))


@dataclass(frozen=True)
class _Fit:
    image: Image
    header: PhotoHeader
    told: bool  # whether the annotated size tells how the outlines lie


def _fit(image: Image, header: PhotoHeader, frame: OutlinesFrame, *, sizes_are_told: bool) -> _Fit:
    """Return the image with the upright photo's sides, and with its orientation if the outlines are as stored."""
    size = (image.width, image.height)
    told = sizes_are_told and not any(math.isnan(side) for side in size)
    if header == UNKNOWN_HEADER:
        width, height = size if told else header.upright
        return _Fit(msgspec.structs.replace(image, width=width, height=height), header, told=True)
    if not told:
        return _Fit(_as(image, header.upright, header, frame), header, told=header.orientation == 1)
    if not all(1 <= side <= LARGEST_COORDINATE_PX for side in size):
        return _Fit(image, header, told=True)  # the photo is left out
    fits_upright, fits_stored = (not misfit(size, real) for real in (header.upright, header.stored))
    if header.orientation == 1 and fits_upright:
        return _Fit(image, header, told=True)
    if not fits_upright and not fits_stored:
        width, height = header.upright
        reason = misfit(size, header.upright)
        return _Fit(msgspec.structs.replace(image, width=width, height=height, misfit=reason), header, told=True)
    nearer = _off(size, header.upright) - _off(size, header.stored)  # above 0: the stored photo's sides fit better
    known: OutlinesFrame = "upright" if nearer < 0 else "stored"
    told = fits_upright != fits_stored or abs(nearer) > _NEARER
    chosen = known if told else frame
    upright = size[::-1] if chosen == "stored" and header.stored != header.upright else size
    return _Fit(_as(image, upright, header, chosen), header, told)


def _as(image: Image, upright: tuple[float, float], header: PhotoHeader, frame: OutlinesFrame) -> Image:
    orientation = header.orientation if frame == "stored" else 1
    return msgspec.structs.replace(image, width=upright[0], height=upright[1], orientation=orientation)


def _off(size: tuple[float, float], real: tuple[float, float]) -> float:
    """Return how far two aspect ratios are apart, as a logarithm."""
    return abs(math.log((size[0] / size[1]) / (real[0] / real[1])))


def _on_stored(annotation: Annotation, turned: Mapping[int, PhotoHeader]) -> Annotation:
    """Return an annotation made from fractions of the upright photo, in pixels of the stored one if that is turned."""
    if (header := turned.get(annotation.image_id)) is None:
        return annotation
    factor = np.array(header.stored) / np.array(header.upright)
    polygons, box = msgspec.json.decode(annotation.segmentation), msgspec.json.decode(annotation.bbox)
    if box is not None:
        corner, size = np.array(box[:2]) * factor, np.array(box[2:]) * factor
        return outlined(annotation, np.stack([corner, corner + size]), is_box=True)
    return annotation if polygons is None else outlined(annotation, np.reshape(polygons[0], (-1, 2)) * factor)


def _notes(fits: list[_Fit], with_objects: list[_Fit]) -> tuple[str, ...]:
    oriented = sum(fit.header.orientation != 1 for fit in fits)
    if not oriented:
        return ()
    turned = sum(fit.told and fit.image.orientation != 1 for fit in with_objects)
    with_photos = (
        f"; the outlines of {turned:,} were drawn on the photo as stored and are turned with it" if turned else ""
    )
    return (f"Photos that an EXIF orientation turns or mirrors: {oriented:,} of {len(fits):,}{with_photos}.",)


def _warnings(with_objects: list[_Fit], frame: OutlinesFrame) -> tuple[str, ...]:
    found = []
    unknown = [fit.image.file_name for fit in with_objects if not fit.told]
    other = "upright" if frame == "stored" else "stored"
    if unknown:
        found.append(
            f"Whether outlines were drawn on the upright photo or on the photo as stored cannot be known for "
            f"{len(unknown):,} of them (the first, {unknown[0]}): taken as outlines_frame={frame}. Look at "
            f"sight/contact_sheet.png; if they lie beside the litter, use outlines_frame={other}."
        )
    if unfit := [fit.image for fit in with_objects if fit.image.misfit]:
        found.append(
            f"Photos whose outlines do not fit them: {len(unfit):,} (the first, {unfit[0].file_name}: "
            f"{unfit[0].misfit}). Their labels are kept, their outlines are left out of every score; problems.csv "
            "lists them."
        )
    return tuple(found)
