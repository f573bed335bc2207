"""The step ``study`` on small data: each cell is trained once, and the report has the tables' numbers."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from tests.factories import config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.config.files import conf_folder
from wastelens.errors import ConfigError, DatasetError, EngineError, RunError, StoreUnreachable
from wastelens.evaluation.paired import ALL_MODELS
from wastelens.experiment import pretrain_one as pretrain_one_module
from wastelens.experiment import train_one as train_one_module
from wastelens.experiment.resuming import EpochWatcher
from wastelens.steps import prepare, study
from wastelens.steps.study import Studied
from wastelens.studies import cell_training
from wastelens.system.files import alone_in

TINY = "bootstrap_resamples=100 train.bootstrap_resamples=100 train.fit.batch_size=16"
TWO_EPOCHS = "train.fit.epochs=2"
STEPS: Counter[str] = Counter()  # run id and epoch → batches it has learnt from


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_compared() -> Iterator[None]:
    """Cells without figures and exported models, which tests of ``train`` are about; their batches are counted."""
    original = EpochWatcher.batch_done

    def counted(self: Any, epoch: int) -> None:
        STEPS[f"{self.tracked.id} {epoch}"] += 1
        original(self, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_one_module, "verdict_figures", lambda *arguments: {})
        patch.setattr(train_one_module, "served_model", lambda *arguments: None)
        patch.setattr(MemoryRun, "log_model", lambda *arguments, **options: None)
        patch.setattr(pretrain_one_module, "served_model", lambda *arguments: None)
        patch.setattr(EpochWatcher, "batch_done", counted)
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of models as shipped, but tiny."""
    folder = tmp_path_factory.mktemp("models")
    changes = {
        "base": {"widths": [4]},
        "wide": {"widths": [6]},
        "autoencoder": {"learner": {"widths": [4], "epochs": 1, "batch_size": 16}},
    }
    files = {}
    for name, network in changes.items():
        shipped = conf_folder() / "model" / f"{'base' if name == 'wide' else name}.yaml"
        tree = yaml.safe_load(shipped.read_text())
        tree["network"].update(network)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
        files[name] = str(folder / f"{name}.yaml")
    return files


def asked(root: Path, settings: str = "", **parameters: str) -> Any:
    given = {"dataset": str(root / "litter"), "factors": "augment=false|true", "folds": "0", "seeds": "1", **parameters}
    return config("study", f"{TINY} data_folder={root / 'data'} {settings}", **given)


def cells_of(tracker: MemoryTracker) -> list[MemoryRun]:
    return [run for run in tracker.runs if run.tags.get("step") == "train"]


def run_ids(found: Studied) -> list[str]:
    return found.contents.cells["run_id"].tolist()


def steps_of(run_id: str) -> list[int]:
    """How many batches it learnt from in each epoch."""
    mine = {key: count for key, count in STEPS.items() if key.split()[0] == run_id}
    return [mine[key] for key in sorted(mine)]


@dataclass(frozen=True)
class Whole:
    """A study of two models and two seeds, and what it had left when it ended."""

    tracker: MemoryTracker
    found: Studied
    tables: dict[str, pd.DataFrame]
    texts: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    steps: dict[str, list[int]]


@pytest.fixture(scope="module")
def whole(prepared_folder: Path, models: dict[str, str]) -> Whole:
    STEPS.clear()
    tracker = MemoryTracker(draws=True)
    found = study.run(grid(prepared_folder, models), tracker)
    parent = next(run for run in tracker.runs if run.id == found.run_id)
    tables = {
        file.name: pd.read_csv(file, keep_default_na=False, na_values=["nan", ""])
        for file in parent.folder.glob("*.csv")
    }
    texts = {file.name: file.read_text() for file in parent.folder.glob("report.*")}
    steps = {run.id: steps_of(run.id) for run in cells_of(tracker)}
    return Whole(tracker, found, tables, texts, dict(parent.metrics), dict(parent.tags), steps)


