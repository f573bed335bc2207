"""COCO files: read whole or refused with one line that names file, record and fix; outlines judged one by one."""

from __future__ import annotations

import codecs
import json
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask
from tests.factories import annotation, coco_dict, write_json

from wastelens.data.annotations.coco import (
    Annotation,
    Image,
    annotations_by_image,
    flat_name,
    image_columns,
    outline,
    polygon_area,
    read_coco,
)
from wastelens.errors import AnnotationsError


def refusal(path):
    with pytest.raises(AnnotationsError) as caught:
        read_coco(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def refusal_of(tmp_path, content):
    return refusal(write_json(tmp_path / "annotations.json", content))


def changed(**parts):
    return {**coco_dict(), **parts}


def test_whole_file_is_read(tmp_path):
    content = coco_dict(images=3, annotations_per_image=2)
    content["annotations"][1]["iscrowd"] = 1
    dataset = read_coco(write_json(tmp_path / "annotations.json", content))
    assert [image.id for image in dataset.images] == [10, 11, 12]
    assert dataset.images[0] == Image(10, "batch_1/000000.jpg", 64, 48)
    assert [one.iscrowd for one in dataset.annotations] == [0, 1, 0, 0, 0, 0]
    assert [category.name for category in dataset.categories] == ["Drink can", "Glass bottle"]
    grouped = {image.id: [one.id for one in found] for image, found in annotations_by_image(dataset)}
    assert grouped == {10: [100, 101], 11: [102, 103], 12: [104, 105]}


def test_what_exporters_write_besides(tmp_path):
    content = coco_dict(images=3)
    for one, crowd in zip(content["annotations"], (True, None, 0), strict=True):
        one["iscrowd"] = crowd
    content["categories"][0].update(name=" Drink can ", supercategory=None)
    path = write_json(tmp_path / "annotations.json", content)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    dataset = read_coco(path)
    assert dataset.categories[0].name == "Drink can"
    assert [bool(one.iscrowd) for one in dataset.annotations] == [True, False, False]
    assert len(image_columns(path)) == 3


def test_photos_without_annotations_are_kept(tmp_path):
    dataset = read_coco(write_json(tmp_path / "annotations.json", changed(annotations=[])))
    assert [found for _, found in annotations_by_image(dataset)] == [[], [], []]


def test_missing_empty_and_folder(tmp_path):
    path = tmp_path / "annotations.json"
    assert "there is no such file. A dataset folder needs annotations.json." in refusal(path)
    for blank in (b"", b" \n\t"):
        path.write_bytes(blank)
        assert "the file is empty. Download or export the annotations again." in refusal(path)
    path.unlink()
    path.mkdir()
    assert "cannot be read (Is a directory). Repair the file or its permissions." in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"not json at all",
        b"<html>404</html>",
        b'{"images": [}',
        b"\xff\xd8\xff\xe0 a photo",
        json.dumps(coco_dict()).encode()[:-1] + b"}}",
        json.dumps(coco_dict()).replace("batch_1", "b\udcffatch").encode(errors="surrogateescape"),
        b'{"info": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_not_json(tmp_path, content):
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    assert re.search(r"not complete JSON \(.+\)\. Download or export the annotations again\.$", refusal(path))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_cut_in_half(tmp_path, share):
    path = tmp_path / "annotations.json"
    whole = json.dumps(coco_dict(images=20)).encode()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "not complete JSON" in refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "Expected 'object', got 'array'"),
        ("text", "Expected 'object', got 'str'"),
        (None, "Expected 'object', got 'null'"),
        ({"annotations": [], "categories": []}, "missing required field 'images'"),
        ({"images": [], "categories": []}, "missing required field 'annotations'"),
        ({"images": [], "annotations": []}, "missing required field 'categories'"),
        (changed(images={}), "Expected 'array', got 'object' - at 'images'"),
        (changed(images=[{"id": 1, "width": 1, "height": 1}]), "field 'file_name' - at 'images[0]'"),
        (
            changed(images=[{"id": "1", "file_name": "a", "width": 1, "height": 1}]),
            "got 'str' - at 'images[0].id'",
        ),
        (
            changed(images=[{"id": 1, "file_name": "a", "width": float("nan"), "height": 1}]),
            "got 'null' - at 'images[0].width'",
        ),
        (changed(annotations=[{"category_id": 0}]), "field 'image_id' - at 'annotations[0]'"),
        (changed(categories=[{"id": 0}]), "field 'name' - at 'categories[0]'"),
    ],
)
def test_json_that_is_not_coco(tmp_path, content, reason):
    message = refusal_of(tmp_path, content)
    assert "not a COCO file: " in message
    assert reason in message
    assert message.endswith("It needs 'images', 'annotations' and 'categories' as TACO has them.")


