"""The factor ``mapping``: the same photos and splits with other labels, made once, and a study that compares both."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import MATERIALS, config, default_mapping, write_mapping
from tests.memory_tracking import MemoryTracker

from wastelens.config.study import parse_factor
from wastelens.data.prepared.dataset import PreparedDataset, draft, load_prepared
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import BalanceError, ConfigError, DatasetError, PreparedDatasetError
from wastelens.evaluation.controls import Controls
from wastelens.preparing import relabel, stages
from wastelens.preparing.relabel import datasets_of_levels, relabelled
from wastelens.steps import prepare, study

FILES = ("labels.csv", "objects.csv", "train_balanced.csv", "folds.csv", "controls.csv", "problems.csv")


@pytest.fixture(scope="module")
def base(prepared_folder: Path) -> PreparedDataset:
    return load_prepared(prepared_folder / "data" / "prepared" / "litter")


@pytest.fixture(scope="module")
def other(base: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """The small dataset with the labels of ``predecessor``, made once for all tests that only read it."""
    return relabelled(base, "predecessor", tmp_path_factory.mktemp("data"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score the controls only once: they take most of the time, and few tests are about them."""
    first: list[Controls] = []

    def once(tables: list[Any], photos: Any, seed: int) -> list[Controls]:
        first[:] = first or original(tables[:1], photos, seed)
        return [replace(first[0], scores=repeated(first[0], of)) for of in tables]

    def repeated(scored: Controls, of: Any) -> Any:
        rows = {"val": len(of.val), "test": len(of.test)}
        return {
            name: {split: np.resize(one, (rows[split], one.shape[1])) for split, one in splits.items()}
            for name, splits in scored.scores.items()
        }

    original = stages.score_all_controls
    monkeypatch.setattr(stages, "score_all_controls", once)


def own_mapping(path: Path, **changed: str) -> str:
    """The shipped mapping with some categories' materials changed."""
    return str(write_mapping(path, [(name, changed.get(name, of)) for name, of in default_mapping().items()]))


def test_labels_and_objects_are_those_that_prepare_makes_of_the_mapping(
    prepared_folder: Path, other: PreparedDataset, tmp_path: Path
) -> None:
    settings = f"image_side_px=32 materials=predecessor data_folder={tmp_path}"
    again = prepare.run(config("prepare", settings, dataset=str(prepared_folder / "litter")), MemoryTracker()).dataset
    columns = [name for name in again.frame if name not in ("group", "split")]
    pd.testing.assert_frame_equal(other.frame[columns], again.frame[columns])
    for name in ("objects.csv", "problems.csv", "materials.csv"):
        assert (other.folder / name).read_bytes() == (again.folder / name).read_bytes()
    for key in ("materials", "cache", "annotations_digest"):
        assert other.manifest[key] == again.manifest[key]
    assert other.manifest["counts"]["materials"] == again.manifest["counts"]["materials"]


def test_all_but_the_labels_is_that_of_the_dataset(base: PreparedDataset, other: PreparedDataset) -> None:
    kept = [name for name in base.frame if name not in MATERIALS]
    pd.testing.assert_frame_equal(other.frame[kept], base.frame[kept])
    assert not other.frame.equals(base.frame)
    for fold in range(4):
        parts = [(vars(of.split(fold))) for of in (base, other)]
        assert all(parts[0][name].file_names == parts[1][name].file_names for name in ("train", "val", "test"))
    photos = other.folder / other.manifest["cache"]["file"]
    assert photos.samefile(base.folder / photos.name)
    assert other.digest != base.digest
    assert other.manifest["settings"] == {**base.manifest["settings"], "materials": "predecessor"}


def test_balance_and_controls_follow_the_labels(other: PreparedDataset) -> None:
    for fold in range(4):
        tables = other.split(fold)
        rows = other.balanced_train(fold)
        assert set(rows.file_names) == set(tables.train.file_names)
        assert rows.labels.sum(axis=0).min() >= 0.7 * rows.labels.sum(axis=0).max()
        labels = other.frame.set_index("file_name").loc[rows.file_names, list(MATERIALS)]
        assert np.array_equal(rows.labels, labels)
    seed = other.manifest["settings"]["seed"]
    scored = stages.score_all_controls([other.split(2)], other.photos, seed)[0]
    assert other.control_macro_ap(2) == {name: of["test"] for name, of in scored.macro_ap.items()}
    random = other.controls(2).query("control == 'random' and split == 'test'")
    np.testing.assert_allclose(random[list(MATERIALS)], scored.scores["random"]["test"])


def test_it_opens_as_any_prepared_dataset(other: PreparedDataset) -> None:
    opened = open_dataset(str(other.folder), other.folder.parent.parent)
    assert opened.folder == other.folder
    assert opened.outlines().of("batch_1_000000.jpg")
    assert set(opened.raw_files["path"].map(Path.exists)) == {True}
    assert opened.folder.parts[-4:] == ("mappings", "predecessor", "prepared", "litter")
    assert {*FILES, "materials.csv"} < set(opened.manifest["files"])


