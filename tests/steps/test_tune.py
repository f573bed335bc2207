"""The step ``tune`` on small data: trials that never see test, their results, and resuming a search."""

from __future__ import annotations

import contextlib
import errno
import io
import pickle
import re
import shlex
import sqlite3
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState
from tests.factories import config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.config.files import conf_folder, load_config
from wastelens.config.train import TrainConfig
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.copies import DatasetPlace
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.engine.task import Done, Task, WorkerLost
from wastelens.errors import BalanceError, ConfigError, DatasetLacking, RunError, SearchStoreError
from wastelens.experiment import pretrain_one as pretrain_one_module
from wastelens.experiment import train_one as train_one_module
from wastelens.experiment.fitting import Start
from wastelens.steps import tune
from wastelens.studies.cell_training import Standing
from wastelens.tracking.tracker import Run
from wastelens.training.checkpoint import CheckpointKeeper, Progress
from wastelens.tuning import results, searching, trial_training
from wastelens.tuning import space as tuning_space
from wastelens.tuning.results import LOST
from wastelens.tuning.space import Space
from wastelens.tuning.trials import TrialStore

TINY = "train.network.widths=[4] train.fit.batch_size=16 train.bootstrap_resamples=100 pruner_first_epoch=1"
OTHERS = ("optimizer", "fit", "loss", "balanced", "balance_target", "augmentation")
ONLY_THE_SCHEDULE = " ".join(f"space.{key}=null" for key in (*OTHERS, "freeze", "network"))
OPEN = "train.optimizer.kind=sgd train.optimizer.clip_norm=0"  # to steps of any length
BATCHES = 4  # of 16 in an epoch: 56 balanced training rows


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_tuned() -> Iterator[None]:
    """Trainings without figures and exported models, and spaces that are not much checked: others test these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_one_module, "verdict_figures", lambda *arguments: {})
        patch.setattr(train_one_module, "served_model", lambda *arguments: None)
        patch.setattr(MemoryRun, "log_model", lambda *arguments, **options: None)
        patch.setattr(pretrain_one_module, "served_model", lambda *arguments: None)
        patch.setattr(tuning_space, "_DRAWS", 5)
        yield


def asked(root: Path, study: str, settings: str = "", **parameters: str) -> Any:
    """A study of the schedule, the only one in its database; three trials of two epochs unless told otherwise."""
    given = {"dataset": str(root / "litter"), "study": study, "trials": "3", "pruner": "none", "retrain": "false"}
    where = f"data_folder={root / 'data'} storage=sqlite:///{root / 'data' / study.replace(' ', '-')}.db"
    return config(
        "tune", f"{TINY} {ONLY_THE_SCHEDULE} {where} train.fit.epochs=2 {settings}", **{**given, **parameters}
    )


def trials_of(tracker: MemoryTracker) -> list[MemoryRun]:
    return [run for run in tracker.runs if run.tags.get("step") == "trial"]


def states(tracker: MemoryTracker) -> list[tuple[str, str]]:
    return [(run.tags["state"], run.status) for run in trials_of(tracker)]


def table_of(tracker: MemoryTracker) -> pd.DataFrame:
    (parent,) = (run for run in tracker.runs if run.tags.get("step") == "tune")
    return pd.read_csv(parent.folder / "trials.csv", keep_default_na=False, na_values=["nan"], dtype={"error": str})


def plain(settings: TrainConfig) -> dict[str, Any]:
    return settings.model_dump(exclude={"dataset", "data_folder"})


@dataclass
class Played:
    """Trainings that are only played: what each comes to is made up, and how often they were begun is counted.

    Attributes:
        value: settings and epoch → val/macro_ap; what it raises ends the training.
        begun: the settings of each.
    """

    value: Callable[[TrainConfig, int], float]
    begun: list[TrainConfig] = field(default_factory=list)

    def fitting(
        self,
        start: Start,
        dataset: PreparedDataset,
        tables: object,
        tracked: Run,
        keeper: object,
        after_epoch: Callable[[int, float], None],
    ) -> Any:
        self.begun.append(start.config)

        def run(checkpoint: None) -> tuple[None, Progress]:
            progress = Progress()
            for epoch in range(1, start.config.fit.epochs + 1):
                value = self.value(start.config, epoch)
                tracked.log_metrics({"val/macro_ap": value, "learning_rate": 0.1 / epoch}, step=epoch)
                if value > progress.best_value:
                    progress = replace(progress, best_epoch=epoch, best_value=value)
                progress = replace(progress, epochs_done=epoch)
                after_epoch(epoch, progress.best_value)
            return None, progress

        return SimpleNamespace(run=run)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    """The higher the peak of the learning rate, the better; the defaults' is 0.002."""
    play = Played(lambda settings, epoch: min(settings.schedule.peak * 50, 1.0))
    monkeypatch.setattr(trial_training, "ready_to_train", lambda settings, *_: Start(settings, None, {}, None))
    monkeypatch.setattr(trial_training, "Fitting", play.fitting)
    monkeypatch.setattr(trial_training, "forget_networks", lambda: None)
    return play


@dataclass(frozen=True)
class Whole:
    """A study with its best settings retrained, asked for twice."""

    config: Any
    tracker: MemoryTracker
    tuned: tune.Tuned
    said: str
    again: tune.Tuned
    said_again: str
    runs_before: int


