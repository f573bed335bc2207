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
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.config.train import TrainConfig
from wastelens.errors import ConfigError, RunError, StoreUnreachable
from wastelens.experiment import train_one as train_one_module
from wastelens.steps import compare, train
from wastelens.studies.contents import StudyContents

PHOTOS, GROUPS = 30, 6
PAIRED_BY_ORDER = "The runs of a fold are paired in order, not by seed: their seeds differ."


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
        run.set_tags({"dataset_digest": about["dataset_digest"]})
        run.log_text(json.dumps(about), "config.json")
        run.log_table(table, "predictions_test.csv")
        run.log_metrics({"test/macro_ap": macro_ap(table)})
    return tracker.runs[-1]


def encoder(tracker: MemoryTracker, settings: str = "", **parameters: str) -> str:
    """The id of a run as ``pretrain`` leaves it."""
    about = {
        "step": "pretrain",
        "config": config("pretrain", settings, **parameters).model_dump(mode="json"),
        "dataset": "litter",
        "dataset_digest": "digest of litter",
        "image_side_px": 32,
        "materials": list(MATERIALS),
    }
    with tracker.start("pretrain") as run:
        run.log_text(json.dumps(about), "config.json")
    return tracker.runs[-1].id


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
    return MemoryTracker(draws=True)


def test_two_runs_of_train(
    prepared_folder: Path, tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_one_module, "verdict_figures", lambda *arguments: {})
    monkeypatch.setattr(train_one_module, "served_model", lambda *arguments: None)
    monkeypatch.setattr(MemoryRun, "log_model", lambda *arguments, **options: None)
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
        second.metrics["test/macro_ap"] - first.metrics["test/macro_ap"], abs=1e-6
    )
    assert contents.cells["run_id"].tolist() == [first.id, second.id]
    assert contents.cells["test_macro_ap"].tolist() == [run.metrics["test/macro_ap"] for run in (first, second)]
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


def test_arms_of_two_models_are_named_by_all_that_differs_but_their_networks(tracker: MemoryTracker) -> None:
    base = [finished(tracker, seed=str(seed)) for seed in (0, 1)]
    dbn = [finished(tracker, seed=str(seed), model="dbn", pretrained="none") for seed in (0, 1)]
    contents = compared(tracker, *base, *dbn)
    found = difference(contents)
    assert (contents.factor, found["first"], found["second"]) == ("model", "base", "dbn")
    assert found["pairs"] == 2
    assert found["difference"] == pytest.approx(np.mean([of(dbn[n]) - of(base[n]) for n in (0, 1)]), abs=1e-12)
    assert contents.notes == []
    other = finished(tracker, "fit.epochs=3 loss.kind=focal", model="dbn", pretrained="none", augment="true")
    several = compared(tracker, base[0], other)
    assert several.factor == "settings"
    names = [difference(several)[name] for name in ("first", "second")]
    assert names == ["base augment=false fit.epochs=40 and 1 more", "dbn augment=true fit.epochs=3 and 1 more"]
    assert several.notes == [
        "The arms, in order, differ in 4 settings: "
        "model=base|dbn; augment=false|true; fit.epochs=40|3; loss.kind=bce|focal.",
        "The arms are not trained equally long (fit.epochs): a difference may be due to that.",
    ]


def test_networks_of_one_model_are_told_apart(tracker: MemoryTracker) -> None:
    narrow, wide = (finished(tracker, f"network.widths=[{width}]") for width in (4, 8))
    contents = compared(tracker, narrow, wide)
    assert (contents.factor, contents.cells["arm"].tolist()) == ("network.widths", ["[4]", "[8]"])
    dbn = finished(tracker, model="dbn", pretrained="none")
    third = compared(tracker, narrow, wide, dbn)
    assert third.cells["arm"].tolist() == ["base network.widths=[4]", "base network.widths=[8]", "dbn"]
    assert "model=base|base|dbn; network.widths=[4]|[8]|unset." in third.notes[0]


def test_arms_that_differ_in_more_settings_than_a_name_holds(tracker: MemoryTracker) -> None:
    plain = finished(tracker, "fit.epochs=9 fit.batch_size=8 loss.kind=focal schedule.peak=0.1")
    others = [
        finished(tracker, f"fit.epochs=3 fit.batch_size=4 loss.kind=bce schedule.peak={peak}") for peak in (0.2, 0.3)
    ]
    contents = compared(tracker, plain, *others)
    names = contents.cells["arm"].tolist()
    assert names == [
        "fit.batch_size=8 fit.epochs=9 loss.kind=focal and 1 more",
        "fit.batch_size=4 fit.epochs=3 loss.kind=bce and 1 more (2)",
        "fit.batch_size=4 fit.epochs=3 loss.kind=bce and 1 more (3)",
    ]
    assert contents.comparisons["second"].unique().tolist() == names[1:]
    assert "loss.kind=focal|bce|bce; schedule.peak=0.1|0.2|0.3." in contents.notes[0]
    assert "(fit.batch_size, fit.epochs)" in contents.notes[1]


