"""Corrections of labels: what is read, what changes, and which labels photos are tested by."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tests.factories import MATERIALS, config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.config.study import parse_factor
from wastelens.data.prepared.dataset import PreparedDataset, load_prepared
from wastelens.errors import ConfigError
from wastelens.preparing.corrections import changes, read_corrections
from wastelens.preparing.relabel import corrected, datasets_of_levels, relabelled
from wastelens.steps import prepare, study

HEADER = "file_name,material,label"


def written(path: Path, *rows: str, header: str = HEADER) -> str:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def base(prepared_folder: Path) -> PreparedDataset:
    return load_prepared(prepared_folder / "data" / "prepared" / "litter")


@pytest.fixture(scope="module")
def flips(base: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that adds glass to the first photo of each split without it, and names one photo that there is not."""
    rows = []
    for split in ("train", "val", "test"):
        frame = base.frame[(base.frame["split"] == split) & (base.frame["glass"] == 0)]
        rows.append(f"{frame['file_name'].iloc[0]},glass,1")
    already = base.frame[base.frame["plastic"] == 1]["file_name"].iloc[0]
    rows += [f"{already},plastic,1", "nowhere.jpg,glass,1"]
    return written(tmp_path_factory.mktemp("corrections") / "corrections.csv", *rows)


def photos_of(file: str) -> list[str]:
    return pd.read_csv(file)["file_name"].tolist()


def prepared_with(root: Path, data: Path, file: str, settings: str = "") -> tuple[PreparedDataset, MemoryRun]:
    tracker = MemoryTracker()
    chosen = f"image_side_px=32 folds=3 data_folder={data} {settings}"
    result = prepare.run(config("prepare", chosen, dataset=str(root / "litter"), corrections=file), tracker)
    return result.dataset, tracker.runs[0]


@pytest.fixture(scope="module")
def with_flips(
    prepared_folder: Path, flips: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreparedDataset, MemoryRun]:
    return prepared_with(prepared_folder, tmp_path_factory.mktemp("data"), flips)


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("file_name,material", ["a.jpg,glass"], "has no column 'label'"),
        (f"{HEADER},colour", ["a.jpg,glass,1,red"], "has the unknown column 'colour'"),
        (HEADER, ["a.jpg,glas,1"], "line 2: 'glas' is no material of the dataset. Did you mean 'glass'"),
        (HEADER, ["a.jpg,glass,1", "a.jpg,paper,2"], "line 3: the label of a.jpg is '2'. Write 0 or 1"),
        (HEADER, ["a.jpg,glass,1", "a.jpg,glass,0"], "line 3: a.jpg gets the label 0 for glass, but 1"),
        (HEADER, [",glass,1"], "line 2: the photo is not named"),
        (HEADER, [], "has no rows"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, header: str, rows: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_corrections(written(tmp_path / "c.csv", *rows, header=header), MATERIALS)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"corrections=.*none\.csv cannot be read"):
        read_corrections(str(tmp_path / "none.csv"), MATERIALS)


def test_a_file_as_the_page_writes_it_is_read(tmp_path: Path) -> None:
    rows = ['"\'=a.jpg","glass","1","wrong"', '"b, ""c"".jpg","paper","0","unsure"']
    read = read_corrections(written(tmp_path / "c.csv", *rows, header=f"{HEADER},answer"), MATERIALS)
    assert read.label_of == {("=a.jpg", "glass"): 1, ('b, "c".jpg', "paper"): 0}


def test_there_is_no_test_to_correct_without_corrections() -> None:
    with pytest.raises(ConfigError, match="correct_test=true, but no corrections are given"):
        config("prepare", "correct_test=true")


def test_rows_for_other_photos_alone_are_refused(tmp_path: Path, base: PreparedDataset) -> None:
    read = read_corrections(written(tmp_path / "c.csv", "nowhere.jpg,glass,1"), MATERIALS)
    with pytest.raises(ConfigError, match=r"none of its rows names a photo of the dataset, the first 'nowhere\.jpg'"):
        changes(read, base.frame, base.materials, correct_test=False)


def test_only_what_was_asked_for_changes(
    base: PreparedDataset, with_flips: tuple[PreparedDataset, MemoryRun], flips: str
) -> None:
    dataset, run = with_flips
    in_train, in_val, in_test, *_ = photos_of(flips)
    wanted = base.frame.copy()
    wanted.loc[wanted["file_name"].isin([in_train, in_val]), "glass"] = 1
    pd.testing.assert_frame_equal(dataset.frame, wanted)  # labels.csv: the same splits, the test photo as annotated
    kept = pd.read_csv(dataset.folder / "corrections.csv").sort_values("file_name", ignore_index=True)
    assert kept.to_dict("records") == [
        {"file_name": name, "material": "glass", "old": 0, "new": 1, "test": 0}
        for name in sorted([in_train, in_val, in_test])
    ]
    assert dataset.digest != base.digest
    for name, value in {"changed": 3, "unchanged": 1, "unmatched": 1, "test": 1}.items():
        assert run.metrics[f"corrections/{name}"] == value
    assert (run.folder / "corrections.csv").is_file()


def test_a_photo_is_tested_by_its_annotated_label_in_every_fold(
    base: PreparedDataset, with_flips: tuple[PreparedDataset, MemoryRun], flips: str
) -> None:
    dataset, _ = with_flips
    changed = photos_of(flips)[:3]
    for fold in range(4):
        tables = dataset.split(fold)
        for name in ("train", "val", "test"):
            table, before = getattr(tables, name).frame, getattr(base.split(fold), name).frame
            assert table["file_name"].tolist() == before["file_name"].tolist()
            mine = table["file_name"].isin(changed)
            assert (table.loc[mine, "glass"] == (0 if name == "test" else 1)).all()
            pd.testing.assert_frame_equal(table[~mine], before[~mine])
        balanced = dataset.balanced_train(fold).frame.drop_duplicates("file_name").set_index("file_name")
        train = tables.train.frame.set_index("file_name")
        assert balanced.loc[train.index, "glass"].equals(train["glass"])


