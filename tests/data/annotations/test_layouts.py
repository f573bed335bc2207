"""The ways a dataset can lie on disk: what is recognised, what is read from it, and what is refused in one line."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.factories import annotation, coco_dict, write_json, write_mapping, write_photo

from wastelens.data.annotations.coco import CocoDataset, flat_name
from wastelens.data.annotations.labels import tabulate
from wastelens.data.annotations.layout import recognise
from wastelens.data.annotations.materials import MaterialMapping, mapping_of_labels, read_mapping
from wastelens.data.annotations.segmentation import outline
from wastelens.data.photos.files import upright_sizes
from wastelens.errors import InputError, MappingError


def shown(dataset: CocoDataset) -> dict[str, list[str]]:
    """File name → its labels, sorted."""
    names = {category.id: category.name for category in dataset.categories}
    found: dict[str, list[str]] = {image.file_name: [] for image in dataset.images}
    file_of = {image.id: image.file_name for image in dataset.images}
    for one in dataset.annotations:
        found[file_of[one.image_id]].append(names[one.category_id])
    return {name: sorted(labels) for name, labels in found.items()}


def boxes(dataset: CocoDataset) -> dict[str, list[list[float]]]:
    """File name → left, top, right, bottom of each outline in pixels, rounded."""
    images = {image.id: image for image in dataset.images}
    found: dict[str, list[list[float]]] = {image.file_name: [] for image in dataset.images}
    for one in dataset.annotations:
        drawn = outline(one, images[one.image_id])
        assert not drawn.problem
        (polygon,) = drawn.polygons
        corners = np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])
        found[images[one.image_id].file_name].append(corners.round(3).tolist())
    return found


def photos(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        write_photo(folder / name, seed=number)


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def refusal(place: Path) -> str:
    """Of recognising a dataset, or of reading it."""
    with pytest.raises(InputError) as caught:
        recognise(place).read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ── COCO ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name",
    [
        "annotations.json",
        "_annotations.coco.json",
        "export.json",
        "Export.JSON",
        "annotations/instances_default.json",
        "annotations/litter.json",
    ],
)
def test_one_coco_file_under_any_name(tmp_path: Path, name: str) -> None:
    file = write_json(tmp_path / name, coco_dict())
    text(tmp_path / "notes.json", '{"images": 3}')
    for place in (tmp_path, file):
        layout = recognise(place)
        assert (layout.kind, layout.root, layout.annotations) == ("coco", tmp_path, file)
        assert [image.id for image in layout.read().images] == [10, 11, 12]
        names = [f"batch_1_{number:06}.jpg" for number in range(3)]
        found = {name: fields["id"] for name, fields in layout.image_columns()}
        assert found == dict(zip(names, (10, 11, 12), strict=True))


@pytest.mark.parametrize("between", ["/", "\\"], ids=["everywhere", "Windows"])
def test_photos_of_a_split_in_a_folder_of_its_name(tmp_path: Path, between: str) -> None:
    content = coco_dict(images=1)
    content["images"][0]["file_name"] = f"batch_1{between}000000.jpg"
    write_json(tmp_path / "annotations" / "instances_default.json", content)
    photos(tmp_path, "images/default/batch_1/000000.jpg")
    (image,) = recognise(tmp_path).read().images
    assert image.file_name == f"default/batch_1{between}000000.jpg"


def test_a_coco_file_under_another_name_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = write_json(tmp_path / "export.json", coco_dict())
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert len(recognise(tmp_path).read().images) == 3


def split_files(folder: Path, files: tuple[str, ...], photo_folders: tuple[str, ...]) -> dict[str, list[str]]:
    """COCO files whose ids clash, and whose categories stand in other orders; returns file name → label."""
    expected = {}
    for number, (file, photo_folder) in enumerate(zip(files, photo_folders, strict=True)):
        names = ("Drink can", "Glass bottle") if number == 0 else ("Glass bottle", "Lid", "Drink can")
        content = coco_dict(images=2, categories=names)
        for image, one in zip(content["images"], content["annotations"], strict=True):
            image["file_name"] = f"{number}{image['id']}.jpg"
            image["site"] = f"site {number}"
            photos(folder, f"{photo_folder}/{image['file_name']}")
            expected[f"{photo_folder.removeprefix('images/')}/{image['file_name']}"] = [names[one["category_id"]]]
        write_json(folder / file, content)
    return expected


@pytest.mark.parametrize(
    ("files", "photo_folders"),
    [
        (("train/_annotations.coco.json", "valid/_annotations.coco.json"), ("train", "valid")),
        (("annotations/instances_train.json", "annotations/instances_val.json"), ("images/train", "images/val")),
        (("annotations/instances_train2017.json", "annotations/instances_val2017.json"), ("train2017", "val2017")),
        (("annotations/train.json", "annotations/val.json"), ("images/train", "images/val")),
        (("Train.json", "Validation.json"), ("Train", "Validation")),
        (("test_site_train2017.json", "test_site_val2017.json"), ("train2017", "val2017")),
        (("TRAIN/_annotations.coco.json", "VALID/_annotations.coco.json"), ("TRAIN", "VALID")),
        (("instances_train_litter.json", "instances_val_litter.json"), ("train", "val")),
        (("train/labels.json", "val/labels.json"), ("train/data", "val/data")),
        (("train/annotations.json", "test/annotations.json"), ("train/images", "test/images")),
    ],
    ids=[
        *("Roboflow", "COCO", "COCO with years", "splits", "splits with capitals", "named splits", "ROBOFLOW"),
        *("a word behind the split", "labels.json and data", "annotations.json and images"),
    ],
)
def test_split_files_are_one_dataset(tmp_path: Path, files: tuple[str, ...], photo_folders: tuple[str, ...]) -> None:
    expected = split_files(tmp_path, files, photo_folders)
    layout = recognise(tmp_path)
    assert "prepare makes a new split, unless split=given keeps theirs" in layout.recognised
    assert all(file in layout.recognised for file in files)
    dataset = layout.read()
    assert shown(dataset) == expected
    assert len({one.id for one in dataset.annotations}) == 4
    assert len({category.id for category in dataset.categories}) == 3
    sites = {name: fields["site"] for name, fields in layout.image_columns()}
    found = [sites[flat_name(image.file_name)] for image in dataset.images]
    assert found == ["site 0"] * 2 + ["site 1"] * 2
    before = layout.digest()
    (tmp_path / files[1]).write_text((tmp_path / files[1]).read_text() + " ")
    assert layout.digest() != before


def test_photos_in_data_beside_one_file(tmp_path: Path) -> None:
    content = coco_dict(images=1)
    write_json(tmp_path / "labels.json", content)
    photos(tmp_path, "data/batch_1/000000.jpg")
    assert [image.file_name for image in recognise(tmp_path).read().images] == ["data/batch_1/000000.jpg"]


def test_a_damaged_file_of_a_split_is_not_passed_over(tmp_path: Path) -> None:
    split_files(tmp_path, ("train/labels.json", "val/labels.json"), ("train", "val"))
    damaged = tmp_path / "val" / "labels.json"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    assert f"{damaged}: not complete JSON" in refusal(tmp_path)
    write_json(tmp_path / "val" / "labels.json", {"notes": "no annotations"})
    assert recognise(tmp_path).recognised == f"COCO annotations in {tmp_path / 'train' / 'labels.json'}"


def test_files_that_disagree_on_photos_are_told_and_one_can_be_taken_alone(tmp_path: Path) -> None:
    content = coco_dict(images=3)
    for name, shift in (("Train", 0), ("Validation", 1), ("Test", 1)):
        of_file = json.loads(json.dumps(content))
        for one in of_file["annotations"][: 2 if shift else 3]:
            one["category_id"] = (one["category_id"] + shift) % 2
        of_file["images"] = of_file["images"][: 2 if name == "Test" else 3]
        of_file["annotations"] = of_file["annotations"][: 2 if name == "Test" else 3]
        write_json(tmp_path / "annotations" / f"instances_{name}.json", of_file)
    photos(tmp_path, *(f"images/batch_1/{number:06}.jpg" for number in range(3)))
    dataset = recognise(tmp_path).read()
    (note,) = dataset.notes
    test, train, validation = (f"annotations/instances_{name}.json" for name in ("Test", "Train", "Validation"))
    assert note == (
        "Photos that several files name with different objects: 2 (batch_1/000000.jpg, batch_1/000001.jpg), in "
        f"{test}, {train}, {validation}. The objects of all were put together. If these are different photos of one "
        f"name, rename them, or take one file alone: dataset={tmp_path / test}"
    )
    assert [len(found) for found in shown(dataset).values()] == [2, 2, 1]
    alone = recognise(tmp_path / train).read()
    assert [len(found) for found in shown(alone).values()] == [1, 1, 1]
    assert alone.notes == ()


def taco_splits(folder: Path, **of_split: list[int]) -> dict[str, Any]:
    """Files as TACO's split_dataset.py writes them: of each split, the images of these numbers; returns all of them."""
    whole = coco_dict(images=4, annotations_per_image=2)
    for split, numbers in of_split.items():
        images = [whole["images"][number] for number in numbers]
        identities = {image["id"] for image in images}
        annotations = [one for one in whole["annotations"] if one["image_id"] in identities]
        write_json(folder / f"annotations_0_{split}.json", {**whole, "images": images, "annotations": annotations})
    return whole