@pytest.fixture(scope="module")
def whole(prepared_folder: Path) -> Whole:
    tracker = MemoryTracker(draws=True)
    asked_for = asked(prepared_folder, "whole", trials="4", retrain="true")
    outputs, found, runs = [], [], []
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()) as spoken:
            found.append(tune.run(asked_for, tracker))
        outputs.append(spoken.getvalue())
        runs.append(len(tracker.runs))
    return Whole(asked_for, tracker, found[0], outputs[0], found[1], outputs[1], runs[0])


def test_the_run_of_a_search_has_all_of_its_results(whole: Whole) -> None:
    parent = whole.tracker.runs[0]
    assert (parent.id, parent.status, parent.parent) == (whole.tuned.run_id, "FINISHED", "")
    expected = {"model": "base", "sampler": "tpe", "pruner": "none", "seed": "0", "train.fit.epochs": "2"}
    assert expected.items() <= parent.parameters.items()
    tags = {"step": "tune", "study_name": "whole", "model": "base", "dataset": "litter", "trials": "4"}
    assert tags.items() <= parent.tags.items()
    assert parent.tags["verdict"] == whole.tuned.found.sentence()
    values = [run.metrics["val/macro_ap"] for run in trials_of(whole.tracker)]
    assert parent.metrics["val/macro_ap"] == max(values)
    assert parent.metrics["val/defaults_macro_ap"] == values[0]
    assert (parent.metrics["trials_complete"], parent.metrics["epochs"]) == (4, 8)
    files = {str(file.relative_to(parent.folder)) for file in parent.folder.rglob("*") if file.is_file()}
    figures = {"optimisation_history", "slices", "parallel_coordinates", "learning_rates"}
    assert files >= {"best.yaml", "trials.csv", "space.json", *(f"figures/{name}.png" for name in figures)}


def test_every_trial_has_a_run_below_it(whole: Whole) -> None:
    rows = table_of(whole.tracker)
    runs = trials_of(whole.tracker)
    assert rows["run_id"].tolist() == [run.id for run in runs]
    for run, row in zip(runs, rows.to_dict("records"), strict=True):
        assert (run.parent, run.status, run.tags["state"]) == (whole.tuned.run_id, "FINISHED", row["state"])
        assert (run.tags["trial"], run.tags["study"]) == (str(row["trial"]), whole.tuned.run_id)
        assert run.metrics["val/macro_ap"] == max(epoch["val/macro_ap"] for epoch in run.first_values.values())
        assert run.metrics["val/macro_ap"] == row["val_macro_ap"]
        for key in (key for key in row if key.startswith("schedule.")):
            assert (key in run.parameters) == (row[key] != "")
        assert run.parameters["schedule.peak"] == f"{float(row['schedule.peak']):.6g}"


def test_the_learning_rate_of_every_epoch_is_the_measured_one(whole: Whole) -> None:
    space = Space(whole.config)
    for run, row in zip(trials_of(whole.tracker), table_of(whole.tracker).to_dict("records"), strict=True):
        keys = [key for key in space.parameters if row[key] != ""]
        schedule = space.settings({key: yaml.safe_load(str(row[key])) for key in keys}).schedule
        for epoch in (1, 2):
            expected = schedule.learning_rate(epoch - 1 + (BATCHES - 1) / BATCHES, 2)
            assert run.first_values[epoch]["learning_rate"] == pytest.approx(expected, rel=1e-5)


def test_the_first_trial_is_the_defaults(whole: Whole, prepared_folder: Path) -> None:
    first = trials_of(whole.tracker)[0]
    assert (first.tags["defaults"], first.tags["state"]) == ("true", "COMPLETE")
    schedule = config("train").schedule
    assert float(first.parameters["schedule.peak"]) == schedule.peak
    assert first.parameters["schedule.kind"] == schedule.kind
    assert whole.tuned.found.best_value >= first.metrics["val/macro_ap"]
    assert whole.tuned.found.defaults_value == first.metrics["val/macro_ap"]


def test_the_best_settings_are_retrained_once_as_any_other_training(whole: Whole) -> None:
    (run,) = (run for run in whole.tracker.runs if run.tags.get("step") == "train")
    assert whole.tuned.retrained is not None
    assert (run.id, run.status, run.parent) == (whole.tuned.retrained.run.id, "FINISHED", whole.tuned.run_id)
    assert run.tags["tuned"] == "whole"
    parent = whole.tracker.runs[0]
    assert parent.tags["retrained_run"] == run.id
    assert parent.metrics["test/macro_ap"] == run.metrics["test/macro_ap"]
    best = load_config("train", config_file=str(parent.folder / "best.yaml"))
    assert run.parameters["schedule.peak"] == f"{best.schedule.peak:.6g}"
    assert not any(name.startswith("test_") for one in trials_of(whole.tracker) for name in one.metrics)


def test_asking_again_trains_nothing_and_says_the_same(whole: Whole) -> None:
    assert len(whole.tracker.runs) == whole.runs_before == 6
    assert whole.again.found.sentence() == whole.tuned.found.sentence()
    pd.testing.assert_frame_equal(whole.again.found.table, whole.tuned.found.table)
    assert whole.again.retrained is not None
    assert whole.tuned.retrained is not None
    assert whole.again.retrained.run.id == whole.tuned.retrained.run.id
    closing = whole.said[whole.said.index("The best trials") :]
    assert whole.said_again.endswith(closing)
    assert "(4 of them done before)" in whole.said_again
    assert "Training" not in whole.said_again


