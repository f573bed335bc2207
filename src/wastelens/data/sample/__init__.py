"""The built-in sample: 240 drawn photos of litter with TACO's annotations, so that everything runs offline.

Photos come in twelve batches, each with its own ground, light and mix of materials, and within a batch in
runs of two to five neighbours that share a scene. Splitting by photo therefore leaks, as it does on TACO, and
splitting by batch does not.
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
# How an upright picture is turned to be stored under each EXIF orientation.
_STORED = {
    3: PillowImage.Transpose.ROTATE_180,
    6: PillowImage.Transpose.ROTATE_90,
    8: PillowImage.Transpose.ROTATE_270,
}


def _save_photo(path: Path, scene: Scene, orientation: int) -> None:
    """Write the photo as JPEG, turned and tagged where its orientation asks for it."""
    picture = PillowImage.fromarray(scene.pixels_0_255)
    exif = PillowImage.Exif()
    if orientation != 1:
        picture = picture.transpose(_STORED[orientation])
        exif[_ORIENTATION_TAG] = orientation
    path.parent.mkdir(exist_ok=True)
    picture.save(path, quality=_JPEG_QUALITY, exif=exif)


def _render_photo(folder: Path, plan: PhotoPlan, seed: int) -> list[Record]:
    """Draw and write one photo; return its annotations without ids."""
    scene = draw_scene(plan, seed)
    _save_photo(folder / plan.file_name, scene, plan.orientation)
    return annotation_records(plan, scene)


def render_sample(folder: Path, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> None:
    """Draw the sample into ``folder``: ``annotations.json`` and ``batch_N/NNNNNN.jpg``.

    The same seed gives the same bytes. Everything is drawn into a folder beside it, which takes its name at the
    end, so ``folder`` is never half-written.

    Args:
        folder: where to put it; replaced if it holds nothing but is there already.
        seed: seeds everything drawn.
        progress: called after each photo with how many are done and how many there are.

    Raises:
        OSError: ``folder`` holds files, or cannot be written.
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
        unfinished.chmod(0o755)  # mkdtemp keeps its folder private
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