@pytest.mark.parametrize(
    ("settings", "length"),
    [
        (("fit.epochs=3", "fit.epochs=4"), "fit.epochs"),
        (("", "fit.steps_per_epoch=7"), "fit.steps_per_epoch"),
        (("", "fit.batch_size=7"), "fit.batch_size"),
        (("", "fine_tune.epochs=2"), "fine_tune.epochs"),
        (("", "labels_percent=50"), "labels_percent"),
        (("fit.steps_per_epoch=7", "fit.steps_per_epoch=7 labels_percent=50"), ""),
        (("", "schedule.peak=0.1"), ""),
    ],
)
def test_arms_that_are_not_trained_equally_long(tracker: MemoryTracker, settings: tuple[str, str], length: str) -> None:
    contents = compared(tracker, *(finished(tracker, one) for one in settings))
    notes = [note for note in contents.notes if "equally long" in note]
    assert [f"equally long ({length})" in note for note in notes] == [True] * bool(length)


def test_arms_of_which_some_do_not_have_a_setting(tracker: MemoryTracker) -> None:
    policies = [finished(tracker, augment="true", augment_policy=policy) for policy in ("default", "light")]
    contents = compared(tracker, finished(tracker), *policies)
    assert contents.cells["arm"].tolist() == [
        "augment=false",
        "augment=true augment_policy=default",
        "augment=true augment_policy=light",
    ]
    # Transforms follow from the policy, unless policies of one name have others.
    mine = finished(tracker, "augmentation.transforms=[]", augment="true")
    contents = compared(tracker, policies[0], mine)
    assert contents.factor == "augmentation.transforms"
    contents = compared(tracker, policies[1], mine)
    assert contents.factor == "augment_policy"


def test_settings_that_make_no_arm(tracker: MemoryTracker) -> None:
    runs = [
        finished(tracker, "data_folder=here"),
        finished(tracker, "data_folder=there max_problem_share=0.1 bootstrap_resamples=200", seed="1"),
        finished(tracker, model="dbn", pretrained=encoder(tracker, method="dbn")),
        finished(tracker, model="dbn", pretrained=encoder(tracker, "seed=1", method="dbn"), seed="1"),
        finished(tracker, model="dbn", seed="2"),
    ]
    contents = compared(tracker, *runs)
    assert contents.cells["arm"].tolist() == ["base pretrained=none"] * 2 + ["dbn pretrained=auto"] * 3
    assert difference(contents)["pairs"] == 2


@pytest.mark.parametrize(
    ("settings", "factor", "level"),
    [
        ("unlabelled=photos", "unlabelled", "photos"),
        ("learner.epochs=3", "network.learner.epochs", "3"),
        ("mixed_precision=true", "pretraining.mixed_precision", "true"),
    ],
)
def test_encoders_of_other_settings_are_other_arms(
    tracker: MemoryTracker, settings: str, factor: str, level: str
) -> None:
    first = finished(tracker, model="dbn", pretrained=encoder(tracker, method="dbn"))
    second = finished(tracker, model="dbn", pretrained=encoder(tracker, settings, method="dbn"))
    contents = compared(tracker, first, second)
    assert contents.factor == factor
    assert difference(contents)["second"] == level