def test_output_is_true_and_not_repeated(whole: Whole) -> None:
    lines = [line for line in whole.said.splitlines() if line and line[0] not in "┏┡├└"]
    assert [
        line for line, count in Counter(lines).items() if count > 1 and not line.startswith(("Training", "epoch"))
    ] == []
    told = [line for line in lines if line.startswith("Trials: ")]
    assert [line.split(" done")[0] for line in told] == [f"Trials: {done} of 4" for done in range(5)]
    found = whole.tuned.found
    number = next(row["trial"] for row in rows_by_value(found.table))
    assert told[-1].endswith(f"(0 pruned, 0 failed), best val macro AP {found.best_value:.3f} (trial {number}).")
    shown = [re.split(r"\s*│\s*", line)[1:3] for line in lines if line.startswith("│ trial")]
    named = [
        (f"trial {row['trial']}{' (defaults)' if row['defaults'] else ''}", row) for row in rows_by_value(found.table)
    ]
    assert shown == [[name, f"{row['val_macro_ap']:.3f}"] for name, row in named]
    assert found.sentence() in lines
    assert whole.tuned.retrained is not None
    metrics = whole.tuned.retrained.metrics
    assert any(f"on test: macro AP {metrics['test/macro_ap']:.3f} [" in line for line in lines)
    assert "cells" not in whole.said


def rows_by_value(table: pd.DataFrame) -> list[dict[str, Any]]:
    return sorted(table.to_dict("records"), key=lambda row: (-row["val_macro_ap"], not row["defaults"], row["trial"]))


def test_the_command_that_comes_next_works(whole: Whole) -> None:
    (line,) = (line for line in whole.said.splitlines() if line.startswith("Train with the best settings: "))
    words = shlex.split(line.removeprefix("Train with the best settings: "))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    settings = load_config("train", parameters={"dataset": given["dataset"]}, config_file=given["config"])
    assert plain(settings) == plain(Space(whole.config).settings(whole.tuned.found.best))
    assert settings.dataset == whole.config.dataset


def test_the_file_of_the_best_settings_is_those_of_the_best_trial(
    prepared_folder: Path, played: Played, tmp_path: Path
) -> None:
    """A space with lists, trees, booleans, numbers and words, beside fixed keys."""
    tree = yaml.safe_load((conf_folder() / "tune.yaml").read_text())
    own = {"balanced": tree["space"]["balanced"], "balance_target": tree["space"]["balance_target"]}
    network = {key: tree["space"]["network"][key] for key in ("dropout",)}
    learner = {"widths": {"values": [[4], [6, 8]]}, "noise": tree["space"]["network"]["learner"]["noise"]}
    file = tmp_path / "tune.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "model": "autoencoder",
                "dataset": str(prepared_folder / "litter"),
                "data_folder": str(tmp_path),
                "trials": 12,
                "retrain": False,
                "pruner": "none",
                "train": {"fit": {"epochs": 1}, "pretrained": "none", "mixed_precision": True, "seed": 7},
                "space": {**dict.fromkeys([*OTHERS, "freeze"]), **own, "network": {**network, "learner": learner}},
            }
        )
    )
    played.value = lambda settings, epoch: settings.network.dropout + (settings.network.learner.widths == (6, 8))
    settings = load_config("tune", config_file=str(file))
    settings = settings.model_copy(
        update={"data_folder": prepared_folder / "data", "storage": f"sqlite:///{tmp_path}/t.db"}
    )
    tracker = MemoryTracker()
    found = tune.run(settings, tracker).found
    best = max(played.begun, key=lambda one: played.value(one, 1))
    assert best.network.learner.widths == (6, 8)
    assert not found.best_is_defaults
    read = load_config("train", config_file=str(tracker.runs[0].folder / "best.yaml"))
    assert plain(read) == plain(best)
    assert (read.seed, read.mixed_precision, read.fit.epochs) == (7, True, 1)
    noises = {str(one.network.learner.noise) for one in played.begun}
    assert len(noises) > 1


def test_how_trials_end(prepared_folder: Path, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    import tensorflow as tf

    errors = [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "OOM when\nallocating"),
        BalanceError("Too few labels."),
        ConfigError("Not together."),
    ]
    raised = {number + 1: error for number, error in enumerate(errors)}

    def value(settings: TrainConfig, epoch: int) -> float:
        if error := raised.get(len(played.begun) - 1):
            raise error
        return 0.5

    played.value = value
    tracker = MemoryTracker()
    tune.run(asked(prepared_folder, "ends", trials="6"), tracker)
    assert states(tracker) == [
        ("COMPLETE", "FINISHED"),
        *[("FAILED", "FAILED")] * 4,
        ("COMPLETE", "FINISHED"),
    ]
    reasons = ["MemoryError", "OOM when allocating", "Too few labels", "Not together"]
    assert [run.tags.get("error") for run in trials_of(tracker)] == [None, *reasons, None]
    assert table_of(tracker)["error"].tolist() == ["", *reasons, ""]
    assert "6 trials: 2 complete, 0 pruned, 4 failed." in tracker.runs[0].tags["verdict"]
    said = capsys.readouterr().out
    assert all(f"Trial {number} failed: {reason}" in said for number, reason in enumerate(reasons, 1))


def test_an_error_in_the_defaults_is_reported(prepared_folder: Path, played: Played) -> None:
    def refuse(settings: TrainConfig, epoch: int) -> float:
        raise ConfigError("fold=9, but the dataset was prepared with folds=3.")

    played.value = refuse
    tracker = MemoryTracker()
    with pytest.raises(ConfigError, match="fold=9"):
        tune.run(asked(prepared_folder, "refused"), tracker)
    assert len(played.begun) == 1
    assert tracker.runs[0].status == "FAILED"


