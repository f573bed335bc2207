"""The built-in sample: 240 drawn photos of litter with annotations in TACO's format, so that all steps run offline.

Photos come in twelve batches, each with its own ground, light and mix of materials. Within a batch, runs of two to
five neighbours share a scene. So a split by photo leaks, as it does on TACO, and a split by batch does not.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as PillowImage

from wastelens.data.annotations.segmentation import polygon_area
from wastelens.data.sample.plan import CATEGORIES, PHOTOS, PhotoPlan, plan_sample
from wastelens.data.sample.scenes import GROUNDS, Scene, draw_scene
from wastelens.data.sample.shapes import Mask
from wastelens.system.arrays import FloatArray

__all__ = ["CATEGORIES", "PHOTOS", "render_sample", "trace"]

SCENE_CATEGORIES = ("Clean", "Indoor, Man-made", "Pavement", "Sand, Dirt, Pebbles", "Trash", "Vegetation", "Water")
_FINER = 4  # outlines are traced on a finer grid; on the photo's own, thin straws would lose a pixel of width
_LEAST_AREA_PX = 6.0
_JPEG_QUALITY = 88
_ORIENTATION_TAG = 0x0112
# How to turn an upright picture for storage under each EXIF orientation.
_STORED = {3: PillowImage.Transpose.ROTATE_180, 6: PillowImage.Transpose.ROTATE_90, 8: PillowImage.Transpose.ROTATE_270}

Record = dict[str, Any]


def trace(visible: Mask) -> list[FloatArray]:
    """Trace a mask as polygons, each (points, 2), in pixels within the photo."""
    if not visible.any():
        return []
    left, top, width, height = cv2.boundingRect(visible)
    crop = visible[top : top + height, left : left + width]
    fine = cv2.resize(crop, (width * _FINER, height * _FINER), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        corners = cv2.approxPolyDP(contour, 0.7 * _FINER, True).reshape(-1, 2)
        points = (corners + 0.5) / _FINER + [left, top]
        polygon = np.round(points, 2)
        if len(corners) > 2 and polygon_area(polygon) >= _LEAST_AREA_PX:
            polygons.append(polygon)
    return polygons


def annotation_records(plan: PhotoPlan, scene: Scene) -> list[Record]:
    """Make a record, without an id, for each visible piece of litter."""
    records = []
    for category_id, visible in zip(scene.category_ids, scene.visible, strict=True):
        polygons = trace(visible)
        if not polygons:
            continue
        points = np.concatenate(polygons)
        corner, extent = points.min(axis=0), np.ptp(points, axis=0)
        records.append(
            {
                "image_id": plan.photo_id,
                "category_id": category_id,
                "segmentation": [polygon.ravel().tolist() for polygon in polygons],
                "area": round(sum(map(polygon_area, polygons)), 2),
                "bbox": np.round([*corner, *extent], 2).tolist(),
                "iscrowd": 0,
            }
        )
    return records


def coco(plans: Sequence[PhotoPlan], records: Iterable[Record], seed: int) -> Record:
    """Return the whole annotations file as plain data, with TACO's keys in its order."""
    blank = dict.fromkeys(("license", "flickr_url", "coco_url", "date_captured", "flickr_640_url"))
    sizes = [(plan, {"width": plan.width_px, "height": plan.height_px}) for plan in plans]
    return {
        "info": {
            "year": 2025,
            "version": None,
            "description": f"Wastelens sample: drawn litter in TACO's format, seed {seed}",
            "contributor": None,
            "url": None,
            "date_created": None,
        },
        "images": [{"id": plan.photo_id, **size, "file_name": plan.file_name, **blank} for plan, size in sizes],
        "annotations": [{"id": number, **record} for number, record in enumerate(records, start=1)],
        "scene_annotations": [
            {"image_id": plan.photo_id, "background_ids": [GROUNDS[plan.batch][2]]} for plan in plans
        ],
        "licenses": [],
        "categories": [
            {"supercategory": supercategory, "id": category_id, "name": name}
            for category_id, (name, supercategory) in enumerate(CATEGORIES)
        ],
        "scene_categories": [{"id": number, "name": name} for number, name in enumerate(SCENE_CATEGORIES)],
    }


def _save_photo(path: Path, scene: Scene, orientation: int) -> None:
    """Write the photo as JPEG, turned and tagged according to its orientation."""
    picture = PillowImage.fromarray(scene.pixels_0_255)
    exif = PillowImage.Exif()
    if orientation != 1:
        picture = picture.transpose(_STORED[orientation])
        exif[_ORIENTATION_TAG] = orientation
    path.parent.mkdir(exist_ok=True)
    picture.save(path, quality=_JPEG_QUALITY, exif=exif)


def render_sample(folder: Path, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw the sample into ``folder``: ``annotations.json`` and ``batch_N/NNNNNN.jpg``.

    The same seed gives the same bytes. Everything is drawn into a temporary folder beside it, which is renamed at the
    end, so ``folder`` is never half-written.
    ``progress`` is called after each photo with the number done and the total.

    Raises:
        OSError: ``folder`` is not empty, or cannot be written; an empty one is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        plans = plan_sample(seed)
        records: list[Record] = []
        for done, plan in enumerate(plans, start=1):
            scene = draw_scene(plan, seed)
            _save_photo(unfinished / plan.file_name, scene, plan.orientation)
            records += annotation_records(plan, scene)
            if progress is not None:
                progress(done, len(plans))
        (unfinished / "annotations.json").write_text(json.dumps(coco(plans, records, seed)), encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp creates a private folder
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