def grid(root: Path, files: dict[str, str], **parameters: str) -> Any:
    given = {"models": f"{files['base']},{files['wide']}", "seeds": "2", "folds": "1", "study": "whole"}
    return asked(root, TWO_EPOCHS, **{**given, **parameters})


def forked(whole: Whole, *without: tuple[str, str, int]) -> MemoryTracker:
    """A store in which another study has trained the cells of `whole`, but for some: (model, augment, seed)."""
    tracker = MemoryTracker()
    done = whole.found.contents.cells.set_index("run_id")
    for run in whole.tracker.runs:
        copy = replace(run, **{name: dict(getattr(run, name)) for name in ("tags", "metrics", "history", "parameters")})
        missing = run.id not in done.index or tuple(done.loc[run.id, ["model", "arm", "seed"]]) in without
        copy.tags = {} if missing else copy.tags
        copy.connection = tracker.connection
        tracker.runs.append(copy)
    return tracker


def test_every_cell_of_the_grid_is_trained_once_below_the_study(whole: Whole, prepared_folder: Path) -> None:
    cells = whole.tables["study.csv"]
    places = itertools.product((0, 1), (1,), ("base", "wide"), ("false", "true"))
    assert [(row.seed, row.fold, row.model, str(row.augment).lower()) for row in cells.itertuples()] == list(places)
    assert (cells["status"] == "finished").all()
    assert cells["run_id"].is_unique
    runs = {run.id: run for run in whole.tracker.runs}
    assert set(whole.steps) == set(cells["run_id"])
    for row in cells.itertuples():
        run = runs[row.run_id]
        assert (run.parent, run.status) == (whole.found.run_id, "FINISHED")
        assert run.tags["cell"]
        assert (
            run.tags.items()
            >= {
                "study": whole.found.run_id,
                "augment": str(row.augment).lower(),
                "seed": str(row.seed),
                "fold": str(row.fold),
                "mapping": "default",
                "dataset": "litter",
            }.items()
        )
        assert Path(run.tags["model"]).stem == row.model
        assert "stratum" not in run.tags
        assert run.metrics["test/macro_ap"] == pytest.approx(row.test_macro_ap, rel=1e-12)
    assert len({runs[run_id].tags["cell"] for run_id in cells["run_id"]}) == len(cells)
    # The same budget for all.
    (steps,) = {tuple(steps) for steps in whole.steps.values()}
    copies = pd.read_csv(prepared_folder / "data" / "prepared" / "litter" / "folds.csv")["copies_1"]
    assert steps == (math.ceil(copies.sum() / 16),) * 2


def test_the_numbers_of_the_report_are_those_of_the_tables(whole: Whole) -> None:
    cells, comparisons = whole.tables["study.csv"], whole.tables["comparisons.csv"]
    assert set(whole.texts) == {"report.html", "report.md"}
    for row in cells.itertuples():
        score = f"{row.test_macro_ap:.3f} [{row.test_macro_ap_low:.3f}, {row.test_macro_ap_high:.3f}]"
        for text, rows in (("report.html", r"<tr.*?</tr>"), ("report.md", r"(?<=\n)\|[^\n]*")):
            mine = [
                line for line in re.findall(rows, whole.texts[text], re.S) if row.run_id in re.findall(r"run-\d+", line)
            ]
            assert len(mine) == 1
            assert score in mine[0]
    for row in comparisons[comparisons["metric"] == "macro_ap"].itertuples():
        difference = f"{row.difference:+z.3f} [{row.low:+z.3f}, {row.high:+z.3f}]"
        assert all(difference in text for text in whole.texts.values())