def test_its_own_mapping_gives_the_dataset_itself(base: PreparedDataset, tmp_path: Path) -> None:
    assert relabelled(base, "default", tmp_path) is base
    assert relabelled(base, own_mapping(tmp_path / "same.csv"), tmp_path) is base
    assert [path.name for path in tmp_path.iterdir()] == ["same.csv"]


@pytest.mark.usefixtures("quick")
def test_a_second_call_opens_what_is_there_until_dataset_or_mapping_change(
    base: PreparedDataset, tmp_path: Path
) -> None:
    mapping = own_mapping(tmp_path / "own.csv", **{"Food Can": "toxic"})
    first = relabelled(base, mapping, tmp_path)
    made_at = (first.folder / "manifest.json").stat().st_ino
    again = relabelled(base, mapping, tmp_path)
    assert (again.folder / "manifest.json").stat().st_ino == made_at
    assert again.digest == first.digest
    own_mapping(tmp_path / "own.csv", **{"Food Can": "glass"})
    of_other_mapping = relabelled(base, mapping, tmp_path)
    assert of_other_mapping.folder == first.folder
    assert of_other_mapping.digest != first.digest
    changed = PreparedDataset(base.folder, {**base.manifest, "digest": "another"}, base.frame)
    assert relabelled(changed, mapping, tmp_path).manifest["relabelled_from"] == "another"
    of_dataset = relabelled(base, mapping, tmp_path)
    made_at = (of_dataset.folder / "manifest.json").stat().st_ino
    moved = PreparedDataset(base.folder, {**base.manifest, "source": "/elsewhere/litter"}, base.frame)
    assert (relabelled(moved, mapping, tmp_path).folder / "manifest.json").stat().st_ino == made_at
    files = {**base.manifest["files"], "outlines.json": "corrected"}
    corrected = PreparedDataset(base.folder, {**base.manifest, "files": files}, base.frame)
    assert (relabelled(corrected, mapping, tmp_path).folder / "manifest.json").stat().st_ino != made_at


@pytest.mark.usefixtures("quick")
def test_what_was_changed_by_hand_is_made_again(base: PreparedDataset, tmp_path: Path) -> None:
    first = relabelled(base, "predecessor", tmp_path)
    before = (first.folder / "labels.csv").read_text()
    (first.folder / "labels.csv").write_text(before.replace(",1,", ",0,"))
    assert (relabelled(base, "predecessor", tmp_path).folder / "labels.csv").read_text() == before