def test_tacos_own_splits_are_one_dataset(tmp_path: Path) -> None:
    whole = taco_splits(tmp_path, train=[2, 0], val=[1], test=[3])
    layout = recognise(tmp_path)
    files = [f"annotations_0_{split}.json" for split in ("train", "val", "test")]
    assert f"in 3 files of {tmp_path} ({', '.join(files)})" in layout.recognised
    assert layout.annotations == tmp_path / files[0]
    together = shown(recognise(write_json(tmp_path / "all" / "annotations.json", whole)).read())
    assert shown(layout.read()) == together
    assert len(together) == 4
    write_json(tmp_path / "annotations_1_train.json", whole)
    message = refusal(tmp_path)
    assert "can be read in 2 ways: " in message
    assert f"such as dataset={tmp_path / 'annotations_1_train.json'}, or move" in message  # no part of one
    write_json(tmp_path / "annotations_1_val.json", whole)
    assert refusal(tmp_path).endswith(". Move all but one away.")


def test_photos_in_two_splits_are_there_once_with_the_objects_of_both(tmp_path: Path) -> None:
    whole = taco_splits(tmp_path, train=[0, 1], val=[1, 2])
    val = tmp_path / "annotations_0_val.json"
    content = json.loads(val.read_text())
    content["images"][0]["file_name"] = content["images"][0]["file_name"].replace("/", "\\")
    content["annotations"] = content["annotations"][1:]  # of its two, one, and one that train has not
    content["annotations"].append(annotation(99, content["images"][0]["id"], 1, (1, 1, 9, 9)))
    val.write_text(json.dumps(content, indent=1))
    dataset = recognise(tmp_path).read()
    assert "with different objects: 1 (batch_1/000001.jpg), in annotations_0_train.json" in dataset.notes[0]
    can, bottle = sorted(one["name"] for one in whole["categories"])
    assert shown(dataset) == {
        "batch_1/000000.jpg": [can, bottle],
        "batch_1/000001.jpg": [can, bottle, bottle],
        "batch_1/000002.jpg": [can, bottle],
    }
    assert [one.id for one in dataset.annotations] == list(range(1, 8))
    assert {len(of_photo) for of_photo in boxes(dataset).values()} == {2, 3}
    content["images"][0]["width"] = 80
    write_json(val, content)
    assert f"{val}: image 11, 'batch_1\\000001.jpg', is 80 x 48 pixels, in another" in refusal(tmp_path)


def test_what_lies_beside_tacos_annotations_is_no_second_dataset(tmp_path: Path) -> None:
    write_json(tmp_path / "annotations.json", coco_dict())
    for name in ("annotations.0a1b2c3d.json", "annotations_unofficial.json", "annotations_0_train.json"):
        write_json(tmp_path / name, coco_dict())
    assert recognise(tmp_path).recognised == f"COCO annotations in {tmp_path / 'annotations.json'}"
    write_json(tmp_path / "annotations_corrected.json", coco_dict())
    assert (
        f"2 ways: COCO annotations in {tmp_path}/annotations.json; COCO annotations in {tmp_path}/annotations_c"
        in refusal(tmp_path)
    )


# ── Class folders ────────────────────────────────────────────────────────────────────────────────────────────────


def test_class_folders(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "glass/deep/er/2.PNG", "paper/1.jpg", ".hidden/1.jpg", "beside.jpg")
    text(tmp_path / "paper" / "notes.txt", "no photo")
    layout = recognise(tmp_path)
    assert layout.recognised == (
        f"3 photos in 2 class folders of {tmp_path}; 1 photos outside of class folders are left out"
    )
    dataset = layout.read()
    assert shown(dataset) == {"glass/1.jpg": ["glass"], "glass/deep/er/2.PNG": ["glass"], "paper/1.jpg": ["paper"]}
    assert not dataset.has_outlines
    assert {(image.width, image.height) for image in dataset.images} == {(64, 48)}


def test_splits_above_class_folders_are_merged_and_that_is_said(tmp_path: Path) -> None:
    photos(tmp_path, "train/glass/1.jpg", "train/paper/1.jpg", "val/glass/1.jpg")
    (tmp_path / "val" / "paper").mkdir()  # empty in one split only
    layout = recognise(tmp_path)
    assert "3 photos in 2 class folders" in layout.recognised
    assert "of train, val together; prepare makes a new split" in layout.recognised
    assert shown(layout.read())["val/glass/1.jpg"] == ["glass"]


def test_splits_are_recognised_in_capitals_too(tmp_path: Path) -> None:
    photos(tmp_path, "TEST/glass/1.jpg", "TRAIN/glass/1.jpg", "TRAIN/paper/1.jpg")
    layout = recognise(tmp_path)
    assert "of TRAIN, TEST together" in layout.recognised
    assert shown(layout.read()) == {"TEST/glass/1.jpg": ["glass"], "TRAIN/glass/1.jpg": ["glass"]} | {
        "TRAIN/paper/1.jpg": ["paper"]
    }


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    photos(tmp_path, "test/a/1.jpg", "glass/1.jpg")
    assert shown(recognise(tmp_path).read()) == {"glass/1.jpg": ["glass"], "test/a/1.jpg": ["test"]}


