"""Outlines: polygons, run lengths and boxes, judged one by one, clipped, and turned upright."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask

from wastelens.data.annotations.coco import Annotation, Image
from wastelens.data.annotations.outlines import drawn_outline
from wastelens.data.annotations.segmentation import (
    mask_pixels,
    outline,
    polygon_area,
    turned_pixels,
    turned_points,
)

PHOTO = Image(1, "a.jpg", 64, 48)
# pycocotools 2.0.x meets NumPy 2 with an old signature of __array__.
old_array_protocol = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def drawn(segmentation, image=PHOTO):
    raw = segmentation if isinstance(segmentation, bytes) else json.dumps(segmentation).encode()
    return outline(Annotation(1, 1, segmentation=msgspec.Raw(raw)), image)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        (None, "it has no outline"),
        ([], "it has no outline"),
        ("text", "it has no outline"),
        ([[]], "it has no outline"),
        ([[1, 1, 5, 5]], "fewer than three points"),
        ([[1, 1, 5, 1, 5, 5, 6]], "half a point"),
        ([1, 1, 5, 5], "fewer than three points"),
        ([[[1, 1], [5, 5]], [2, 2]], "fewer than three points"),
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


def test_a_mask_of_few_bytes_is_counted_before_it_is_expanded():
    width, height = 20_000, 10_000
    text = mask.frPyObjects({"size": [height, width], "counts": [0, width * height]}, height, width)["counts"].decode()
    assert len(text) < 10
    photo = Image(1, "a.jpg", width, height)
    found = drawn({"size": [height, width], "counts": text}, photo)
    assert found.area_share == 1
    assert mask_pixels(found.rle) is None
    sampled = mask_pixels(found.rle, 100)
    assert sampled.shape == (100, 200)
    assert sampled.all()
    (traced,) = drawn_outline(found, photo, "paper").polygons
    np.testing.assert_allclose(traced.min(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(traced.max(axis=0), 1, atol=0.01)
    turned = drawn({"size": [height, width], "counts": text}, Image(1, "a.jpg", height, width, orientation=6))
    assert "more than 50,000,000 pixels, too many to turn" in turned.problem


def test_sampled_masks_are_every_nth_pixel_of_whole_ones():
    pixels = np.asfortranarray(np.random.default_rng(0).random((31, 47)) < 0.4).astype(np.uint8, order="F")
    rle = mask.encode(pixels)
    for step in (1, 2, 7):
        np.testing.assert_array_equal(mask_pixels(rle, step), pixels[::step, ::step])


# Without a limit on their time, as no test may depend on the clock: quadratic, these would run for minutes.
@pytest.mark.parametrize(
    "counts", ["o" * 1_000_000, "o" * 400_000 + "0" * 400_000, [10**300] * 20_000, "0" * 1_000_000], ids=len
)
def test_long_broken_run_lengths_are_refused_in_linear_time(counts):
    assert "do not add up" in drawn({"size": [48, 64], "counts": counts}).problem


@pytest.mark.parametrize(
    "segmentation",
    [
        [8, 8, 24, 8, 24, 20, 30, 30],
        [[8, 8], [24, 8], [24, 20], [30, 30]],
        [[[8, 8], [24, 8], [24, 20], [30, 30]]],
        [[8, 8, 24, 8, 24, 20, 30, 30], []],
    ],
    ids=["a flat list", "pairs", "pairs in a part", "an empty part"],
)
def test_other_ways_to_write_a_polygon(segmentation):
    found = drawn(segmentation)
    np.testing.assert_array_equal(found.polygons[0], [[8, 8], [24, 8], [24, 20], [30, 30]])
    assert (found.problem, found.left_out, found.is_box) == ("", "", False)


@pytest.mark.parametrize("bad", [[50, 50, 50, 55], [1, 2, 3], [1, 1, 5, 1, 5, None], "text", {"a": 1}])
def test_a_bad_part_of_an_outline_is_left_out_alone(bad):
    for parts in ([[10, 10, 40, 10, 40, 40, 10, 40], bad], [bad, [10, 10, 40, 10, 40, 40, 10, 40]]):
        found = drawn(parts)
        assert found.area_share == pytest.approx(30 * 30 / (64 * 48))
        assert found.left_out.startswith("its polygon ")
        assert (found.problem, len(found.polygons)) == ("", 1)


def boxed(box, segmentation=None, image=PHOTO):
    raw = (msgspec.Raw(json.dumps(part).encode()) for part in (segmentation, box))
    segmentation, box = raw
    return outline(Annotation(1, 1, segmentation=segmentation, bbox=box), image)


@pytest.mark.parametrize("segmentation", [None, [], [[]], {}])
def test_a_box_is_an_outline_where_there_is_no_other(segmentation):
    found = boxed([8, 8, 16, 12], segmentation)
    np.testing.assert_array_equal(found.polygons[0], [[8, 8], [24, 8], [24, 20], [8, 20]])
    assert found.area_share == pytest.approx(16 * 12 / (64 * 48))
    assert (found.problem, found.is_box) == ("", True)


def test_which_outlines_are_boxes():
    drawn_along = [[8, 8, 24, 8, 24, 20, 8, 20]]
    assert not boxed([8, 8, 16, 12], drawn_along).is_box
    assert boxed(None, drawn_along[0]).is_box  # a flat list is what scripts write that turn boxes into polygons
    assert boxed(None, [*drawn_along[0], 8, 8]).is_box
    assert not boxed(None, [8, 8, 24, 8, 24, 20, 8, 21]).is_box
    assert not boxed(None, [8, 8, 24, 20, 24, 8, 8, 20]).is_box


def test_a_box_over_the_edge_is_clipped():
    found = boxed([50, -0.4, 20, 10])
    np.testing.assert_allclose(found.polygons[0].max(axis=0), [64, 9.6])
    assert found.is_box


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ([], "it has no outline"),
        ([1, 2, 3], "it has no outline, and its box is not four numbers: x, y, width, height"),
        ([1, 2, 3, "4"], "it has no outline, and its box is not four numbers: x, y, width, height"),
        ({"x": 1}, "it has no outline, and its box is not four numbers: x, y, width, height"),
        ([1, 2, 3, 0], "it has no outline, and its box covers nothing"),
        ([70, 2, 3, 4], "it has no outline, and its box lies outside the photo"),
    ],
)
def test_bad_boxes(box, problem):
    assert boxed(box).problem == problem


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_and_masks_are_turned_as_pillow_turns_photos(orientation):
    """Point by point and pixel by pixel, against ``exif_transpose``."""
    pixels = np.zeros((6, 10), dtype=np.uint8)
    pixels[1, 2:5] = 1
    photo = PIL.Image.fromarray(pixels)
    photo.getexif()[0x0112] = orientation
    upright = np.asarray(PIL.ImageOps.exif_transpose(photo))
    np.testing.assert_array_equal(turned_pixels(pixels, orientation), upright)
    rows, columns = np.nonzero(pixels)
    points = turned_points(np.stack([(columns + 0.5) / 10, (rows + 0.5) / 6], axis=1), orientation)
    places = np.floor(points * upright.shape[::-1]).astype(int)
    assert sorted(map(tuple, places[:, ::-1])) == sorted(zip(*np.nonzero(upright), strict=True))


@old_array_protocol
@pytest.mark.parametrize("orientation", range(2, 9))
def test_an_outline_on_the_stored_photo_is_turned_with_it(orientation):
    pixels = np.zeros((48, 64), dtype=np.uint8, order="F")
    pixels[10:20, 5:25] = 1
    upright = turned_pixels(pixels, orientation)
    image = Image(1, "a.jpg", *upright.shape[::-1], orientation=orientation)
    polygon = drawn([[5, 10, 25, 10, 25, 20, 5, 20]], image)
    run_length = drawn({"size": [48, 64], "counts": mask.encode(pixels)["counts"].decode()}, image)
    np.testing.assert_array_equal(mask.decode(run_length.rle), upright)
    rows, columns = np.nonzero(upright)
    np.testing.assert_allclose(polygon.polygons[0].min(axis=0), [columns.min(), rows.min()])
    np.testing.assert_allclose(polygon.polygons[0].max(axis=0), [columns.max() + 1, rows.max() + 1])
    assert polygon.area_share == run_length.area_share == pytest.approx(200 / (48 * 64))


def test_no_outline_of_a_photo_that_they_do_not_fit_is_used():
    assert drawn([[8, 8, 24, 8, 24, 20]], Image(1, "a.jpg", 64, 48, misfit="too wide")).problem == "too wide"


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
