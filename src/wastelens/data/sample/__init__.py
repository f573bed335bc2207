"""The built-in sample: 240 drawn photos of litter with annotations in TACO's format, so that all steps run offline.

Photos come in twelve batches, each with its own ground, light and mix of materials. Within a batch, runs of two to
five neighbours share a scene. So a split by photo leaks, as it does on TACO, and a split by batch does not.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image as PillowImage

from wastelens.data.sample.annotations import Record, annotation_records, coco
from wastelens.data.sample.categories import CATEGORIES, DRAWN_CATEGORIES
from wastelens.data.sample.plan import PHOTOS, PhotoPlan, plan_sample
from wastelens.data.sample.scenes import Scene, draw_scene

__all__ = ["CATEGORIES", "DRAWN_CATEGORIES", "PHOTOS", "render_sample"]

_JPEG_QUALITY = 88
_ORIENTATION_TAG = 0x0112
# How to turn an upright picture for storage under each EXIF orientation.
_STORED = {3: PillowImage.Transpose.ROTATE_180, 6: PillowImage.Transpose.ROTATE_90, 8: PillowImage.Transpose.ROTATE_270}


def _save_photo(path: Path, scene: Scene, orientation: int) -> None:
    """Write the photo as JPEG, turned and tagged according to its orientation."""
    picture = PillowImage.fromarray(scene.pixels_0_255)
    exif = PillowImage.Exif()
    if orientation != 1:
        picture = picture.transpose(_STORED[orientation])
        exif[_ORIENTATION_TAG] = orientation
    path.parent.mkdir(exist_ok=True)
    picture.save(path, quality=_JPEG_QUALITY, exif=exif)


def _render_photo(folder: Path, plan: PhotoPlan, seed: int) -> list[Record]:
    """Draw and write one photo; returns its annotations without ids."""
    scene = draw_scene(plan, seed)
    _save_photo(folder / plan.file_name, scene, plan.orientation)
    return annotation_records(plan, scene)


def render_sample(folder: Path, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw the sample into ``folder``: ``annotations.json`` and ``batch_N/NNNNNN.jpg``.

    The same seed gives the same bytes. Everything is drawn into a temporary folder beside it, which is renamed at the
    end, so ``folder`` is never half-written.

    Args:
        folder: folder to create; an empty one is replaced.
        seed: seed of everything drawn.
        progress: called after each photo with the number done and the total.

    Raises:
        OSError: ``folder`` is not empty, or cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        plans = plan_sample(seed)
        records: list[Record] = []
        for done, plan in enumerate(plans, start=1):
            records += _render_photo(unfinished, plan, seed)
            if progress is not None:
                progress(done, len(plans))
        (unfinished / "annotations.json").write_text(json.dumps(coco(plans, records, seed)), encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp creates a private folder
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
