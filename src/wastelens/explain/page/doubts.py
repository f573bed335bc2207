"""The page of doubtful labels: one self-contained file, to go through by keyboard, that writes ``corrections.csv``.

It is read in the artifact tab of MLflow, a sandboxed frame that can neither store nor download, or as a file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wastelens.config.explanation_methods import METHODS
from wastelens.data.photos.decode import Photo
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.evaluation.label_quality import CategoryDoubt
from wastelens.explain.doubts import Cutout, Doubt, DoubtExaminer
from wastelens.explain.page.gallery import PAGE, as_base64, encoded, polygons_of, template
from wastelens.figures.heatmap import heat_png, rim_colour
from wastelens.figures.style import material_colours
from wastelens.preparing.doubtful_labels import DoubtfulLabels

SHOWN_SIDE_PX, CUTOUT_SIDE_PX = 480, 160
MOST_PAIRS, MOST_CATEGORIES = 60, 10
_JPEG_QUALITY = 72


@dataclass(frozen=True)
class Pair:
    """Two near-duplicates with different labels: file names, labels in words, and photos as they are cached."""

    names: tuple[str, str]
    labels: tuple[str, str]
    photos: tuple[Photo, Photo]


@dataclass(frozen=True)
class DoubtsHeader:
    """The part of the page above the labels.

    Attributes:
        key: of the browser's storage: answers to one list are no answers to another.
        sentences: findings, plain text.
        method: title of the maps; "" without maps.
        categories: of the mapping, the most doubtful first.
        pairs: near-duplicates with different labels.
        several: photos that are named by several annotators who differ: file name and what differs.
        notes: omissions.
    """

    title: str
    run_id: str
    key: str
    earlier: Sequence[Sequence[str]]
    sentences: Sequence[str]
    method: str
    categories: Sequence[CategoryDoubt]
    pairs: Sequence[Pair]
    several: Sequence[tuple[str, str]]
    notes: Sequence[str]


class DoubtsPage:
    """Collects the cards of the page, encoded, and writes it."""

    def __init__(self, materials: Sequence[str]) -> None:
        self._materials = list(materials)
        self._photos: dict[str, str] = {}  # file name → JPEG
        self._cards: dict[int, dict[str, Any]] = {}  # place in the list → what the template needs

    def add(self, place: int, doubt: Doubt, probabilities: Sequence[float], labels: Sequence[int], note: str) -> None:
        """Add a doubtful label.

        Args:
            place: in the list, from 0.
            doubt: the label.
            probabilities, labels: of all materials of the photo.
            note: what else is known of the photo; may be empty.
        """
        name = str(doubt.about["file_name"])
        if name not in self._photos:
            self._photos[name] = as_base64(encoded(_fitted(doubt.photo, SHOWN_SIDE_PX), "JPEG", quality=_JPEG_QUALITY))
        height, width = doubt.photo.shape[:2]
        longer = max(width, height)
        view = np.array([1000 * width / longer, 1000 * height / longer])
        drawn = [(one.material, points) for one in doubt.outlines for points in polygons_of(one, view)]
        known = [(material, points) for material, points in drawn if material in self._materials]
        material = str(doubt.about["material"])
        self._cards[place] = {
            "place": place,
            "photo": list(self._photos).index(name),
            "file": name,
            "material": self._materials.index(material),
            "name": material,
            "label": int(doubt.about["label"]),
            "kind": str(doubt.about["kind"]),
            "probability": float(doubt.about["probability"]),
            "estimated": bool(doubt.about["estimated_error"]),
            "ratio": f"{width / height:.4f}",
            "view": f"0 0 {view[0]:.0f} {view[1]:.0f}",
            # this material's outlines are drawn over the others
            "outlines": sorted(
                ((self._materials.index(one), one == material, points) for one, points in known), key=lambda one: one[1]
            ),
            "heat": "" if doubt.evidence is None else as_base64(heat_png(doubt.evidence, signed=False)),
            "cutouts": [_cutout(one) for one in doubt.argued],
            "answers": list(zip(self._materials, probabilities, labels, strict=True)),
            "note": note,
        }

    def write(self, folder: Path, header: DoubtsHeader) -> Path:
        """Write the page and return its path."""
        colours = material_colours(self._materials)
        page, part = folder / PAGE, folder / f"{PAGE}.part"
        pieces = template("doubts.html.jinja").generate(
            header=header,
            materials=self._materials,
            colours=colours,
            rims={name: rim_colour(colour) for name, colour in colours.items()},
            photos=list(self._photos.values()),
            cards=[self._cards[place] for place in sorted(self._cards)],
            categories=[one for one in header.categories if one.contradicted][:MOST_CATEGORIES],
            pairs=[(one, [_jpeg(photo, CUTOUT_SIDE_PX) for photo in one.photos]) for one in header.pairs],
            isfinite=math.isfinite,
        )
        with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(pieces)
        os.replace(part, page)
        return page


def header_of(
    found: DoubtfulLabels, dataset: PreparedDataset, run_id: str, examiner: DoubtExaminer, shown: int
) -> DoubtsHeader:
    """Return the part of the page above the labels."""
    notes = [
        f"Shown: {shown:,} of {len(found.doubts):,} labels, the most doubtful of either kind; all are in "
        "label_quality.csv."
    ]
    if len(found.pairs) > MOST_PAIRS:
        notes.append(f"{len(found.pairs):,} pairs of near-duplicates differ, of which {MOST_PAIRS} are shown.")
    if examiner.gone:
        first, reason = next(iter(examiner.gone.items()))
        notes.append(
            f"Photo files missing or changed since prepare: {len(examiner.gone):,} (the first, {first}: {reason}). "
            "They are shown from the cache."
        )
    table = dataset.corrections()
    changed = table[["file_name", "material", "new"]].astype(str).to_numpy().tolist() if len(table) else []
    earlier = [[*row, "wrong"] for row in changed]
    pairs = [
        Pair(
            (found.names[one], found.names[two]),
            (found.shown(one), found.shown(two)),
            (dataset.photos[one], dataset.photos[two]),
        )
        for one, two in found.pairs[:MOST_PAIRS].tolist()
    ]
    return DoubtsHeader(
        title=dataset.name,
        run_id=run_id,
        key=f"{dataset.name} {run_id}",
        earlier=earlier,
        sentences=found.sentences(),
        method=METHODS[examiner.method].title if examiner.method else "",
        categories=found.categories,
        pairs=pairs,
        several=list(found.several.items()),
        notes=notes,
    )


def _cutout(one: Cutout) -> Mapping[str, Any]:
    return {
        "category": one.category,
        "material": one.material,
        "probability": one.probability,
        "jpeg": _jpeg(one.pixels, CUTOUT_SIDE_PX),
    }


def _jpeg(photo: Photo, side_px: int) -> str:
    return as_base64(encoded(_fitted(photo, side_px), "JPEG", quality=_JPEG_QUALITY))


def _fitted(photo: Photo, side_px: int) -> Photo:
    """Return a photo whose longer side is at most this long."""
    height, width = photo.shape[:2]
    scale = side_px / max(width, height)
    if scale >= 1:
        return photo
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(np.asarray(photo), size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
