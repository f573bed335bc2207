"""The mapping that is proposed for one's own labels: following the advice of a refusal leads out."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.factories import coco_dict, write_json, write_photo

from wastelens import cli
from wastelens.data.annotations.sources import choose_source
from wastelens.errors import AnnotationsError, DatasetError, MappingError
from wastelens.preparing.reading import mapping_for


def class_folders(folder: Path) -> None:
    write_photo(folder / "Kite" / "1.jpg")
    write_photo(folder / "Plastic cups" / "1.jpg")


def coco(folder: Path) -> None:
    write_json(folder / "annotations.json", coco_dict(categories=("Kite", "Plastic cups")))


def table(folder: Path) -> None:
    (folder / "labels.csv").write_text("file,label\n1.jpg,Kite\n2.jpg,Plastic cups\n")


def yolo(folder: Path) -> None:
    write_photo(folder / "images" / "1.jpg")
    (folder / "labels").mkdir()
    (folder / "labels" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("train: images\nnames: [Kite, Plastic cups]\n")


@pytest.mark.parametrize("write", [class_folders, coco, table, yolo])
def test_the_advice_about_unknown_labels_leads_out(tmp_path: Path, write) -> None:
    folder = tmp_path / "my photos"
    folder.mkdir()
    write(folder)
    source = choose_source(str(folder), tmp_path)
    annotated = source.layout.read()
    with pytest.raises(MappingError) as caught:
        mapping_for(source, annotated, "default")
    command = re.search(r"with: wastelens (.*) > my\.csv", str(caught.value))
    assert command
    answer = CliRunner().invoke(cli.wastelens, shlex.split(command[1]), catch_exceptions=False)
    mapping = tmp_path / "my.csv"
    mapping.write_text(answer.stdout, encoding="utf-8")
    assert mapping_for(source, annotated, str(mapping)).material_of == {"Kite": "kite", "Plastic cups": "plastic"}


def test_it_loads_no_tensorflow(tmp_path: Path) -> None:
    class_folders(tmp_path)
    code = (
        "import sys; from wastelens import cli\n"
        f"cli.wastelens(['materials', '--dataset', {str(tmp_path)!r}], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'mlflow', 'distributed', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_labels_that_are_missing_are_no_mapping(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "labels" / "1.txt").unlink()
    source = choose_source(str(tmp_path), tmp_path)
    place = tmp_path / "labels" / "1.txt"
    with pytest.raises(
        AnnotationsError,
        match=re.escape(f"none of its 1 photos has a label file; the first was looked for at {place}. Put"),
    ):
        mapping_for(source, source.layout.read(), "default")
    place.write_text("0 0.5 0.5 0.5 0.5\n")
    again = choose_source(str(tmp_path), tmp_path)
    assert [one.name for one in again.layout.read().categories] == ["Kite"]


@pytest.mark.parametrize(("typed", "meant"), [("smaple", "'sample'"), ("ABOVE/my_photo", "'ABOVE/my_photos'")])
def test_a_misspelt_dataset_gets_a_proposal(tmp_path: Path, typed: str, meant: str) -> None:
    (tmp_path / "my_photos").mkdir()
    with pytest.raises(DatasetError) as caught:
        choose_source(typed.replace("ABOVE", str(tmp_path)), tmp_path)
    assert f"Did you mean {meant.replace('ABOVE', str(tmp_path))}?" in str(caught.value)