def test_empty_class_folders_are_named(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/1.jpg")
    for name in ("metal", "wood"):
        (tmp_path / name).mkdir()
    text(tmp_path / "metal" / "readme.txt", "soon")
    assert "class folders without a photo: metal, wood. Put photos there, or remove" in refusal(tmp_path)


@pytest.mark.parametrize("above", ["", "train/"])
def test_a_single_class_with_photos_names_the_empty_ones(tmp_path: Path, above: str) -> None:
    photos(tmp_path, f"{above}glass/1.jpg")
    for name in ("paper", "metal"):
        (tmp_path / above / name).mkdir()
    assert "no two class folders with photos (empty: metal, paper), no COCO" in refusal(tmp_path)


@pytest.mark.parametrize("around", ["bins", "Garbage classification/Garbage classification"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_folder_around_everything_is_no_class(tmp_path: Path, around: str, split: str) -> None:
    photos(tmp_path, f"{around}/{split}glass/1.jpg", f"{around}/{split}paper/deep/1.jpg")
    text(tmp_path / "files.txt", "of the archive")
    photos(tmp_path, "__MACOSX/x/1.jpg")
    layout = recognise(tmp_path)
    assert f"2 photos in 2 class folders of {tmp_path / around}" in layout.recognised
    found = shown(layout.read())
    assert found == {f"{around}/{split}glass/1.jpg": ["glass"], f"{around}/{split}paper/deep/1.jpg": ["paper"]}


def test_one_class_with_photos_and_subfolders_is_no_folder_around_everything(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "glass/green/1.jpg", "glass/brown/1.jpg")
    assert "no two class folders with photos, no COCO" in refusal(tmp_path)


def test_class_folders_of_photos_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/1.jpg")
    text(tmp_path / "metal" / "1.CR2", "raw")
    words = "without a photo: metal (1 .cr2 files are there: develop them to JPEG or TIFF). Put photos there"
    assert words in refusal(tmp_path)
    (tmp_path / "metal" / "1.CR2").rename(tmp_path / "metal" / "1.jpg")  # converted
    assert len(recognise(tmp_path).read().images) == 3


def test_changed_class_folders_have_another_digest(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/1.jpg")
    digests = [recognise(tmp_path).digest()]
    os.utime(tmp_path / "glass" / "1.jpg", (0, 0))
    digests.append(recognise(tmp_path).digest())
    write_photo(tmp_path / "paper" / "2.jpg")
    digests.append(recognise(tmp_path).digest())
    (tmp_path / "paper" / "2.jpg").rename(tmp_path / "glass" / "2.jpg")
    digests.append(recognise(tmp_path).digest())
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_link_to_nowhere_is_a_missing_photo(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/1.jpg")
    (tmp_path / "paper" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    layout = recognise(tmp_path)
    before = layout.digest()
    assert shown(layout.read())["paper/2.jpg"] == ["paper"]
    photos(tmp_path, "gone.jpg")
    assert layout.digest() != before


def test_accents_of_macos_are_those_of_tables(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Altöl") for form in ("NFC", "NFD"))
    photos(tmp_path, f"{decomposed}/1.jpg", "paper/1.jpg")
    assert shown(recognise(tmp_path).read())[f"{decomposed}/1.jpg"] == [composed]
    mapping = read_mapping(write_mapping(tmp_path / "own.csv", [(decomposed, "oil"), ("paper", "paper")]))
    assert mapping.material_of[composed] == "oil"
    file = text(tmp_path / "labels.csv", f"file,label\n{composed}/1.jpg,{decomposed}\n")
    (image,) = recognise(file).read().images
    assert (image.width, image.height) == (64, 48)
    assert shown(recognise(file).read()) == {f"{composed}/1.jpg": [composed]}


def test_linked_folders_in_a_circle_end(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/1.jpg")
    (tmp_path / "paper" / "again").symlink_to(tmp_path)
    assert len(recognise(tmp_path).read().images) == 2


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/1.jpg")
    (tmp_path / "paper" / "1.jpg").rename(tmp_path / "paper" / os.fsdecode(b"\xff.jpg"))
    assert r"the file name 'paper/\xff.jpg' is not UTF-8 text" in refusal(tmp_path)


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "table",
    [
        "file_name,glass,paper\na.jpg,1,0\nsub/b.jpg,1.0,1\nc.jpg,0,0\n",
        "\ufeffFilename;glass;paper\r\na.jpg;1;0\r\n\r\nsub\\b.jpg;1;1\r\nc.jpg;0;0\r\n",
        'image,labels\na.jpg,glass\nsub/b.jpg,"glass, paper"\nc.jpg,\n',
        "path,label,site\n./a.jpg,glass,x\nsub/b.jpg,glass|paper;glass,y\nc.jpg,,z\n",
        "file\tcategory\na.jpg\tglass\nsub/b.jpg\tpaper\nsub/b.jpg\tglass\nc.jpg\t\n",
        "file,class\nABOVE/a.jpg,glass\nsub/../sub/b.jpg,glass;paper\nc.jpg,\n",
    ],
    ids=["flags", "a spreadsheet's", "names", "a column more", "a row per label", "an absolute path below"],
)
@pytest.mark.parametrize("below", ["", "photos", "images"])
def test_tables_of_labels(tmp_path: Path, table: str, below: str) -> None:
    file = text(tmp_path / "list.csv", table.replace("ABOVE", str(tmp_path)))
    for name in ("a.jpg", "sub/b.jpg"):
        write_photo(tmp_path / below / name, side=(80, 60))
    for place in (tmp_path, file):
        layout = recognise(place)
        other = "; without labels, for group_by only: site" if "site" in table else ""
        assert layout.recognised == f"labels by file name in {file}{other}"
        dataset = layout.read()
        assert shown(dataset) == {"a.jpg": ["glass"], "sub/b.jpg": ["glass", "paper"], "c.jpg": []}
        sizes = {image.file_name: (image.width, image.height) for image in dataset.images}
        assert sizes == {"a.jpg": (80, 60), "sub/b.jpg": (80, 60), "c.jpg": (1, 1)}
        assert not dataset.has_outlines


def test_labels_csv_is_preferred_and_other_columns_are_for_groups(tmp_path: Path) -> None:
    text(tmp_path / "other.csv", "file_name,label\nz.jpg,wood\n")
    text(tmp_path / "labels.csv", "file_name,label,site\na.jpg,glass,x\nb.jpg,paper,y\n")
    layout = recognise(tmp_path)
    assert [(name, fields["site"]) for name, fields in layout.image_columns()] == [("a.jpg", "x"), ("b.jpg", "y")]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,glass\na.jpg,\n", "line 1: has no column of labels: none of glass is named in the mapping or holds"),
        ("file,glass\n../a.jpg,1\n", "line 2: '../a.jpg' leaves the dataset's folder"),
        ("file,glass\n/etc/passwd,1\n", "line 2: '/etc/passwd' leaves the dataset's folder"),
        ("file,glass\nC:\\a.jpg,1\n", "leaves the dataset's folder"),
        ("file,glass\nsub/../../a.jpg,1\n", "leaves the dataset's folder"),
        ("file,glass\n,1\n", "line 2: names no photo"),
        ("file,glass\na.jpg,1\na.jpg,0\n", "line 3: 'a.jpg' is in line 2 too. Keep one"),
        ("file,glass\na.jpg,1,1\n", "line 2: has 3 cells, the first line 2"),
        ("file,glass,glass\na.jpg,1,1\n", "line 1: has the column 'glass' twice"),
        ("file\na.jpg\n", "line 1: has no column of labels"),
        ("file,glass\n", "line 1: names no photo"),
        ("file,glass\nA/b.jpg,1\nA_b.jpg,1\n", "both become 'A_b.jpg'"),
        ("file,glass\n./,1\n", "line 2: names no photo"),
        ("file,glass,paper\na.jpg,1,0\nb.jpg,ja,1\n", "line 3: column 'glass' holds 'ja', which is neither 0 nor 1"),
        ("file,glass,total\na.jpg,2,9\nb.jpg,1,9\n", "line 1: has no column of labels: none of glass, total is named"),
        ("file,glass,paper\na.jpg,1,0\nb.jpg,0,\n", "line 3: column 'paper' holds '', which is neither"),
        ("file,glass,paper\na.jpg,1,0\nb.jpg,0,\n", "Write 0 in blank cells that mean no"),
        (
            "file,class,glass,paper,site\na.jpg,x,1,0,y\nb.jpg,y,,1,z\n",
            "line 1: has label names in the column 'class' and 0 or 1 in glass, paper: two ways to read it. Rename",
        ),
    ],
)
def test_bad_tables(tmp_path: Path, table: str, words: str) -> None:
    file = text(tmp_path / "labels.csv", table)
    message = refusal(tmp_path)
    assert message.startswith(str(file))
    assert words in message


@pytest.mark.parametrize(
    "table",
    [
        "file,glass,paper\na.jpg,yes,no\nb.jpg,No,TRUE\n",
        "file,glass,paper\na.jpg,3,0\nb.jpg,0.0,12\n",
        "file;glass;paper\na.jpg;2,0;0\nb.jpg;0;1,0\n",
        "file,glass,paper\na.jpg,x,\nb.jpg,,X\n",
        "file,glass,paper\na.jpg,2,\nb.jpg,,4\n",
        "file,id,glass,FOOD,paper,total\na.jpg,1,2,,,9\nb.jpg,2,,,4,9\n",
        "sep=;\nFile;GLASS;Paper;;\na.jpg;1;0;;\nb.jpg;0;1;;\n",
        "file,label\na.jpg,glass\nb.jpg,paper\n",
        'file,label,note\na.jpg,glass,"said ""yes"""\nb.jpg,"paper, or card",\n',
    ],
    ids=["words", "counts", "decimal commas", "crosses", "blanks", "headings", "spreadsheet", "names", "a comma"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_columns_that_the_mapping_names_are_labels(tmp_path: Path, table: str, encoding: str) -> None:
    (tmp_path / "list.csv").write_bytes(table.encode(encoding))
    layout = recognise(tmp_path, frozenset({"glass", "paper", "Paper, or card"}))
    found = {name: [label.lower() for label in labels] for name, labels in shown(layout.read()).items()}
    assert found in ({"a.jpg": ["glass"], "b.jpg": ["paper"]}, {"a.jpg": ["glass"], "b.jpg": ["paper, or card"]})


@pytest.mark.parametrize("cell", ["much", "-1", "0.5", "nan", "?", "1e3", "1 can"])
def test_a_named_column_that_says_neither_yes_nor_no_is_refused_with_its_cell(tmp_path: Path, cell: str) -> None:
    text(tmp_path / "list.csv", f"file,glass,paper\na.jpg,5,1\nb.jpg,{cell},0\n")
    words = f"line 3: column 'glass' holds '{cell}', which is neither 0 nor 1, a count, yes or no"
    with pytest.raises(InputError, match=re.escape(words)):
        recognise(tmp_path, frozenset({"glass"})).read()
    assert recognise(tmp_path).recognised.endswith("for group_by only: glass")


def test_counts_that_no_mapping_names_are_refused_until_one_does(tmp_path: Path) -> None:
    text(tmp_path / "list.csv", "file,id,butts,FOOD,cans,town\na.jpg,1,3,,,x\nb.jpg,2,,,5,y\n")
    message = refusal(tmp_path)
    assert "the numbers in id, butts, cans may be counts. Give a mapping (materials=MY.csv) with a row" in message
    assert shown(recognise(tmp_path, frozenset({"butts", "cans"})).read()) == {"a.jpg": ["butts"], "b.jpg": ["cans"]}


def test_a_column_with_nothing_but_yes_or_nothing_but_no_is_a_label(tmp_path: Path) -> None:
    text(tmp_path / "list.csv", "file,glass,paper,metal\na.jpg,1,0,\nb.jpg,1,0,\n")
    layout = recognise(tmp_path, frozenset({"glass", "metal"}))
    assert shown(layout.read()) == {"a.jpg": ["glass"], "b.jpg": ["glass"]}


def roboflow_tables(folder: Path, **more: str) -> None:
    for split in ("train", "valid", "test"):
        photos(folder, f"{split}/{split}.jpg")
        columns, cells = ("", "") if split not in more else (f", {more[split]}", ", 0")
        text(folder / split / "_classes.csv", f"filename, glass, paper{columns}\n{split}.jpg, 1, 0{cells}\n")


def test_a_table_in_each_splits_folder_is_one_dataset(tmp_path: Path) -> None:
    roboflow_tables(tmp_path)
    layout = recognise(tmp_path)
    assert "in 3 files of" in layout.recognised
    assert "split=given keeps theirs" in layout.recognised
    dataset = layout.read()
    assert shown(dataset) == {f"{name}/{name}.jpg": ["glass"] for name in ("test", "train", "valid")}
    assert {image.width for image in dataset.images} == {64}
    assert [name for name, _ in layout.image_columns()] == ["train_train.jpg", "valid_valid.jpg", "test_test.jpg"]
    before = layout.digest()
    text(tmp_path / "test" / "_classes.csv", "filename, glass, paper\ntest.jpg, 0, 1\n")
    assert recognise(tmp_path).digest() != before
    text(tmp_path / "test" / "_classes.csv", "filename,glass,paper\ntest/test.jpg,0,1\n")
    assert shown(recognise(tmp_path).read())["test/test.jpg"] == ["paper"]


def test_tables_of_splits_with_other_columns_are_refused(tmp_path: Path) -> None:
    roboflow_tables(tmp_path, valid="metal")
    assert "do not have the same columns: metal. Give both the same" in refusal(tmp_path)


def test_columns_without_0_and_1_are_for_groups(tmp_path: Path) -> None:
    columns = [f"more{number}" for number in range(5)]
    rows = "a.jpg,1,0,x,2.5{0}\nb.jpg,0,1,,3{0}\n".format(",-" * 5)
    file = text(tmp_path / "bins.csv", f"file,glass,paper,site,height,{','.join(columns)}\n{rows}")
    layout = recognise(tmp_path)
    assert shown(layout.read()) == {"a.jpg": ["glass"], "b.jpg": ["paper"]}
    others = "site, height, more0, more1, more2 and 2 more"
    assert layout.recognised == f"labels by file name in {file}; without labels, for group_by only: {others}"
    assert [fields["site"] for _, fields in layout.image_columns()] == ["x", ""]


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"file,glass\n\xff.jpg,1\n", "not CSV text")])
def test_tables_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    assert words in refusal(tmp_path)
    assert "has no column file_name" in refusal(text(tmp_path / "x.csv", "name,glass\na.jpg,1\n"))


# ── YOLO ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BOX, TRIANGLE = "0 0.5 0.5 0.5 0.25\n", "1 0.1 0.2 0.9 0.2 0.5 0.8\n"
BOX_PX, TRIANGLE_PX = [16.0, 18.0, 48.0, 30.0], [6.4, 9.6, 57.6, 38.4]  # of 64 x 48


def yolo(folder: Path, data: str = "train: images/train\nval: images/val\nnames: [can, bottle]\n") -> Path:
    photos(folder, "images/train/a.jpg", "images/train/b.jpg", "images/val/c.jpg")
    text(folder / "labels" / "train" / "a.txt", BOX + "\n" + TRIANGLE)
    text(folder / "labels" / "val" / "c.txt", TRIANGLE)
    return text(folder / "data.yaml", data)


@pytest.mark.parametrize(
    "data",
    [
        "train: images/train\nval: images/val\ntest: images/test\nnames: [can, bottle]\n",
        "path: .\ntrain: ./images/train/\nval: [images/val]\nnames: {0: can, 1: bottle}\n",
        "path: images\ntrain: train\nval: val\nnames: [can, bottle]\n",
        "path: ABOVE\ntrain: images/train\nval: ABOVE/images/val\nnames: [can, bottle]\n",
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: [can, bottle]\n",
        "train: train.txt\nval: images/val\nnames: [can, bottle]\n",
        "train: ../images/train\nval: ../images/val\ntest: ../images/test\nnames: [can, bottle]\n",
        "names: [can, bottle]\n",
    ],
    ids=[
        "lists",
        "dicts",
        "path",
        "absolute",
        "Roboflow",
        "a list of photos",
        "Roboflow without its test photos",
        "nothing but names",
    ],
)
def test_yolo_labels(tmp_path: Path, data: str) -> None:
    file = yolo(tmp_path, data.replace("ABOVE", str(tmp_path)))
    text(tmp_path / "train.txt", "./images/train/a.jpg\nimages/train/b.jpg\n")
    text(tmp_path / "labels" / "train" / "classes.txt", "can\nbottle\n")
    for place in (tmp_path, file):
        layout = recognise(place)
        assert f"YOLO labels of 3 photos in {file}" in layout.recognised
        dataset = layout.read()
        assert dataset.has_outlines
        names = ("images/train/a.jpg", "images/train/b.jpg", "images/val/c.jpg")
        assert shown(dataset) == dict(zip(names, (["bottle", "can"], [], ["bottle"]), strict=True))
        assert boxes(dataset) == dict(zip(names, ([BOX_PX, TRIANGLE_PX], [], [TRIANGLE_PX]), strict=True))


def flat_yolo(folder: Path, data: str) -> None:
    """Photos and label files side by side in the root, and notes among them."""
    photos(folder, "a.jpg", "b.jpg")
    text(folder / "a.txt", BOX)
    text(folder / "README.txt", "1. Look at the photos\n2 of them are here")
    text(folder / "train.txt", "./a.jpg\n./b.jpg\n")
    text(folder / "data.yaml", f"{data}\nnames: [can, bottle]\n")


@pytest.mark.parametrize("place", [".", "./", "train.txt", "./train.txt"])
def test_photos_and_labels_in_the_root(tmp_path: Path, place: str) -> None:
    flat_yolo(tmp_path, f"train: {place}")
    assert shown(recognise(tmp_path).read()) == {"a.jpg": ["can"], "b.jpg": []}


def test_a_list_of_photos_is_none_of_labels_whatever_its_lines_are(tmp_path: Path) -> None:
    flat_yolo(tmp_path, "train: train.txt")
    text(tmp_path / "train.txt", "a.jpg\n0 1 1 1 1\n")
    assert set(shown(recognise(tmp_path).read())) == {"a.jpg", "0 1 1 1 1"}


def test_notes_beside_label_files_are_no_labels(tmp_path: Path) -> None:
    yolo(tmp_path)
    expected = shown(recognise(tmp_path).read())
    for name in ("README.txt", "train/classes.txt"):
        text(tmp_path / "labels" / name, "1 can\n2 bottle\n")
    (tmp_path / "labels" / "train" / "latin.txt").write_bytes(b"\xe4\n")
    assert shown(recognise(tmp_path).read()) == expected
    text(tmp_path / "labels" / "train" / "gone.txt", "")
    assert shown(recognise(tmp_path).read()) == expected | {"images/train/gone": []}


@pytest.mark.parametrize(
    "line", ["./images/a.jpg", "images/a.jpg", "../data/images/a.jpg", "data/images/a.jpg", "ABOVE"]
)
def test_lines_of_a_list_begin_beside_the_list_or_in_the_root(tmp_path: Path, line: str) -> None:
    photos(tmp_path, "data/images/a.jpg")
    text(tmp_path / "data" / "labels" / "a.txt", BOX)
    text(tmp_path / "data" / "train.txt", line.replace("ABOVE", str(tmp_path / "data" / "images" / "a.jpg")))
    text(tmp_path / "data.yaml", "path: data\ntrain: train.txt\nnames: [can]\n")
    assert shown(recognise(tmp_path).read()) == {"data/images/a.jpg": ["can"]}


def test_a_line_of_a_list_with_two_photos_means_that_beside_it(tmp_path: Path) -> None:
    photos(tmp_path, "data/images/a.jpg", "images/a.jpg")
    text(tmp_path / "data" / "train.txt", "./images/a.jpg\n./images/gone.jpg\n")
    text(tmp_path / "data.yaml", "path: data\ntrain: train.txt\nnames: [can]\n")
    assert set(shown(recognise(tmp_path).read())) == {"data/images/a.jpg", "data/images/gone.jpg"}


def test_its_own_split_is_not_taken_over_and_that_is_said(tmp_path: Path) -> None:
    yolo(tmp_path)
    assert "of train, val together; prepare makes a new split" in recognise(tmp_path).recognised


def test_a_photo_that_is_turned_is_measured_upright(tmp_path: Path) -> None:
    yolo(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "train" / "a.jpg", exif=exif)
    assert boxes(recognise(tmp_path).read())["images/train/a.jpg"][0] == [12.0, 24.0, 36.0, 40.0]


def test_labels_of_photos_that_are_not_there_are_missing_photos(tmp_path: Path) -> None:
    yolo(tmp_path)
    text(tmp_path / "labels" / "train" / "gone.txt", BOX)
    text(tmp_path / "labels" / "train" / "b.txt", "")
    dataset = recognise(tmp_path).read()
    assert shown(dataset)["images/train/gone"] == ["can"]
    yolo(tmp_path, "train: one.txt\nval: images/val\nnames: [can, bottle]\n")
    text(tmp_path / "one.txt", "images/train/a.jpg\n")
    (tmp_path / "labels" / "train" / "gone.txt").unlink()
    text(tmp_path / "labels" / "train" / "b.txt", BOX)  # of a photo that is there, and not asked for
    assert set(shown(recognise(tmp_path).read())) == {"images/train/a.jpg", "images/val/c.jpg"}


@pytest.mark.parametrize("repair", ["rename", "remove", "empty"])
def test_label_files_without_photo_beside_photos_without_label_file_stop(tmp_path: Path, repair: str) -> None:
    file = yolo(tmp_path)
    gone, of_b = tmp_path / "labels" / "train" / "gone.txt", tmp_path / "labels" / "train" / "b.txt"
    text(gone, BOX)
    message = refusal(tmp_path)
    assert message.startswith(f"{file}: 1 photos have no label file (the first: images/train/b.jpg) and 1 label files")
    assert "have no photo (the first: labels/train/gone.txt)" in message
    if repair == "rename":
        gone.rename(of_b)
    elif repair == "remove":
        gone.unlink()
    else:
        text(of_b, "")
    expected = {"rename": ["can"], "remove": [], "empty": []}
    assert shown(recognise(tmp_path).read())["images/train/b.jpg"] == expected[repair]


@pytest.mark.parametrize(
    ("photo", "label"),
    [
        ("a b.jpg", "a%20b.txt"),
        ("a%20b.jpg", "a b.txt"),
        ("a.jpg", "a.jpg.txt"),
        ("a.JPG", "a.JPG.TXT"),
        ("IMG_1.JPG", "img_1.txt"),
        ("\u00e4.jpg", "a\u0308.txt"),
        ("#1.jpg", "%231.txt"),
    ],
)
def test_label_names_that_exporters_and_copying_have_changed(tmp_path: Path, photo: str, label: str) -> None:
    photos(tmp_path, f"images/{photo}", "images/without.jpg")
    text(tmp_path / "labels" / label, BOX)
    text(tmp_path / "data.yaml", "train: images\nnames: [can]\n")
    layout = recognise(tmp_path)
    assert shown(layout.read()) == {f"images/{photo}": ["can"], "images/without.jpg": []}
    assert tmp_path / "labels" / label in layout.label_files()


def test_names_that_could_be_of_two_photos_match_neither(tmp_path: Path) -> None:
    photos(tmp_path, "images/a.jpg", "images/A.jpg")
    text(tmp_path / "labels" / "a.jpg.txt", BOX)
    text(tmp_path / "data.yaml", "train: images\nnames: [can]\n")
    assert "2 photos have no label file" in refusal(tmp_path)


@pytest.mark.parametrize("data", ["train: Images/Train\nnames: [can]\n", "train: Images/Train/\nnames: [can]\n"])
@pytest.mark.parametrize("labels", ["Labels/Train", "labels/train", "LABELS/Train", "Images/Train"])
def test_folders_with_capitals(tmp_path: Path, data: str, labels: str) -> None:
    photos(tmp_path, "Images/Train/a.jpg")
    text(tmp_path / labels / "a.txt", BOX)
    text(tmp_path / "data.yaml", data)
    assert shown(recognise(tmp_path).read()) == {"Images/Train/a.jpg": ["can"]}


def test_an_unreadable_photo_keeps_its_label_file(tmp_path: Path) -> None:
    yolo(tmp_path)
    text(tmp_path / "images" / "train" / "phone.HEIC", "no Pillow reads this")
    text(tmp_path / "labels" / "train" / "phone.txt", BOX)
    assert "images/train/phone" not in shown(recognise(tmp_path).read())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dataset.yaml", "path: /home/other/bins\nval: ./images/val/\ntrain: images/train\nnames: {0: can, 1: bottle}"),
        ("bins.yml", "train: /home/other/bins/images/train\nval: C:\\bins\\images\\val\nnames: [can, bottle]"),
        ("obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"),
        ("classes.txt", "can\nbottle\n"),
    ],
)
def test_files_that_name_the_classes(tmp_path: Path, name: str, content: str) -> None:
    yolo(tmp_path).unlink()
    expected = {"images/train/a.jpg": ["bottle", "can"], "images/train/b.jpg": [], "images/val/c.jpg": ["bottle"]}
    text(tmp_path / name, content)
    text(tmp_path / "obj.names", "can\nbottle\n")
    text(tmp_path / "train.txt", "".join(f"data/{photo}\n" for photo in expected))
    text(tmp_path / "notes.json", "{}")
    layout = recognise(tmp_path)
    assert layout.annotations == tmp_path / name
    assert shown(layout.read()) == expected


def test_labels_without_class_names_say_what_to_write(tmp_path: Path) -> None:
    yolo(tmp_path).unlink()
    message = refusal(tmp_path)
    assert "to read the label files here, write data.yaml: names: [first, second], train: images" in message
    text(tmp_path / "data.yaml", "names: [first, second]\ntrain: images\n")
    assert shown(recognise(tmp_path).read())["images/val/c.jpg"] == ["second"]


def test_a_list_that_points_nowhere_says_where_it_looked(tmp_path: Path) -> None:
    file = yolo(tmp_path, "train: list.txt\nnames: [can]\n")
    text(tmp_path / "list.txt", "elsewhere/x/a.jpg\nelsewhere/x/b.jpg\n")
    first = tmp_path / "elsewhere" / "x" / "a.jpg"
    assert (
        recognise(tmp_path)
        .no_labels()
        .startswith(f"{file}: none of its 2 photos is there; the first was looked for at {first}.")
    )
    photos(tmp_path, "elsewhere/x/a.jpg", "elsewhere/x/b.jpg")
    label = tmp_path / "elsewhere" / "x" / "a.txt"
    assert f"has a label file; the first was looked for at {label}" in recognise(tmp_path).no_labels()
    text(label, "")
    assert "has an object in its label file" in recognise(tmp_path).no_labels()


@pytest.mark.parametrize(
    ("line", "outline"),
    [
        ("0 0.1 0.1 1.0021 0.1 0.5 0.8", [6.4, 4.8, 64.0, 38.4]),
        ("0 0.1 0.1 1.5 0.1 0.1 0.8", [6.4, 4.8, 64.0, 38.4]),
        ("0 -0.1 0.5 0.5 0.5", [0.0, 12.0, 9.6, 36.0]),
        ("0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4", [6.4, 4.8, 19.2, 19.2]),  # an oriented box
        ("0 1.5 0.5 0.5 0.5", None),
        ("0 320 240 50 50", None),
        ("0 nan 0.5 0.5 0.5", None),
        ("0 inf 0.5 0.5 0.5", None),
    ],
)
def test_an_overrun_is_clipped_and_an_outline_outside_left_out(
    tmp_path: Path, line: str, outline: list[float] | None
) -> None:
    yolo(tmp_path)
    text(tmp_path / "labels" / "train" / "b.txt", line)
    dataset = recognise(tmp_path).read()
    assert shown(dataset)["images/train/b.jpg"] == ["can"]
    rows = [("can", "metal"), ("bottle", "glass")]
    problems = tabulate(dataset, read_mapping(write_mapping(tmp_path / "m.csv", rows))).problems
    assert (problems["source_file"].tolist() == ["images/train/b.jpg"]) is (outline is None)
    if outline:
        assert boxes(dataset)["images/train/b.jpg"] == [outline]


def test_coordinates_in_pixels_throughout_are_refused(tmp_path: Path) -> None:
    yolo(tmp_path)
    for name in ("train/a", "train/b", "val/c"):
        text(tmp_path / "labels" / f"{name}.txt", "0 320 240 50 50\n")
    assert "train/a.txt, line 1: 320 is outside 0 to 1, and so are all objects" in refusal(tmp_path)


POSE = "train: images/train\nval: images/val\nnames: [can, bottle]\n"


@pytest.mark.parametrize(("shape", "numbers"), [("[2, 2]", "0.4 0.5 0.6 0.5"), ("[2, 3]", "0.4 0.5 2 0 0 0")])
def test_key_points_are_boxes(tmp_path: Path, shape: str, numbers: str) -> None:
    yolo(tmp_path, f"{POSE}kpt_shape: {shape}\n")
    for name in ("train/a", "train/b", "val/c"):
        text(tmp_path / "labels" / f"{name}.txt", f"{BOX.strip()} {numbers}\n")
    found = boxes(recognise(tmp_path).read())
    assert found == {f"images/{name}.jpg": [BOX_PX] for name in ("train/a", "train/b", "val/c")}
    text(tmp_path / "labels" / "train" / "b.txt", f"{BOX.strip()} 0.1 0.1\n")
    assert "6 numbers after the class are neither a box (4) nor a box with the key points of kpt_shape" in refusal(
        tmp_path
    )


def test_key_points_without_their_shape_are_refused_until_it_is_told(tmp_path: Path) -> None:
    file = yolo(tmp_path)
    lines = [f"0 0.5 0.5 0.{4 + number % 3} 0.4 0.4 0.5 0.6 0.5 0 0\n" for number in range(10)]
    for name in ("train/a", "train/b", "val/c"):
        text(tmp_path / "labels" / f"{name}.txt", "".join(lines))
    message = refusal(tmp_path)
    assert (
        f"Then add kpt_shape to {file}, such as kpt_shape: [3, 2]; if these are polygons, add kpt_shape: [0, 2]"
        in message
    )
    text(file, POSE + "kpt_shape: [3, 2]\n")
    assert boxes(recognise(tmp_path).read())["images/val/c.jpg"][0] == [19.2, 14.4, 44.8, 33.6]
    text(file, POSE + "kpt_shape: [0, 2]\n")
    assert len(boxes(recognise(tmp_path).read())["images/val/c.jpg"]) == 10


@pytest.mark.parametrize("shape", ["4", "[4]", "[4, 2, 1]", "[-1, 2]", "[4, 5]", "[x, 2]", "[99999999999, 2]"])
def test_a_shape_of_key_points_that_is_none(tmp_path: Path, shape: str) -> None:
    yolo(tmp_path, f"{POSE}kpt_shape: {shape}\n")
    assert "Write [number of points, 2 or 3], or remove it" in refusal(tmp_path)


def test_class_names_are_texts(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train\nval: images/val\nnames: [010, no]\n")
    assert [one.name for one in recognise(tmp_path).read().categories] == ["010", "no"]


def test_a_data_file_that_repeats_itself_is_refused(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train\na: &a [x, x]\nnames: [*a, *a]\n")
    assert "is not YAML ('*a' repeats another part; write it out" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["labels/train/b.txt", "data.yaml", "list.txt"])
def test_sparse_files_are_not_read(tmp_path: Path, name: str) -> None:
    yolo(tmp_path, "train: list.txt\nval: images\nnames: [can, bottle]\n")
    text(tmp_path / "list.txt", "images/train/a.jpg\n")
    with (tmp_path / name).open("r+b" if (tmp_path / name).exists() else "wb") as file:
        file.truncate(30 << 30)
    assert "is longer than" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.5 0.5", "line 2: class 2 is not one of the 2 names in"),
        ("-1 0.5 0.5 0.5 0.5", "class -1 is not one"),
        ("0.5 0.5 0.5 0.5 0.5", "class 0.5 is not one"),
        ("nan 0.5 0.5 0.5 0.5", "class nan is not one"),
        ("0 " + "1" * 100 + " 0.5 0.5 0.5", "holds something that is not a number, '1111"),
        ("0 0.5 0.5 0.5", "3 numbers after the class are neither"),
        ("0 0.5 0.5 0.5 0.5 0.9", "5 numbers after the class are neither"),
        ("0", "0 numbers after the class are neither"),
        ("can 0.5 0.5 0.5 0.5", "holds something that is not a number"),
    ],
)
def test_bad_yolo_lines(tmp_path: Path, line: str, words: str) -> None:
    yolo(tmp_path)
    file = text(tmp_path / "labels" / "train" / "b.txt", BOX + line)
    message = refusal(tmp_path)
    assert message.startswith(str(file))
    assert words in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("train: images/train\n", "has no 'names'"),
        ("train: images/train\nnames: []\n", "has no 'names'"),
        ("train: images/train\nnames: 3\n", "has no 'names'"),
        ("train: images/train\nnames: {a: can}\n", "has no 'names'"),
        ("train: ../../elsewhere\nnames: [can]\n", "'train' is '../../elsewhere', which leaves the dataset's folder"),
        ("train: /etc\nnames: [can]\n", "'train' is '/etc', which leaves"),
        ("path: /etc\ntrain: images/train\nnames: [can]\n", "'path' is '/etc', outside of"),
        ("path: [*x]\ntrain: images/train\nnames: [can]\n", "is not YAML"),
        ("path: [1]\ntrain: images/train\nnames: [can]\n", "'path' is not a path"),
        ('path: "a\\0b"\ntrain: images/train\nnames: [can]\n', "'path' is not a path"),
        ('train: "a\\0b"\nnames: [can]\n', "which leaves the dataset's folder"),
        ("train: ../images/trian\nnames: [can]\n", "'train' is 'images/trian', which is not there"),
        ("train: images/trian\nval: images/val\nnames: [can]\n", "'train' is 'images/trian', which is not there"),
        ("train: {a: 1}\nnames: [can]\n", "'train' is not a path"),
        ("train: labels/train\nnames: [can]\n", "no photo is in labels/train"),
        ("train: list.txt\nnames: [can]\n", "line 1 of 'list.txt' is '../x.jpg', which leaves"),
        ("train: etc.txt\nnames: [can]\n", "line 1 of 'etc.txt' is '/etc/x.jpg', which leaves"),
        ("train: root.txt\nnames: [can]\n", "line 1 of 'root.txt' is './', which is not a photo"),
        ("train: ../\nnames: [can]\n", "'train' is '../', which leaves the dataset's folder"),
        ("just text", "holds no keys"),
        ("names: [can\n", "is not YAML"),
    ],
)
def test_bad_data_files(tmp_path: Path, data: str, words: str) -> None:
    file = yolo(tmp_path, data)
    for name, line in (("list", "../x.jpg"), ("etc", "/etc/x.jpg"), ("root", "./")):
        text(tmp_path / f"{name}.txt", f"{line}\n")
    message = refusal(tmp_path)
    assert message.startswith(str(file))
    assert words in message


