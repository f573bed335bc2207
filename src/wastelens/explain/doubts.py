"""The evidence for and against a doubtful label: where the model looks, and its answer to each object alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wastelens.config.explanation_methods import METHODS, MethodInputs
from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.data.photos.decode import Photo
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.evaluation.label_quality import SUPERFLUOUS
from wastelens.explain.examination import fitting_methods
from wastelens.explain.methods.evidence import Method
from wastelens.explain.page.shown_photos import ShownPhotos
from wastelens.models.features import AUTO, choose_layer, compiled
from wastelens.system.arrays import Float32Array, FloatArray, PhotoArray

DECODED_SIDE_PX = 1024  # small objects are cut out of photos of this size
MOST_OBJECTS = 4  # shown for a label
MOST_ASKED = 24  # objects of a photo that the model is asked about, the largest first
_MARGIN = 0.15  # around an object, of the longer side of its box
_LEAST_SIDE = 0.03  # of a cut-out, as a share of the photo
_METHODS = ("evidence_map", "gradcam")  # in this order: a model's own map says what it used


@dataclass(frozen=True)
class Cutout:
    """An annotated object cut out of its photo.

    Attributes:
        category, material: as annotated.
        box: left, top, right and bottom of the cut-out, as shares of the photo.
        probability: of the doubtful material, by the model that did not see the photo, for the cut-out alone.
        pixels: uint8 (height, width, 3).
    """

    category: str
    material: str
    box: tuple[float, float, float, float]
    probability: float
    pixels: Photo


@dataclass(frozen=True)
class Doubt:
    """A doubtful label and what there is to judge it by.

    Attributes:
        about: a row of ``ranked_doubts``.
        photo: uint8 (height, width, 3), the longer side 1024 px or that of the cache.
        outlines: of all objects in the photo.
        argued: the objects that argue for the material most: those annotated with it, for a superfluous label; those
            that the model takes for it, for a missing one.
        evidence: float32 (height, width) over the square photo; None where the network has no map.
    """

    about: Mapping[str, Any]
    photo: Photo
    outlines: list[DrawnOutline]
    argued: list[Cutout]
    evidence: Float32Array | None


class DoubtExaminer:
    """Gathers what there is to judge labels by.

    Args:
        network: photos (batch, side, side, 3) in 0–255 → probabilities; its weights may change between calls.
        dataset: of the photos.
        with_evidence: whether maps are drawn, where the network has some.
    """

    def __init__(self, network: Any, dataset: PreparedDataset, batch_size: int, *, with_evidence: bool) -> None:
        self._dataset, self._outlines = dataset, dataset.outlines()
        self._photos = ShownPhotos(dataset, DECODED_SIDE_PX)
        self._side_px = int(network.input_shape[1])
        self._answers, self._batch_size = compiled(network, batch_size), batch_size
        self.method = _method_name(network) if with_evidence else ""
        self._maps = _method(network, self.method) if self.method else None

    @property
    def gone(self) -> Mapping[str, str]:
        """File name → why the cached photo is shown."""
        return self._photos.gone

    def examine(self, doubts: pd.DataFrame) -> Iterator[Doubt]:
        """Yield each doubtful label, by the network with its present weights; the columns of ``ranked_doubts``."""
        names, materials = self._dataset.frame["file_name"], self._dataset.materials
        for start in range(0, len(doubts), self._batch_size):
            rows = doubts.iloc[start : start + self._batch_size]
            maps = self._evidence(rows)
            seen = []
            for about in rows.to_dict("records"):
                name, material = str(names.iloc[int(about["row"])]), materials[int(about["place"])]
                photo, outlines = self._photos[name], self._outlines.drawn(name)
                told = {**{str(key): value for key, value in about.items()}, "file_name": name, "material": material}
                seen.append((told, photo, outlines, _asked(told, outlines)))
            cut = [[cut_out(photo, box) for box, _ in asked] for _, photo, _, asked in seen]
            answers = iter(self._answered([one for of_photo in cut for one in of_photo]))
            for (told, photo, outlines, asked), pixels, evidence in zip(seen, cut, maps, strict=True):
                cutouts = [
                    Cutout(one.category, one.material, box, float(next(answers)[int(told["place"])]), of_one)
                    for (box, one), of_one in zip(asked, pixels, strict=True)
                ]
                argued = sorted(cutouts, key=lambda one: -one.probability)[:MOST_OBJECTS]
                yield Doubt(told, photo, outlines, argued, evidence)

    def _evidence(self, rows: pd.DataFrame) -> list[Float32Array] | list[None]:
        """Return the map of each label, or None where the network has none."""
        if self._maps is None:
            return [None] * len(rows)
        photos = np.asarray(self._dataset.photos[rows["row"].to_numpy()])
        pairs = np.column_stack([np.arange(len(rows)), rows["place"].to_numpy()])
        return [np.asarray(one, dtype=np.float32) for one in self._maps(photos, pairs).maps]

    def _answered(self, cut: list[Photo]) -> Float32Array:
        """Return the probabilities of each cut-out, float32 (cut-outs, materials)."""
        size = (self._side_px, self._side_px)
        squares = [np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA), dtype=np.uint8) for one in cut]
        return self._answers(np.stack(squares)) if squares else np.empty((0, 0), dtype=np.float32)


def _asked(
    about: Mapping[str, Any], outlines: list[DrawnOutline]
) -> list[tuple[tuple[float, float, float, float], DrawnOutline]]:
    """Return the objects that may argue for a label, with their boxes, the largest first."""
    superfluous = about["kind"] == SUPERFLUOUS
    drawn = [one for one in outlines if one.polygons and (one.material == about["material"] or not superfluous)]
    boxes = [(box_around(one), one) for one in drawn]
    return sorted(boxes, key=lambda pair: -_area(pair[0]))[:MOST_ASKED]


def box_around(outline: DrawnOutline) -> tuple[float, float, float, float]:
    """Return the box to cut out for an object, with a margin: left, top, right, bottom, as shares of the photo."""
    points: FloatArray = np.concatenate(outline.polygons)
    low, high = points.min(axis=0), points.max(axis=0)
    half = np.maximum((high - low) / 2 + _MARGIN * (high - low).max(), _LEAST_SIDE / 2)
    centre = (low + high) / 2
    left, top = np.clip(centre - half, 0, 1 - _LEAST_SIDE / 2)
    right, bottom = np.clip(centre + half, _LEAST_SIDE / 2, 1)
    return float(left), float(top), float(right), float(bottom)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def cut_out(photo: Photo, box: tuple[float, float, float, float]) -> Photo:
    """Return the pixels of a box, at least one."""
    height, width = photo.shape[:2]
    left, top = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
    right, bottom = max(round(box[2] * width), left + 1), max(round(box[3] * height), top + 1)
    return photo[top:bottom, left:right]


def _method_name(network: Any) -> str:
    """Return the method that draws this network's maps; "" where none does."""
    fitting = fitting_methods(network, AUTO)
    return next((name for name in _METHODS if name in fitting), "")


def _method(network: Any, name: str) -> Method:
    layer = choose_layer(network) if METHODS[name].draws_layer else ""

    def none(count: int) -> PhotoArray:
        raise ValueError("this method needs no training photos")

    method: Method = METHODS[name]().build(network, MethodInputs(layer, none, 0))
    return method