@pytest.mark.usefixtures("quick")
def test_an_interrupted_one_is_finished_by_the_next(
    base: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(relabel, "write_dataset", interrupted)
        with pytest.raises(KeyboardInterrupt):
            relabelled(base, "predecessor", tmp_path)
    place = tmp_path / "mappings" / "predecessor" / "prepared"
    assert [path.name for path in place.iterdir()] == [".litter.unfinished"]
    relabelled(base, "predecessor", tmp_path)
    assert [path.name for path in place.iterdir()] == ["litter"]
    assert load_prepared(base.folder).digest == base.digest


@pytest.mark.usefixtures("quick")
def test_a_second_process_waits_for_the_first(
    base: PreparedDataset,
    other: PreparedDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    waiting, done = threading.Event(), []
    monkeypatch.setattr(relabel, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(relabel.interrupts, "check", waiting.set)
    second = threading.Thread(target=lambda: done.append(relabelled(base, "predecessor", tmp_path)))
    place = tmp_path / "mappings" / "predecessor" / "prepared" / "litter"
    with draft(place) as first:
        second.start()
        assert waiting.wait(60)
        shutil.copytree(other.folder, first, dirs_exist_ok=True)
        published = (first / "manifest.json").stat().st_ino
    second.join(60)
    assert done[0].digest == other.digest
    assert (place / "manifest.json").stat().st_ino == published
    assert (
        capsys.readouterr().out.count("Waiting for another process, which relabels litter with mapping=predecessor.")
        == 1
    )


def test_a_file_in_its_place_is_kept(base: PreparedDataset, tmp_path: Path) -> None:
    place = tmp_path / "mappings" / "predecessor" / "prepared" / "litter"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    with pytest.raises(DatasetError, match="is a file, but the prepared dataset should go there"):
        relabelled(base, "predecessor", tmp_path)
    assert place.read_text() == "mine"


@pytest.mark.usefixtures("quick")
def test_labels_that_cannot_be_balanced_leave_nothing(base: PreparedDataset, tmp_path: Path) -> None:
    objects = pd.read_csv(base.folder / "objects.csv")
    unused = next(name for name in default_mapping() if name not in set(objects["category"]))
    rows = [
        (name, "toxic" if name == unused else "glass" if of == "toxic" else of)
        for name, of in default_mapping().items()
    ]
    mapping = write_mapping(tmp_path / "own.csv", rows)
    with pytest.raises(BalanceError, match=r"own\.csv: Material 'toxic' is in no training photo"):
        relabelled(base, str(mapping), tmp_path / "data")
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_a_fold_without_a_material_in_test_is_allowed(base: PreparedDataset, tmp_path: Path) -> None:
    objects = pd.read_csv(base.folder / "objects.csv")
    train = [set(base.split(fold).train.file_names) for fold in range(4)]
    test = set(base.split(1).test.file_names)
    photos_of = {name: set(of["file_name"]) for name, of in objects.groupby("category")}
    rare = next(name for name, on in photos_of.items() if not on & test and all(on & fold for fold in train))
    rows = [
        (name, "toxic" if name == rare else "glass" if of == "toxic" else of) for name, of in default_mapping().items()
    ]
    made = relabelled(base, str(write_mapping(tmp_path / "own.csv", rows)), tmp_path)
    assert not made.split(1).test.frame["toxic"].any()
    assert all(0 < value < 1 for value in made.control_macro_ap(1).values())


def test_a_dataset_of_another_version_is_refused(base: PreparedDataset, tmp_path: Path) -> None:
    settings = {key: value for key, value in base.manifest["settings"].items() if key != "max_copies"}
    older = PreparedDataset(base.folder, {**base.manifest, "settings": settings}, base.frame)
    with pytest.raises(PreparedDatasetError, match=r"prepared by another version of Wastelens\. Run prepare again\."):
        relabelled(older, "predecessor", tmp_path)


def test_levels_that_are_the_same_are_refused(base: PreparedDataset, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, twin = own_mapping(tmp_path / "own.csv"), own_mapping(tmp_path / "a" / "own.csv")
    with pytest.raises(ConfigError, match=r"own\.csv: both are called own\. Rename one of the files\."):
        datasets_of_levels([parse_factor(f"mapping={one}|{twin}")], base, tmp_path)
    with pytest.raises(ConfigError, match=r"mapping=default\|.*own\.csv: both give every object of litter the same"):
        datasets_of_levels([parse_factor(f"mapping=default|{one}")], base, tmp_path)


def test_without_the_factor_there_is_the_one_dataset(base: PreparedDataset, tmp_path: Path) -> None:
    assert datasets_of_levels([parse_factor("augment=false|true")], base, tmp_path) == {"": base}


@pytest.mark.slow
def test_a_study_compares_mappings_on_the_same_photos(
    prepared_folder: Path, base: PreparedDataset, other: PreparedDataset, tmp_path: Path
) -> None:
    tracker = MemoryTracker()
    glass_is_paper = {"glass": "paper", "paper": "glass"}
    rows = [(name, glass_is_paper.get(of, of)) for name, of in default_mapping().items()]
    levels = ["predecessor", "default", str(write_mapping(tmp_path / "swapped.csv", rows))]
    settings = (
        f"data_folder={prepared_folder / 'data'} factors=mapping={'|'.join(levels)} models=base seeds=1 folds=3 "
        "train.network.widths=[4,8] train.fit.epochs=1 train.fit.batch_size=16 train.bootstrap_resamples=100 "
        "bootstrap_resamples=100"
    )
    studied = study.run(config("study", settings, dataset=str(prepared_folder / "litter")), tracker)
    cells = studied.contents.cells
    assert cells["mapping"].tolist() == levels
    assert cells["status"].tolist() == ["finished"] * 3
    runs = {run.id: run for run in tracker.runs}
    of_level = [runs[run_id] for run_id in cells["run_id"]]
    tables = [pd.read_csv(run.folder / "predictions_test.csv") for run in of_level]
    assert all(table["file_name"].tolist() == base.split(3).test.file_names for table in tables)
    earlier, default, swapped = (table[[f"label_{material}" for material in MATERIALS]].to_numpy() for table in tables)
    assert np.array_equal(earlier, other.split(3).test.labels)
    assert np.array_equal(default, base.split(3).test.labels)
    assert np.array_equal(swapped, default[:, [0, 1, 3, 2, 4, 5]])
    assert not np.array_equal(earlier, default)
    assert not np.array_equal(swapped, default)
    digests = [run.tags["dataset_digest"] for run in of_level]
    assert digests[:2] == [other.digest, base.digest]
    assert len(set(digests)) == 3
    assert [run.tags["mapping"] for run in of_level] == ["predecessor", "default", "swapped"]
    assert runs[studied.run_id].tags["dataset_digest"] == base.digest == load_prepared(base.folder).digest
    ap = studied.contents.comparisons.query("metric == 'macro_ap'")
    assert (ap["first"].tolist(), ap["second"].tolist()) == (["predecessor"] * 2, levels[1:])
