"""The step ``compare``: which runs make an arm, which are paired, and which cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score
from tests.factories import MATERIALS, config

from wastelens.config import TrainConfig
from wastelens.errors import ConfigError, RunError
from wastelens.evaluation.verdict import Verdict
from wastelens.memory_tracking import MemoryRun, MemoryTracker
from wastelens.steps import compare, train
from wastelens.studies.report import StudyContents

PHOTOS, GROUPS = 30, 6
PAIRED_BY_ORDER = "The runs of a fold are paired in their order, not by seed: their seeds differ, or are there twice."


def compared(tracker: MemoryTracker, *runs: MemoryRun | str) -> StudyContents:
    ids = [run if isinstance(run, str) else run.id for run in runs]
    return compare.run(config("compare", "bootstrap_resamples=100", run_ids=",".join(ids)), tracker)


def refused(tracker: MemoryTracker, *runs: MemoryRun | str) -> str:
    before = len(tracker.runs)
    with pytest.raises(RunError) as caught:
        compared(tracker, *runs)
    message = str(caught.value)
    assert "\n" not in message
    assert len(tracker.runs) == before
    return message


def finished(
    tracker: MemoryTracker, settings: str = "", dataset: str = "one", mapping: str = "default", **parameters: str
) -> MemoryRun:
    """A run as ``train`` leaves it, with made-up predictions: photos depend on the fold, probabilities on the run."""
    made: TrainConfig = config("train", settings, **parameters)
    of_fold = np.random.default_rng(made.fold)
    labels = of_fold.random((PHOTOS, len(MATERIALS))) < 0.4
    rng = np.random.default_rng(100 + len(tracker.runs))
    probabilities = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    table = pd.DataFrame({"file_name": [f"{made.fold}_{photo}.jpg" for photo in range(PHOTOS)]})
    table["group"] = [f"{made.fold} {photo % GROUPS}" for photo in range(PHOTOS)]
    for number, material in enumerate(MATERIALS):
        table[f"label_{material}"] = labels[:, number].astype(int)
        table[f"probability_{material}"] = probabilities[:, number]
        table[f"decision_{material}"] = (probabilities[:, number] >= 0.5).astype(int)
    about = {
        "step": "train",
        "config": made.model_dump(mode="json"),
        "dataset": "litter",
        "dataset_digest": f"digest of {dataset}",
        "image_side_px": 32,
        "materials": list(MATERIALS),
    }
    with tracker.start("train") as run:
        run.set_tags({"step": "train", "mapping": mapping, "collapsed": False, "above_controls": True})
        run.log_text(json.dumps(about), "config.json")
        run.log_table(table, "predictions_test.csv")
        run.log_metrics({"test_macro_ap": macro_ap(table)})
    return tracker.runs[-1]


def macro_ap(table: pd.DataFrame) -> float:
    scores = [average_precision_score(table[f"label_{name}"], table[f"probability_{name}"]) for name in MATERIALS]
    return float(np.mean(scores))


def of(run: MemoryRun) -> float:
    return macro_ap(pd.read_csv(run.folder / "predictions_test.csv"))


def difference(contents: StudyContents) -> pd.Series:
    (row,) = contents.comparisons[contents.comparisons["metric"] == "macro_ap"].itertuples(index=False)
    return pd.Series(row._asdict())


@pytest.fixture
def tracker() -> MemoryTracker:
    return MemoryTracker()


def test_two_runs_of_train(
    prepared_folder: Path, tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Verdict, "figures", lambda *arguments: {})
    monkeypatch.setattr(train, "_log_model", lambda *arguments: None)
    tiny = "network.widths=[4] fit.epochs=1 fit.batch_size=16 bootstrap_resamples=100"
    where = {"dataset": str(prepared_folder / "litter")}
    for arm in ("true", "false"):
        train.run(config("train", f"{tiny} data_folder={prepared_folder / 'data'}", augment=arm, **where), tracker)
    second, first = tracker.runs
    capsys.readouterr()
    contents = compared(tracker, first, second)
    found = difference(contents)
    assert (contents.factor, contents.first) == ("augment", "false")
    assert (found["first"], found["second"], found["model"], found["pairs"]) == ("false", "true", "base", 1)
    assert found["difference"] == pytest.approx(
        second.metrics["test_macro_ap"] - first.metrics["test_macro_ap"], abs=1e-6
    )
    assert contents.cells["run_id"].tolist() == [first.id, second.id]
    assert contents.cells["test_macro_ap"].tolist() == [run.metrics["test_macro_ap"] for run in (first, second)]
    own = tracker.runs[-1]
    assert (own.name, own.status) == ("compare 2 runs", "FINISHED")
    digest = first.tags["dataset_digest"]
    assert own.tags.items() >= {"step": "compare", "dataset": "litter", "dataset_digest": digest}.items()
    assert own.parameters["run_ids"] == f"{first.id},{second.id}"
    artifacts = {"study.csv", "comparisons.csv", "curves.csv", "report.html", "report.md"}
    assert {path.name for path in own.folder.iterdir()} == artifacts
    assert own.metrics["cells"] == 2
    said = " ".join(capsys.readouterr().out.split())
    assert f"report.html among the artifacts of run {own.id}" in said
    assert own.tags["verdict"].split(";")[0] in said
    assert f"digest {digest[:16]}" in contents.settings["dataset"]
    # Turned round, the difference has the other sign.
    assert difference(compared(tracker, second, first))["difference"] == pytest.approx(-found["difference"])


def test_runs_that_differ_in_seed_and_fold_alone_are_one_arm(tracker: MemoryTracker) -> None:
    runs = {
        (rate, seed, fold): finished(tracker, f"schedule.peak={rate}", seed=str(seed), fold=str(fold))
        for seed in (3, 1)
        for rate in ("0.001", "0.004")
        for fold in (2, 1)
    }
    contents = compared(tracker, *runs.values())
    found = difference(contents)
    assert (contents.factor, found["first"], found["second"]) == ("schedule.peak", "0.001", "0.004")
    assert found[["pairs", "seeds", "folds"]].tolist() == [4, 2, 2]
    folds = [
        np.mean([of(runs["0.004", seed, fold]) - of(runs["0.001", seed, fold]) for seed in (1, 3)]) for fold in (1, 2)
    ]
    assert found["difference"] == pytest.approx(np.mean(folds), abs=1e-12)
    assert PAIRED_BY_ORDER not in contents.notes
    for row in contents.cells.itertuples():
        assert row.run_id == runs[row.arm, row.seed, row.fold].id


def test_the_order_of_rows_in_predictions_does_not_matter(tracker: MemoryTracker) -> None:
    first, second = (finished(tracker, augment=arm) for arm in ("false", "true"))
    found = difference(compared(tracker, first, second))
    table = pd.read_csv(second.folder / "predictions_test.csv")
    table.sample(frac=1, random_state=5).to_csv(second.folder / "predictions_test.csv", index=False)
    again = difference(compared(tracker, first, second))
    # The interval, too, is of the same photos.
    names = ["difference", "low", "high", "p_value"]
    np.testing.assert_allclose(again[names].astype(float), found[names].astype(float), rtol=1e-9)


def test_arms_of_two_models_are_named_by_them(tracker: MemoryTracker) -> None:
    base = [finished(tracker, seed=str(seed)) for seed in (0, 1)]
    dbn = [finished(tracker, seed=str(seed), model="dbn") for seed in (0, 1)]
    contents = compared(tracker, *base, *dbn)
    found = difference(contents)
    # What a model's file says follows from the model, and is not named.
    assert (contents.factor, found["first"], found["second"]) == ("model", "base", "dbn")
    assert found["pairs"] == 2
    assert found["difference"] == pytest.approx(np.mean([of(dbn[n]) - of(base[n]) for n in (0, 1)]), abs=1e-12)
    augmented = finished(tracker, model="dbn", augment="true")
    several = compared(tracker, base[0], augmented)
    assert difference(several)["second"] == "dbn augment=true"
    assert several.factor == "settings"


def test_arms_that_differ_in_more_settings_than_a_name_holds(tracker: MemoryTracker) -> None:
    plain = finished(tracker, "fit.epochs=9 fit.batch_size=8 loss.name=focal schedule.peak=0.1")
    others = [
        finished(tracker, f"fit.epochs=3 fit.batch_size=4 loss.name=bce schedule.peak={peak}") for peak in (0.2, 0.3)
    ]
    contents = compared(tracker, plain, *others)
    names = contents.cells["arm"].tolist()
    assert len(set(names)) == 3
    assert all(len(name) < 80 for name in names)
    assert contents.comparisons["second"].unique().tolist() == names[1:]


def test_settings_that_make_no_arm(tracker: MemoryTracker) -> None:
    runs = [
        finished(tracker, "data_folder=here"),
        finished(tracker, "data_folder=there max_problem_share=0.1", seed="1", augment_policy="light"),
        finished(tracker, model="dbn", pretrained="one run"),
        finished(tracker, model="dbn", pretrained="another", seed="1"),
    ]
    contents = compared(tracker, *runs)
    assert contents.cells["arm"].tolist() == ["base", "base", "dbn", "dbn"]
    assert difference(contents)["pairs"] == 2
    augmented = [finished(tracker, augment="true", augment_policy=policy) for policy in ("default", "light")]
    assert len(set(compared(tracker, *augmented).cells["arm"])) == 2


@pytest.mark.parametrize("seeds", [((0, 1), (2, 5)), ((4, 4), (4, 4)), ((0, 1, 2), (5, 6))])
def test_runs_whose_seeds_do_not_match_are_paired_in_their_order(
    tracker: MemoryTracker, seeds: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    arms = [
        [finished(tracker, augment=arm, seed=str(seed)) for seed in of_arm]
        for arm, of_arm in zip(("false", "true"), seeds, strict=True)
    ]
    contents = compared(tracker, *arms[0], *arms[1])
    assert contents.notes[0] == PAIRED_BY_ORDER
    found = difference(contents)
    assert found["pairs"] == 2
    in_order = [of(second) - of(first) for first, second in zip(*arms, strict=False)]
    assert found["difference"] == pytest.approx(np.mean(in_order), abs=1e-12)


def test_only_folds_that_both_arms_have_are_paired(tracker: MemoryTracker) -> None:
    first, second = finished(tracker, fold="1"), finished(tracker, fold="2")
    third = finished(tracker, augment="true", fold="2")
    found = difference(compared(tracker, first, second, third))
    assert found["difference"] == pytest.approx(of(third) - of(second), abs=1e-12)
    assert refused(tracker, first, third) == (
        "No fold is shared by all settings, so no two runs share their test photos: false has [1]; true has [2]. "
        "Add runs."
    )


def test_runs_of_different_datasets_are_named(tracker: MemoryTracker) -> None:
    first = finished(tracker)
    same = finished(tracker, augment="true")
    other = finished(tracker, dataset="two", mapping="predecessor", augment="true")
    message = refused(tracker, first, same, other)
    assert message.startswith("These runs are not of one dataset: ")
    assert f"run {first.id} is of litter (digest digest o, mapping default)" in message
    assert f"run {other.id} is of litter (digest digest o, mapping predecessor)" in message
    assert message.endswith("Compare runs of one digest.")


def test_runs_that_cannot_be_compared(tracker: MemoryTracker) -> None:
    good, other = finished(tracker), finished(tracker, augment="true")
    for status in ("RUNNING", "FAILED", "KILLED"):
        other.status = status
        assert refused(tracker, good, other) == (
            f"Run {other.id} is not finished ({status}). Wait, resume it, or leave it out."
        )
    other.status = "FINISHED"
    assert "no run 'nowhere'" in refused(tracker, good, "nowhere")
    with tracker.start("something else"):
        pass
    message = refused(tracker, good, tracker.runs[-1])
    assert message == f"Run {tracker.runs[-1].id} is no run of train, and has no predictions to compare. Leave it out."
    same = refused(tracker, good, finished(tracker, seed="1"), finished(tracker, fold="1"))
    assert same == (
        "These 3 runs differ in nothing but seed and fold: there is nothing to compare. Add a run with another setting."
    )
    (other.folder / "predictions_test.csv").unlink()
    assert refused(tracker, good, other).startswith(f"Run {other.id} has no predictions_test.csv: it was removed.")


def test_a_deleted_run_is_named(tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    good, deleted = finished(tracker), finished(tracker, augment="true")

    def stored(run_id: str) -> Any:
        if run_id == deleted.id:  # as MLflow's tracker says it
            raise RunError(f"Run {run_id} was deleted. Restore it.")
        return original(run_id)

    original = tracker.stored
    monkeypatch.setattr(tracker, "stored", stored)
    assert refused(tracker, good, deleted) == f"Run {deleted.id} was deleted. Restore it."


@pytest.mark.parametrize("count", [0, 1])
def test_one_run_is_nothing_to_compare(tracker: MemoryTracker, count: int) -> None:
    runs = [finished(tracker) for _ in range(count)]
    with pytest.raises(ConfigError, match=r"^compare needs two runs or more: run_ids=RUN_ID,RUN_ID$"):
        compared(tracker, *runs)
    assert len(tracker.runs) == count


def test_versions_of_the_code_are_told(tracker: MemoryTracker) -> None:
    first, second = finished(tracker), finished(tracker, augment="true")
    first.tags["git_commit"], second.tags["git_commit"] = "a" * 40, f"{'b' * 40}-dirty"
    notes = compared(tracker, first, second).notes
    assert notes == [
        "The runs were made by 2 versions of the code: see git_commit in study.csv.",
        "Some runs were made by code with changes that no commit holds.",
    ]
    second.tags["git_commit"] = "a" * 40
    assert compared(tracker, first, second).notes == []


def test_a_run_of_an_earlier_version_has_fewer_settings(tracker: MemoryTracker) -> None:
    first, second = finished(tracker), finished(tracker, augment="true")
    about = json.loads((first.folder / "config.json").read_text())
    del about["config"]["labels_percent"]
    (first.folder / "config.json").write_text(json.dumps(about))
    contents = compared(tracker, first, second)
    assert (contents.factor, contents.first) == ("augment", "false")