def test_no_images(tmp_path):
    message = refusal_of(tmp_path, {"images": [], "annotations": [], "categories": []})
    assert "'images' is empty. Give annotations of at least one photo." in message


@pytest.mark.parametrize(("kind", "key", "twice"), [("image", "images", 11), ("category", "categories", 1)])
def test_ids_that_occur_twice(tmp_path, kind, key, twice):
    content = coco_dict()
    content[key].append(dict(content[key][1], file_name="other.jpg"))
    message = refusal_of(tmp_path, content)
    assert message.endswith(f"{kind} id {twice} occurs twice. Give every {kind} an id of its own.")


@pytest.mark.parametrize(("kind", "image", "category"), [("image", 99, 0), ("category", 10, 99)])
def test_annotations_of_unknown_things(tmp_path, kind, image, category):
    content = changed(annotations=[annotation(100, 10, 0), annotation(7, image, category)])
    message = refusal_of(tmp_path, content)
    assert message.endswith(f"annotation 7 is of unknown {kind} 99. Add that {kind} or remove the annotation.")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.jpg",
        "batch_1/../../secret.jpg",
        "batch_1/..",
        "/etc/passwd",
        "//server/share/a.jpg",
        "..\\secret.jpg",
        "batch_1\\..\\..\\secret.jpg",
        "\\\\server\\share\\a.jpg",
        "C:\\photos\\a.jpg",
        "c:a.jpg",
        "a\0.jpg",
        "",
        "  ",
        ".",
        "./",
    ],
)
def test_names_that_leave_the_folder(tmp_path, name):
    content = coco_dict()
    content["images"][1]["file_name"] = name
    message = refusal_of(tmp_path, content)
    assert "image 11 has file_name '" in message
    assert message.endswith("leaves the dataset's folder. Use a path below it, like 'batch_1/000006.jpg'.")


@pytest.mark.parametrize("name", ["a..b.jpg", "...jpg", "batch 1/ü.jpg", "a/b/c/d.jpg", "batch_1\\a.jpg", "./a.jpg"])
def test_names_that_stay_below(tmp_path, name):
    content = coco_dict()
    content["images"][1]["file_name"] = name
    assert read_coco(write_json(tmp_path / "annotations.json", content)).images[1].file_name == name


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("batch_1/000006.jpg", "batch_1_000006.jpg"),
        ("batch_1\\000006.jpg", "batch_1_000006.jpg"),
        ("./a//b.jpg", "a_b.jpg"),
        ("a.jpg", "a.jpg"),
    ],
)
def test_flat_name(name, flat):
    assert flat_name(name) == flat


@pytest.mark.parametrize(
    ("one", "other"), [("a/b_c.jpg", "a_b/c.jpg"), ("a/b.jpg", "a\\b.jpg"), ("a.jpg", "./a.jpg"), ("a.jpg", "a.jpg")]
)
def test_two_photos_of_one_flat_name(tmp_path, one, other):
    content = coco_dict()
    content["images"][0]["file_name"], content["images"][2]["file_name"] = one, other
    message = refusal_of(tmp_path, content)
    assert message.endswith(f"'{one}' and '{other}' both become '{flat_name(one)}'. Rename one of them.")


def test_nan_and_infinity_of_pythons_writer_are_read_and_texts_left_alone(tmp_path):
    content = coco_dict()
    content["annotations"][0]["segmentation"] = [[float("nan"), 1, float("-inf"), 2, 3, 4]]
    content["annotations"][1]["area"] = float("inf")
    content["images"][0]["file_name"] = 'a NaN , "Infinity] NaN ].jpg'
    content["images"][0]["group"] = "[NaN]"
    path = write_json(tmp_path / "annotations.json", content)
    dataset = read_coco(path)
    assert dataset.images[0].file_name == content["images"][0]["file_name"]
    assert "not a finite number" in outline(dataset.annotations[0], dataset.images[0]).problem
    columns = image_columns(path)
    assert columns[0]["group"] == "[NaN]"
    assert [row["id"] for row in columns] == [10, 11, 12]