def test_changed_yolo_labels_have_another_digest(tmp_path: Path) -> None:
    file = yolo(tmp_path)
    digests = [recognise(tmp_path).digest()]
    text(tmp_path / "labels" / "train" / "b.txt", BOX)
    digests.append(recognise(tmp_path).digest())
    text(file, file.read_text() + "nc: 2\n")
    digests.append(recognise(tmp_path).digest())
    photos(tmp_path, "images/val/without_litter.jpg")
    digests.append(recognise(tmp_path).digest())
    text(file, file.read_text().replace("images/train", "train.txt"))
    for lines in ("images/train/a.jpg\nimages/train/b.jpg\n", "images/train/a.jpg\n"):
        text(tmp_path / "train.txt", lines)
        digests.append(recognise(tmp_path).digest())
    assert len(set(digests)) == len(digests) == 6


# ── Which one it is ──────────────────────────────────────────────────────────────────────────────────────────────

PARTS: dict[str, Callable[[Path], Any]] = {
    "annotations.json": lambda folder: write_json(folder / "annotations.json", coco_dict()),
    "export.json": lambda folder: write_json(folder / "export.json", coco_dict()),
    "second.json": lambda folder: write_json(folder / "second.json", coco_dict()),
    "data.yaml": yolo,
    "data.yml": lambda folder: yolo(folder).rename(folder / "data.yml"),
    "labels.csv": lambda folder: text(folder / "labels.csv", "file,glass\na.jpg,1\n"),
    "a.csv": lambda folder: text(folder / "a.csv", "file,glass\na.jpg,1\n"),
    "b.csv": lambda folder: text(folder / "b.csv", "file,glass\na.jpg,1\n"),
    "class folders": lambda folder: photos(folder, "glass/1.jpg", "paper/1.jpg"),
}


