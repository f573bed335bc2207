"""The contract of every layout; a new one needs nothing but its own file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from tests.factories import coco_dict, write_json, write_photo

from wastelens.data.annotations.coco import CocoDataset
from wastelens.data.annotations.layout import LAYOUTS, Layout, Marked, assemble, recognise
from wastelens.errors import DatasetError

PHOTOS = ("images/glass/1.jpg", "images/paper/2.jpg")


def class_folders(folder: Path) -> None:
    for name in ("glass", "paper"):
        (folder / "images" / name).rename(folder / name)
    (folder / "images").rmdir()


def coco(folder: Path) -> None:
    content = coco_dict(images=2)
    for image, name in zip(content["images"], PHOTOS, strict=True):
        image["file_name"] = name
    write_json(folder / "annotations.json", content)


def label_table(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{name},glass\n" for name in PHOTOS))


def yolo(folder: Path) -> None:
    (folder / "data.yaml").write_text("train: images\nnames: [glass, paper]\n")
    (folder / "labels" / "glass").mkdir(parents=True)
    (folder / "labels" / "glass" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")


def tables_of_splits(folder: Path) -> None:
    for split, name in zip(("train", "valid"), PHOTOS, strict=True):
        (folder / split / "images").mkdir(parents=True)
        (folder / name).rename(folder / split / "images" / Path(name).name)
        (folder / split / "_classes.csv").write_text(f"filename,glass\n{Path(name).name},1\n")


def folder_around_class_folders(folder: Path) -> None:
    class_folders(folder)
    for name in ("glass", "paper"):
        (folder / "archive" / "bins").mkdir(parents=True, exist_ok=True)
        (folder / name).rename(folder / "archive" / "bins" / name)


def yolo_beside(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        yolo(folder)
        (folder / "data.yaml").unlink()
        (folder / "obj.names").write_text("glass\npaper\n")
        (folder / "train.txt").write_text("".join(f"data/{photo}\n" for photo in PHOTOS))
        (folder / name).write_text(content)

    return write


# Kind, and which form of it → writes annotations of two photos into their folder. A new layout needs a line here.
EXAMPLES: dict[str, Callable[[Path], None]] = {
    "class_folders": class_folders,
    "class_folders in folders": folder_around_class_folders,
    "coco": coco,
    "label_table": label_table,
    "label_table of splits": tables_of_splits,
    "yolo": yolo,
    "yolo dataset.yaml": yolo_beside("dataset.yaml", "train: images\nnames: {0: glass, 1: paper}\n"),
    "yolo obj.data": yolo_beside("obj.data", "train = data/train.txt\nnames = data/obj.names\n"),
    "yolo classes.txt": yolo_beside("classes.txt", "glass\npaper\n"),
}
NOT_BY_THEIR_FILE = ("label_table of splits", "yolo classes.txt")


def test_every_layout_has_an_example() -> None:
    assert {name.split()[0] for name in EXAMPLES} == set(LAYOUTS.parts)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_layout_is_recognised_and_read(tmp_path: Path, name: str) -> None:
    kind = name.split(maxsplit=1)[0]
    for number, photo in enumerate(PHOTOS):
        write_photo(tmp_path / photo, seed=number)
    EXAMPLES[name](tmp_path)
    layout = recognise(tmp_path)
    assert type(layout) is LAYOUTS[kind]
    assert (layout.kind, layout.root) == (kind, tmp_path)
    assert layout.annotations.is_relative_to(tmp_path)
    assert str(tmp_path) in layout.recognised
    dataset = layout.read()
    assert len(dataset.images) == len(PHOTOS)
    assert dataset.annotations
    assert layout.digest() == recognise(tmp_path).digest()
    assert "'glass'" in layout.of_label("glass")
    assert layout.told(frozenset({"glass"})) == layout
    assert layout.no_labels().endswith(".")
    files = layout.label_files()
    assert len(set(files)) == len(files) > 0
    assert all(file.exists() and file.is_relative_to(tmp_path) for file in files)
    if layout.suffixes and name not in NOT_BY_THEIR_FILE:
        assert recognise(layout.annotations) == layout


def test_titles_and_suffixes_are_unique() -> None:
    layouts = LAYOUTS.parts.values()
    titles, suffixes = [one.title for one in layouts], [suffix for one in layouts for suffix in one.suffixes]
    assert len(set(titles)) == len(titles)
    assert len(set(suffixes)) == len(suffixes)


def test_a_new_layout_needs_only_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class OneLabel(Layout):
        """A file ``label.txt`` with the one label of all photos beside it."""

        kind: ClassVar[str] = "one_label"
        title: ClassVar[str] = "one label"
        suffixes: ClassVar[tuple[str, ...]] = (".txt",)

        @classmethod
        def find(cls, folder: Path) -> list[OneLabel]:
            return [cls(folder)] if (folder / "label.txt").is_file() else []

        @classmethod
        def of_file(cls, file: Path) -> OneLabel:
            return cls(file.parent)

        @classmethod
        def sought(cls, folder: Path) -> str:
            return "label.txt"

        @property
        def annotations(self) -> Path:
            return self.root / "label.txt"

        @property
        def recognised(self) -> str:
            return f"one label in {self.annotations}"

        def read(self) -> CocoDataset:
            label = Marked(self.annotations.read_text().strip())
            photos = {path.name: [label] for path in self.root.glob("*.jpg")}
            return assemble(self.annotations, self.root, photos, has_outlines=False)

        def digest(self) -> str:
            return self.annotations.read_text()

        def of_label(self, label: str) -> str:
            return f"{self.annotations}: label '{label}'"

    monkeypatch.setattr(LAYOUTS, "_parts", dict(LAYOUTS.parts))
    LAYOUTS.register("one_label")(OneLabel)
    with pytest.raises(DatasetError, match=r", no label\.txt\. It holds nothing"):
        recognise(tmp_path)
    with pytest.raises(DatasetError, match=r"Give one of .*\.txt \(one label\)"):
        recognise(write_photo(tmp_path / "1.jpg"))
    (tmp_path / "label.txt").write_text("glass\n")
    for place in (tmp_path, tmp_path / "label.txt"):
        layout = recognise(place)
        assert (layout.kind, [one.name for one in layout.read().categories]) == ("one_label", ["glass"])