def test_an_encoder_that_is_gone_is_known_by_its_id(tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [finished(tracker, model="dbn", pretrained=name) for name in ("gone", encoder(tracker, method="dbn"))]
    contents = compared(tracker, *runs)
    assert (contents.factor, contents.cells["arm"].tolist()) == ("pretrained", ["gone", "auto"])
    # A store that does not answer is another thing than a run that is gone.
    stored = tracker.stored

    def unreachable(run_id: str) -> Any:
        if run_id == "gone":
            raise StoreUnreachable("The store does not answer.")
        return stored(run_id)

    monkeypatch.setattr(tracker, "stored", unreachable)
    assert refused(tracker, *runs).startswith("The store does not answer.")


@pytest.mark.parametrize("seeds", [((0, 1), (2, 5)), ((0, 1, 2), (5, 6)), ((7, 8), (1, 2, 3))])
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
    # The tables say what the seeds are, however runs are paired.
    assert contents.cells["seed"].tolist() == [seed for of_arm in seeds for seed in of_arm]
    alone = [run.id for of_arm in arms for run in of_arm[2:]]
    assert len(contents.notes) == 1 + len(alone)
    assert all(f"no other arm has a run to pair with: {run} (seed " in contents.notes[1] for run in alone)


def test_seeds_that_arms_share_are_paired_and_others_left_out_of_differences(tracker: MemoryTracker) -> None:
    first = {seed: finished(tracker, seed=str(seed)) for seed in (0, 1, 2)}
    second = {seed: finished(tracker, seed=str(seed), augment="true") for seed in (2, 3, 1)}
    contents = compared(tracker, *first.values(), *second.values())
    found = difference(contents)
    assert (found["pairs"], found["seeds"]) == (2, 2)
    assert found["difference"] == pytest.approx(np.mean([of(second[n]) - of(first[n]) for n in (1, 2)]), abs=1e-12)
    assert contents.notes == [
        "In the tables but in no difference, as no other arm has a run to pair with: "
        f"{first[0].id} (seed 0, fold 0), {second[3].id} (seed 3, fold 0)."
    ]
    assert set(contents.cells["run_id"]) == {run.id for run in (*first.values(), *second.values())}


def test_pairs_are_found_for_each_fold_and_arm_by_themselves(tracker: MemoryTracker) -> None:
    first = {(fold, seed): finished(tracker, fold=str(fold), seed=str(seed)) for fold in (1, 2) for seed in (0, 1)}
    alike = [finished(tracker, augment="true", fold="1", seed=str(seed)) for seed in (1, 0)]
    unlike = [finished(tracker, augment="true", fold="2", seed=str(seed)) for seed in (1, 7)]
    third = [finished(tracker, balanced="false", fold="1", seed=str(seed)) for seed in (5, 4)]
    contents = compared(tracker, *first.values(), *alike, *unlike, *third)
    rows = contents.comparisons[contents.comparisons["metric"] == "macro_ap"].set_index("second")
    second = [
        np.mean([of(alike[0]) - of(first[1, 1]), of(alike[1]) - of(first[1, 0])]),
        of(unlike[0]) - of(first[2, 1]),  # one seed is shared: the other run is left out
    ]
    by_order = [of(third[1]) - of(first[1, 0]), of(third[0]) - of(first[1, 1])]
    assert rows["pairs"].tolist() == [3, 2]
    np.testing.assert_allclose(rows["difference"], [np.mean(second), np.mean(by_order)], atol=1e-12)
    assert PAIRED_BY_ORDER in contents.notes
    assert f"{first[2, 0].id} (seed 0, fold 2), {unlike[1].id} (seed 7, fold 2)." in contents.notes[-1]


def test_the_same_seed_twice_is_no_second_seed(tracker: MemoryTracker) -> None:
    first = [finished(tracker) for _ in range(3)]
    second = finished(tracker, augment="true")
    # Whatever the order they are typed in, the newest stays.
    contents = compared(tracker, first[1], first[2], first[0], second)
    found = difference(contents)
    assert found["pairs"] == 1
    assert not found["training_known"]
    assert found["difference"] == pytest.approx(of(second) - of(first[2]), abs=1e-12)
    assert contents.cells["run_id"].tolist() == [first[2].id, second.id]
    assert contents.notes == [
        f"Left out, as a newer run has the same settings, seed and fold: {first[1].id}, {first[0].id}."
    ]


def test_only_folds_that_both_arms_have_are_paired(tracker: MemoryTracker) -> None:
    first, second = finished(tracker, fold="1"), finished(tracker, fold="2")
    third = finished(tracker, augment="true", fold="2")
    found = difference(compared(tracker, first, second, third))
    assert found["difference"] == pytest.approx(of(third) - of(second), abs=1e-12)
    assert refused(tracker, first, third) == (
        "No fold is shared by all settings, so no two runs have the same test photos: false has [1]; true has [2]. "
        "Add runs."
    )


def test_runs_of_different_datasets_are_named(tracker: MemoryTracker) -> None:
    first = finished(tracker)
    same = finished(tracker, augment="true")
    other = finished(tracker, dataset="two", mapping="predecessor", augment="true")
    message = refused(tracker, first, same, other)
    assert message.startswith("These runs are not on one dataset: ")
    assert f"run {first.id} is on litter (digest digest o, mapping default)" in message
    assert f"run {other.id} is on litter (digest digest o, mapping predecessor)" in message
    assert message.endswith("Compare runs with the same digest.")


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
    fact = f"Run {tracker.runs[-1].id} is not a run of train"
    assert message == f"{fact}, so it has no predictions to compare. Leave it out."
    same = refused(tracker, good, finished(tracker, seed="1"), finished(tracker, fold="1"))
    assert same == (
        "These runs differ only in seed and fold: there is nothing to compare. Add a run with another setting."
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
        "Some runs were made by code with uncommitted changes.",
    ]
    second.tags["git_commit"] = "a" * 40
    assert compared(tracker, first, second).notes == []


def test_a_run_of_an_earlier_version_has_fewer_settings(tracker: MemoryTracker) -> None:
    first, second = finished(tracker), finished(tracker, augment="true")
    about = json.loads((first.folder / "config.json").read_text())
    del about["config"]["labels_percent"]
    (first.folder / "config.json").write_text(json.dumps(about))
    (first.folder / "config.json").write_text(json.dumps(about))
    contents = compared(tracker, first, second)
    assert (contents.factor, contents.first) == ("augment", "false")
    # Where nothing else differs, that one does not have it does.
    contents = compared(tracker, first, finished(tracker))
    assert (contents.factor, contents.cells["arm"].tolist()) == ("labels_percent", ["unset", "100.0"])