@pytest.mark.parametrize(
    "parts",
    [
        ("annotations.json", "labels.csv"),
        ("annotations.json", "data.yaml"),
        ("annotations.json", "export.json"),
        ("data.yml", "data.yaml"),
        ("export.json", "second.json"),
        ("data.yaml", "labels.csv"),
        ("a.csv", "b.csv"),
        ("labels.csv", "class folders"),
    ],
)
def test_two_candidates_are_listed_and_either_can_be_named(tmp_path: Path, parts: tuple[str, str]) -> None:
    for part in parts:
        PARTS[part](tmp_path)
    message = refusal(tmp_path)
    assert "can be read in 2 ways: " in message
    for part in parts:
        assert part in message
        if (tmp_path / part).is_file():
            assert f"such as dataset={tmp_path}" in message
            assert recognise(tmp_path / part).annotations == tmp_path / part


@pytest.mark.parametrize(
    ("part", "kind"), [("annotations.json", "coco"), ("export.json", "coco"), ("data.yaml", "yolo")]
)
def test_annotations_say_more_than_folders(tmp_path: Path, part: str, kind: str) -> None:
    PARTS[part](tmp_path)
    PARTS["class folders"](tmp_path)
    assert recognise(tmp_path).kind == kind


@pytest.mark.parametrize("part", ["annotations.json", "data.yaml", "class folders", "b.csv"])
def test_lists_that_tell_no_labels_are_passed_over(tmp_path: Path, part: str) -> None:
    PARTS[part](tmp_path)
    expected = recognise(tmp_path).recognised
    text(tmp_path / "places.csv", "file_name,latitude\na.jpg,12.5\n")
    text(tmp_path / "download.csv", "file_name,status\na.jpg,done\n")
    (tmp_path / "towns.csv").write_bytes("file_name,town\na.jpg,Köln\n".encode("latin-1"))
    assert recognise(tmp_path).recognised == expected