def test_differences_are_those_of_a_plain_loop_over_the_table_of_cells(whole: Whole) -> None:
    cells, comparisons = whole.tables["study.csv"], whole.tables["comparisons.csv"]
    scores = {
        (row.model, str(row.augment).lower(), row.seed, row.fold): (row.test_macro_ap, row.test_macro_f1)
        for row in cells.itertuples()
    }
    for metric, column in (("macro_ap", 0), ("macro_f1", 1)):
        expected = {}
        for model in ("base", "wide"):
            pairs = [[scores[model, arm, seed, 1][column] for arm in ("false", "true")] for seed in (0, 1)]
            expected[model] = np.mean([second - first for first, second in pairs])
        expected[ALL_MODELS] = np.mean(list(expected.values()))
        rows = comparisons[comparisons["metric"] == metric].set_index("model")
        assert set(rows.index) == set(expected)
        for model, difference in expected.items():
            assert rows.loc[model, "difference"] == pytest.approx(difference, abs=1e-6)
            assert rows.loc[model, "pairs"] == (4 if model == ALL_MODELS else 2)
            assert rows.loc[model, ["seeds", "folds"]].tolist() == [2, 1]


def test_learning_curves_are_those_of_the_runs(whole: Whole) -> None:
    curves = whole.tables["curves.csv"]
    runs = {run.id: run for run in whole.tracker.runs}
    assert len(curves) == 8 * 2
    for row in whole.tables["study.csv"].itertuples():
        mine = curves[(curves[["model", "seed", "fold"]] == [row.model, row.seed, row.fold]).all(axis=1)]
        mine = mine[mine["arm"] == row.augment].set_index("epoch")
        for epoch in (1, 2):
            history = runs[row.run_id].history[epoch]
            for name in ("loss", "val/loss"):
                assert mine.loc[epoch, name.replace("/", "_")] == pytest.approx(history[name], rel=1e-9)


def test_the_run_of_the_study_tells_what_it_came_to(whole: Whole) -> None:
    cells = whole.tables["study.csv"]
    assert whole.metrics["cells"] == whole.metrics["finished_cells"] == 8
    assert whole.metrics["collapsed_cells"] == cells["collapsed"].sum()
    assert whole.metrics["cells_above_controls"] == cells["above_controls"].sum()
    assert whole.metrics["minutes"] == pytest.approx(cells["minutes"].sum())
    assert (
        whole.tags.items()
        >= {"step": "study", "dataset": "litter", "mapping": "default", "compares": "augment"}.items()
    )
    main = whole.tables["comparisons.csv"].query("metric == 'macro_ap' and model == @ALL_MODELS").iloc[0]
    assert f"augment=true against false: {main['verdict']} over all models: test macro AP" in whole.tags["verdict"]
    assert f"{main['difference']:+z.3f}" in whole.tags["verdict"]


def test_a_second_call_trains_nothing_and_gives_the_same_table(
    whole: Whole, prepared_folder: Path, models: dict[str, str]
) -> None:
    before = [run.id for run in whole.tracker.runs]
    again = study.run(grid(prepared_folder, models), whole.tracker)
    assert [run.id for run in whole.tracker.runs] == before
    assert again.run_id == whole.found.run_id
    pd.testing.assert_frame_equal(again.contents.cells, whole.found.contents.cells)
    pd.testing.assert_frame_equal(again.contents.comparisons, whole.found.contents.comparisons)