PHOTO = Image(1, "a.jpg", 64, 48)


def drawn(segmentation, image=PHOTO):
    raw = segmentation if isinstance(segmentation, bytes) else json.dumps(segmentation).encode()
    return outline(Annotation(1, 1, segmentation=msgspec.Raw(raw)), image)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        (None, "it has no outline"),
        ([], "it has no outline"),
        ("text", "it has no outline"),
        ([[]], "fewer than three points"),
        ([[1, 1, 5, 5]], "fewer than three points"),
        ([[1, 1, 5, 1, 5, 5, 6]], "half a point"),
        ([1, 1, 5, 1, 5, 5], "fewer than three points"),
        ([[1, 1, 5, 1, 5, 5], [2, 2]], "fewer than three points"),
        ([[1, 1, 5, 1, 5, None]], "not a finite number"),
        ([[1, 1, 5, 1, 5, "6"]], "not a finite number"),
        ([[10**400, 1, 5, 1, 5, 5]], "not a finite number"),
        (b"[[1e999, 1, 5, 1, 5, 5]]", "cannot be read"),
        (b'"\xff"', "cannot be read"),
        ([[70, 1, 90, 1, 90, 40]], "lies outside the photo"),
        ([[-9, -9, -1, -9, -1, -1]], "lies outside the photo"),
        ([[5, 5, 5, 5, 5, 5]], "covers nothing"),
        ({"size": [48, 64]}, "has no counts"),
        ({"size": [48, 64], "counts": ""}, "has no counts"),
        ({"size": [64, 48], "counts": [64 * 48]}, "size [64, 48], the photo has [48, 64]"),
        ({"counts": [64 * 48]}, "size None"),
        ({"size": [48, 64], "counts": [5, 5]}, "do not add up"),
        ({"size": [48, 64], "counts": [-1, 64 * 48 + 1]}, "do not add up"),
        ({"size": [48, 64], "counts": [0.5, 64 * 48 - 0.5]}, "do not add up"),
        ({"size": [48, 64], "counts": [64 * 48]}, "covers nothing"),
        ({"size": [48, 64], "counts": "zzzz"}, "do not add up"),
        ({"size": [48, 64], "counts": 5}, "has no counts"),
        ({"size": [48, 64], "counts": "PP"}, "do not add up"),
        ({"size": [48, 64], "counts": "\x01é"}, "do not add up"),
    ],
)
def test_broken_outlines_come_back_with_their_problem(segmentation, problem):
    found = drawn(segmentation)
    assert problem in found.problem
    assert (found.polygons, found.rle, found.area_share) == ((), None, 0.0)


def test_run_lengths_of_an_impossibly_large_mask_are_not_decoded():
    counts = [0, 60_000 * 60_000]
    found = drawn({"size": [60_000, 60_000], "counts": counts}, Image(1, "a.jpg", 60_000, 60_000))
    assert "3,600,000,000 pixels, more than any photo" in found.problem


def test_outline_without_segmentation():
    assert outline(Annotation(1, 1), PHOTO).problem == "it has no outline"


def test_polygon_and_several_parts():
    found = drawn([[0, 0, 32, 0, 32, 24, 0, 24], [40, 30, 60, 30, 60, 40]])
    assert found.problem == ""
    assert found.area_share == pytest.approx((32 * 24 + 20 * 10 / 2) / (64 * 48))
    assert [polygon.shape for polygon in found.polygons] == [(4, 2), (3, 2)]


def test_polygon_over_the_edge_counts_what_is_inside():
    assert drawn([[-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6]]).area_share == pytest.approx(1)
    corner = drawn([[-48, 24, 24, -48, 24, 24]])  # over the upper left corner, of which it covers 24 x 24
    assert corner.area_share == pytest.approx(24 * 24 / (64 * 48))
    partly = drawn([[-50, 0, -10, 0, -10, 20, -50, 20], [0, 0, 10, 0, 10, 10]])
    assert (len(partly.polygons), partly.problem) == (1, "")


# pycocotools 2.0.x meets NumPy 2 with an old signature of __array__.
old_array_protocol = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def binary_masks():
    """Masks of 12 x 12 pixels."""
    bits = st.binary(min_size=18, max_size=18)
    return bits.map(lambda raw: np.asfortranarray(np.unpackbits(np.frombuffer(raw, np.uint8)).reshape(12, 12)))