def test_a_bad_line_of_labels_csv_makes_no_other_list_of_it(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/2.jpg")
    text(tmp_path / "labels.csv", "file,glass\n1.jpg,yes\n")
    assert "can be read in 2 ways: " in refusal(tmp_path)


@pytest.mark.parametrize("rows", ["1.jpg,yes,no", "1.jpg,2,0\n2.jpg,1,1", "1.jpg,1", "1.jpg,Gl\xe4s,1"])
@pytest.mark.parametrize("part", ["class folders", "annotations.json"])
def test_a_table_with_a_bad_row_is_not_passed_over(tmp_path: Path, part: str, rows: str) -> None:
    PARTS[part](tmp_path)
    (tmp_path / "mylabels.csv").write_bytes(f"file,glass,paper\n{rows}\n".encode("latin-1"))
    message = refusal(tmp_path)
    assert "can be read in 2 ways: " in message
    assert "mylabels.csv" in message


def test_a_table_whose_photos_lie_in_folders_makes_no_classes_of_them(tmp_path: Path) -> None:
    photos(tmp_path, "monday/1.jpg", "tuesday/1.jpg")
    text(tmp_path / "labels.csv", "file,label\nmonday/1.jpg,glass\ntuesday/1.jpg,paper\n")
    assert recognise(tmp_path).kind == "label_table"


@pytest.mark.parametrize(
    ("names", "held"),
    [((), "It holds nothing."), (("photos/1.jpg", "2.jpg", "notes.csv"), "2.jpg, notes.csv, photos/")],
)
def test_nothing_that_is_known_tells_what_was_looked_for(tmp_path: Path, names: tuple[str, ...], held: str) -> None:
    photos(tmp_path, *names)
    message = refusal(tmp_path)
    for word in ("annotations.json", "COCO", "CSV with a column file_name", "data.yaml (YOLO)", "class folders", held):
        assert word in message


def test_a_dataset_one_folder_further_down_is_named(tmp_path: Path) -> None:
    yolo(tmp_path / "bins")
    (tmp_path / "docs").mkdir()
    assert refusal(tmp_path).endswith(f"bins/ in it can be read: give dataset={tmp_path / 'bins'}")
    assert recognise(tmp_path / "bins").kind == "yolo"


def test_a_table_without_a_column_of_file_names_is_named_with_its_columns(tmp_path: Path) -> None:
    text(tmp_path / "bins.csv", "photo,glass\na.jpg,1\n")
    assert "no CSV with a column file_name or the like (bins.csv has photo, glass)" in refusal(tmp_path)
    text(tmp_path / "bins.csv", "file_name,glass\na.jpg,1\n")
    assert recognise(tmp_path).kind == "label_table"


def test_data_files_of_other_things_are_no_darknet(tmp_path: Path) -> None:
    photos(tmp_path, "glass/1.jpg", "paper/1.jpg")
    text(tmp_path / "iris.data", "5.1,3.5,1.4,0.2,Iris-setosa\nnames = x\n")
    assert recognise(tmp_path).kind == "class_folders"


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    assert "is not a file of annotations" in refusal(text(tmp_path / "labels.txt", "a.jpg glass"))


# ── Materials ────────────────────────────────────────────────────────────────────────────────────────────────────


def of_label(label: str) -> str:
    return f"here: label '{label}'"


@pytest.fixture
def mapping(tmp_path: Path) -> MaterialMapping:
    rows = [("Jar", "glass"), ("Tin", "metal"), ("Box", "paper"), ("Paint", "toxic")]
    return read_mapping(write_mapping(tmp_path / "own.csv", rows))


def test_labels_are_rows_or_materials_and_only_what_occurs_is_kept(mapping: MaterialMapping) -> None:
    found = mapping_of_labels(mapping, ["paper", "Jar", "Box"], of_label)
    assert found.material_of == {"Jar": "glass", "Box": "paper", "paper": "paper"}
    assert found.materials == ("glass", "paper") == tuple(dict.fromkeys(found.material_of.values()))


def test_a_label_without_a_material_names_the_mappings_that_know_it(tmp_path: Path, mapping: MaterialMapping) -> None:
    rows = [("Jar", "glass"), ("Mug", "other"), ("Cup", "other")]
    knows = write_mapping(tmp_path / "knows.csv", rows)
    not_all = write_mapping(tmp_path / "not_all.csv", rows[:2])
    with pytest.raises(MappingError) as caught:
        mapping_of_labels(mapping, ["Cup", "Jar", "Mug"], of_label, [not_all, knows])
    assert str(caught.value) == (
        f"here: label 'Cup' has no material in {mapping.path} (nor has 1 more). Add a row, or give -P "
        "materials=knows, which knows them all."
    )


def test_one_material_is_too_few(mapping: MaterialMapping) -> None:
    with pytest.raises(MappingError, match=r"the labels Jar give 1 material\(s\)"):
        mapping_of_labels(mapping, ["Jar"], of_label)


# ── What follows from them ───────────────────────────────────────────────────────────────────────────────────────


def test_labels_without_outlines_are_no_problem(tmp_path: Path, mapping: MaterialMapping) -> None:
    photos(tmp_path / "photos", "Jar/1.jpg", "Tin/1.jpg")
    tables = tabulate(recognise(tmp_path / "photos").read(), mapping)
    assert tables.problems.empty
    assert tables.objects["area_share"].isna().all()
    assert tables.labels[["glass", "metal"]].to_numpy().tolist() == [[1, 0], [0, 1]]


def test_a_broken_outline_of_coco_still_is_one(tmp_path: Path, mapping: MaterialMapping) -> None:
    content = coco_dict(images=1, annotations_per_image=0, categories=("Jar", "Tin"))
    content["annotations"] = [annotation(1, 10, 0) | {"segmentation": None, "bbox": None}]
    tables = tabulate(recognise(write_json(tmp_path / "x.json", content)).read(), mapping)
    assert tables.problems["problem"].tolist() == ["outline left out, label kept: it has no outline"]


def test_sizes_are_upright_and_unreadable_headers_have_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    paths = []
    for orientation in (1, 3, 6, 8):
        exif[0x0112] = orientation
        for suffix in ("jpg", "png", "tif", "webp"):
            paths.append(tmp_path / f"{orientation}.{suffix}")
            Image.new("RGB", (30, 20)).save(paths[-1], exif=exif)
    expected = [(30, 20)] * 8 + [(20, 30)] * 8
    os.mkfifo(tmp_path / "pipe.jpg")
    text(tmp_path / "text.jpg", "no photo")
    bad = [tmp_path / name for name in ("pipe.jpg", "text.jpg", "gone.jpg", "x" * 300)]
    assert upright_sizes([*paths, *bad]) == expected + [(1, 1)] * 4