def test_more_seeds_train_only_the_new_cells_in_the_same_study(
    whole: Whole, prepared_folder: Path, models: dict[str, str]
) -> None:
    tracker = forked(whole)
    first = study.run(grid(prepared_folder, models, study="grown"), tracker)
    before = {run.id for run in tracker.runs}
    # Without the second model this time: its cells are not trained, and those that are finished stay in the report.
    chosen = grid(prepared_folder, models, study="grown", seeds="3", models=models["base"])
    more = study.run(chosen, tracker)
    new = [run for run in tracker.runs if run.id not in before]
    assert more.run_id == first.run_id
    assert [(run.tags["seed"], run.tags["augment"]) for run in new] == [("2", "false"), ("2", "true")]
    assert {run.parent for run in new} == {more.run_id}
    old = whole.found.contents.cells.query("model == 'base'")
    assert run_ids(more)[:4] == old["run_id"].tolist()
    # The tags say the latest, and so do the tables.
    parent = next(run for run in tracker.runs if run.id == more.run_id)
    assert parent.parameters["seeds"] == "3"
    table = pd.read_csv(parent.folder / "study.csv")
    assert table["model"].tolist() == ["base"] * 6 + ["wide"] * 4
    assert table["seed"].tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]
    assert set(more.contents.comparisons["model"]) == {"base", "wide", "all models"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"factors": "balanced=false|true"}, "has factors=augment=false|true, not balanced=false|true."),
        ({"factors": "augment=true|false"}, "has differences from augment=false, not from augment=true."),
        ({"factors": "augment=false|true,labels=50|100"}, "not augment=false|true, labels=50|100."),
        ({"train": "train.fit.epochs=1"}, '"epochs":1'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_study_stays_with_what_it_compares(
    whole: Whole, prepared_folder: Path, models: dict[str, str], changes: dict[str, str], said: str
) -> None:
    before = len(whole.tracker.runs)
    chosen = grid(prepared_folder, models, **{name: value for name, value in changes.items() if name != "train"})
    if "train" in changes:
        chosen = chosen.model_copy(update={"train": {**chosen.train, "fit": {**chosen.train["fit"], "epochs": 1}}})
    with pytest.raises(RunError) as caught:
        study.run(chosen, whole.tracker)
    message = str(caught.value)
    assert message.startswith("The study 'whole' of litter has ")
    assert said in message
    assert message.endswith("Their cells do not belong in one table: give this study another name: study=NAME.")
    assert len(whole.tracker.runs) == before
    assert next(run for run in whole.tracker.runs if run.id == whole.found.run_id).status == "FINISHED"


def test_cells_of_another_study_are_taken_as_they_are(
    whole: Whole, prepared_folder: Path, models: dict[str, str]
) -> None:
    before = len(whole.tracker.runs)
    other = study.run(grid(prepared_folder, models, models=models["wide"], seeds="1", study="other"), whole.tracker)
    assert [run.name for run in whole.tracker.runs[before:]] == ["study other of litter"]
    assert other.run_id != whole.found.run_id
    old = whole.found.contents.cells.query("model == 'wide' and seed == 0")
    assert run_ids(other) == old["run_id"].tolist()


def test_all_arms_train_as_many_steps_and_none_ends_early(prepared_folder: Path, models: dict[str, str]) -> None:
    STEPS.clear()
    tracker = MemoryTracker()
    # A rate of next to nothing: val/macro_ap never rises, and without a budget of its own each cell would end at once.
    still = "train.schedule.start=0 train.schedule.floor=0 train.schedule.peak=1.0e-30 train.fit.patience_epochs=1"
    chosen = asked(
        prepared_folder,
        f"{still} train.fit.epochs=3",
        models=models["base"],
        factors="balanced=true|false,labels=50|100 %",
    )
    found = study.run(chosen, tracker)
    (steps,) = {tuple(steps_of(run.id)) for run in cells_of(tracker)}
    assert len(steps) == 3
    tables = prepared_folder / "data" / "prepared" / "litter"
    assert set(steps) == {math.ceil(len(pd.read_csv(tables / "train_balanced.csv")) / 16)}
    assert [run.tags["stratum"] for run in cells_of(tracker)] == ["labels=50"] * 2 + ["labels=100"] * 2
    assert [(run.tags["labels"], run.tags["balanced"]) for run in cells_of(tracker)] == [
        *itertools.product(("50", "100"), ("true", "false"))
    ]
    assert found.contents.comparisons["stratum"].unique().tolist() == ["labels=50", "labels=100"]
    assert found.contents.factor == "balanced"


@pytest.mark.slow
def test_one_pretraining_is_shared_by_all_cells_of_its_seed_and_fold(
    prepared_folder: Path, models: dict[str, str]
) -> None:
    tracker = MemoryTracker()
    chosen = asked(
        prepared_folder,
        "train.fit.epochs=1",
        models=models["autoencoder"],
        factors="pretrained=none|auto,labels=50|100 %",
    )
    found = study.run(chosen, tracker)
    encoders = [run for run in tracker.runs if run.tags.get("step") == "pretrain"]
    (encoder,) = encoders
    assert (encoder.status, encoder.parent) == ("FINISHED", found.run_id)
    for run in cells_of(tracker):
        started_from = run.tags.get("pretrained_run")
        assert started_from == (encoder.id if run.tags["pretrained"] == "auto" else None)
    assert Counter(run.tags["pretraining"] for run in cells_of(tracker)) == {"none": 2, "conv_autoencoder": 2}
    cells = found.contents.cells
    assert cells["pretraining_minutes"].sum() == pytest.approx(encoder.metrics["minutes"])
    assert (cells["pretraining_minutes"] > 0).tolist() == (cells["arm"] == "auto").tolist()
    before = len(tracker.runs)
    study.run(chosen, tracker)
    assert len(tracker.runs) == before


def test_a_cell_that_diverges_is_named_and_tried_again_later(
    whole: Whole, prepared_folder: Path, models: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = forked(whole)
    # The first level is what conf/train.yaml says: that cell is there already.
    diverging = small(prepared_folder, models, factors="schedule.peak=0.002|1.0e+38")
    found = study.run(diverging, tracker)
    first, second = found.contents.cells.itertuples()
    assert [(cell.arm, cell.status) for cell in (first, second)] == [("0.002", "finished"), ("1.0e+38", "failed")]
    said = " ".join(capsys.readouterr().out.split())
    assert "base schedule.peak=1.0e+38 seed 0 fold 1 failed: " in said
    assert "The study goes on without it." in said
    failed = next(run for run in tracker.runs if run.id == second.run_id)
    assert failed.status == "FAILED"
    parent = parent_of(tracker)
    assert (parent.status, parent.metrics["finished_cells"], parent.metrics["cells"]) == ("FINISHED", 1, 2)
    assert "1 of 2 cells finished" in parent.tags["verdict"]
    assert failed.id in (parent.folder / "report.md").read_text()
    again = study.run(diverging, tracker)
    retried = again.contents.cells.iloc[1]
    assert (retried["status"], run_ids(again)[0]) == ("failed", first.run_id)
    assert retried["run_id"] != failed.id
    assert [run.id for run in own_cells(tracker)] == [failed.id, retried["run_id"]]


def small(root: Path, files: dict[str, str], **parameters: str) -> Any:
    """Two cells of `whole`, as a study of their own."""
    return grid(root, files, **{"models": files["base"], "seeds": "1", "study": "small", **parameters})


def parent_of(tracker: MemoryTracker) -> MemoryRun:
    return next(run for run in tracker.runs if run.name == "study small of litter")


def own_cells(tracker: MemoryTracker) -> list[MemoryRun]:
    return [run for run in cells_of(tracker) if run.tags["study"] == parent_of(tracker).id]


LEFT_OUT = ("base", "true", 0)


def interrupted(monkeypatch: pytest.MonkeyPatch, chosen: Any, tracker: MemoryTracker, epoch: int) -> MemoryRun:
    """A study that Ctrl-C ends in this epoch of its only cell that is left; returns the cell's run."""
    original = EpochWatcher.batch_done

    def dying(self: Any, number: int) -> None:
        if number == epoch:
            raise KeyboardInterrupt
        original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(EpochWatcher, "batch_done", dying)
        with pytest.raises(KeyboardInterrupt):
            study.run(chosen, tracker)
    (run,) = own_cells(tracker)
    assert (parent_of(tracker).status, run.status) == ("KILLED", "KILLED")
    return run


def test_an_interrupted_cell_goes_on_from_its_checkpoint(
    whole: Whole,
    prepared_folder: Path,
    models: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracker = forked(whole, LEFT_OUT)
    chosen = small(prepared_folder, models)
    killed = interrupted(monkeypatch, chosen, tracker, epoch=2)
    assert "Resume it" not in capsys.readouterr().out, "the study goes on, not a training of its own"
    STEPS.clear()
    found = study.run(chosen, tracker)
    assert killed.status == "FINISHED"
    assert "abandoned" not in killed.tags
    assert run_ids(found)[1] == killed.id
    assert len(own_cells(tracker)) == 1
    assert set(STEPS) == {f"{killed.id} 2"}, "nor the other cell nor the first epoch is trained again"
    assert (found.run_id, parent_of(tracker).status) == (parent_of(tracker).id, "FINISHED")
    undisturbed = whole.found.contents.cells.query("model == 'base' and arm == 'true' and seed == 0").iloc[0]
    assert found.contents.cells["test_macro_ap"].iloc[1] == pytest.approx(undisturbed["test_macro_ap"], abs=0.02)


@pytest.mark.parametrize("death", ["Ctrl-C", "power failure"])
def test_an_interrupted_cell_without_a_checkpoint_is_abandoned(
    whole: Whole, prepared_folder: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    tracker = forked(whole, LEFT_OUT)
    chosen = small(prepared_folder, models)
    killed = interrupted(monkeypatch, chosen, tracker, epoch=1)
    if death == "power failure":  # nobody could tell the run's end, and the process is gone
        killed.status = "RUNNING"
    found = study.run(chosen, tracker)
    assert (killed.status, killed.tags["abandoned"]) == ("KILLED", "true")
    assert killed.id not in run_ids(found)
    assert [run.status for run in own_cells(tracker)] == ["KILLED", "FINISHED"]


def test_a_study_that_was_interrupted_before_a_cell_had_a_run(
    whole: Whole, prepared_folder: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = forked(whole, LEFT_OUT)
    chosen = small(prepared_folder, models)

    def dying(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cell_training, "train_one", dying)
        with pytest.raises(KeyboardInterrupt):
            study.run(chosen, tracker)
    assert not own_cells(tracker)
    found = study.run(chosen, tracker)  # in the same process, as in a notebook
    assert found.contents.cells["status"].tolist() == ["finished"] * 2
    assert [run.status for run in own_cells(tracker)] == ["FINISHED"]


def test_an_epoch_that_the_store_cannot_take_is_not_trained_again(
    whole: Whole, prepared_folder: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = forked(whole, LEFT_OUT)
    chosen = small(prepared_folder, models)
    original = EpochWatcher.epoch_done

    def cut(self: Any, epoch: int, *arguments: Any) -> None:
        tracker.reachable = epoch != 2
        original(self, epoch, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EpochWatcher, "epoch_done", cut)
        with pytest.raises(StoreUnreachable):
            study.run(chosen, tracker)
    tracker.reachable = True
    (cell,) = own_cells(tracker)
    assert sorted(cell.history) == [1]
    aside = prepared_folder / "data" / "unlogged" / cell.id
    assert aside.is_dir()
    cell.status = "RUNNING"  # as a server has it that was told nothing
    STEPS.clear()
    found = study.run(chosen, tracker)
    assert found.contents.cells["status"].tolist() == ["finished"] * 2
    assert run_ids(found)[1] == cell.id
    assert not STEPS
    assert not aside.exists()
    undisturbed = next(run for run in whole.tracker.runs if run.id == twin_of(whole))
    for epoch in (1, 2):
        assert cell.history[epoch]["loss"] == pytest.approx(undisturbed.history[epoch]["loss"], rel=1e-3)


def twin_of(whole: Whole) -> str:
    """The run of `whole` that trained what `LEFT_OUT` leaves out."""
    return str(whole.found.contents.cells.query("model == 'base' and arm == 'true' and seed == 0")["run_id"].iloc[0])


def test_a_study_is_run_by_one_command_at_a_time(whole: Whole, prepared_folder: Path, models: dict[str, str]) -> None:
    tracker = forked(whole)
    chosen = small(prepared_folder, models)
    before = len(tracker.runs)
    folder = prepared_folder / "data" / "running" / "study small of litter"
    with alone_in(folder, "study"), pytest.raises(DatasetError) as caught:
        study.run(chosen, tracker)
    assert str(caught.value).startswith(f"Another run is writing to {folder}. Wait for it to end, or choose another st")
    assert len(tracker.runs) == before
    study.run(chosen, tracker)


@pytest.mark.parametrize("engine", ["tcp://127.0.0.1:9", "tls://127.0.0.1:9"])
def test_a_store_that_other_machines_cannot_reach_is_refused_before_a_scheduler_is_asked(
    prepared_folder: Path, models: dict[str, str], engine: str
) -> None:
    tracker = MemoryTracker()
    with pytest.raises(EngineError, match="cannot reach the store in memory"):
        study.run(small(prepared_folder, models, engine=engine), tracker)
    assert not tracker.runs


def test_an_absent_scheduler_is_refused_before_a_run_is_opened(
    prepared_folder: Path, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    monkeypatch.setattr(tracker, "check_shared", lambda engine: None)
    monkeypatch.setattr("wastelens.engine.dask_cluster._CONNECT_S", 1.0)
    with pytest.raises(EngineError, match=r"No scheduler answers at tcp://127\.0\.0\.1:9 "):
        study.run(small(prepared_folder, models, engine="tcp://127.0.0.1:9"), tracker)
    assert not tracker.runs


def test_a_study_goes_on_only_with_the_dataset_it_began_with(
    whole: Whole, prepared_folder: Path, models: dict[str, str], tmp_path: Path
) -> None:
    settings = f"image_side_px=16 data_folder={tmp_path / 'data'}"
    again = prepare.run(config("prepare", settings, dataset=str(prepared_folder / "litter")), MemoryTracker()).dataset
    chosen = grid(prepared_folder, models, folds="0").model_copy(update={"data_folder": tmp_path / "data"})
    before = len(whole.tracker.runs)
    with pytest.raises(RunError) as caught:
        study.run(chosen, whole.tracker)
    digest = whole.tags["dataset_digest"]
    assert str(caught.value) == (
        f"The study 'whole' has cells of an earlier preparation of litter (digest {digest[:8]}; now "
        f"{again.digest[:8]}). Prepare it with the earlier settings, or start a new study: study=NAME."
    )
    assert digest != again.digest
    assert len(whole.tracker.runs) == before


def test_what_is_found_before_anything_is_trained(prepared_folder: Path, models: dict[str, str]) -> None:
    tracker = MemoryTracker()
    refusals = [
        ({"folds": "1,4"}, "", r"folds=4, but litter was prepared with folds=3\. Prepare it with more"),
        ({"factors": "augmnt=false|true"}, "", "Unknown factor 'augmnt'. Did you mean 'augment'"),
        ({"models": "vgg16"}, "train.weights=nowhere.h5", r"nowhere\.h5.*In a study: set=\"train\.weights=none"),
    ]
    for parameters, settings, match in refusals:
        with pytest.raises(ConfigError, match=match):
            study.run(asked(prepared_folder, settings, **{"models": models["base"], **parameters}), tracker)
    assert not tracker.runs


def test_weights_that_cannot_be_had_stop_a_study_before_any_work(prepared_folder: Path, tmp_path: Path) -> None:
    chosen = config(
        "study",
        f"data_folder={prepared_folder / 'data'} train.weights={tmp_path / 'no.h5'}",
        dataset=str(prepared_folder / "litter"),
        models="vgg16",
        seeds="1",
    )
    tracker = MemoryTracker()
    with pytest.raises(ConfigError, match=r"no\.h5.* In a study: .*, or leave vgg16 out: models=base"):
        study.run(chosen, tracker)
    assert not tracker.runs
