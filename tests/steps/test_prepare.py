"""The step ``prepare`` on small data: what it writes, what it refuses, and that it leaves nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.factories import config, image_bytes, write_dataset, write_json, write_mapping, write_photo
from tests.memory_tracking import MemoryTracker

from wastelens.data.annotations.materials import read_mapping
from wastelens.data.photos.cache import PhotoCache
from wastelens.data.prepared.dataset import SplitTables, draft, load_prepared, manifest_digest
from wastelens.data.prepared.opening import open_dataset
from wastelens.data.prepared.tables import TestTable, TrainTable, ValTable
from wastelens.errors import DatasetError, InputError, MappingError, PreparedDatasetError
from wastelens.explain.page.shown_photos import ShownPhotos
from wastelens.preparing.balance import oversample
from wastelens.preparing.relabel import relabelled
from wastelens.preparing.stages import balance
from wastelens.steps import prepare
from wastelens.system import files as folder_lock
from wastelens.system.digests import file_digest

SMALL = "image_side_px=32 workers=2"


def prepared(
    tmp_path: Path, dataset: Path, settings: str = "", *, draws: bool = False
) -> tuple[prepare.Prepared, MemoryTracker]:
    tracker = MemoryTracker(draws=draws)
    chosen = config("prepare", f"{SMALL} data_folder={tmp_path / 'data'} {settings}", dataset=str(dataset))
    return prepare.run(chosen, tracker), tracker


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "litter")
    return tmp_path / "litter"


def edit(dataset: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((dataset / "annotations.json").read_text())
    change(content)
    write_json(dataset / "annotations.json", content)


def test_writes_the_prepared_dataset(tmp_path: Path, dataset: Path) -> None:
    result, tracker = prepared(tmp_path, dataset, draws=True)
    folder = tmp_path / "data" / "prepared" / "litter"
    labels = pd.read_csv(folder / "labels.csv")
    assert list(labels.columns) == [
        *("file_name", "image_id", "source_file", "width", "height"),
        *("plastic", "aluminium", "paper", "glass", "other_objects", "toxic"),
        *("group", "split"),
    ]
    assert len(labels) == 60
    assert set(labels["split"]) == {"train", "val", "test"}
    assert labels.groupby("group")["split"].nunique().max() == 1
    balanced = pd.read_csv(folder / "train_balanced.csv")
    assert set(balanced["file_name"]) == set(labels.loc[labels["split"] == "train", "file_name"])
    counts = balanced[list(result.dataset.materials)].sum()
    assert counts.min() >= 0.7 * counts.max()
    assert np.load(folder / "photos_32px.npy").shape == (60, 32, 32, 3)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"]["photos"] == 60
    assert {"labels.csv", "train_balanced.csv", "problems.csv", "photos_32px.npy"} <= set(manifest["files"])
    run = tracker.runs[0]
    assert run.status == "FINISHED"
    assert run.metrics["controls/neighbours_macro_ap"] >= 0
    assert run.datasets[0]["name"] == "litter"
    assert {"contact_sheet.png", "photos_per_material.png", "object_size.png"} <= {
        path.name for path in (run.folder / "sight").iterdir()
    }
    assert run.tags["dataset_digest"] == manifest["digest"]


def test_datasets_of_other_settings_stand_beside_each_other(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = prepared(tmp_path, dataset)
    capsys.readouterr()
    other, tracker = prepared(tmp_path, dataset, "name=small image_side_px=16")
    said = " ".join(capsys.readouterr().out.split())
    assert "will be replaced" not in said
    assert "train --env-manager local -P dataset=small" in said
    assert tracker.runs[0].name == "prepare small"
    opened = [open_dataset(name, tmp_path / "data") for name in (str(dataset), "small")]
    assert [one.digest for one in opened] == [first.dataset.digest, other.dataset.digest]
    assert [one.photos.shape[1] for one in opened] == [32, 16]
    assert [one.name for one in opened] == ["litter", "small"]


def test_a_dataset_of_another_size_is_not_replaced_without_a_word(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(tmp_path, dataset)
    prepared(tmp_path, dataset, "image_side_px=16")
    said = " ".join(capsys.readouterr().out.split())
    assert "has photos of 32 px and will be replaced" in said
    assert "give name=NAME" in said


@pytest.mark.parametrize("name", ["../up", "a b", ".hidden", "a/b", "x" * 65])
def test_names_that_no_folder_should_have(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        config("prepare", name=name)


def test_cache_row_is_the_label_row(tmp_path: Path, dataset: Path) -> None:
    from wastelens.data.photos.decode import decode

    result, _ = prepared(tmp_path, dataset)
    for row in (0, 17, 59):
        record = result.dataset.frame.iloc[row]
        alone = decode((dataset / record["source_file"]).read_bytes(), 32).pixels_0_255
        assert np.array_equal(result.dataset.photos[row], alone)


def test_same_seed_and_shuffled_json_give_the_same_dataset(tmp_path: Path, dataset: Path) -> None:
    def shuffle(content: dict[str, Any]) -> None:
        content["images"].reverse()
        content["annotations"].reverse()
        content["categories"].reverse()

    edit(dataset, lambda content: [one.pop("id") for one in content["annotations"]])
    first, _ = prepared(tmp_path, dataset)
    files = dict(first.dataset.manifest["files"])
    edit(dataset, shuffle)
    second, _ = prepared(tmp_path, dataset)
    assert second.dataset.manifest["files"] == files


def test_folds_hold_each_photo_in_test_once(tmp_path: Path, dataset: Path) -> None:
    result, _ = prepared(tmp_path, dataset, "folds=4")
    folds = pd.read_csv(result.dataset.folder / "folds.csv")
    in_test = (folds.filter(like="fold_") == "test").sum(axis=1)
    assert (in_test == 1).all()
    tables = result.dataset.split(2)
    assert len(tables.train) + len(tables.val) + len(tables.test) == 60
    balanced = result.dataset.balanced_train(2)
    pd.testing.assert_frame_equal(balanced.frame, oversample(tables.train, 0.7, "auto").table.frame)
    assert set(result.dataset.controls(2)["file_name"]) == set(tables.val.file_names) | set(tables.test.file_names)


def test_group_by_a_column_of_the_images(tmp_path: Path, dataset: Path) -> None:
    def add(content: dict[str, Any]) -> None:
        for number, image in enumerate(content["images"]):
            image["camera"] = "NA" if number % 12 == 0 else f"camera {number % 12}"

    edit(dataset, add)
    result, _ = prepared(tmp_path, dataset, "group_by=camera")
    assert set(result.dataset.frame["group"]) == {"NA", *(f"camera {number}" for number in range(1, 12))}


def test_bad_photos_are_left_out_listed_and_counted(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "batch_1" / "000000.jpg").unlink()
    (dataset / "batch_2" / "000001.jpg").write_text("not a photo")
    whole = (dataset / "batch_3" / "000002.jpg").read_bytes()
    (dataset / "batch_3" / "000002.jpg").write_bytes(whole[: len(whole) // 2])
    (dataset / "batch_4" / "000003.jpg").unlink()
    (dataset / "batch_4" / "000003.jpg").mkdir()
    result, tracker = prepared(tmp_path, dataset)
    problems = pd.read_csv(result.dataset.folder / "problems.csv").set_index("file_name")["problem"]
    assert problems["batch_1_000000.jpg"] == "photo left out: missing"
    assert problems["batch_2_000001.jpg"] == "photo left out: not an image"
    assert "damaged image file" in problems["batch_3_000002.jpg"]
    assert "a folder, not a file" in problems["batch_4_000003.jpg"]
    assert len(result.dataset.frame) == 56
    objects = pd.read_csv(result.dataset.folder / "objects.csv")
    assert set(objects["file_name"]) == set(result.dataset.frame["file_name"]), "objects of photos that were left out"
    assert tracker.runs[0].metrics["objects"] == len(objects)
    assert tracker.runs[0].metrics["photos/left_out"] == 4
    assert "4 photos were left out" in capsys.readouterr().out


def test_broken_outlines_are_listed_and_their_labels_kept(tmp_path: Path, dataset: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = [[1.0, 2.0, 3.0, 4.0]]
        content["annotations"][1]["segmentation"] = [[float("nan")] * 6]
        content["annotations"][2]["segmentation"] = [[900.0, 900, 950, 900, 950, 950]]

    before, _ = prepared(tmp_path, dataset)
    labels = before.dataset.frame.drop(columns=["group", "split"])
    edit(dataset, spoil)
    after, _ = prepared(tmp_path, dataset)
    problems = pd.read_csv(after.dataset.folder / "problems.csv")
    assert len(problems) == 3
    assert problems["problem"].str.startswith("outline left out, label kept").all()
    pd.testing.assert_frame_equal(after.dataset.frame.drop(columns=["group", "split"]), labels)


def test_zero_sized_photo_is_left_out(tmp_path: Path, dataset: Path) -> None:
    edit(dataset, lambda content: content["images"][0].update(width=0))
    result, _ = prepared(tmp_path, dataset)
    problems = pd.read_csv(result.dataset.folder / "problems.csv")
    assert problems["problem"].tolist() == ["photo left out: annotated with an impossible size: 0 x 48"]
    assert result.dataset.manifest["counts"]["photos_left_out"] == 1


def only(content: dict[str, Any], *materials: str) -> list[dict[str, Any]]:
    """The annotations of some materials, in the dataset of `write_dataset`."""
    material_of = {category["id"]: category["supercategory"] for category in content["categories"]}
    return [one for one in content["annotations"] if material_of[one["category_id"]] in materials]


def test_materials_that_no_object_has_are_left_out_and_that_is_said(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unused(content: dict[str, Any]) -> None:
        content["annotations"] = only(content, "plastic", "glass")
        content["categories"].append({"id": 99, "name": "litter"})

    edit(dataset, unused)
    result, _ = prepared(tmp_path, dataset)
    assert result.dataset.materials == ("plastic", "glass")
    assert set(read_mapping(result.dataset.folder / "materials.csv").material_of.values()) == {"plastic", "glass"}
    said = " ".join(capsys.readouterr().out.split())
    assert "Categories that no annotated object has, and so need no material: litter." in said
    assert "Materials that no annotated object has are left out: aluminium, paper, other_objects, toxic." in said
    assert len(result.dataset.outlines().of(str(result.dataset.frame["file_name"].iloc[0]))) > 0


def test_boxes_are_marked_and_turned_photos_and_misfits_are_told(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(content: dict[str, Any]) -> None:
        for one in content["annotations"][::2]:
            one["segmentation"] = []
        content["images"][1].update(width=48)
        for image in content["images"][2:]:
            del image["width"], image["height"]

    before, _ = prepared(tmp_path, dataset)
    assert "is_box" not in pd.read_csv(before.dataset.folder / "objects.csv").columns
    edit(dataset, spoil)
    for name in ("batch_1/000002.jpg", "batch_1/000003.jpg"):
        with Image.open(dataset / name) as photo:
            exif = photo.getexif()
            exif[0x0112] = 3
            photo.save(dataset / name, exif=exif)
    capsys.readouterr()
    result, _ = prepared(tmp_path, dataset)
    objects = pd.read_csv(result.dataset.folder / "objects.csv")
    is_misfit = objects["file_name"] == "batch_1_000001.jpg"
    assert objects["is_box"].equals((objects["annotation_id"] % 2).where(~is_misfit, 0))  # ids begin with 1
    assert objects["area_share"].isna().equals(is_misfit)
    said = " ".join(capsys.readouterr().out.split())
    assert "Photos that an EXIF orientation turns or mirrors: 2 of 60" in said
    assert "cannot be known for 2 of them (the first, batch_1/000002.jpg): taken as outlines_frame=upright" in said
    assert "Photos whose outlines do not fit them: 1 (the first, batch_1/000001.jpg: annotated as 48 x 48" in said
    outlines = result.dataset.outlines()
    assert outlines.of("batch_1_000001.jpg") == []
    kept = [one for name in objects["file_name"].unique() for one, _ in outlines.of(name)]
    assert sum(one.is_box for one in kept) == objects["is_box"][~is_misfit].sum()
    assert result.dataset.manifest["settings"]["outlines_frame"] == "upright"


BAD_INPUT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "annotations missing": (lambda d: (d / "annotations.json").unlink(), "", r"has no annotations\.json"),
    "annotations empty": (lambda d: (d / "annotations.json").write_text(""), "", "the file is empty"),
    "annotations cut in half": (
        lambda d: (d / "annotations.json").write_bytes((d / "annotations.json").read_bytes()[:5000]),
        "",
        "not complete JSON",
    ),
    "a list": (lambda d: (d / "annotations.json").write_text("[]"), "", "holds a list. A COCO file is an object"),
    "without images": (lambda d: edit(d, lambda c: c.pop("images")), "", "has no 'images'. A COCO file"),
    "no images": (lambda d: edit(d, lambda c: c.update(images=[], annotations=[])), "", "'images' is empty"),
    "duplicate image id": (lambda d: edit(d, lambda c: c["images"][1].update(id=1)), "", "image id 1 occurs twice"),
    "unknown image": (
        lambda d: edit(d, lambda c: c["annotations"][0].update(image_id=9999)),
        "",
        "annotation 1 is of unknown image 9999",
    ),
    "unknown category": (
        lambda d: edit(d, lambda c: c["annotations"][0].update(category_id=99)),
        "",
        "annotation 1 is of unknown category 99",
    ),
    "category without material": (
        lambda d: edit(d, lambda c: c["categories"][0].update(name="Anvil")),
        "",
        r"category 'Anvil' has no material in .*default\.csv\. Write a mapping of your own with: wastelens materials",
    ),
    "path that leaves the folder": (
        lambda d: edit(d, lambda c: c["images"][0].update(file_name="../secret.jpg")),
        "",
        r"image 1 has file_name '\.\./secret\.jpg', which leaves",
    ),
    "flat names collide": (
        lambda d: edit(d, lambda c: c["images"][0].update(file_name="batch/1_000001.jpg")),
        "",
        r"both become 'batch_1_000001\.jpg'",
    ),
    "no photo at all": (
        lambda d: [shutil.rmtree(folder) for folder in d.glob("batch_*")],
        "",
        "None of the 60 photos",
    ),
    "too many problems": (
        lambda d: [shutil.rmtree(d / f"batch_{n}") for n in range(1, 6)],
        "",
        r"25 of 60 photos \(41\.7%\) cannot be used, more than max_problem_share=0\.3: 25 missing",
    ),
    "unknown mapping": (lambda d: None, "materials=defautl", "no material mapping 'defautl'. Did you mean 'default'"),
    "unknown column": (lambda d: None, "group_by=camera", "camera"),
    "a cap without a solution": (lambda d: None, "max_copies=1 balance_target=1", "max_copies"),
    "a single material": (
        lambda d: edit(d, lambda c: c.update(annotations=only(c, "glass"))),
        "",
        "the annotated objects are of only glass, but at least two materials are needed",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_stops_with_one_line_and_leaves_nothing(tmp_path: Path, dataset: Path, case: str) -> None:
    spoil, settings, message = BAD_INPUT[case]
    spoil(dataset)
    with pytest.raises(InputError, match=message) as caught:
        prepared(tmp_path, dataset, settings)
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_two_prepares_of_one_dataset_do_not_mix(tmp_path: Path, dataset: Path) -> None:
    with draft(tmp_path / "data" / "prepared" / "litter") as writing:
        (writing / "mine").write_text("half of it")
        with pytest.raises(InputError, match="Another run is writing"):
            prepared(tmp_path, dataset)
        assert (writing / "mine").read_text() == "half of it"


def test_a_draft_that_was_published_while_another_waited_is_not_written(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "data" / "prepared"
    lock = folder_lock.fcntl.flock

    def publish_first(handle: int, kind: int) -> None:
        (place / ".litter.unfinished").rename(place / "litter")
        lock(handle, kind)

    monkeypatch.setattr(folder_lock.fcntl, "flock", publish_first)
    with pytest.raises(InputError, match="Another run is writing"):
        prepared(tmp_path, dataset)
    assert list((place / "litter").iterdir()) == []


def test_a_fold_that_cannot_be_balanced_is_named(tmp_path: Path, dataset: Path) -> None:
    labels = [(1, 0)] * 8 + [(0, 1)] * 4

    def tables(train: list[tuple[int, int]]) -> SplitTables:
        frame = pd.DataFrame(train, columns=["a", "b"]).assign(file_name=[str(n) for n in range(len(train))])
        return SplitTables(*(table(frame, ("a", "b")) for table in (TrainTable, ValTable, TestTable)))

    chosen = config("prepare", "max_copies=2")
    assert [one.most_copies for one in balance([tables(labels)] * 2, chosen)] == [2, 2]
    with pytest.raises(InputError, match=r"^Fold 1: .*max_copies"):
        balance([tables(labels), tables(labels[:9])], chosen)


@pytest.mark.parametrize(("before", "after"), [("", "max_megapixels=0.001"), ("max_megapixels=0.001", "")])
def test_the_largest_photo_allowed_holds_for_cached_photos_too(
    tmp_path: Path, dataset: Path, before: str, after: str
) -> None:
    outcomes = []
    for settings in (before, after):
        try:
            outcomes.append(len(prepared(tmp_path, dataset, settings)[0].dataset.frame))
        except InputError:
            outcomes.append(0)
    assert outcomes == ([60, 0] if after else [0, 60])


def test_bad_input_keeps_the_earlier_dataset(tmp_path: Path, dataset: Path) -> None:
    first, _ = prepared(tmp_path, dataset)
    with pytest.raises(InputError):
        prepared(tmp_path, dataset, "max_copies=1 balance_target=1")
    assert load_prepared(first.dataset.folder).digest == first.dataset.digest
    assert [path.name for path in first.dataset.folder.parent.iterdir()] == ["litter"]


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wastelens.data.photos import cache as photo_cache

    decoded = []
    original = photo_cache.decode

    def killed_at_forty(*arguments: Any) -> Any:
        if len(decoded) == 40:
            raise KeyboardInterrupt
        decoded.append(1)
        return original(*arguments)

    monkeypatch.setattr(photo_cache, "decode", killed_at_forty)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, dataset, "workers=1")
    monkeypatch.setattr(photo_cache, "decode", lambda *arguments: (decoded.append(1), original(*arguments))[1])
    result, _ = prepared(tmp_path, dataset, "workers=1")
    assert len(result.dataset.frame) == 60
    assert len(decoded) == 60


def test_unchanged_photos_are_not_decoded_again(tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, dataset)
    calls = []
    original = PhotoCache._decode

    def counted(self: PhotoCache, sources: Any, rows: list[int], *rest: Any) -> Any:
        calls.append(len(rows))
        return original(self, sources, rows, *rest)

    monkeypatch.setattr(PhotoCache, "_decode", counted)
    prepared(tmp_path, dataset, "materials=default seed=3")
    assert calls == [0]


def test_a_cache_changed_behind_its_manifest_is_refused(tmp_path: Path, dataset: Path) -> None:
    result, _ = prepared(tmp_path, dataset)
    path = result.dataset.folder / "photos_32px.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PreparedDatasetError, match=r"photos_32px\.npy has changed since it was prepared"):
        load_prepared(result.dataset.folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"files": 3}', "no json"])
def test_a_broken_manifest_is_refused(tmp_path: Path, dataset: Path, content: str) -> None:
    result, _ = prepared(tmp_path, dataset)
    (result.dataset.folder / "manifest.json").write_text(content)
    with pytest.raises(PreparedDatasetError, match="Run prepare again"):
        load_prepared(result.dataset.folder)


def test_a_lowered_bar_in_the_manifest_is_refused(tmp_path: Path, dataset: Path) -> None:
    result, _ = prepared(tmp_path, dataset)
    path = result.dataset.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["control_macro_ap"] = [{"random": 0.0}]
    path.write_text(json.dumps(manifest))
    with pytest.raises(PreparedDatasetError, match="was changed"):
        load_prepared(result.dataset.folder)


@pytest.mark.slow
def test_a_changed_cache_is_not_taken_over(tmp_path: Path, dataset: Path) -> None:
    first, _ = prepared(tmp_path, dataset)
    path = first.dataset.folder / "photos_32px.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2000] + bytes(2000))
    prepared(tmp_path, dataset)
    assert path.read_bytes() == whole


def test_what_another_size_left_in_the_draft_does_not_move_in(tmp_path: Path, dataset: Path) -> None:
    draft = tmp_path / "data" / "prepared" / ".litter.unfinished"
    draft.mkdir(parents=True)
    (draft / "photos_48px.npy").write_bytes(b"left over")
    (draft / "photos_48px.jsonl").write_text("left over")
    result, _ = prepared(tmp_path, dataset)
    assert not list(result.dataset.folder.glob("*48px*"))


def test_a_file_in_the_place_of_the_folder_is_kept(tmp_path: Path, dataset: Path) -> None:
    place = tmp_path / "data" / "prepared" / "litter"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    with pytest.raises(InputError, match="is a file, but the prepared dataset should go there"):
        prepared(tmp_path, dataset)
    assert place.read_text() == "mine"


@pytest.mark.parametrize("letter", ["A", "x"])  # the first photo, and the last
def test_a_name_too_long_for_the_disk_is_a_missing_photo(tmp_path: Path, dataset: Path, letter: str) -> None:
    edit(dataset, lambda content: content["images"][0].update(file_name=letter * 300 + ".jpg"))
    result, _ = prepared(tmp_path, dataset)
    assert len(result.dataset.frame) == 59


def test_own_materials_flow_through(tmp_path: Path, dataset: Path) -> None:
    from tests.factories import default_mapping, write_mapping

    coarse = [(name, "hollow" if "o" in name else "flat") for name in default_mapping()]
    mapping = write_mapping(tmp_path / "own.csv", coarse)
    result, _ = prepared(tmp_path, dataset, f"materials={mapping}")
    assert set(result.dataset.materials) == {"hollow", "flat"}
    assert {"hollow", "flat"} <= set(result.dataset.frame.columns)


# ── Layouts other than TACO's ────────────────────────────────────────────────────────────────────────────────────

CLASSES = {"glass": "glass", "can": "aluminium", "box": "paper"}
MATERIALS_OF_CLASSES = ("aluminium", "paper", "glass")  # in the order of the mapping


def own_mapping(folder: Path) -> Path:
    rows = [("can", "aluminium"), ("box", "paper"), ("bottle", "glass"), ("paint", "toxic")]
    return write_mapping(folder / "own.csv", rows)


def write_class_folders(folder: Path, photos: int = 12) -> Path:
    for number, name in enumerate(CLASSES):
        for photo in range(photos):
            write_photo(folder / name / f"{name}{photo}.jpg", seed=100 * number + photo)
    return folder


def write_label_table(folder: Path) -> Path:
    names = [path.relative_to(folder).as_posix() for path in sorted(write_class_folders(folder).rglob("*.jpg"))]
    rows = [f"{name},{name.split('/')[0] if number else ''}\n" for number, name in enumerate(names)]
    (folder / "labels.csv").write_text("file_name,labels\n" + "".join(rows), encoding="utf-8")
    return folder


def write_yolo(folder: Path) -> Path:
    classes = list(CLASSES)
    for name in classes:
        for photo in range(12):
            write_photo(folder / "images" / f"{name}{photo}.jpg", seed=100 * classes.index(name) + photo)
            label = folder / "labels" / f"{name}{photo}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text(f"{classes.index(name)} 0.5 0.5 0.25 0.5\n", encoding="utf-8")
    (folder / "data.yaml").write_text(f"train: images\nnames: {classes}\n", encoding="utf-8")
    return folder


LAYOUTS = {"class folders": write_class_folders, "labels": write_label_table, "yolo": write_yolo}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_are_prepared_and_found_again(
    tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = LAYOUTS[layout](tmp_path / "own")
    result, tracker = prepared(tmp_path, place, f"materials={own_mapping(tmp_path)}")
    first_line = capsys.readouterr().out.splitlines()[0]
    assert first_line.startswith("Dataset: ")
    assert str(place) in first_line
    dataset = open_dataset(str(place), tmp_path / "data")
    assert dataset.digest == result.dataset.digest
    assert dataset.materials == MATERIALS_OF_CLASSES
    assert dataset.manifest["split"]["rule"].startswith("photo by photo")
    assert set(dataset.frame["split"]) == {"train", "val", "test"}
    unlabelled = 1 if layout == "labels" else 0
    assert (dataset.frame[list(MATERIALS_OF_CLASSES)].sum(axis=1) == 0).sum() == unlabelled
    rows = pd.read_csv(dataset.folder / "materials.csv", keep_default_na=False).set_index("category")["material"]
    assert rows.to_dict() == CLASSES  # without bottle and paint, with glass, which is a material's own name
    outlines = dataset.outlines()
    drawn = [outlines.drawn(name) for name in dataset.frame["file_name"]]
    assert [len(of_photo) for of_photo in drawn] == [1 if layout == "yolo" else 0] * 36
    assert {(outlines.image(name).width, outlines.image(name).height) for name in dataset.frame["file_name"]} == {
        (64, 48)
    }
    pictures = {path.name for path in (tracker.runs[0].folder / "sight").iterdir()}
    assert {"contact_sheet.png", "near_duplicates.csv", "photos_per_group.png"} <= pictures
    assert ("object_size.png" in pictures) == (layout == "yolo")


def test_a_file_of_labels_and_its_folder_are_one_dataset(tmp_path: Path) -> None:
    folder = write_label_table(tmp_path / "own")
    result, _ = prepared(tmp_path, folder / "labels.csv", f"materials={own_mapping(tmp_path)}")
    assert result.dataset.name == "own"
    assert open_dataset(str(folder), tmp_path / "data").digest == result.dataset.digest
    photos = ShownPhotos(result.dataset)
    assert photos[result.dataset.frame["file_name"].iloc[0]].shape == (240, 320, 3)
    assert photos.gone == {}


def append(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a table's line": ("labels", lambda place: append(place / "labels.csv", "can/new.jpg,can\n")),
    "a photo more": ("class folders", lambda place: write_photo(place / "can" / "new.jpg")),
    "a class more": ("class folders", lambda place: write_photo(place / "new" / "1.jpg")),
    "a box more": ("yolo", lambda place: append(place / "labels" / "can3.txt", "1 0.5 0.5 0.1 0.1\n")),
    "a label file more": ("yolo", lambda place: (place / "labels" / "new.txt").write_text("1 0.5 0.5 0.1 0.1\n")),
    "a class renamed": ("yolo", lambda place: append(place / "data.yaml", "# another\n")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_other_layouts_make_one_warning(
    tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, make = CHANGES[change]
    place = LAYOUTS[layout](tmp_path / "own")
    result, _ = prepared(tmp_path, place, f"materials={own_mapping(tmp_path)}")
    assert open_dataset(str(place), tmp_path / "data").digest == result.dataset.digest
    assert "The annotations in" not in capsys.readouterr().out
    make(place)
    assert open_dataset(str(place), tmp_path / "data").digest == result.dataset.digest
    assert "Warning: The annotations in" in capsys.readouterr().out


def test_labels_of_files_that_do_not_exist_are_problem_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_label_table(tmp_path / "own")
    for number in (3, 4):
        (folder / "can" / f"can{number}.jpg").unlink()
    settings = f"materials={own_mapping(tmp_path)}"
    result, _ = prepared(tmp_path, folder, settings)
    problems = pd.read_csv(result.dataset.folder / "problems.csv").set_index("source_file")["problem"]
    assert problems.to_dict() == dict.fromkeys(["can/can3.jpg", "can/can4.jpg"], "photo left out: missing")
    assert "2 photos were left out, the first can/can3.jpg (missing); " in capsys.readouterr().out
    with pytest.raises(DatasetError, match=r"2 of 36 photos \(5\.6%\) cannot be used.*: 2 missing"):
        prepared(tmp_path, folder, f"{settings} max_problem_share=0.05")


def test_an_unreadable_photo_of_class_folders_is_left_out(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "own")
    (folder / "box" / "box3.jpg").write_text("no photo")
    result, _ = prepared(tmp_path, folder, f"materials={own_mapping(tmp_path)}")
    problems = pd.read_csv(result.dataset.folder / "problems.csv")
    assert problems["problem"].tolist() == ["photo left out: not an image"]


@pytest.mark.parametrize(
    ("layout", "settings", "words"),
    [
        (
            "class folders",
            "",
            r"class folder 'box' has no material in .*default\.csv \(nor has 1 more\)\. Write a mapping of your own",
        ),
        ("labels", "", r"labels\.csv: label 'box' has no material"),
        ("yolo", "", r"data\.yaml: class 'box' has no material"),
        ("class folders", "group_by=camera", "group_by=camera is neither auto.* nor a column .* which has none"),
        ("labels", "group_by=camera", "nor a column .* which has file_name, labels"),
    ],
)
def test_bad_input_of_other_layouts_leaves_nothing(tmp_path: Path, layout: str, settings: str, words: str) -> None:
    place = LAYOUTS[layout](tmp_path / "own")
    settings += f" materials={own_mapping(tmp_path)}" if settings else ""
    with pytest.raises(InputError, match=words) as caught:
        prepared(tmp_path, place, settings)
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_trashnets_classes_point_to_its_mapping(tmp_path: Path) -> None:
    for name in ("cardboard", "metal"):
        write_photo(tmp_path / "bins" / name / "1.jpg")
    with pytest.raises(MappingError, match=r"'cardboard' .*, or give -P materials=trashnet, which knows them all"):
        prepared(tmp_path, tmp_path / "bins")


def write_table_with_columns(folder: Path, columns: str, rows: Callable[[int, str, str], str]) -> Path:
    """Sixty photos in class folders, and a table of them; rows: number, file name and class of a photo → its lines."""
    photos = sorted(write_class_folders(folder, photos=20).rglob("*.jpg"))
    named = ((number, path.relative_to(folder).as_posix(), path.parent.name) for number, path in enumerate(photos))
    (folder / "labels.csv").write_text(columns + "\n" + "".join(rows(*one) for one in named), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("file,label,id", lambda number, name, label: f"{name},{label},site {number % 10}\n"),
        (
            "file,can,site,box,glass",
            lambda number, name, label: (
                f"{name},{label == 'can':d},site {number % 10},{label == 'box':d},{label == 'glass':d}\n"
            ),
        ),
        (  # a row per label, and only one of them tells the site
            "file,label,site",
            lambda number, name, label: f"{name},{label},\n{name},,site {number % 10}\n",
        ),
    ],
    ids=["id", "0/1 columns", "a row per label"],
)
def test_groups_by_a_column_of_the_table(tmp_path: Path, columns: str, rows: Callable[[int, str, str], str]) -> None:
    folder = write_table_with_columns(tmp_path / "own", columns, rows)
    group_by = "id" if "id" in columns else "site"
    result, _ = prepared(tmp_path, folder, f"materials={own_mapping(tmp_path)} group_by={group_by}")
    frame = result.dataset.frame
    assert frame["group"].tolist() == [f"site {number % 10}" for number in range(60)]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            lambda number, name, label: f"{name},{label},{'site' if number else ''}\n",
            r"Column 'site' is empty for 1 of 60 photos, the first box/box0\.jpg",
        ),
        (
            lambda number, name, label: f"{name},{label},here\n{name},can,{'here' if number else 'there'}\n",
            r"group_by=site: .*labels\.csv has both 'here' and 'there' in that column for the photo box_box0\.jpg\.",
        ),
    ],
    ids=["a gap", "two values"],
)
def test_a_column_that_does_not_tell_each_photos_group_is_refused(
    tmp_path: Path, rows: Callable[[int, str, str], str], words: str
) -> None:
    folder = write_table_with_columns(tmp_path / "own", "file,label,site", rows)
    with pytest.raises(InputError, match=words) as caught:
        prepared(tmp_path, folder, f"materials={own_mapping(tmp_path)} group_by=site")
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_prepared_again_at_another_side_behind_an_open_dataset(tmp_path: Path, dataset: Path) -> None:
    opened = load_prepared(prepared(tmp_path, dataset)[0].dataset.folder)
    prepared(tmp_path, dataset, "image_side_px=40")
    with pytest.raises(
        PreparedDatasetError, match=r"litter has been prepared again since .*\. Start this step again\."
    ):
        _ = opened.photos


def test_near_duplicates_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_class_folders(tmp_path / "own")
    shutil.copyfile(folder / "can" / "can3.jpg", folder / "box" / "box5.jpg")
    result, tracker = prepared(tmp_path, folder, f"materials={own_mapping(tmp_path)}", draws=True)
    group = result.dataset.frame.set_index("file_name")["group"]
    assert group["can_can3.jpg"] == group["box_box5.jpg"]
    sight = tracker.runs[0].folder / "sight"
    table = pd.read_csv(sight / "near_duplicates.csv")
    assert table.to_numpy().tolist() == [["box_box5.jpg", "can_can3.jpg", "box/box5.jpg", 0, 1.0]]
    assert (sight / "near_duplicates.png").stat().st_size > 1000
    printed = " ".join(capsys.readouterr().out.split())
    assert "By their pixels, 1 pairs are near-duplicates and 0 are augmented copies" in printed


def test_without_near_duplicates_there_is_no_sheet_of_them(tmp_path: Path, dataset: Path) -> None:
    _, tracker = prepared(tmp_path, dataset)
    sight = tracker.runs[0].folder / "sight"
    assert pd.read_csv(sight / "near_duplicates.csv").empty
    assert not (sight / "near_duplicates.png").exists()


def test_another_mapping_relabels_class_folders(tmp_path: Path) -> None:
    place = write_class_folders(tmp_path / "own")
    result, _ = prepared(tmp_path, place, f"materials={own_mapping(tmp_path)}")
    rows = [("can", "glass"), ("glass", "aluminium"), ("box", "paper"), ("paint", "paper")]
    other = relabelled(result.dataset, str(write_mapping(tmp_path / "other.csv", rows)), tmp_path / "data")
    made_at = (other.folder / "manifest.json").stat().st_ino
    assert other.materials == MATERIALS_OF_CLASSES
    assert (other.frame["glass"] == result.dataset.frame["aluminium"]).all()
    assert other.outlines().drawn("can_can3.jpg") == []
    used = pd.read_csv(other.folder / "materials.csv").set_index("category")["material"]
    assert used.to_dict() == {"can": "glass", "glass": "aluminium", "box": "paper"}  # without paint
    again = relabelled(result.dataset, str(tmp_path / "other.csv"), tmp_path / "data")
    assert (again.folder / "manifest.json").stat().st_ino == made_at


def test_files_that_are_not_read_are_said_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = LAYOUTS["class folders"](tmp_path / "own")
    folder = next(path for path in sorted(place.iterdir()) if path.is_dir())
    for name in ("b.CR2", "a.cr2", "film.mp4", "notes.txt", ".hidden"):
        (folder / name).write_text("nothing that is read")
    result, _ = prepared(tmp_path, place, f"materials={own_mapping(tmp_path)}")
    printed = " ".join(capsys.readouterr().out.split())
    advice = "develop them to JPEG or TIFF"
    assert f"2 .cr2 files not read, the first {folder.name}/a.cr2: {advice}" in printed
    assert f"1 .mp4 file not read, the first {folder.name}/film.mp4: save their frames as JPEG" in printed
    assert f"1 .txt file not read, the first {folder.name}/notes.txt: neither photos nor labels" in printed
    problems = pd.read_csv(result.dataset.folder / "problems.csv").set_index("source_file")["problem"]
    assert problems[f"{folder.name}/b.CR2"] == f"not read: a .cr2 file: {advice}"
    assert list(problems.index) == [f"{folder.name}/{name}" for name in ("a.cr2", "b.CR2", "film.mp4", "notes.txt")]
    assert result.dataset.manifest["counts"]["photos_left_out"] == 0


def test_photos_of_one_scene_are_split_one_by_one_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(tmp_path / "place", batches=4, photos_per_batch=8)
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 256, (12, 1, 1, 3)).repeat(16, axis=1).repeat(16, axis=2).astype(np.uint8)
    for photo in sorted((tmp_path / "place").glob("batch_*/*.jpg")):  # of the same colours, in another order
        pixels = rng.permutation(tiles).reshape(3, 4, 16, 16, 3).swapaxes(1, 2).reshape(48, 64, 3)
        photo.write_bytes(image_bytes(pixels, quality=90))
    with pytest.raises(InputError, match=r"Split by smaller groups \(group_by=scene, or photo"):
        prepared(tmp_path, tmp_path / "place", "group_by=scene")
    frame = prepared(tmp_path, tmp_path / "place")[0].dataset.frame
    assert set(frame["split"]) == {"train", "val", "test"}
    assert "Warning: Scenes (runs of neighbouring photos that look alike) are too large" in capsys.readouterr().out


def write_own_splits(folder: Path, parts: dict[str, int]) -> Path:
    """Write class folders below folders of splits, with this number of photos per class; returns the folder."""
    for seed, (split, photos) in enumerate(parts.items()):
        for kind, label in enumerate(("glass", "paper")):
            for number in range(photos):
                write_photo(folder / split / label / f"{split}{number}.jpg", seed=1000 * seed + 100 * kind + number)
    return folder


def test_the_split_of_the_data_is_kept_and_its_leaks_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_own_splits(tmp_path / "bins", {"train": 8, "valid": 3, "test": 3})
    shutil.copy(folder / "train/glass/train0.jpg", folder / "test/glass/copy.jpg")
    result, tracker = prepared(tmp_path, folder, "split=given")
    frame = result.dataset.frame
    own = frame["source_file"].str.split("/").str[0].replace("valid", "val")
    assert frame["split"].tolist() == own.tolist()
    assert result.dataset.manifest["split"]["groups_in_several_splits"] == 1
    assert tracker.runs[0].metrics["split/groups_in_several_splits"] == 1
    problems = pd.read_csv(result.dataset.folder / "problems.csv")
    assert problems["source_file"].tolist() == ["test/glass/copy.jpg", "train/glass/train0.jpg"]
    assert set(problems["problem"]) == {"photo kept, its group is in train and test: test/glass/copy.jpg"}
    assert "1 of 28 sources are in several splits" in capsys.readouterr().out
    assert relabelled(result.dataset, "default", tmp_path).frame["split"].tolist() == own.tolist()


def test_a_test_that_the_data_lack_is_made_of_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_own_splits(tmp_path / "bins", {"train": 30, "val": 6})
    frame = prepared(tmp_path, folder, "split=given")[0].dataset.frame
    own = frame["source_file"].str.split("/").str[0]
    assert set(own[frame["split"] == "test"]) == {"train"}
    assert (frame["split"] == "val").tolist() == (own == "val").tolist()
    assert "The data came without test" in capsys.readouterr().out


def test_data_without_a_split_say_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tells no split.*Use split=made"):
        prepared(tmp_path, write_own_splits(tmp_path / "whole", {"train": 8}) / "train", "split=given")
    with pytest.raises(InputError, match=r"the data have train only.*use split=made"):
        prepared(tmp_path, write_own_splits(tmp_path / "trained", {"train": 8}), "split=given")


def test_augmented_copies_share_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bins"
    for kind, label in enumerate(("glass", "paper")):
        for number in range(10):
            for copy in range(3):
                name = f"IMG_{number}_jpg.rf.{copy:08x}{number:08x}.jpg"
                split = ("train", "valid", "test")[copy]
                write_photo(folder / split / label / name, seed=1000 * kind + 10 * number + copy)
    frame = prepared(tmp_path, folder)[0].dataset.frame
    assert (frame.groupby(frame["source_file"].str.extract(r"(\w+/IMG_\d+)_jpg")[0])["split"].nunique() == 1).all()
    out = capsys.readouterr().out
    assert "By their names, 60 photos come from 20 sources" in out
    assert "without leaks" not in out


@pytest.mark.parametrize(
    ("pattern", "fact"),
    [("pattern:(", "is no regular expression"), ("pattern:a", "needs one group"), ("pattern:(a)(b)", "has 2")],
)
def test_bad_patterns_are_refused(tmp_path: Path, dataset: Path, pattern: str, fact: str) -> None:
    with pytest.raises(InputError, match=fact):
        config("prepare", "", dataset=str(dataset), group_by=pattern)


@pytest.mark.parametrize("letter", ["\r", "\n", "\x1b[2J", "="])
def test_odd_names_keep_rows_and_photos_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], letter: str
) -> None:
    folder = tmp_path / "bins"
    for kind, label in enumerate(("glass", "paper")):
        for number in range(12):
            write_photo(folder / label / f"{letter}{label}{number}.jpg", seed=100 * kind + number)
    (folder / "glass" / f"{letter}glass0.jpg").write_bytes(b"no photo")
    dataset = prepared(tmp_path, folder)[0].dataset
    assert len(dataset.frame) == len(dataset.photos) == 23
    assert (dataset.frame["source_file"].str.split("/").str[0] == "glass").tolist() == dataset.frame["glass"].eq(
        1
    ).tolist()
    assert set(dataset.balanced_train().file_names) <= set(dataset.frame["file_name"])
    assert not set(capsys.readouterr().out) & set("\r\x1b")
    problem = pd.read_csv(dataset.folder / "problems.csv")["file_name"][0]
    assert problem == f"glass_{letter}glass0.jpg"


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda frame: frame.iloc[1:], "has 59 rows for 60 photos"),
        (lambda frame: frame.assign(file_name=frame["file_name"].iloc[0]), "twice"),
        (lambda frame: frame.assign(image_id=7), "has the image_id '7' twice"),
        (lambda frame: frame.assign(split="all"), "has the split 'all'"),
    ],
)
def test_labels_that_cannot_be_those_of_the_photos_are_refused(
    tmp_path: Path, dataset: Path, change: Callable[[pd.DataFrame], pd.DataFrame], fact: str
) -> None:
    folder = prepared(tmp_path, dataset)[0].dataset.folder
    change(pd.read_csv(folder / "labels.csv")).to_csv(folder / "labels.csv", index=False)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["labels.csv"] = file_digest(folder / "labels.csv")
    manifest["digest"] = manifest_digest(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PreparedDatasetError, match=fact):
        load_prepared(folder)