def run_lengths(pixels):
    """COCO's uncompressed counts: column by column, starting with zeros."""
    counts, value = [0], 0
    for pixel in pixels.ravel(order="F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@old_array_protocol
@given(binary_masks())
def test_run_lengths_in_both_forms_equal_pycocotools_area(pixels):
    image = Image(1, "a.jpg", 12, 12)
    compressed = mask.encode(pixels)
    area = int(mask.area(compressed))
    assert area == pixels.sum()
    texts = {"size": [12, 12], "counts": compressed["counts"].decode()}
    lists = {"size": [12, 12], "counts": run_lengths(pixels)}
    for found in (drawn(texts, image), drawn(lists, image)):
        assert found.area_share == pytest.approx(area / 144)
        assert (found.problem == "") == (area > 0)
        if area:
            np.testing.assert_array_equal(mask.decode(found.rle), pixels)


@old_array_protocol
@given(binary_masks(), st.data())
def test_damaged_run_lengths_never_reach_pycocotools(pixels, data):
    text = list(mask.encode(pixels)["counts"].decode())
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.characters(min_codepoint=1, max_codepoint=300, exclude_categories=["Cs"]))
    found = drawn({"size": [12, 12], "counts": "".join(text)}, Image(1, "a.jpg", 12, 12))
    if not found.problem:
        assert found.area_share == pytest.approx(mask.decode(found.rle).sum() / 144)


def test_run_lengths_of_a_large_mask():
    rng = np.random.default_rng(0)
    pixels = np.zeros((700, 900), dtype=np.uint8, order="F")
    pixels[100:600, 50:800] = rng.random((500, 750)) < 0.5
    pixels[:90] = 1
    found = drawn({"size": [700, 900], "counts": mask.encode(pixels)["counts"].decode()}, Image(1, "a", 900, 700))
    assert found.area_share == pytest.approx(pixels.mean())


def star_polygons():
    """Simple polygons around (50, 50): a radius in each direction of a fan."""
    radii = st.lists(st.floats(5, 48), min_size=3, max_size=12)
    return radii.map(
        lambda radii: np.array(
            [
                (50 + r * np.cos(2 * np.pi * k / len(radii)), 50 + r * np.sin(2 * np.pi * k / len(radii)))
                for k, r in enumerate(radii)
            ]
        )
    )


@given(star_polygons())
def test_area_is_the_sum_of_the_fans_triangles(polygon):
    a, b = polygon - 50, np.roll(polygon, -1, axis=0) - 50
    triangles = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert polygon_area(polygon) == pytest.approx(triangles.sum())
    assert polygon_area(polygon[::-1]) == pytest.approx(polygon_area(polygon))


def inside(points, polygon):
    """Which points lie in the polygon, by counting its edges to the right of each."""
    x, y = points[:, :1], points[:, 1:]
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return crossing.sum(axis=1) % 2 == 1


@settings(max_examples=40)
@given(star_polygons(), st.integers(-60, 60), st.integers(-60, 60))
def test_share_equals_rasterising_what_is_inside_the_photo(polygon, right, down):
    moved = polygon + np.array([right, down])
    grid = np.arange(0.5, 100)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    found = drawn([moved.ravel().tolist()], Image(1, "a.jpg", 100, 100))
    assert found.area_share == pytest.approx(inside(points, moved).mean(), abs=0.02)
    for part in found.polygons:
        assert part.min() >= -1e-9
        assert part.max() <= 100 + 1e-9


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_any_segmentation_is_drawn_or_has_a_problem(segmentation):
    found = drawn(segmentation if "NaN" not in json.dumps(segmentation) else None)
    assert bool(found.problem) != bool(found.area_share)


@settings(max_examples=50)
@given(st.data())
def test_any_changed_file_is_read_or_refused_in_one_line(tmp_path_factory, data):
    content = coco_dict()
    section = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    record = content[section][0]
    key = data.draw(st.sampled_from(list(record)))
    record[key] = data.draw(JSON)
    path = write_json(tmp_path_factory.getbasetemp() / "changed.json", content)
    try:
        dataset = read_coco(path)
    except AnnotationsError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        for image, found in annotations_by_image(dataset):
            for one in found:
                if image.width > 0 and image.height > 0:
                    outline(one, image)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(raw)
    with pytest.raises(AnnotationsError):
        read_coco(path)
