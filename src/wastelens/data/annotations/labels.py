"""Turn annotations into tables of the materials and objects that each photo shows."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from wastelens.data.annotations.coco import LARGEST_COORDINATE_PX, CocoDataset, annotations_by_image, flat_name
from wastelens.data.annotations.materials import MaterialMapping
from wastelens.data.annotations.segmentation import Outline, outline
from wastelens.errors import AnnotationsError

ASPECT_TOLERANCE = 0.05
DISAGREE = "photo kept, listed several times with different objects: "
IMPOSSIBLE_SIZE = "annotated with an impossible size"


@dataclass(frozen=True)
class AnnotatedPhotos:
    """A dataset's annotations as tables.

    - ``labels``, a row per photo: file_name, image_id, source_file, width, height (annotated, pixels), 0/1 per material
    - ``objects``: file_name, annotation_id, category, supercategory, material, area_share (0–1; NaN where the outline
      cannot be used), iscrowd; and, where there are any, is_box: whether the outline is only a box
    - ``problems``: file_name, source_file, annotation_id, problem
    """

    labels: pd.DataFrame
    objects: pd.DataFrame
    problems: pd.DataFrame


def tabulate(dataset: CocoDataset, mapping: MaterialMapping) -> AnnotatedPhotos:
    """Return tables of photos, objects and problems, sorted by file name whatever the order of the JSON.

    An annotation whose outline cannot be used still labels the photo: its label is kept, its outline is left out and
    listed.

    Raises:
        AnnotationsError: every photo is annotated with an impossible size.
    """
    categories = {category.id: category for category in dataset.categories}
    photos, objects, problems = [], [], []
    for image, of_image in annotations_by_image(dataset):
        flat = flat_name(image.file_name)
        source_file = image.file_name.replace("\\", "/")  # written on Windows
        if not (1 <= image.width <= LARGEST_COORDINATE_PX and 1 <= image.height <= LARGEST_COORDINATE_PX):
            reason = f"photo left out: {IMPOSSIBLE_SIZE}: {image.width:g} x {image.height:g}"
            problems.append(problem_row(flat, source_file, reason))
            continue
        if image.misfit and of_image and dataset.has_outlines:
            problems.append(problem_row(flat, source_file, f"outlines left out, labels kept: {image.misfit}"))
        if differ := dataset.disagreements.get(image.id):
            problems.append(problem_row(flat, source_file, f"{DISAGREE}{differ}"))
        shown = set()
        for annotation in of_image:
            category = categories[annotation.category_id]
            material = mapping.material_of[category.name]
            shown.add(material)
            drawn = outline(annotation, image)
            if reason := _reason(drawn) if dataset.has_outlines and not image.misfit else "":
                problems.append(problem_row(flat, source_file, reason, annotation.id))
            share = float("nan") if drawn.problem else drawn.area_share
            kind = (category.name, category.supercategory or "", material)
            objects.append((flat, annotation.id, *kind, share, int(annotation.iscrowd or 0), int(drawn.is_box)))
        present = [int(material in shown) for material in mapping.materials]
        photos.append((flat, image.id, source_file, int(image.width), int(image.height), *present))
    if not photos:
        raise AnnotationsError(
            f"{dataset.path}: every image has an impossible size. Give each its width and height in pixels."
        )
    photo_columns = ["file_name", "image_id", "source_file", "width", "height", *mapping.materials]
    object_columns = ["file_name", "annotation_id", "category", "supercategory", "material", "area_share", "iscrowd"]
    table = pd.DataFrame(objects, columns=[*object_columns, "is_box"]).sort_values(object_columns, ignore_index=True)
    # Without boxes, the table, and with it the dataset's digest, is as it was before boxes were marked.
    table = table if table["is_box"].any() else table.drop(columns="is_box")
    return AnnotatedPhotos(
        pd.DataFrame(photos, columns=photo_columns).sort_values("file_name", ignore_index=True),
        table,
        problem_frame(problems),
    )


def _reason(drawn: Outline) -> str:
    """Return what problems.csv says about an outline; "" if all of it is used."""
    if drawn.problem:
        return f"outline left out, label kept: {drawn.problem}"
    return f"part of the outline left out, the rest kept: {drawn.left_out}" if drawn.left_out else ""


def problem_row(file_name: str, source_file: str, problem: str, annotation_id: int | str = "") -> tuple[str, ...]:
    """Return a row of problems.csv."""
    return (file_name, source_file, str(annotation_id), problem)


def problem_frame(rows: list[tuple[str, ...]]) -> pd.DataFrame:
    """Return the table problems.csv, sorted."""
    frame = pd.DataFrame(rows, columns=["file_name", "source_file", "annotation_id", "problem"], dtype=str)
    return frame.sort_values(["file_name", "annotation_id", "problem"], ignore_index=True)


def misfit(annotated: tuple[float, float], real: tuple[float, float]) -> str:
    """Return why outlines do not fit a photo of another aspect ratio, or ""; sizes are (width, height)."""
    ratio = (annotated[0] / annotated[1]) / (real[0] / real[1])
    if 1 / (1 + ASPECT_TOLERANCE) <= ratio <= 1 + ASPECT_TOLERANCE:
        return ""
    return f"annotated as {annotated[0]:g} x {annotated[1]:g}, the upright file is {real[0]:g} x {real[1]:g}"