def test_test_photos_are_corrected_where_that_is_asked_for(prepared_folder: Path, flips: str, tmp_path: Path) -> None:
    dataset, _ = prepared_with(prepared_folder, tmp_path, flips, "correct_test=true")
    in_test = photos_of(flips)[2]
    assert dataset.frame.set_index("file_name").at[in_test, "glass"] == 1
    assert (pd.read_csv(dataset.folder / "corrections.csv")["test"] == 1).all()
    for fold in range(4):
        test = dataset.split(fold).test.frame
        assert (test.loc[test["file_name"].isin(photos_of(flips)[:3]), "glass"] == 1).all()


def test_the_run_says_what_it_did_and_did_not(
    prepared_folder: Path, flips: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared_with(prepared_folder, tmp_path, flips)
    said = capsys.readouterr().out
    assert f"{flips} corrects 3 labels of 3 photos." in said
    assert "1 of its rows say what the label is already." in said
    assert "1 of the labels are of test photos." in said
    assert "correct_test=true corrects it too" in said
    assert "photos that the dataset does not have, so that their rows change nothing: nowhere.jpg." in said


def test_corrections_that_change_nothing_leave_the_digest(
    prepared_folder: Path, base: PreparedDataset, tmp_path: Path
) -> None:
    row = base.frame.iloc[0]
    same = written(tmp_path / "c.csv", f"{row['file_name']},glass,{row['glass']}")
    dataset, _ = prepared_with(prepared_folder, tmp_path / "data", same)
    assert dataset.digest == base.digest
    assert not (dataset.folder / "corrections.csv").exists()


def test_a_studys_corrected_dataset_is_the_one_that_prepare_makes(
    base: PreparedDataset, with_flips: tuple[PreparedDataset, MemoryRun], flips: str, tmp_path: Path
) -> None:
    made = corrected(base, flips, tmp_path)
    assert made.folder == tmp_path / "corrections" / "corrections" / "prepared" / "litter"
    for name in ("labels.csv", "corrections.csv", "train_balanced.csv", "folds.csv", "controls.csv", "objects.csv"):
        assert (made.folder / name).read_bytes() == (with_flips[0].folder / name).read_bytes(), name
    assert made.digest == with_flips[0].digest
    written_at = (made.folder / "manifest.json").stat().st_mtime_ns
    assert corrected(base, flips, tmp_path).digest == made.digest
    assert (made.folder / "manifest.json").stat().st_mtime_ns == written_at
    assert corrected(base, "none", tmp_path) is base


def test_changed_corrections_are_applied_again(base: PreparedDataset, tmp_path: Path) -> None:
    name = base.frame[(base.frame["split"] == "train") & (base.frame["glass"] == 0)]["file_name"]
    file = written(tmp_path / "c.csv", f"{name.iloc[0]},glass,1")
    first = corrected(base, file, tmp_path)
    written(tmp_path / "c.csv", f"{name.iloc[1]},glass,1")
    assert corrected(base, file, tmp_path).digest != first.digest


def test_levels_that_cannot_be_compared_are_refused(
    base: PreparedDataset, with_flips: tuple[PreparedDataset, MemoryRun], flips: str, tmp_path: Path
) -> None:
    both = [parse_factor(f"corrections=none|{flips}"), parse_factor("mapping=default|predecessor")]
    with pytest.raises(ConfigError, match="corrections and mapping both change the labels"):
        datasets_of_levels(both, base, tmp_path)
    name = base.frame["file_name"].iloc[0]
    nothing = written(tmp_path / "same.csv", f"{name},glass,{base.frame['glass'].iloc[0]}")
    with pytest.raises(ConfigError, match="both give every photo the same labels"):
        datasets_of_levels([parse_factor(f"corrections=none|{nothing}")], base, tmp_path)
    for change in (
        lambda: corrected(with_flips[0], flips, tmp_path),
        lambda: relabelled(with_flips[0], "predecessor", tmp_path),
    ):
        with pytest.raises(ConfigError, match="was prepared with corrections"):
            change()


def test_a_study_compares_with_and_without_corrections(
    prepared_folder: Path, base: PreparedDataset, flips: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wastelens.experiment.train_one.served_model", lambda *arguments: None)
    monkeypatch.setattr(MemoryRun, "log_model", lambda *arguments: None)
    monkeypatch.setattr("wastelens.experiment.train_one.verdict_figures", lambda *arguments: {})
    tracker = MemoryTracker()
    settings = (
        f"data_folder={prepared_folder / 'data'} bootstrap_resamples=100 train.bootstrap_resamples=100 "
        "train.fit.epochs=1 train.network.widths=[4] folds=[0]"
    )
    given = {"dataset": str(prepared_folder / "litter"), "models": "base", "seeds": "2"}
    done = study.run(config("study", settings, **given, factors=f"corrections=none|{flips}"), tracker)
    trained = [run for run in tracker.runs if run.tags.get("step") == "train"]
    assert sorted(run.tags["corrections"] for run in trained) == ["corrections", "corrections", "none", "none"]
    assert len({run.tags["dataset_digest"] for run in trained}) == 2
    report = next(run for run in tracker.runs if run.id == done.run_id)
    assert report.tags["verdict"]
    assert report.tags["compares"] == "corrections"
    test = [
        pd.read_csv(run.folder / "predictions_test.csv")[[f"label_{name}" for name in MATERIALS]] for run in trained
    ]
    assert all(one.equals(test[0]) for one in test)  # both are tested by the same labels
