"""From COCO to tables: labels from every annotation, outlines only from usable ones."""

from __future__ import annotations

import math
import random

import pandas as pd
import pytest
from tests.factories import annotation, coco_dict, write_dataset, write_json, write_mapping

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.labels import misfit, problem_frame, problem_row, tabulate
from wastelens.data.annotations.materials import check_covers, read_mapping
from wastelens.errors import AnnotationsError


@pytest.fixture
def tables(tmp_path):
    def build(content):
        dataset = read_coco(write_json(tmp_path / "annotations.json", content))
        return tabulate(dataset, read_mapping(write_mapping(tmp_path / "mapping.csv")))

    return build


def test_one_row_a_photo_with_a_column_a_material(tables):
    content = coco_dict(images=3)
    content["annotations"] = [annotation(1, 10, 0), annotation(2, 10, 1), annotation(3, 11, 1), annotation(4, 11, 1)]
    labels = tables(content).labels
    assert labels.columns.tolist() == [
        *("file_name", "image_id", "source_file", "width", "height"),
        *("aluminium", "glass"),
    ]
    assert labels["file_name"].tolist() == ["batch_1_000000.jpg", "batch_1_000001.jpg", "batch_1_000002.jpg"]
    assert labels["source_file"].tolist() == ["batch_1/000000.jpg", "batch_1/000001.jpg", "batch_1/000002.jpg"]
    assert labels[["aluminium", "glass"]].to_numpy().tolist() == [[1, 1], [0, 1], [0, 0]]
    assert (labels["width"].iloc[0], labels["height"].iloc[0]) == (64, 48)


def test_order_of_the_json_does_not_matter(tables):
    content = coco_dict(images=8, annotations_per_image=3)
    straight = tables(content)
    shuffled = {key: random.Random(0).sample(rows, len(rows)) for key, rows in content.items()}
    other = tables(shuffled)
    pd.testing.assert_frame_equal(straight.labels, other.labels)
    pd.testing.assert_frame_equal(straight.objects, other.objects)


def test_objects_have_their_share_and_crowds_are_told(tables):
    content = coco_dict(images=1, annotations_per_image=2)
    content["annotations"][1]["iscrowd"] = 1
    objects = tables(content).objects
    assert objects["iscrowd"].tolist() == [0, 1]
    assert objects["category"].tolist() == ["Drink can", "Glass bottle"]
    assert objects["material"].tolist() == ["aluminium", "glass"]
    assert objects["supercategory"].tolist() == ["Litter", "Litter"]
    assert objects["area_share"].tolist() == pytest.approx([16 * 12 / (64 * 48)] * 2)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ([[1, 1, 2, 2]], "its polygon has fewer than three points, or half a point"),
        ([[float("nan"), 1, 2, 2, 3, 1]], "its polygon holds something that is not a finite number"),
        ([[100, 100, 120, 100, 120, 120]], "its polygon lies outside the photo or covers nothing"),
        ("", "it has no outline"),
        ({"size": [48, 64], "counts": [1]}, "its run-length counts do not add up to the photo's pixels"),
    ],
)
def test_unusable_outline_is_listed_and_its_label_kept(tables, segmentation, problem):
    content = coco_dict(images=2)
    content["annotations"][1]["segmentation"] = segmentation
    found = tables(content)
    assert found.labels["glass"].tolist() == [0, 1]
    assert math.isnan(found.objects["area_share"].iloc[1])
    assert found.problems.to_dict("records") == [
        {
            "file_name": "batch_1_000001.jpg",
            "source_file": "batch_1/000001.jpg",
            "annotation_id": "101",
            "problem": f"outline left out, label kept: {problem}",
        }
    ]


@pytest.mark.parametrize("size", [(0, 48), (64, 0), (-64, 48), (0.4, 48)])
def test_photo_of_zero_size_is_left_out_and_listed(tables, size):
    content = coco_dict(images=2)
    content["images"][0]["width"], content["images"][0]["height"] = size
    found = tables(content)
    assert found.labels["image_id"].tolist() == [11]
    assert found.objects["file_name"].tolist() == ["batch_1_000001.jpg"]
    assert found.problems["problem"].tolist() == [
        f"photo left out: annotated with an impossible size: {size[0]:g} x {size[1]:g}"
    ]
    assert found.problems["annotation_id"].tolist() == [""]


def test_nothing_but_photos_of_zero_size(tables):
    content = coco_dict(images=2)
    for image in content["images"]:
        image["width"] = 0
    with pytest.raises(
        AnnotationsError, match=r"annotations\.json: every image has an impossible size\. Give each its width"
    ):
        tables(content)


def test_names_written_on_windows_are_found_on_any_system(tables):
    content = coco_dict(images=1)
    content["images"][0]["file_name"] = "batch_1\\a.jpg"
    labels = tables(content).labels
    assert labels[["file_name", "source_file"]].to_numpy().tolist() == [["batch_1_a.jpg", "batch_1/a.jpg"]]


@pytest.mark.parametrize(
    ("annotated", "real", "fits"),
    [
        ((64, 48), (64, 48), True),
        ((64, 48), (640, 480), True),
        ((100, 100), (104, 100), True),
        ((100, 100), (106, 100), False),
        ((100, 100), (100, 106), False),
        ((64, 48), (48, 64), False),
    ],
)
def test_misfit(annotated, real, fits):
    message = misfit(annotated, real)
    assert (message == "") is fits
    if not fits:
        assert message == f"annotated as {annotated[0]} x {annotated[1]}, the upright file is {real[0]} x {real[1]}"


def test_problems_are_sorted_texts():
    frame = problem_frame([problem_row("b", "b", "late", 3), problem_row("a", "a", "early")])
    assert frame["file_name"].tolist() == ["a", "b"]
    assert frame["annotation_id"].tolist() == ["", "3"]
    assert problem_frame([]).columns.tolist() == ["file_name", "source_file", "annotation_id", "problem"]


def test_the_tests_own_dataset_shows_every_material_in_every_batch(tmp_path):
    content = write_dataset(tmp_path, batches=4)
    from tests.factories import DEFAULT_MAPPING, MATERIALS

    mapping = read_mapping(DEFAULT_MAPPING)
    dataset = read_coco(tmp_path / "annotations.json")
    check_covers(mapping, [category["name"] for category in content["categories"]], dataset.path)
    found = tabulate(dataset, mapping)
    batches = found.labels["source_file"].str.split("/").str[0]
    assert (found.labels[list(MATERIALS)].groupby(batches).sum() >= 1).all(axis=None)
    assert found.labels[list(MATERIALS)].sum(axis=1).min() >= 1
    assert found.problems.empty
    assert all((tmp_path / name).is_file() for name in found.labels["source_file"])
