"""Small changes of valid files: a layout reads right values or refuses in one line, and never anything else."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.factories import write_photo

from wastelens.data.annotations.coco import CocoDataset
from wastelens.data.annotations.layout import recognise
from wastelens.data.annotations.materials import is_material_name, read_mapping
from wastelens.errors import InputError

LABELS = frozenset({"glass", "paper"})
FILES = {
    "label_table": {"labels.csv": "file_name,glass,paper,site\na.jpg,1,0,x\nb.jpg,0,1,y\nc.jpg,0,0,z\n"},
    "names": {"labels.csv": "file_name;labels\na.jpg;glass\nb.jpg;paper\nc.jpg;\n"},
    "roboflow": {
        "train/_classes.csv": "filename, glass, paper\na.jpg, 1, 0\nb.jpg, 0, 1\n",
        "valid/_classes.csv": "filename, glass, paper\nc.jpg, 0, 0\n",
    },
    "yolo": {
        "data.yaml": "path: .\ntrain: images\nnames:\n  0: glass\n  1: paper\n",
        "labels/a.txt": "0 0.5 0.5 0.2 0.2\n",
        "labels/b.txt": "1 0.1 0.1 0.9 0.1 0.5 0.9\n",
        "labels/c.txt": "",
    },
    "pose": {
        "data.yaml": "train: images\nkpt_shape: [1, 2]\nnames: [glass, paper]\n",
        "labels/a.txt": "0 0.5 0.5 0.2 0.2 0.5 0.5\n",
        "labels/b.txt": "1 0.5 0.5 0.2 0.2 0.5 0.5\n",
        "labels/c.txt": "",
    },
    "darknet": {
        "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n",
        "obj.names": "glass\npaper\n",
        "train.txt": "data/images/a.jpg\ndata/images/b.jpg\ndata/images/c.jpg\n",
        "labels/a.txt": "0 0.5 0.5 0.2 0.2\n",
        "labels/b.txt": "1 0.5 0.5 0.2 0.2\n",
    },
    "class_folders": {"glass/notes.txt": "of the glass", "paper/notes.txt": "of the paper"},
}
PHOTOS = {
    "label_table": ("a.jpg", "b.jpg", "c.jpg"),
    "names": ("a.jpg", "b.jpg", "c.jpg"),
    "roboflow": ("train/a.jpg", "train/b.jpg", "valid/c.jpg"),
    "class_folders": ("glass/a.jpg", "paper/b.jpg"),
}
MAPPING = "category,material,reason\nJar,glass,clear\nBox,paper,\n"
PIECES = (
    *(
        "",
        "0",
        "1",
        "2",
        "-1",
        "0.5",
        "1e999",
        "nan",
        "NULL",
        "~",
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        "- ",
        "#",
        "*a",
        "&a ",
    ),
    *(
        '"',
        "'",
        "\\",
        "/",
        "../",
        "/etc/passwd",
        "C:\\",
        "\0",
        "\r",
        "\n",
        "\r\n",
        "\t",
        ";",
        ",",
        "|",
        "=",
        "%20",
        "\ufeff",
    ),
    *("\u2028", "\x85", "\ud800", "é", "e\u0301", "纸", "glass", "Glass", "x" * 300, ",," * 50, "[" * 400, "9" * 5000),
    *("<<: ", "!!int ", "!!binary ", "0x1F", "1:30", "yes", "sep=;\n", "file", "a.jpg", "images", "null"),
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-32")


@st.composite
def changed(draw: st.DrawFn, text: str) -> bytes:
    """Return a file's content with pieces put in, cut out or repeated, in some encoding and with some line ends."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + draw(st.sampled_from([*PIECES, text[start:end] * 2])) + text[end:]
    text = text.replace("\n", draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"])))
    raw = text.encode(draw(st.sampled_from(("utf-8", *ENCODINGS))), "replace")
    return draw(st.sampled_from([raw, raw, raw, raw[: len(raw) // 2], raw * 2, b"", raw + b"\xff\x00"]))


def check(dataset: CocoDataset) -> None:
    """Everything in a dataset fits together."""
    assert len({image.file_name for image in dataset.images}) == len(dataset.images) > 0
    assert all(image.width >= 1 and image.height >= 1 for image in dataset.images)
    assert all(category.name == category.name.strip() != "" for category in dataset.categories)
    images, categories = {one.id for one in dataset.images}, {one.id for one in dataset.categories}
    assert all(one.image_id in images and one.category_id in categories for one in dataset.annotations)


def refuses_in_one_line(read: Callable[[], None]) -> None:
    started = time.process_time()
    try:
        read()
    except InputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 2_000
        assert str(error).endswith(".")
    assert time.process_time() - started < 10  # no hang; a call takes milliseconds


# MUTATIONS=2000 for a long search.
MUTATIONS = int(os.environ.get("MUTATIONS", "60"))
MUTATED = settings(max_examples=MUTATIONS, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("layout", FILES)
@MUTATED
@given(data=st.data())
def test_a_changed_dataset_is_read_or_refused_in_one_line(layout: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for photo in PHOTOS.get(layout, ("images/a.jpg", "images/b.jpg", "images/c.jpg")):
            (folder / photo).parent.mkdir(parents=True, exist_ok=True)
            (folder / photo).write_bytes(PHOTO)
        target = data.draw(st.sampled_from(list(FILES[layout])))
        for file, text in FILES[layout].items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data.draw(changed(text)) if file == target else text.encode())

        def read() -> None:
            found = recognise(folder, LABELS)
            assert "\n" not in found.recognised
            check(found.read())
            assert found.digest() == recognise(folder, LABELS).digest()
            assert all(one.exists() for one in found.label_files())
            found.image_columns()

        refuses_in_one_line(read)


@MUTATED
@given(data=st.data())
def test_a_changed_mapping_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "m.csv"
        file.write_bytes(data.draw(changed(MAPPING)))

        def read() -> None:
            mapping = read_mapping(file)
            assert len(mapping.materials) >= 2
            assert all(is_material_name(material) for material in mapping.materials)
            assert set(mapping.material_of) == set(mapping.reasons)

        refuses_in_one_line(read)


def _photo() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        return write_photo(Path(name) / "a.jpg").read_bytes()


PHOTO = _photo()
