"""The built-in sample has TACO's format, true outlines and its shares of materials, and is never half-written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from wastelens.data.annotations.segmentation import polygon_area
from wastelens.data.sample import CATEGORIES, PHOTOS, render_sample, trace
from wastelens.data.sample.plan import LITTER, MATERIALS, plan_sample
from wastelens.data.sample.scenes import draw_scene

MATERIAL_OF = {litter.category: litter.material for litter in LITTER}


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "sample"
    render_sample(folder)
    return folder


@pytest.fixture(scope="session")
def taco(sample: Path) -> dict[str, Any]:
    return dict(json.loads((sample / "annotations.json").read_text(encoding="utf-8")))


def materials_of_photos(taco: dict[str, Any]) -> dict[int, set[str]]:
    shown: dict[int, set[str]] = {image["id"]: set() for image in taco["images"]}
    for annotation in taco["annotations"]:
        shown[annotation["image_id"]].add(MATERIAL_OF[CATEGORIES[annotation["category_id"]][0]])
    return shown


def share(taco: dict[str, Any], material: str) -> float:
    shown = materials_of_photos(taco)
    return sum(material in materials for materials in shown.values()) / len(shown)


def test_annotations_have_the_keys_of_taco(taco: dict[str, Any]) -> None:
    assert set(taco) == {
        "info",
        "images",
        "annotations",
        "scene_annotations",
        "licenses",
        "categories",
        "scene_categories",
    }
    image = {"id", "width", "height", "file_name", "license", "flickr_url", "coco_url", "date_captured"}
    assert all(set(record) == image | {"flickr_640_url"} for record in taco["images"])
    annotation = {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"}
    assert all(set(record) == annotation for record in taco["annotations"])
    assert [record["image_id"] for record in taco["scene_annotations"]] == list(range(PHOTOS))


def test_ids_are_unique(taco: dict[str, Any]) -> None:
    for records in (taco["images"], taco["annotations"], taco["categories"]):
        ids = [record["id"] for record in records]
        assert len(set(ids)) == len(ids)


def test_categories_are_those_of_taco(taco: dict[str, Any]) -> None:
    assert [(record["name"], record["supercategory"]) for record in taco["categories"]] == list(CATEGORIES)
    assert len(CATEGORIES) == len({name for name, _ in CATEGORIES}) == 60
    landmarks = {0: "Aluminium foil", 6: "Glass bottle", 20: "Paper cup", 36: "Plastic film", 59: "Cigarette"}
    assert {place: CATEGORIES[place][0] for place in landmarks} == landmarks
    assert CATEGORIES[39] == ("Other plastic wrapper", "Plastic bag & wrapper")
    assert len({supercategory for _, supercategory in CATEGORIES}) == 28


def test_many_categories_of_all_materials_are_drawn(taco: dict[str, Any]) -> None:
    drawn = Counter(CATEGORIES[record["category_id"]][0] for record in taco["annotations"])
    assert len(drawn) >= 20
    assert set(drawn) <= set(MATERIAL_OF) <= {name for name, _ in CATEGORIES}
    assert {MATERIAL_OF[name] for name in drawn} == set(MATERIALS)
    assert max(drawn.values()) > 8 * min(drawn.values()), "TACO's classes are uneven, and so are these"


def test_every_photo_shows_one_to_five_objects(taco: dict[str, Any]) -> None:
    objects = Counter(record["image_id"] for record in taco["annotations"])
    assert set(objects) == set(range(PHOTOS))
    assert set(objects.values()) == {1, 2, 3, 4, 5}


def test_annotations_show_the_planned_materials(taco: dict[str, Any]) -> None:
    shown = materials_of_photos(taco)
    assert all(shown[plan.photo_id] == set(plan.materials) for plan in plan_sample(0))


@pytest.mark.parametrize(
    ("material", "least", "most"),
    [
        ("plastic", 0.65, 0.85),
        ("glass", 0.05, 0.09),
        ("toxic", 0.15, 0.21),
        ("paper", 0.24, 0.32),
        ("aluminium", 0.23, 0.31),
        ("other_objects", 0.21, 0.29),
    ],
)
def test_shares_of_photos(taco: dict[str, Any], material: str, least: float, most: float) -> None:
    assert least <= share(taco, material) <= most


def test_glass_is_in_enough_batches_to_be_split(taco: dict[str, Any]) -> None:
    shown = materials_of_photos(taco)
    batches = {i["file_name"].split("/")[0] for i in taco["images"] if "glass" in shown[i["id"]]}
    assert len(batches) >= 6


def polygons(taco: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[list[float]]]]:
    for record in taco["annotations"]:
        yield record, record["segmentation"]


def test_polygons_lie_inside_their_photos(taco: dict[str, Any]) -> None:
    sizes = {image["id"]: (image["width"], image["height"]) for image in taco["images"]}
    for record, pieces in polygons(taco):
        points = np.array([value for piece in pieces for value in piece]).reshape(-1, 2)
        assert (points >= 0).all()
        assert (points <= sizes[record["image_id"]]).all()


def test_area_and_bbox_match_the_polygons(taco: dict[str, Any]) -> None:
    for record, pieces in polygons(taco):
        points = np.array([value for piece in pieces for value in piece]).reshape(-1, 2)
        assert record["area"] > 0
        areas = [polygon_area(np.array(piece).reshape(-1, 2)) for piece in pieces]
        assert record["area"] == pytest.approx(sum(areas), abs=0.02)
        assert record["bbox"] == pytest.approx([*points.min(axis=0), *np.ptp(points, axis=0)], abs=0.02)
        assert record["iscrowd"] == 0


def test_polygons_trace_what_is_visible() -> None:
    visible = np.zeros((40, 60), np.uint8)
    visible[10:30, 20:23] = 1
    (polygon,) = trace(visible)
    assert polygon_area(polygon) == pytest.approx(60, rel=0.1)


def test_litter_never_overlaps_in_the_annotations() -> None:
    for plan in plan_sample(0)[::40]:
        scene = draw_scene(plan, 0)
        assert np.sum(scene.visible, axis=0).max() <= 1


def test_files_are_there_with_their_upright_sizes(sample: Path, taco: dict[str, Any]) -> None:
    turned = 0
    for record in taco["images"]:
        with Image.open(sample / record["file_name"]) as photo:
            upright = ImageOps.exif_transpose(photo)
            turned += photo.getexif().get(0x0112, 1) != 1
            assert upright.size == (record["width"], record["height"])
    assert turned >= 5
    assert len(list(sample.rglob("*.jpg"))) == len(taco["images"]) == PHOTOS


def test_turned_photos_show_the_scene_upright(sample: Path) -> None:
    for orientation in (3, 6, 8):
        plan = next(plan for plan in plan_sample(0) if plan.orientation == orientation)
        with Image.open(sample / plan.file_name) as photo:
            upright = np.asarray(ImageOps.exif_transpose(photo), float)
        drawn = draw_scene(plan, 0).pixels_0_255.astype(float)
        # JPEG blurs the grain; a wrong rotation would change the whole scene.
        assert np.abs(upright - drawn).mean() < 0.4 * np.abs(upright[::-1, ::-1] - drawn).mean()


def test_twelve_uneven_batches_numbered_from_zero(taco: dict[str, Any]) -> None:
    sizes = Counter(record["file_name"].split("/")[0] for record in taco["images"])
    assert set(sizes) == {f"batch_{number}" for number in range(1, 13)}
    assert len(set(sizes.values())) > 3
    assert 14 <= min(sizes.values()) < max(sizes.values()) <= 26
    assert taco["images"][0]["file_name"] == "batch_1/000000.jpg"


def test_neighbours_share_a_scene_and_most_materials() -> None:
    plans = plan_sample(0)
    runs = Counter(plan.run for plan in plans)
    assert set(runs.values()) <= {2, 3, 4}
    pairs = list(pairwise(plans))
    differ = {
        same: np.mean([len(set(a.materials) ^ set(b.materials)) for a, b in pairs if (a.run == b.run) == same])
        for same in (True, False)
    }
    assert differ[True] < 0.6 * differ[False]


def test_the_same_seed_draws_the_same_photos() -> None:
    plans = plan_sample(3)
    assert plans == plan_sample(3) != plan_sample(4)
    forwards = [draw_scene(plan, 3).pixels_0_255 for plan in plans[100:104]]
    backwards = [draw_scene(plan, 3).pixels_0_255 for plan in plans[103:99:-1]]
    assert all((a == b).all() for a, b in zip(forwards, backwards[::-1], strict=True))
    assert (draw_scene(plans[100], 4).pixels_0_255 != forwards[0]).any()


class StoppedError(Exception):
    """Raised by a test to stop rendering."""


def test_an_interrupted_rendering_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, photos: int) -> None:
        assert photos == PHOTOS
        if done == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        render_sample(tmp_path / "sample", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_and_repeated_rendering_writes_the_same_bytes(tmp_path: Path, sample: Path) -> None:
    seen: dict[str, bytes] = {}

    def stop(done: int, photos: int) -> None:
        if done == 4:
            unfinished = next(tmp_path.iterdir())
            seen.update((path.name, path.read_bytes()) for path in unfinished.rglob("*.jpg"))
            raise StoppedError

    with pytest.raises(StoppedError):
        render_sample(tmp_path / "sample", progress=stop)
    assert seen == {name: (sample / "batch_1" / name).read_bytes() for name in seen}
    assert len(seen) == 4


def test_a_folder_with_files_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wastelens.data.sample.plan_sample", lambda seed: ())
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OSError, match="not empty"):
        render_sample(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
