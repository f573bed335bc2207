"""Which prepared dataset a setting ``dataset=`` means, with its raw data there, moved, changed or gone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.factories import config, write_dataset, write_json, write_photo
from tests.memory_tracking import MemoryTracker

from wastelens.data.annotations import sources
from wastelens.data.prepared import opening
from wastelens.data.prepared.dataset import load_prepared, manifest_digest
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import DatasetError, InputError, PreparedDatasetError
from wastelens.steps import prepare


@pytest.fixture
def root(prepared_folder: Path, tmp_path: Path) -> Path:
    """Raw data in ``litter`` and the dataset that was prepared from there, to change."""
    shutil.copytree(prepared_folder, tmp_path, dirs_exist_ok=True)
    edit_manifest(tmp_path / "data" / "prepared" / "litter", source=str((tmp_path / "litter").resolve()))
    return tmp_path


def edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    write_json(folder / "manifest.json", manifest | {"digest": manifest_digest(manifest)})


def put(root: Path, name: str) -> Path:
    """Let the dataset be one of another name, as if it had been prepared under that."""
    folder = root / "data" / "prepared" / name
    shutil.copytree(root / "data" / "prepared" / "litter", folder)
    edit_manifest(folder, name=name, source=str(root / "data" / "raw" / name))
    return folder


def spoil(root: Path) -> None:
    file = root / "litter" / "annotations.json"
    content = json.loads(file.read_text())
    content["annotations"].pop()
    write_json(file, content)


@pytest.mark.parametrize("how", ["raw folder", "annotations", "prepared folder", "name"])
@pytest.mark.parametrize("raw", ["there", "without annotations", "gone"])
def test_ways_to_name_a_dataset(
    root: Path, how: str, raw: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = root / "data" / "prepared" / "litter"
    named = {
        "raw folder": root / "litter",
        "annotations": root / "litter" / "annotations.json",
        "prepared folder": folder,
        "name": "litter",
    }
    if raw == "gone":
        shutil.rmtree(root / "litter")
    elif raw == "without annotations":
        (root / "litter" / "annotations.json").unlink()
    (root / "empty").mkdir()
    monkeypatch.chdir(root / "empty")
    opened = open_dataset(str(named[how]), root / "data")
    assert opened.folder == folder
    assert opened.digest == load_prepared(folder).digest
    assert capsys.readouterr().out == ""


def test_nothing_is_read_where_nothing_was_touched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(manifest: dict[str, Any]) -> str:
        raise AssertionError(manifest["source"])

    monkeypatch.setattr(opening, "_annotations_digest", refuse)
    open_dataset(str(root / "litter"), root / "data")
    os.utime(root / "litter" / "annotations.json", ns=(0, 0))
    with pytest.raises(AssertionError, match="litter"):
        open_dataset(str(root / "litter"), root / "data")


def test_touched_annotations_are_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.utime(root / "litter" / "annotations.json", ns=(0, 0))
    open_dataset(str(root / "litter"), root / "data")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change", [spoil, lambda root: (root / "litter" / "annotations.json").write_text("{")], ids=["fewer", "no JSON"]
)
@pytest.mark.parametrize("place", ["litter", "data/prepared/litter"])
def test_changed_annotations_make_one_warning(
    root: Path, change: Callable[[Path], Any], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = load_prepared(root / "data" / "prepared" / "litter").digest
    change(root)
    for _ in range(3):
        assert open_dataset(str(root / place), root / "data").digest == digest
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("Warning: The annotations in ") == 1
    assert "are not those that" in printed
    assert "run prepare again" in printed


def test_raw_data_that_moved_are_known_by_their_digest(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "elsewhere").mkdir()
    shutil.move(root / "litter", root / "elsewhere" / "litter")
    opened = open_dataset(str(root / "elsewhere" / "litter"), root / "data")
    assert opened.raw_files["path"].map(Path.exists).all()
    assert capsys.readouterr().out == ""


def test_another_dataset_of_the_same_name_is_refused(root: Path) -> None:
    write_dataset(root / "other" / "litter", seed=1)
    for place in (root / "other" / "litter", root / "other" / "litter" / "annotations.json"):
        with pytest.raises(
            PreparedDatasetError, match=r"was prepared from .*litter, not from .*other.*Run prepare with"
        ):
            open_dataset(str(place), root / "data")
    shutil.rmtree(root / "other")
    with pytest.raises(DatasetError, match=r"A dataset of that name is prepared: dataset=.*prepared/litter"):
        open_dataset(str(root / "other" / "litter"), root / "data")


def test_what_is_no_dataset_is_refused_in_one_line(root: Path) -> None:
    (root / "empty").mkdir()
    lost = root / "lost"
    shutil.copytree(root / "data" / "prepared" / "litter", lost)
    (lost / "manifest.json").unlink()
    for place, words in {
        "nowhere": "is neither auto, taco, sample, nor a folder or file, nor prepared in .* Correct the path",
        "empty": "It holds nothing",
        "lost": "There is no prepared dataset in .*lost",
        "a\0b": "is neither auto",
        "x" * 300: "is neither auto",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            open_dataset(str(root / place), root / "data")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("typed", "meant"), [("sampel", "sample"), ("liter", "litter")])
def test_a_name_that_is_nearly_right(root: Path, typed: str, meant: str) -> None:
    with pytest.raises(DatasetError, match=f"Correct the path. Did you mean '{meant}'"):
        open_dataset(typed, root / "data")


def test_raw_data_with_a_file_called_as_one_of_ours_are_raw_data(root: Path) -> None:
    (root / "litter" / "manifest.json").write_text("{}")
    assert open_dataset(str(root / "litter"), root / "data").folder == root / "data" / "prepared" / "litter"


def test_auto_is_taco_if_it_is_there_or_if_it_alone_is_prepared(root: Path) -> None:
    data = root / "data"
    with pytest.raises(PreparedDatasetError, match=r"no prepared dataset in .*sample.* use .*: dataset=\S+/litter\.$"):
        open_dataset("auto", data)
    with pytest.raises(DatasetError, match=r"There is no .*annotations\.json\. Use dataset=sample"):
        open_dataset("taco", data)
    taco = put(root, "taco")
    assert open_dataset("auto", data).folder == open_dataset("taco", data).folder == taco
    sample = put(root, "sample")
    assert open_dataset("auto", data).folder == open_dataset("sample", data).folder == sample
    shutil.copytree(root / "litter", data / "raw" / "taco")
    assert open_dataset("auto", data).folder == taco


def test_prepare_refuses_a_prepared_folder(root: Path) -> None:
    chosen = config("prepare", f"data_folder={root / 'data'}", dataset=str(root / "data" / "prepared" / "litter"))
    with pytest.raises(DatasetError, match=r"is a prepared dataset\. Give prepare the raw data"):
        prepare.run(chosen, MemoryTracker())


def test_a_dataset_of_an_earlier_version_says_so_where_outlines_are_needed(root: Path) -> None:
    folder = root / "data" / "prepared" / "litter"
    before = load_prepared(folder)
    edit_manifest(folder, files={name: of for name, of in before.manifest["files"].items() if name != "outlines.json"})
    for name in ("outlines.json", "raw_files.csv"):
        (folder / name).unlink()
    opened = open_dataset(str(root / "litter"), root / "data")
    assert opened.digest == before.digest
    assert len(opened.raw_files) == 0
    with pytest.raises(PreparedDatasetError, match=r"by an earlier version of Wastelens, .*\. Run prepare again\.$"):
        opened.outlines()


def test_no_path_is_in_what_the_digest_covers(prepared_folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "litter", side=(48, 48))
    settings = f"image_side_px=32 data_folder={tmp_path / 'data'} folds=3"
    again = prepare.run(config("prepare", settings, dataset=str(tmp_path / "litter")), MemoryTracker()).dataset
    first = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    assert again.digest == first.digest
    assert again.manifest["files"] == first.manifest["files"]
    assert again.manifest["source"] != first.manifest["source"]


def test_raw_files_tell_where_each_photo_was(root: Path) -> None:
    write_photo(root / "litter" / "beside.jpg")
    opened = open_dataset(str(root / "data" / "prepared" / "litter"), root / "nowhere")
    files = opened.raw_files
    assert files["file_name"].tolist() == [*opened.frame["file_name"], ""]
    assert files["path"].tolist() == [
        *(root / "litter" / name for name in opened.frame["source_file"]),
        root / "litter" / "annotations.json",
    ]
    assert files["size_bytes"].tolist() == [path.stat().st_size for path in files["path"]]
    assert sources.raw_folder(opened.manifest) == root / "litter"