def test_a_search_whose_trials_all_fail_says_why(prepared_folder: Path, played: Played) -> None:
    def refuse(settings: TrainConfig, epoch: int) -> float:
        raise MemoryError("no room")

    played.value = refuse
    with pytest.raises(RunError, match=r"No trial of 'none' was complete. The last one failed: no room"):
        tune.run(asked(prepared_folder, "none", trials="2"), MemoryTracker())
    assert len(played.begun) == 2


def test_a_training_that_diverges_is_recorded(prepared_folder: Path) -> None:
    tracker = MemoryTracker()
    base = asked(prepared_folder, "diverges", f"{OPEN} train.schedule.warmup_epochs=0", sampler="grid")
    space = {"schedule": {"peak": {"values": [0.002, 1e38]}}}
    tune.run(base.model_copy(update={"space": space, "trials": 2}), tracker)
    assert states(tracker) == [("COMPLETE", "FINISHED"), ("FAILED", "FAILED")]
    assert "epoch 1, step" in trials_of(tracker)[1].tags["error"]


@pytest.mark.parametrize(("pruner", "ends"), [("hyperband", True), ("median", True), ("none", False)])
def test_pruners(prepared_folder: Path, played: Played, pruner: str, ends: bool) -> None:
    """Of trials that are each worse than the one before, those to come are hopeless; the worst are the defaults."""
    played.value = lambda settings, epoch: epoch / 100 + (1 / len(played.begun) if len(played.begun) > 1 else 0)
    tracker = MemoryTracker()
    # Hyperband deals its brackets by the study's name.
    settings = asked(
        prepared_folder, f"pruned by {pruner}", "train.fit.epochs=9", trials="12", pruner=pruner, sampler="random"
    )
    tune.run(settings, tracker)
    runs = trials_of(tracker)
    pruned = [run for run in runs if run.tags["state"] == "PRUNED"]
    assert bool(pruned) == ends
    assert all(run.status == "KILLED" and len(run.first_values) < 9 for run in pruned)
    assert all("stopped" not in run.tags for run in pruned)
    complete = [run for run in runs if run.tags["state"] == "COMPLETE"]
    assert all(run.status == "FINISHED" and len(run.first_values) == 9 for run in complete)
    assert runs[0] in complete
    assert len(pruned) + len(complete) == 12
    rows = table_of(tracker)
    assert rows["epochs"].tolist() == [len(run.first_values) for run in runs]


def test_equally_good_trials_leave_the_defaults(prepared_folder: Path, played: Played) -> None:
    """Also where the defaults' trial is a later one, as the first was interrupted."""
    played.value = lambda settings, epoch: 0.5 if len(played.begun) > 1 else raises(KeyboardInterrupt)
    tracker = MemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        tune.run(asked(prepared_folder, "even"), tracker)
    found = tune.run(asked(prepared_folder, "even"), tracker).found
    assert found.best_is_defaults
    assert found.best == Space(asked(prepared_folder, "even")).default_values()
    assert "None was better than the defaults" in found.sentence()
    (defaults,) = (run for run in trials_of(tracker) if run.tags["defaults"] == "true" and run.status == "FINISHED")
    assert defaults.tags["trial"] != "0"


def raises(error: type[BaseException]) -> float:
    raise error


def until_epoch(monkeypatch: pytest.MonkeyPatch, played: Played, limit: int | None) -> None:
    """End the time after `limit` epochs of all trials; None: never."""
    epochs: list[int] = []
    value = played.value
    played.value = lambda settings, epoch: epochs.append(epoch) or value(settings, epoch)  # type: ignore[func-returns-value]
    monkeypatch.setattr(trial_training.Clock, "is_up", lambda self: limit is not None and len(epochs) >= limit)


