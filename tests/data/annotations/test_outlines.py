"""Outlines by photo: which ones are usable, how they are drawn, and how a prepared dataset keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from tests.factories import annotation, coco_dict, write_json

from wastelens.data.annotations.coco import Annotation, Image, read_coco
from wastelens.data.annotations.outlines import AnnotatedOutlines, drawn_outline, outlines_json
from wastelens.data.annotations.segmentation import Outline, outline

MATERIAL_OF = {"Drink can": "aluminium", "Glass bottle": "glass"}


def test_drawn_outlines_are_shares_of_the_annotated_photo() -> None:
    image = Image(0, "a.jpg", 200, 400)
    polygon = np.array([[20.0, 40.0], [100.0, 40.0], [100.0, 200.0]])
    drawn = drawn_outline(Outline((polygon,), None, 0.1), image, "paper")
    np.testing.assert_allclose(drawn.polygons[0], [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]])
    assert drawn.material == "paper"
    assert drawn_outline(Outline((), None, 0.0, "broken"), image, "paper").polygons == ()


def test_run_length_masks_are_traced() -> None:
    mask = np.zeros((40, 20), dtype=np.int64)
    mask[10:30, 5:15] = 1
    segmentation = msgspec.Raw(msgspec.json.encode(run_length(mask)))
    image = Image(0, "a.jpg", 20, 40)
    drawn = drawn_outline(outline(Annotation(0, 0, segmentation=segmentation), image), image, "paper")
    (polygon,) = drawn.polygons
    half_a_pixel = [0.5 / 20, 0.5 / 40]
    np.testing.assert_allclose(polygon.min(axis=0), np.array([0.25, 0.25]) + half_a_pixel)
    np.testing.assert_allclose(polygon.max(axis=0), np.array([0.75, 0.75]) - half_a_pixel)


def litter() -> dict[str, Any]:
    """A photo with a can and a bottle, one with a can whose outline is broken, one without litter."""
    content = coco_dict(images=3, annotations_per_image=0)
    content["images"][2]["file_name"] = "batch_2\\sub\\000002.jpg"
    content["annotations"] = [
        annotation(1, 10, 1, (4, 4, 8, 8)),
        annotation(2, 11, 0) | {"segmentation": [[1.0, 2.0]]},
        annotation(3, 10, 0, (32, 24, 16, 12)) | {"iscrowd": 1},
    ]
    return content


def test_each_photo_has_its_usable_outlines_with_their_materials(tmp_path: Path) -> None:
    outlines = AnnotatedOutlines(read_coco(write_json(tmp_path / "annotations.json", litter())), MATERIAL_OF)
    usable = outlines.of("batch_1_000000.jpg")
    assert [material for _, material in usable] == ["glass", "aluminium"]
    assert [one.area_share for one, _ in usable] == pytest.approx([64 / 3072, 192 / 3072])
    assert outlines.of("batch_1_000001.jpg") == outlines.drawn("batch_2_sub_000002.jpg") == []
    assert outlines.image("batch_1_000000.jpg") == Image(10, "batch_1/000000.jpg", 64, 48)
    bottle, can = outlines.drawn("batch_1_000000.jpg")
    assert (bottle.material, can.material) == ("glass", "aluminium")
    np.testing.assert_allclose(can.polygons[0], [[0.5, 0.5], [0.75, 0.5], [0.75, 0.75], [0.5, 0.75]])
    with pytest.raises(KeyError):
        outlines.of("batch_1/000000.jpg")


def run_length(mask: npt.NDArray[np.int64]) -> dict[str, Any]:
    """A mask, 0 and 1 of (height, width), as COCO's run lengths, which go down the columns."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    return {"size": list(mask.shape), "counts": np.diff([0, *ends, len(flat)]).tolist()}


@pytest.mark.parametrize("reverse", [False, True])
def test_the_outlines_that_are_kept_are_those_of_the_annotations(tmp_path: Path, reverse: bool) -> None:
    content = litter()
    mask = np.zeros((48, 64), dtype=np.int64)
    mask[10:30, 5:15] = 1
    content["annotations"] += [
        annotation(4, 12, 1) | {"segmentation": run_length(mask), "iscrowd": 1},
        annotation(5, 11, 0) | {"segmentation": [[0.1, 0.30000000000000004, 1e-7, 47.99999999, 63.3, 70.25]]},
        annotation(6, 11, 1) | {"segmentation": [[float("nan")] * 6]},
    ]
    annotated = read_coco(write_json(tmp_path / "annotations.json", content))
    names = ["batch_1_000000.jpg", "batch_1_000001.jpg", "batch_2_sub_000002.jpg"]
    kept = outlines_json(annotated, names)
    if reverse:
        for part in ("images", "annotations", "categories"):
            content[part].reverse()
        assert outlines_json(read_coco(write_json(tmp_path / "annotations.json", content)), names[::-1]) == kept
    (tmp_path / "outlines.json").write_bytes(kept)
    both = [AnnotatedOutlines(one, MATERIAL_OF) for one in (annotated, read_coco(tmp_path / "outlines.json"))]
    for name in names:
        of = [outlines.of(name) for outlines in both]
        assert [material for _, material in of[0]] == [material for _, material in of[1]]
        for (before, _), (after, _) in zip(*of, strict=True):
            assert (before.rle, before.area_share) == (after.rle, after.area_share)
            assert all(np.array_equal(*pair) for pair in zip(before.polygons, after.polygons, strict=True))
        assert len({(outlines.image(name).width, outlines.image(name).height) for outlines in both}) == 1
    assert [len(both[1].of(name)) for name in names] == [2, 1, 1]


def test_only_some_photos_outlines_are_kept(tmp_path: Path) -> None:
    annotated = read_coco(write_json(tmp_path / "annotations.json", litter()))
    (tmp_path / "outlines.json").write_bytes(outlines_json(annotated, ["batch_1_000000.jpg"]))
    assert [image.file_name for image in read_coco(tmp_path / "outlines.json").images] == ["batch_1_000000.jpg"]
