"""Outlines of photos that a camera turned: on the object, whichever photo they were drawn on, or left out and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageOps
from tests.factories import write_json, write_mapping

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.frames import FittedDataset, OutlinesFrame, fit_to_photos
from wastelens.data.annotations.labels import tabulate
from wastelens.data.annotations.layout import recognise
from wastelens.data.annotations.materials import read_mapping
from wastelens.data.annotations.outlines import AnnotatedOutlines, outlines_json
from wastelens.data.photos.files import photo_headers

SIDES = (96, 64)
BOX = (10, 8, 30, 20)  # x, y, width, height of the square, in the stored photo
ORIENTATION = 0x0112


def stored_photo(path: Path, orientation: int, sides: tuple[int, int] = SIDES, box: tuple[int, ...] = BOX) -> Path:
    """Draw a red rectangle on grey and note an orientation; the format follows from the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", sides, "grey")
    x, y, width, height = box
    ImageDraw.Draw(image).rectangle((x, y, x + width - 1, y + height - 1), fill="red")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
    image.save(path, exif=exif, **options)
    return path


def red(path: Path) -> npt.NDArray[np.bool_]:
    """Where the upright photo is red, as every viewer shows it."""
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=int)
    return (shown[..., 0] > 180) & (shown[..., 1] < 100)