def test_timeout_ends_the_running_trial_and_the_next_call_goes_on(
    prepared_folder: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    until_epoch(monkeypatch, played, 3)
    first = tune.run(asked(prepared_folder, "timed"), tracker)
    assert states(tracker) == [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED")]
    stopped = trials_of(tracker)[1]
    assert (stopped.tags["stopped"], len(stopped.first_values)) == ("timeout", 1)
    assert first.retrained is None
    until_epoch(monkeypatch, played, None)
    monkeypatch.setattr(searching, "train_cells", lambda trainings, *_, **__: Standing({next(iter(trainings)): done}))
    done: Any = SimpleNamespace(run=SimpleNamespace(id="retrained"), metrics={})
    second = tune.run(asked(prepared_folder, "timed", retrain="true"), tracker)
    assert [state for state, _ in states(tracker)] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert second.run_id == first.run_id
    assert second.retrained is done


def test_unfinished_defaults_are_no_baseline(
    prepared_folder: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    until_epoch(monkeypatch, played, 1)
    with pytest.raises(RunError, match=r"No trial of 'halved' was complete. Give it more time \(timeout=\)."):
        tune.run(asked(prepared_folder, "halved"), tracker)
    assert [run.status for run in trials_of(tracker)] == ["KILLED"]
    until_epoch(monkeypatch, played, None)
    found = tune.run(asked(prepared_folder, "halved"), tracker).found
    assert found.progress.done == found.progress.complete == 3
    assert found.defaults_value == pytest.approx(0.1)
    assert found.best_value >= found.defaults_value


def test_a_clock_without_limit_is_never_up() -> None:
    assert (trial_training.Clock(None).is_up(), trial_training.Clock(None).left()) == (False, None)
    assert (trial_training.Clock(0.0).is_up(), trial_training.Clock(0.0).left()) == (True, 0.0)
    left = trial_training.Clock(1000.0).left()
    assert left is not None
    assert 900 < left <= 1000


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "KILLED"), (OSError(errno.ENOSPC, "No space left on device"), "FAILED")],
    ids=["interrupted", "disk full"],
)
def test_a_trial_that_was_interrupted_is_repeated(
    prepared_folder: Path, played: Played, error: BaseException, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    original = MemoryRun.log_metrics
    told: list[str] = []

    def log(self: MemoryRun, metrics: Any, *arguments: Any, **named: Any) -> None:
        if "learning_rate" in metrics and self.tags.get("trial") == "1" and not told:
            told.append(self.id)
            raise error
        original(self, metrics, *arguments, **named)

    monkeypatch.setattr(MemoryRun, "log_metrics", log)
    study = f"again {status}"
    with pytest.raises(type(error)):
        tune.run(asked(prepared_folder, study), tracker)
    assert tracker.runs[0].status == status
    found = tune.run(asked(prepared_folder, study), tracker).found
    assert (found.progress.complete, found.progress.done) == (3, 3)
    (lost,) = (run for run in trials_of(tracker) if run.id in told)
    reason = trial_training.INTERRUPTED if status == "KILLED" else LOST
    assert (lost.status, lost.tags["state"], lost.tags["error"]) == (status, "FAILED", reason)
    assert len(played.begun) == 4
    rows = table_of(tracker)
    assert rows.set_index("run_id").loc[lost.id, ["state", "error"]].tolist() == ["FAILED", LOST]
    assert found.sentence().startswith("3 trials: 3 complete, 0 pruned, 0 failed")
    assert tracker.runs[0].status == "FINISHED"


def test_a_deleted_lost_run_stops_nothing(prepared_folder: Path, played: Played) -> None:
    tracker = MemoryTracker()
    played.value = lambda settings, epoch: 0.5 if len(played.begun) != 2 else raises(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        tune.run(asked(prepared_folder, "deleted"), tracker)
    tracker.runs.remove(trials_of(tracker)[1])
    assert tune.run(asked(prepared_folder, "deleted"), tracker).found.progress.complete == 3


def test_trials_is_the_total(prepared_folder: Path, played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = MemoryTracker()
    for total, done in (("2", 2), ("4", 4), ("3", 4)):
        found = tune.run(asked(prepared_folder, "total", trials=total), tracker).found
        assert (found.progress.complete, len(played.begun)) == (done, done)
    assert len([run for run in tracker.runs if run.tags.get("step") == "tune"]) == 1
    assert len({str(one.schedule) for one in played.begun}) == 4
    said = capsys.readouterr().out
    assert "Search 'total': 4 trials (2 of them done before) of " in said
    assert "Search 'total': 3 trials requested (4 are done already, so none is started) of " in said
    told = [line.partition(" done")[0] for line in said.splitlines() if line.startswith("Trials: ")]
    assert told == [
        *(f"Trials: {done} of 2" for done in range(3)),
        *(f"Trials: {done} of 4" for done in range(2, 5)),
        "Trials: 4",
    ]


def test_fewer_trials_than_an_interrupted_search_started_with(
    prepared_folder: Path, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = MemoryTracker()
    played.value = lambda settings, epoch: 0.5 if len(played.begun) != 3 else raises(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        tune.run(asked(prepared_folder, "fewer", trials="6"), tracker)
    found = tune.run(asked(prepared_folder, "fewer", trials="3"), tracker).found
    assert (found.progress.done, len(played.begun)) == (3, 4)
    assert "Trials: 3 of 3 done" in capsys.readouterr().out
    assert table_of(tracker)["state"].tolist() == ["COMPLETE", "COMPLETE", "FAILED", "COMPLETE"]


def test_the_best_settings_of_each_search_have_their_own_file() -> None:
    plain = {"base on sample": "base-on-sample", "my study": "my-study", "2nd_try.b": "2nd_try.b"}
    alike = ["my-study", "my  study", "base-on-sample", "base on-sample", "base on été!", "base on été?"]
    files = {name: results.best_file(config("tune").model_copy(update={"study": name})) for name in [*plain, *alike]}
    assert {name: files[name] for name in plain} == {name: Path("data/tuned") / f"{plain[name]}.yaml" for name in plain}
    assert len(set(files.values())) == len(files)
    assert all(re.fullmatch(r"[\w.-]+", file.name) for file in files.values())


class Unseen:
    """Stands for a test table, and may be looked at by nobody."""

    def __init__(self, *parts: object) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return object.__getattribute__(self, name)
        raise AssertionError(f"{name} of the test table was asked for")


def spoilt(dataset: PreparedDataset, split: str) -> PreparedDataset:
    """The dataset with other pixels and labels in one of its splits."""
    rows = (dataset.frame["split"] == split).to_numpy()
    frame, photos = dataset.frame.copy(), np.array(dataset.photos)
    photos[frame.loc[rows, "photo_index"]] = np.random.default_rng(1).integers(0, 256, photos[rows].shape)
    for material in dataset.materials:
        frame.loc[rows, material] = 1 - frame.loc[rows, material]
    copy = replace(dataset, frame=frame)
    copy.__dict__["photos"] = photos
    return copy


def test_the_test_split_cannot_reach_a_trial(prepared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trials to the last digit but those of rounding, whatever is in test; of val they are others."""
    curves, opened = {}, DatasetPlace.opened
    for split in ("none", "test", "val"):
        with monkeypatch.context() as patch:
            if split != "none":
                patch.setattr(DatasetPlace, "opened", lambda place, split=split: spoilt(opened(place), split))
            if split == "test":
                patch.setattr(prepared, "TestTable", Unseen)
            tracker = MemoryTracker()
            tune.run(asked(prepared_folder, f"spoilt {split}", trials="2", sampler="random"), tracker)
        curves[split] = [
            [epoch[name] for epoch in run.first_values.values() for name in ("loss", "val/loss", "val/macro_ap")]
            for run in trials_of(tracker)
        ]
    np.testing.assert_allclose(curves["test"], curves["none"], rtol=1e-4)
    assert not np.allclose(curves["val"], curves["none"], rtol=1e-2)


def test_trials_of_the_same_pretraining_share_one(prepared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "TestTable", Unseen)
    learner = {"epochs": 1, "batch_size": 16, "widths": [4]}
    base = asked(
        prepared_folder,
        "encoders",
        model="autoencoder",
        sampler="grid",
        trials="4",
    )
    settings = {"pretrained": "auto", "fit": {"epochs": 1, "batch_size": 16}, "network": {"learner": learner}}
    noise = [{"name": "masking", "strength": 0.3}, {"name": "none", "strength": 0.0}]
    space = {"schedule": {"peak": {"values": [0.002, 0.01]}}, "network": {"learner": {"noise": {"values": noise}}}}
    tracker = MemoryTracker()
    tune.run(base.model_copy(update={"space": space, "train": settings}), tracker)
    assert states(tracker) == [("COMPLETE", "FINISHED")] * len(trials_of(tracker))
    encoders = {run.id: run for run in tracker.runs if run.tags.get("step") == "pretrain"}
    used = Counter(run.tags["pretrained_run"] for run in trials_of(tracker))
    assert used == dict.fromkeys(encoders, 2)
    assert len(encoders) == 2
    assert all(run.parent in {one.id for one in trials_of(tracker)} for run in encoders.values())


# Trials that end before they are done: their runs continue


FOUR_EPOCHS = "train.fit.epochs=4 train.fit.patience_epochs=4"


class Death(BaseException):
    """Ends a process as a kill does: nothing catches it."""


@dataclass
class Epochs:
    """The epochs that trials log, and what ends one of them.

    Attributes:
        logged: (trial, epoch) of each, in order.
        fatal: (trial, epoch) → what is raised there instead, once.
    """

    logged: list[tuple[int, int]] = field(default_factory=list)
    fatal: dict[tuple[int, int], BaseException] = field(default_factory=dict)


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> Epochs:
    found, log = Epochs(), MemoryRun.log_metrics

    def logs(self: MemoryRun, metrics: Any, step: int | None = None, measured_ms: int | None = None) -> None:
        at = (int(self.tags.get("trial", -1)), step or 0)
        if "learning_rate" in metrics and self.tags.get("step") == "trial":
            if at in found.fatal:
                raise found.fatal.pop(at)
            found.logged.append(at)
        log(self, metrics, step, measured_ms)

    monkeypatch.setattr(MemoryRun, "log_metrics", logs)
    monkeypatch.setattr(CheckpointKeeper, "CHEAP_S", float("inf"))  # one after every epoch
    return found


def optuna_trials(root: Path, study: str) -> list[Any]:
    storage = asked(root, study).storage
    return optuna.load_study(study_name=study, storage=storage).get_trials()


def curve(run: MemoryRun) -> list[float]:
    return [row[name] for _, row in sorted(run.history.items()) for name in ("loss", "val/loss")]


@pytest.fixture(scope="module")
def undisturbed(prepared_folder: Path) -> list[MemoryRun]:
    """The runs of the defaults and of another trial, of four epochs."""
    tracker = MemoryTracker()
    tune.run(asked(prepared_folder, "undisturbed", FOUR_EPOCHS, trials="2", sampler="random"), tracker)
    return trials_of(tracker)


def check_continued(root: Path, study: str, tracker: MemoryTracker, number: int, undisturbed: MemoryRun) -> None:
    """Check that an Optuna trial of this number continued a run, and that nothing shows there but its end."""
    (run,) = (run for run in trials_of(tracker) if run.tags["trial"] == str(number))
    assert (run.status, run.tags["state"]) == ("FINISHED", "COMPLETE")
    assert not run.tags.get("error")
    assert not run.tags.get("stopped")
    np.testing.assert_allclose(curve(run), curve(undisturbed), rtol=1e-4)
    trial = optuna_trials(root, study)[number]
    best = np.maximum.accumulate([row["val/macro_ap"] for row in run.first_values.values()])
    assert trial.intermediate_values == dict(enumerate(best, 1))
    assert trial.value == best[-1]
    assert not list((run.folder / "checkpoint").glob("*"))


@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_trial_continues_its_run(
    prepared_folder: Path,
    epochs: Epochs,
    undisturbed: list[MemoryRun],
    monkeypatch: pytest.MonkeyPatch,
    *,
    killed: bool,
) -> None:
    study = f"continued {killed}"
    config = asked(prepared_folder, study, FOUR_EPOCHS, trials="2", sampler="random")
    tracker = MemoryTracker()
    epochs.fatal[1, 3] = Death() if killed else KeyboardInterrupt()
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(TrialStore, "give_back", lambda *_: None)
        with pytest.raises((Death, KeyboardInterrupt)):
            tune.run(config, tracker)
    run = trials_of(tracker)[1]
    if killed:
        run.status = "RUNNING"
    else:
        assert (run.status, run.tags["error"]) == ("KILLED", trial_training.INTERRUPTED)
    found = tune.run(config, tracker).found
    assert len(trials_of(tracker)) == 2
    assert epochs.logged == [*((0, epoch) for epoch in range(1, 5)), (1, 1), (1, 2), (2, 3), (2, 4)]
    check_continued(prepared_folder, study, tracker, 2, undisturbed[1])
    assert found.sentence().startswith("2 trials: 2 complete, 0 pruned, 0 failed")
    assert found.metrics()["epochs"] == 8
    assert table_of(tracker)["state"].tolist() == ["COMPLETE", "FAILED", "COMPLETE"]


def test_defaults_that_the_time_limit_ends_continue_their_run(
    prepared_folder: Path, epochs: Epochs, undisturbed: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asked(prepared_folder, "timed defaults", FOUR_EPOCHS, trials="1")
    tracker = MemoryTracker()
    with monkeypatch.context() as patch:
        patch.setattr(trial_training.Clock, "is_up", lambda self: len(epochs.logged) >= 2)
        with pytest.raises(RunError, match="Give it more time"):
            tune.run(config, tracker)
    assert [run.tags["stopped"] for run in trials_of(tracker)] == ["timeout"]
    tune.run(config, tracker)
    assert epochs.logged == [(0, 1), (0, 2), (1, 3), (1, 4)]
    check_continued(prepared_folder, "timed defaults", tracker, 1, undisturbed[0])


def test_a_trial_that_was_done_before_optuna_was_told_is_not_done_again(
    prepared_folder: Path, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    tell = TrialStore.tell

    def told(self: TrialStore, number: int, *how: Any, **more: Any) -> None:
        if number == 1:
            raise SearchStoreError("The storage does not answer.")
        tell(self, number, *how, **more)

    with monkeypatch.context() as patch:
        patch.setattr(TrialStore, "tell", told)
        with pytest.raises(SearchStoreError):
            tune.run(asked(prepared_folder, "untold"), tracker)
    tune.run(asked(prepared_folder, "untold"), tracker)
    assert len(played.begun) == len(trials_of(tracker)) == 3
    first, lost, again, _ = optuna_trials(prepared_folder, "untold")
    assert [trial.state.name for trial in (first, lost, again)] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert again.params == lost.params
    assert again.value == trials_of(tracker)[1].metrics["val/macro_ap"]
    assert again.intermediate_values == lost.intermediate_values
    assert again.user_attrs["run_id"] == trials_of(tracker)[1].id


def test_a_trial_that_its_coordinator_gave_back_is_interrupted(prepared_folder: Path, played: Played) -> None:
    """As by Ctrl-C, of which a worker hears later than of the trial's end."""
    config = asked(prepared_folder, "taken", trials="1")

    def value(settings: TrainConfig, epoch: int) -> float:
        optuna.load_study(study_name="taken", storage=config.storage).tell(0, state=TrialState.FAIL)
        return 0.5

    played.value = value
    tracker = MemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        tune.run(config, tracker)
    (run,) = trials_of(tracker)
    assert (run.status, run.tags["error"]) == ("KILLED", trial_training.INTERRUPTED)


def test_a_database_that_fails_in_a_trial_is_reported(prepared_folder: Path, played: Played) -> None:
    config = asked(prepared_folder, "dropped")

    def value(settings: TrainConfig, epoch: int) -> float:
        with sqlite3.connect(config.storage.removeprefix("sqlite:///")) as database:
            database.execute("DROP TABLE trial_intermediate_values")
        database.close()
        return 0.5

    played.value = value
    with pytest.raises(SearchStoreError, match=r"no such table: trial_intermediate_values\. Fix it"):
        tune.run(config, MemoryTracker())


# Engines elsewhere


class Cluster:
    """An engine that takes tasks as Dask does: pickled, again if a worker dies, and though their coordinator is gone.

    Attributes:
        tasks: those that are not delivered, of all coordinators.
        lacking: keys of tasks whose worker lacks the dataset, once each.
        kills: whether the coordinator dies as soon as it has started tasks.
    """

    is_local = False

    def __init__(self, tracker: MemoryTracker, *, attempts: int = 2) -> None:
        self.tasks: dict[str, Task] = {}
        self.lacking: list[str] = []
        self.kills = False
        self._tracker = tracker
        self._attempts = attempts
        self._started: dict[str, Task] = {}

    @contextlib.contextmanager
    def opened(self, engine: str, *, retries: int) -> Iterator[Cluster]:
        self._started = {}
        yield self

    def workers(self) -> int:
        return 2

    def is_known(self, key: str) -> bool:
        return key in self.tasks

    def is_started(self, key: str) -> bool:
        return key in self._started

    def running(self) -> int:
        return len(self._started)

    def start(self, task: Task) -> None:
        self.tasks.setdefault(task.key, task)
        self._started[task.key] = task

    def send(self, *what: Any, workers: Any = None) -> dict[str, Any]:
        return {}

    def stop_others(self, owner: str, keep: Container[str]) -> None:
        for key in [key for key in self.tasks if key.endswith(owner) and key not in keep]:
            del self.tasks[key]

    def finished(self, more: Callable[[], None] = lambda: None) -> Iterator[Done]:
        while self._started:
            if self.kills:
                raise Death
            key, task = next(iter(self._started.items()))
            del self._started[key]
            result, error = self._outcome(self.tasks.pop(key))
            yield Done(task, result, error)

    def _outcome(self, task: Task) -> tuple[Any, Exception | None]:
        if task.key.rpartition(" of ")[0] in self.lacking:
            self.lacking.remove(task.key.rpartition(" of ")[0])
            return None, DatasetLacking("litter")
        job, tracker = task.arguments
        pickled = pickle.dumps(job)
        for _ in range(self._attempts):
            try:
                return task.function(pickle.loads(pickled), tracker), None
            except Death:
                self._tracker.runs[-1].status = "RUNNING"
            except Exception as error:
                return None, error
        return None, WorkerLost(f"Its workers died {self._attempts} times.")


@pytest.fixture
def tracker() -> MemoryTracker:
    return MemoryTracker()


@pytest.fixture
def cluster(tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(tracker)
    monkeypatch.setattr(tune, "opened", cluster.opened)
    return cluster


def killed_coordinator(cluster: Cluster, config: Any, tracker: MemoryTracker) -> None:
    """Run a search until its coordinator has started its first tasks and is killed."""
    cluster.kills = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialStore, "give_back", lambda *_: None)
        with pytest.raises(Death):
            tune.run(config, tracker)
    cluster.kills = False


def test_a_trial_whose_worker_dies_continues_elsewhere(
    prepared_folder: Path, epochs: Epochs, undisturbed: list[MemoryRun], tracker: MemoryTracker, cluster: Cluster
) -> None:
    epochs.fatal[1, 3] = Death()
    tune.run(asked(prepared_folder, "elsewhere", FOUR_EPOCHS, trials="2", sampler="random"), tracker)
    assert epochs.logged == [(trial, epoch) for trial in (0, 1) for epoch in range(1, 5)]
    assert [trial.state.name for trial in optuna_trials(prepared_folder, "elsewhere")] == ["COMPLETE"] * 2
    assert len(trials_of(tracker)) == 2
    check_continued(prepared_folder, "elsewhere", tracker, 1, undisturbed[1])


def test_a_trial_whose_workers_die_fails_with_the_reason(
    prepared_folder: Path,
    played: Played,
    tracker: MemoryTracker,
    cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
) -> None:
    played.value = lambda settings, epoch: 0.5 if len(played.begun) not in (2, 3) else raises(Death)
    found = tune.run(asked(prepared_folder, "deadly"), tracker).found
    reason = "Its workers died 2 times."
    assert found.sentence().startswith("3 trials: 2 complete, 0 pruned, 1 failed")
    rows = table_of(tracker)
    assert rows["error"].tolist() == ["", reason, ""]
    (run,) = (run for run in trials_of(tracker) if run.id == rows["run_id"][1])
    assert (run.status, run.tags["state"], run.tags["error"]) == ("KILLED", "FAILED", reason)
    assert "RUNNING" not in {run.status for run in tracker.runs}
    said = capsys.readouterr().out
    assert f"Warning: Trial 1 failed: {reason} The search goes on." in said
    assert "Trials: 0 of 3 done, 2 running on 2 workers." in said
    assert tune.run(asked(prepared_folder, "deadly"), tracker).found.progress.done == 3
    assert len(played.begun) == 4


def test_tasks_of_a_killed_coordinator_are_joined(
    prepared_folder: Path, played: Played, tracker: MemoryTracker, cluster: Cluster
) -> None:
    killed_coordinator(cluster, asked(prepared_folder, "joined", trials="4"), tracker)
    played.value = lambda settings, epoch: 0.5 if len(played.begun) != 2 else raises(MemoryError)
    found = tune.run(asked(prepared_folder, "joined", trials="4"), tracker).found
    assert (found.progress.complete, found.progress.failed, len(played.begun)) == (3, 1, 4)
    assert [trial.state.name for trial in optuna_trials(prepared_folder, "joined")] == [
        "COMPLETE",
        "FAIL",
        "COMPLETE",
        "COMPLETE",
    ]
    assert table_of(tracker)["error"].tolist() == ["", "MemoryError", "", ""]
    assert cluster.tasks == {}


def test_tasks_that_are_gone_with_their_scheduler_are_repeated(
    prepared_folder: Path, played: Played, tracker: MemoryTracker, cluster: Cluster
) -> None:
    killed_coordinator(cluster, asked(prepared_folder, "gone"), tracker)
    cluster.tasks.clear()
    found = tune.run(asked(prepared_folder, "gone"), tracker).found
    assert (found.progress.complete, len(played.begun)) == (3, 3)
    before, after = optuna_trials(prepared_folder, "gone")[:2], optuna_trials(prepared_folder, "gone")[2:4]
    assert [trial.state.name for trial in before] == ["FAIL", "FAIL"]
    assert [trial.params for trial in before] == [trial.params for trial in after]


@pytest.mark.parametrize(("joined", "states"), [(False, ["COMPLETE"] * 3), (True, ["FAIL", *["COMPLETE"] * 3])])
def test_a_dataset_that_workers_lack_is_sent(
    prepared_folder: Path,
    played: Played,
    tracker: MemoryTracker,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    *,
    joined: bool,
    states: list[str],
) -> None:
    sent = []
    monkeypatch.setattr(searching, "send_copy", lambda place, send: sent.append(place.name))
    config = asked(prepared_folder, f"sent {joined}")
    if joined:
        killed_coordinator(cluster, config, tracker)
    cluster.lacking = ["trial 0"]
    assert tune.run(config, tracker).found.progress.complete == 3
    assert sent == ["litter"]
    assert [trial.state.name for trial in optuna_trials(prepared_folder, config.study)] == states


def test_a_worker_that_lacks_the_dataset_even_then_ends_the_search(
    prepared_folder: Path,
    played: Played,
    tracker: MemoryTracker,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searching, "send_copy", lambda place, send: None)
    cluster.lacking = ["trial 0"] * 2
    with pytest.raises(DatasetLacking):
        tune.run(asked(prepared_folder, "lacking"), tracker)
    assert "RUNNING" not in {trial.state.name for trial in optuna_trials(prepared_folder, "lacking")}
