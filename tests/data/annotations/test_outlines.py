"""Outlines by photo: which ones are usable, how they are drawn, and that they are the ones prepare saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from tests.factories import annotation, coco_dict, write_json, write_mapping

from wastelens.data.annotations.coco import Annotation, Image, Outline, outline, read_coco
from wastelens.data.annotations.outlines import AnnotatedOutlines, drawn_outline, read_outlines
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import AnnotationsError, DatasetError
from wastelens.system.digests import file_digest

MATERIAL_OF = {"Drink can": "aluminium", "Glass bottle": "glass"}


def test_drawn_outlines_are_shares_of_the_annotated_photo() -> None:
    image = Image(0, "a.jpg", 200, 400)
    polygon = np.array([[20.0, 40.0], [100.0, 40.0], [100.0, 200.0]])
    drawn = drawn_outline(Outline((polygon,), None, 0.1), image, "paper")
    np.testing.assert_allclose(drawn.polygons[0], [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]])
    assert drawn.material == "paper"
    assert drawn_outline(Outline((), None, 0.0, "broken"), image, "paper").polygons == ()


def test_run_length_masks_are_traced() -> None:
    mask = np.zeros((40, 20), dtype=int)
    mask[10:30, 5:15] = 1
    flat = mask.T.ravel()  # column by column, as COCO has it
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    segmentation = msgspec.Raw(msgspec.json.encode({"size": [40, 20], "counts": counts}))
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


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    """As prepare leaves it, as far as outlines are concerned."""
    source, folder = tmp_path / "litter", tmp_path / "prepared"
    path = write_json(source / "annotations.json", litter())
    folder.mkdir()
    write_mapping(folder / "materials.csv")
    manifest = {"source": str(source), "annotations_digest": file_digest(path)}
    return PreparedDataset(folder, manifest, pd.DataFrame())


def test_outlines_are_read_from_what_was_prepared(dataset: PreparedDataset) -> None:
    outlines = read_outlines(dataset)
    assert [material for _, material in outlines.of("batch_1_000000.jpg")] == ["glass", "aluminium"]


def test_changed_or_missing_annotations_are_refused_in_one_line(dataset: PreparedDataset) -> None:
    path = Path(dataset.manifest["source"]) / "annotations.json"
    content = litter()
    content["annotations"][0]["segmentation"][0][0] = 5.0
    write_json(path, content)
    with pytest.raises(DatasetError, match=r"is not the file that the dataset was prepared from\. Restore") as changed:
        read_outlines(dataset)
    path.unlink()
    with pytest.raises(DatasetError, match=r"cannot be read \(No such file.*\)\. Restore") as missing:
        read_outlines(dataset)
    for error in (changed, missing):
        assert not isinstance(error.value, AnnotationsError)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