def box_in(mask: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y


def polygon(box: tuple[int, ...]) -> list[list[int]]:
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def run_lengths(box: tuple[int, ...], size: tuple[int, int]) -> dict[str, Any]:
    mask = np.zeros(size[::-1], dtype=int)
    x, y, width, height = box
    mask[y : y + height, x : x + width] = 1
    ends = np.flatnonzero(np.diff(mask.T.ravel())) + 1
    return {"size": [size[1], size[0]], "counts": np.diff([0, *ends, mask.size]).tolist()}


KINDS: dict[str, Callable[[tuple[int, ...], tuple[int, int]], dict[str, Any]]] = {
    "polygon": lambda box, size: {"segmentation": polygon(box)},
    "run lengths": lambda box, size: {"segmentation": run_lengths(box, size)},
    "box": lambda box, size: {"segmentation": [], "bbox": list(box)},
}


def coco(folder: Path, photo: Path, size: tuple[int, int] | None, outline: dict[str, Any]) -> None:
    image: dict[str, Any] = {"id": 1, "file_name": photo.name}
    if size is not None:
        image |= {"width": size[0], "height": size[1]}
    annotations = [{"id": 5, "image_id": 1, "category_id": 0} | outline]
    categories = [{"id": 0, "name": "Drink can"}, {"id": 1, "name": "Glass bottle"}]
    write_json(folder / "annotations.json", {"images": [image], "annotations": annotations, "categories": categories})


def fitted(folder: Path, frame: OutlinesFrame = "upright") -> FittedDataset:
    return fit_to_photos(recognise(folder).read(), lambda name: folder / name, frame)


def overlap(found: FittedDataset, photo: Path) -> float:
    """Intersection over union of the outlines and the red, drawn from what a prepared dataset keeps."""
    kept = photo.parent / "kept" / "outlines.json"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(outlines_json(found.dataset, [photo.name]))
    material_of = {"Drink can": "aluminium", "Glass bottle": "glass"}
    of_both = []
    for dataset in (found.dataset, read_coco(kept)):
        canvas = Image.new("L", red(photo).shape[::-1])
        for one in AnnotatedOutlines(dataset, material_of).drawn(photo.name):
            for points in one.polygons:
                ImageDraw.Draw(canvas).polygon([tuple(point) for point in points * canvas.size], fill=1)
        drawn, shown = np.asarray(canvas) > 0, red(photo)
        of_both.append(float((drawn & shown).sum() / (drawn | shown).sum()))
    assert of_both[0] == pytest.approx(of_both[1], abs=0.02)
    return min(of_both)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_outline_lies_on_the_object_whichever_photo_it_was_drawn_on(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    photo = stored_photo(tmp_path / "a.jpg", orientation)
    upright_size = (SIDES[1], SIDES[0]) if orientation > 4 else SIDES
    for frame, box, size in (("stored", BOX, SIDES), ("upright", box_in(red(photo)), upright_size)):
        coco(tmp_path, photo, size, KINDS[kind](box, size))
        # Where the sides are swapped, the sizes tell, and the setting does not matter.
        given: tuple[OutlinesFrame, ...] = ("upright", "stored") if orientation > 4 else (frame,)  # type: ignore[assignment]
        for setting in given:
            found = fitted(tmp_path, setting)
            assert overlap(found, photo) >= 0.85
            assert (found.dataset.images[0].width, found.dataset.images[0].height) == upright_size
            about_orientation = "Photos that an EXIF orientation turns or mirrors: 1 of 1"
            assert found.notes[0].startswith(about_orientation) if orientation > 1 else found.notes == ()
            assert bool(found.warnings) == (1 < orientation < 5)


@pytest.mark.parametrize(("orientation", "sides"), [(3, SIDES), (2, SIDES), (4, SIDES), (6, (64, 64)), (5, (64, 64))])
def test_where_sizes_do_not_tell_a_setting_does_and_following_the_advice_helps(
    tmp_path: Path, orientation: int, sides: tuple[int, int]
) -> None:
    photo = stored_photo(tmp_path / "a.jpg", orientation, sides)
    coco(tmp_path, photo, sides, KINDS["polygon"](BOX, sides))
    found = fitted(tmp_path)
    assert overlap(found, photo) < 0.5
    (warning,) = found.warnings
    assert "cannot be known for 1 of them (the first, a.jpg): taken as outlines_frame=upright" in warning
    assert warning.endswith("if they lie beside the litter, use outlines_frame=stored.")
    assert overlap(fitted(tmp_path, "stored"), photo) >= 0.85


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_format_that_holds_an_orientation(tmp_path: Path, suffix: str) -> None:
    for orientation in (1, 3, 6):
        photo = stored_photo(tmp_path / f"a.{suffix}", orientation)
        (header,) = photo_headers([photo])
        assert (header.orientation, header.stored) == (orientation, SIDES)
        coco(tmp_path, photo, SIDES, KINDS["polygon"](BOX, SIDES))
        assert overlap(fitted(tmp_path, "stored"), photo) >= 0.85


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    photo = stored_photo(tmp_path / "a.png", 6)
    content = photo.read_bytes()
    start = content.index(b"eXIf") - 4
    length = int.from_bytes(content[start : start + 4]) + 12
    end = content.index(b"IEND") - 4
    moved = content[:start] + content[start + length : end] + content[start : start + length] + content[end:]
    photo.write_bytes(moved)
    assert photo_headers([photo])[0].orientation == 6
    coco(tmp_path, photo, SIDES, KINDS["polygon"](BOX, SIDES))
    assert overlap(fitted(tmp_path), photo) >= 0.85


def test_sides_that_are_nearly_equal_still_tell(tmp_path: Path) -> None:
    photo = stored_photo(tmp_path / "a.jpg", 6, (100, 98))
    coco(tmp_path, photo, (100, 98), KINDS["polygon"](BOX, (100, 98)))
    found = fitted(tmp_path)
    assert overlap(found, photo) >= 0.85
    assert found.warnings == ()


def test_a_smaller_copy_of_a_turned_photo_is_turned_too(tmp_path: Path) -> None:
    photo = stored_photo(tmp_path / "a.jpg", 8)
    larger = (SIDES[0] * 3, SIDES[1] * 3)
    coco(tmp_path, photo, larger, KINDS["polygon"](tuple(3 * side for side in BOX), larger))
    assert overlap(fitted(tmp_path), photo) >= 0.85


@pytest.mark.parametrize("frame", ["upright", "stored"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_that_are_not_annotated_are_those_of_the_header(
    tmp_path: Path, orientation: int, frame: OutlinesFrame
) -> None:
    photo = stored_photo(tmp_path / "a.jpg", orientation)
    coco(tmp_path, photo, None, KINDS["box"](BOX if frame == "stored" else box_in(red(photo)), SIDES))
    found = fitted(tmp_path, frame)
    assert overlap(found, photo) >= 0.85
    assert bool(found.warnings) == (orientation > 1)


@pytest.mark.parametrize("shape", ["box", "polygon"])
@pytest.mark.parametrize("frame", ["upright", "stored"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_of_yolo_are_fractions_of_either_photo(
    tmp_path: Path, orientation: int, frame: OutlinesFrame, shape: str
) -> None:
    photo = stored_photo(tmp_path / "a.jpg", orientation)
    shown = red(photo)
    box, size = (BOX, SIDES) if frame == "stored" else (box_in(shown), shown.shape[::-1])
    (x, y, width, height), (wide, high) = box, size
    corners = np.reshape(polygon(box), (-1, 2)) / size
    numbers = (
        corners.ravel()
        if shape == "polygon"
        else np.array([(x + width / 2) / wide, (y + height / 2) / high, width / wide, height / high])
    )
    (tmp_path / "data.yaml").write_text("names: [Drink can]\ntrain: .\n")
    (tmp_path / "a.txt").write_text("0 " + " ".join(f"{number:.6f}" for number in numbers))
    found = fitted(tmp_path, frame)
    assert overlap(found, photo) >= 0.85
    assert bool(found.warnings) == (orientation > 1)


def test_outlines_that_fit_the_photo_in_no_frame_are_left_out_of_everything_and_told(tmp_path: Path) -> None:
    photo = stored_photo(tmp_path / "a.jpg", 6)
    coco(tmp_path, photo, (96, 96), KINDS["polygon"](BOX, SIDES))
    found = fitted(tmp_path)
    (warning,) = found.warnings
    assert warning.startswith(
        "Photos whose outlines do not fit them: 1 (the first, a.jpg: annotated as 96 x 96, the upright file is 64 x 96)"
    )
    tables = tabulate(found.dataset, read_mapping(write_mapping(tmp_path / "m.csv")))
    assert tables.labels[["width", "height", "aluminium"]].to_numpy().tolist() == [[64, 96, 1]]
    assert tables.objects["area_share"].isna().all()
    assert tables.problems["problem"].tolist() == [
        "outlines left out, labels kept: annotated as 96 x 96, the upright file is 64 x 96"
    ]
    assert overlap(found, photo) == 0


def test_photos_that_cannot_be_read_stay_as_annotated(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_text("no photo")
    coco(tmp_path, photo, (30, 20), {})
    assert fitted(tmp_path).dataset.images == recognise(tmp_path).read().images
    coco(tmp_path, photo, None, {})
    assert (fitted(tmp_path).dataset.images[0].width, fitted(tmp_path).warnings) == (1, ())
