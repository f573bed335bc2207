"""Each layout tells the split that its data came with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.factories import annotation, write_json, write_photo

from wastelens.data.annotations.coco import flat_name
from wastelens.data.annotations.layout import recognise, split_called


def yolo(folder: Path) -> None:
    for split, number in (("train", 1), ("valid", 2), ("test", 3)):
        write_photo(folder / split / "images" / f"{number}.jpg", seed=number)
        label = folder / split / "labels" / f"{number}.txt"
        label.parent.mkdir(parents=True)
        label.write_text("0 0.5 0.5 0.2 0.2\n")
    (folder / "data.yaml").write_text(
        "train: train/images\nval: valid/images\ntest: test/images\nnames: [glass, paper]\n"
    )


def class_folders(folder: Path) -> None:
    for split, number in (("train", 1), ("val", 2), ("Testing", 3)):
        for label in ("glass", "paper"):
            write_photo(folder / split / label / f"{number}.jpg", seed=number)


def table(folder: Path) -> None:
    folder.mkdir()
    rows = ["file_name,label,split", "1.jpg,glass,Train", "2.jpg,,valid", "3.jpg,glass,test"]
    (folder / "labels.csv").write_text("\n".join(rows))


def coco_files(folder: Path) -> None:
    for split, number in (("train", 1), ("valid", 2), ("test", 3)):
        write_photo(folder / split / f"{number}.jpg", seed=number)
        content = {
            "images": [{"id": 1, "file_name": f"{number}.jpg", "width": 64, "height": 48}],
            "annotations": [annotation(1, 1, 1)],
            "categories": [{"id": 1, "name": "glass"}],
        }
        write_json(folder / split / "_annotations.coco.json", content)


@pytest.mark.parametrize("write", [yolo, class_folders, table, coco_files])
def test_the_split_of_each_photo(tmp_path: Path, write: Callable[[Path], None]) -> None:
    folder = tmp_path / "bins"
    write(folder)
    layout = recognise(folder)
    photos = {flat_name(image.file_name): image.file_name for image in layout.read().images}
    told = layout.own_splits(photos)
    assert {(photos[flat].split("/")[-1], split) for flat, split in told} == {
        ("1.jpg", "train"), ("2.jpg", "val"), ("3.jpg", "test"),
    }  # fmt: skip
    assert {flat for flat, _ in told} == set(photos)


def test_a_class_called_test_is_no_split(tmp_path: Path) -> None:
    for label in ("glass", "test"):
        write_photo(tmp_path / "bins" / label / "1.jpg")
    layout = recognise(tmp_path / "bins")
    assert layout.own_splits({"glass_1.jpg": "glass/1.jpg", "test_1.jpg": "test/1.jpg"}) == []


def test_words_for_splits() -> None:
    words = ("train2017", "TRAINING", " valid ", "validation", "testing", "trainer", "contest", "")
    assert [split_called(word) for word in words] == ["train", "train", "val", "val", "test", "", "", ""]
