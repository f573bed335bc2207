"""The trials of a search in a database: none runs twice, none is lost, and problems are reported in one line."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.exceptions import TrialPruned
from optuna.storages._heartbeat import HeartbeatThread
from optuna.trial import Trial, TrialState
from tests.factories import config
from wastelens.system.processes import name_of_this

from wastelens.config.tune import TuneConfig
from wastelens.errors import ConfigError, SearchStoreError, WastelensError
from wastelens.tuning import database
from wastelens.tuning import trials as trials_module
from wastelens.tuning.results import importances
from wastelens.tuning.space import Space
from wastelens.tuning.trials import ERROR, WORKER, TrialFailed, TrialStore, search_name

SPACE = {
    "schedule": {
        "kind": {"values": ["exponential", "cosine"]},
        "peak": {"low": 0.0005, "high": 0.01, "log": True},
        "decay_per_epoch": {"low": 0.8, "high": 0.99, "when": {"schedule.kind": "exponential"}},
    },
    "network": {"widths": {"values": [[8, 8], [24, 48, 64, 96, 128]]}},
}
STEPS = {"fit": {"batch_size": {"low": 8, "high": 15}}}
NO_WIDTHS = {"schedule": SPACE["schedule"]}
DEFAULTS = {
    "schedule.kind": "exponential",
    "schedule.peak": 0.002,
    "schedule.decay_per_epoch": 0.95,
    "network.widths": [24, 48, 64, 96, 128],
}
PASSWORD = "opensesame"

Objective = Callable[[Trial], float]


@functools.cache
def space_of(tree: str, model: str = "base", train: str = "{}") -> Space:
    return Space(config_of(json.loads(tree), model=model, train=json.loads(train)))


def config_of(space: Any = SPACE, **changes: Any) -> TuneConfig:
    shipped: TuneConfig = config("tune")
    return TuneConfig.model_validate({**shipped.model_dump(), "space": space, "dataset": "tiny", **changes})


def opened(folder: Path, space: Any = SPACE, *, digest: str = "digest", **changes: Any) -> TrialStore:
    known = config_of(space, **{"data_folder": folder, "sampler": "random", "trials": 5, **changes})
    return TrialStore(known, space_of(json.dumps(space), known.model, json.dumps(known.train)), digest)


def work(store: TrialStore, objective: Objective | None = None) -> list[dict[str, Any]]:
    """Do what is left, by peak unless told otherwise; returns the values tried here."""
    tried = []

    def one(trial: Trial) -> float:
        values = store.suggest(trial)
        tried.append(values)
        return float(values.get("schedule.peak", 0.5)) if objective is None else objective(trial)

    store.work(one, lambda: False)
    return tried


def states(store: TrialStore) -> list[str]:
    return [trial.state.name for trial in store.optuna_study.get_trials()]


@pytest.fixture(autouse=True)
def _no_long_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials_module, "_LOOK_S", 0.05)


def test_as_many_as_asked_for_the_defaults_first(tmp_path: Path) -> None:
    store = opened(tmp_path)
    tried = work(store)
    standing = store.progress()
    assert (len(tried), standing.complete, standing.done, states(store)) == (5, 5, 5, ["COMPLETE"] * 5)
    assert tried[0] == DEFAULTS
    assert [store.is_defaults(trial) for trial in store.trials()] == [True, False, False, False, False]
    assert [store.values(trial) for trial in store.trials()] == tried
    assert standing.best is not None
    assert standing.best.value == max(values["schedule.peak"] for values in tried)
    assert store.lost() == []
    assert (tmp_path / "tuning.db").is_file()


def test_calling_again_runs_none_and_asking_for_more_runs_those(tmp_path: Path) -> None:
    first = work(opened(tmp_path))
    assert work(opened(tmp_path)) == []
    assert work(opened(tmp_path, trials=3)) == []
    more = work(opened(tmp_path, trials=8))
    assert len(more) == 3
    # Were the random numbers the process's, the three would be those that the first call drew.
    assert not [values for values in more if values in first]


def stopped_at(*numbers: int) -> Objective:
    """Ends its process, as Ctrl-C does, in the trials of these numbers."""

    def objective(trial: Trial) -> float:
        if trial.number in numbers:
            raise KeyboardInterrupt
        return 0.5

    return objective


def test_fewer_trials_than_an_interrupted_study_was_begun_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(opened(tmp_path, trials=6), stopped_at(2))
    assert len(work(opened(tmp_path, trials=3))) == 1
    assert work(opened(tmp_path, trials=3)) == work(opened(tmp_path, trials=1)) == []
    store = opened(tmp_path, trials=3)
    assert sorted(states(store)) == ["COMPLETE"] * 3 + ["FAIL"] + ["WAITING"] * 3
    assert len(work(opened(tmp_path, trials=8))) == 5
    assert store.progress().done == store.progress().complete == 8


def places_done(store: TrialStore) -> list[int]:
    return sorted(trial.user_attrs["place"] for trial in store.trials() if trial.state is TrialState.COMPLETE)


def test_trials_done_beyond_those_asked_for_count(tmp_path: Path) -> None:
    for number in (1, 4):  # the second goes on with 2 and 3, and would do 1 again last
        with pytest.raises(KeyboardInterrupt):
            work(opened(tmp_path, trials=6), stopped_at(number))
    assert opened(tmp_path, trials=6).progress().done == 3
    assert work(opened(tmp_path, trials=3)) == []
    store = opened(tmp_path, trials=4)
    assert len(work(store)) == 1
    assert places_done(store) == [0, 1, 2, 3]
    assert len(work(opened(tmp_path, trials=6))) == 2
    assert places_done(store) == [0, 1, 2, 3, 4, 5]


def test_trials_that_another_worker_has_count(tmp_path: Path) -> None:
    """Whatever it was asked for: who is asked for fewer waits, for it may die, and does not take more."""
    begun: dict[str, list[int]] = {"whole": [], "four": [], "five": []}

    def other(name: str, trials: int) -> None:
        until = time.monotonic() + 0.5
        store = opened(tmp_path, trials=trials)
        store.work(lambda trial: begun[name].append(trial.number) or 0.5, lambda: time.monotonic() > until)  # type: ignore[func-returns-value]

    def objective(trial: Trial) -> float:
        begun["whole"].append(trial.number)
        if trial.number == 3:
            other("four", 4)
            other("five", 5)
        return 0.5

    work(opened(tmp_path, trials=6), objective)
    assert begun == {"whole": [0, 1, 2, 3, 5], "four": [], "five": [4]}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_study_gone_on_with_tries_what_one_in_one_go_does(tmp_path: Path, sampler: str) -> None:
    whole = work(opened(tmp_path / "whole", trials=12, sampler=sampler))
    parts = [work(opened(tmp_path / "parts", trials=trials, sampler=sampler)) for trials in (3, 12)]
    assert [values for part in parts for values in part] == whole
    assert work(opened(tmp_path / "other", trials=3, sampler=sampler, seed=1))[1:] != whole[1:3]


def test_nothing_is_begun_when_the_time_is_up(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.work(lambda _: pytest.fail("begun"), lambda: True)
    assert states(store) == ["WAITING"] * 5


def test_conditional_parameters_under_tpe(tmp_path: Path) -> None:
    # Warnings are errors here: Optuna's of parameters that only some trials have would end this.
    tried = work(opened(tmp_path, trials=20, sampler="tpe"))
    names = {values["schedule.kind"] for values in tried}
    assert names == {"exponential", "cosine"}
    assert all(("schedule.decay_per_epoch" in one) is (one["schedule.kind"] == "exponential") for one in tried)


def test_steps_that_do_not_divide_the_range(tmp_path: Path) -> None:
    space = {
        "balance_target": {"low": 0.1, "high": 0.5, "step": 0.15},
        "fit": {"batch_size": {"low": 8, "high": 60, "step": 20}},
    }
    tried = work(opened(tmp_path, space, trials=20))
    assert {one["fit.batch_size"] for one in tried[1:]} == {8, 28, 48}
    assert {round(one["balance_target"], 9) for one in tried[1:]} == {0.1, 0.25, 0.4}


def test_lists_and_mappings_come_back_as_they_were(tmp_path: Path) -> None:
    noises = [{"name": "masking", "strength": 0.3}, {"name": "gaussian", "strength": 0.1}]
    space = {"network": {"learner": {"noise": {"values": noises}, "widths": {"values": [[4, 8], [8, 8, 8]]}}}}
    store = opened(tmp_path, space, model="autoencoder", trials=12)
    tried = work(store)
    assert tried[0] == {}  # no default lies in this space
    assert all(one["network.learner.noise"] in noises for one in tried[1:])
    assert {tuple(one["network.learner.widths"]) for one in tried[1:]} == {(4, 8), (8, 8, 8)}
    assert [store.values(trial) for trial in store.trials()] == tried


def test_a_trial_that_fails_counts_and_the_next_goes_on(tmp_path: Path) -> None:
    store = opened(tmp_path)

    def objective(trial: Trial) -> float:
        if trial.number == 1:
            trial.set_user_attr(ERROR, "no memory")
            raise TrialFailed("no memory")
        if trial.number == 2:
            raise TrialPruned
        return 0.5

    assert len(work(store, objective)) == 5
    standing = store.progress()
    assert (standing.complete, standing.pruned, standing.failed, standing.done) == (3, 1, 1, 5)
    assert store.lost() == []
    assert work(opened(tmp_path)) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_trial_is_done_again(tmp_path: Path, error: type[BaseException]) -> None:
    """However often, for it is no fault of the trial's; and the defaults again as the defaults."""

    def objective(trial: Trial) -> float:
        raise error

    for _ in range(4):
        with pytest.raises(error):
            work(opened(tmp_path, trials=1), objective)
    store = opened(tmp_path, trials=3)
    assert [trial.number for trial in store.lost()] == [0, 1, 2, 3]
    tried = work(store)
    assert len(tried) == 3
    assert tried[0] == DEFAULTS
    assert [trial.number for trial in store.trials() if store.is_defaults(trial)] == [4]
    assert store.progress().done == store.progress().complete == 3


def test_the_best_of_equals_is_the_first(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.progress().best is None
    work(store, lambda _: 0.5)
    best = store.progress().best
    assert best is not None
    assert best.number == 0


def test_importances(tmp_path: Path) -> None:
    store = opened(tmp_path, trials=3)
    work(store)
    assert importances(store) == {}
    store = opened(tmp_path, trials=15)
    work(store)
    found = importances(store)
    assert next(iter(found)) == "schedule.peak"  # which is the value
    assert list(found.values()) == sorted(found.values(), reverse=True)


# Grids


def test_a_grid_has_every_combination_once_the_defaults_first(tmp_path: Path) -> None:
    space = {
        "schedule": {"kind": {"values": ["cosine", "exponential"]}},
        "network": {"dropout": {"low": 0.0, "high": 0.3, "step": 0.1}},
        "balanced": {"values": [True, False]},
        "balance_target": {"values": [0.5, 0.7], "when": {"balanced": True}},
    }
    store = opened(tmp_path, space, sampler="grid", trials=100)
    tried = work(store)
    # The default of balance_target is none of its values, so that the defaults are one more than the grid.
    assert tried[0] == {"schedule.kind": "exponential", "network.dropout": 0.2, "balanced": True}
    texts = [json.dumps(one, sort_keys=True) for one in tried]
    assert store.asked == len(texts) == len(set(texts)) == 1 + 2 * 4 * (2 + 1)
    assert {one["network.dropout"] for one in tried} == {0.0, 0.1, 0.2, 0.3}
    assert work(opened(tmp_path, space, sampler="grid", trials=100)) == []


def test_a_grid_that_holds_the_defaults_has_no_trial_twice(tmp_path: Path) -> None:
    space = {
        "network": {"dropout": {"low": 0.1, "high": 0.3, "step": 0.1}},
        "fit": {"batch_size": {"values": [16.0, 32.0]}},
    }
    store = opened(tmp_path, space, sampler="grid", trials=4)
    tried = work(store)
    assert len(tried) == 4
    tried += work(opened(tmp_path, space, sampler="grid", trials=50))
    assert tried[0] == {"network.dropout": 0.2, "fit.batch_size": 32}
    assert {(one["network.dropout"], one["fit.batch_size"]) for one in tried} == {
        (dropout, size) for dropout in (0.1, 0.2, 0.3) for size in (16, 32)
    }
    assert len(tried) == 6


def test_a_lost_trial_of_a_grid_keeps_its_combination_though_fewer_were_asked_for_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(opened(tmp_path, STEPS, sampler="grid", trials=6), stopped_at(5))
    assert work(opened(tmp_path, STEPS, sampler="grid", trials=2)) == []
    store = opened(tmp_path, STEPS, sampler="grid", trials=6)
    work(store)
    assert [store.values(trial)["fit.batch_size"] for trial in store.trials()[1:]] == [8, 9, 10, 11, 12]


# Several workers


def _joined(folder: Path, death: int | None, log: Path, barrier: Any) -> None:
    """A worker in a process of its own; it is killed in the trial of that number."""
    barrier.wait(60)

    def objective(trial: Trial) -> float:
        if trial.number == death:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.15)
        with log.open("a") as file:
            file.write(f"{trial.number} {os.getpid()}\n")
        return 0.5

    trials_module._LOOK_S = 0.05
    work(opened(folder, trials=12), objective)


def _exit_codes(folder: Path, log: Path, deaths: list[int | None]) -> list[int]:
    """Of workers that begin at once, each with the number of the trial that it is killed in."""
    start = multiprocessing.get_context("spawn")
    barrier = start.Barrier(len(deaths))
    processes = [start.Process(target=_joined, args=(folder, death, log, barrier)) for death in deaths]
    for process in processes:
        process.start()
    return [_ended(process) for process in processes]


def _ended(process: Any) -> int:
    process.join(60)
    if process.is_alive():
        process.kill()
        pytest.fail("a worker did not end")
    return int(process.exitcode)


@pytest.mark.slow
def test_three_processes_share_the_trials_and_one_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    codes = _exit_codes(tmp_path, log, [None, None, 3])
    assert codes[:2] == [0, 0]
    store = opened(tmp_path, trials=12)
    lines = [line.split() for line in log.read_text().splitlines()]
    numbers = [int(number) for number, _ in lines]
    assert len(numbers) == len(set(numbers)) == 12
    assert store.progress().complete == store.progress().done == 12
    assert len({worker for _, worker in lines}) >= 2
    # Whether it was the third that met trial 3 is left to chance: only then was one lost.
    lost = [trial.number for trial in store.lost()]
    assert lost == ([3] if codes[2] == -signal.SIGKILL else [])
    assert len(states(store)) == 12 + len(lost)
    assert sum(store.is_defaults(trial) for trial in store.trials()) == 1


def test_a_killed_workers_trial_is_done_again_at_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert _exit_codes(tmp_path, log, [0]) == [-signal.SIGKILL]
    began = time.monotonic()
    store = opened(tmp_path, trials=12)
    assert [trial.number for trial in store.lost()] == [0]
    assert work(store, lambda _: 0.5)[-1] == DEFAULTS  # it went to the end of the line
    assert time.monotonic() - began < 20  # by the heartbeat it would take two minutes
    assert store.progress().done == store.progress().complete == 12
    assert [trial.number for trial in store.trials() if store.is_defaults(trial)] == [12]


@pytest.mark.parametrize("totals", [(8, 8, 8, 8), (2, 8, 5, 8)], ids=["one total", "several totals"])
@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_threads_that_open_a_study_at_once(tmp_path: Path, sampler: str, totals: tuple[int, ...]) -> None:
    barrier = threading.Barrier(4)
    space_of(json.dumps(STEPS))
    begun: list[int] = []
    errors: list[BaseException] = []

    def objective(trial: Trial) -> float:
        begun.append(trial.number)
        return 0.5

    def join(trials: int) -> None:
        try:
            barrier.wait()
            opened(tmp_path, STEPS, sampler=sampler, trials=trials).work(objective, lambda: False)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=join, args=(trials,)) for trials in totals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(begun) == list(range(8))


def _leave_running(folder: Path, *, worker: str | None, began: str = "", heartbeat: str = "") -> None:
    """Add a trial that never ends, of the named worker; began and heartbeat: times as SQLite expressions."""
    with pytest.raises(KeyboardInterrupt):
        work(opened(folder, trials=2), lambda trial: (_ for _ in ()).throw(KeyboardInterrupt()))
    with sqlite3.connect(folder / "tuning.db") as database:
        (trial,) = database.execute("SELECT max(trial_id) FROM trials WHERE state = 'FAIL'").fetchone()
        database.execute(f"UPDATE trials SET state = 'RUNNING', datetime_complete = NULL WHERE trial_id = {trial}")
        attributes = f"FROM trial_user_attributes WHERE trial_id = {trial} AND key"
        database.execute(f"DELETE {attributes} = 'given_back'")
        if worker is None:
            database.execute(f"DELETE {attributes} = 'worker'")
        else:
            change = f"UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = {trial} AND key = 'worker'"
            database.execute(change, [json.dumps(worker)])
        if heartbeat:
            database.execute(f"UPDATE trial_heartbeats SET heartbeat = {heartbeat} WHERE trial_id = {trial}")
        else:
            database.execute(f"DELETE FROM trial_heartbeats WHERE trial_id = {trial}")
        if began:
            database.execute(f"UPDATE trials SET datetime_start = {began} WHERE trial_id = {trial}")
    database.close()


def test_a_worker_elsewhere_that_says_nothing_any_more(tmp_path: Path) -> None:
    _leave_running(tmp_path, worker="elsewhere:1:1", heartbeat="datetime('now', '-11 seconds')")
    store = opened(tmp_path, trials=2, worker_timeout_s=10)
    assert states(store) == ["RUNNING", "WAITING"]
    assert len(work(store)) == 2
    assert [trial.number for trial in store.lost()] == [0]
    assert states(store) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_worker_elsewhere_that_lives_is_waited_for(tmp_path: Path) -> None:
    _leave_running(tmp_path, worker="elsewhere:1:1", heartbeat="datetime('now', '-3 seconds')")
    store = opened(tmp_path, trials=2, worker_timeout_s=60)
    until = time.monotonic() + 2
    store.work(lambda _: 0.5, lambda: time.monotonic() > until)
    assert states(store) == ["RUNNING", "COMPLETE"]


def test_a_worker_killed_before_it_said_its_name(tmp_path: Path) -> None:
    _leave_running(tmp_path, worker=None, began="datetime('now', '-3 days')")
    store = opened(tmp_path, trials=2)
    assert [trial.number for trial in store.lost()] == [0]
    _leave_running(tmp_path / "young", worker=None)
    assert states(opened(tmp_path / "young", trials=2)) == ["RUNNING", "WAITING"]


def test_a_trial_that_runs_here_is_left_alone(tmp_path: Path) -> None:
    _leave_running(tmp_path, worker=name_of_this(), began="datetime('now', '-3 days')")
    assert states(opened(tmp_path, trials=2)) == ["RUNNING", "WAITING"]


def test_a_trial_that_takes_its_worker_with_it_three_times_is_left_alone(tmp_path: Path) -> None:
    dead = f"{name_of_this().split(':')[0]}:4194305:1"  # no process has so high a number
    for losses in range(3):
        _leave_running(tmp_path, worker=dead)
        assert len(opened(tmp_path, trials=2).lost()) == min(losses + 1, 2)
        with sqlite3.connect(tmp_path / "tuning.db") as database:  # the other trial is not to come before it
            database.execute("UPDATE trials SET state = 'COMPLETE' WHERE number = 1")
        database.close()
    store = opened(tmp_path, trials=2)
    assert states(store) == ["FAIL", "COMPLETE", "FAIL", "FAIL"]
    assert store.progress().failed == 1
    assert store.progress().done == 2
    assert work(store) == []


# What a study is of


def refusal(error: type[WastelensError], act: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "vgg16", "space": NO_WIDTHS, "train": {"weights": "none"}}, "another model (base; now vgg16)"),
        ({"digest": "other"}, "another dataset (digest; now other)"),
        ({"digest": "1234567"}, "another dataset (digest; now 1234567)"),
        (
            {"space": {**SPACE, "cache_features": {"values": [True, False]}}},
            "another space (cache_features.values missing; now [True, False])",
        ),
        (
            {"space": {**SPACE, "network": {"widths": {"values": [[8, 8], [24, 48, 64, 96, 128], [9] * 99]}}}},
            "(network.widths.values [[8, 8], [24, 48, 64, 96, 128]]; now [[8, 8], [24, 48, 64, 96, 128], [9, 9, 9, ",
        ),
        ({"train": {"fit": {"epochs": 7}}}, "another train (fit.epochs 40; now 7)"),
        ({"space": STEPS, "sampler": "grid"}, "another sampler (tpe or random; now grid)"),
    ],
)
def test_another_search_of_the_same_name(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    opened(tmp_path, study="mine")
    message = refusal(ConfigError, lambda: opened(tmp_path, study="mine", **changes))
    assert message.startswith("The search 'mine' was started with ")
    assert words in message
    assert message.endswith(" Give this one another name: study=NAME.")
    opened(tmp_path, study="another", **changes)


def test_what_may_differ_from_call_to_call(tmp_path: Path) -> None:
    opened(tmp_path)
    storage = f"sqlite:///{tmp_path / 'tuning.db'}"
    changes: dict[str, Any] = {"pruner": "none", "seed": 4, "sampler": "tpe", "trials": 6, "workers": 2}
    assert len(states(opened(tmp_path / "elsewhere", storage=storage, **changes))) == 6


def test_names_of_searches() -> None:
    assert search_name(config_of(study="mine")) == "mine"
    assert search_name(config_of(dataset="data/taco", model="of/mine.yaml")) == "mine on taco"


# What ails a storage


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where all connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def postgres(port: int | str) -> str:
    return f"postgresql://user:{PASSWORD}@127.0.0.1:{port}/tuning"


def test_nobody_at_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=postgres(port)))
    assert message == (
        f"The storage postgresql://127.0.0.1:{port}/tuning does not answer (Connection refused). Start it, or choose "
        "another storage."
    )
    assert time.monotonic() - began < 10


def test_a_server_that_takes_connections_and_says_nothing(
    tmp_path: Path, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * database._ANSWER_S + database._TABLES_S < 30  # the knock, the driver, and no second attempt
    monkeypatch.setattr(database, "_ANSWER_S", 2.0)
    monkeypatch.setattr(database, "_TABLES_S", 1.0)
    began = time.monotonic()
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=postgres(silent_port)))
    assert message.startswith(f"The storage postgresql://127.0.0.1:{silent_port}/tuning: ")
    assert "timeout expired" in message
    assert message.endswith("Fix it, or choose another storage.")
    assert time.monotonic() - began < 5


def test_no_driver(tmp_path: Path, silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_TABLES_S", 0.0)
    address = f"mysql+pymysql://user:{PASSWORD}@127.0.0.1:{silent_port}/tuning"
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=address))
    assert message.startswith(
        f"The storage mysql://127.0.0.1:{silent_port}/tuning needs a driver that is not installed"
    )
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=f"nosuch://user:{PASSWORD}@127.0.0.1/tuning"))
    assert message.startswith("The storage nosuch://127.0.0.1/tuning")
    assert "nosuch" in message.removeprefix("The storage nosuch:")


@pytest.mark.parametrize("storage", [PASSWORD, f"{PASSWORD}.db", f"postgresql:/u:{PASSWORD}@h/x", postgres(PASSWORD)])
def test_no_address(tmp_path: Path, storage: str) -> None:
    message = refusal(ConfigError, lambda: opened(tmp_path, storage=storage))
    assert message == (
        "Config key 'storage' is no address of a database; write sqlite:///FILE or "
        "postgresql://USER@HOST:PORT/NAME, with the password in the variable PGPASSWORD."
    )


@pytest.mark.parametrize(
    ("storage", "holds"),
    [
        ("", False),
        ("postgresql://user@host/tuning", False),
        ("postgresql://user@host/tuning?passfile=/home/user/.pgpass&sslmode=require", False),
        (f"postgresql://user:{PASSWORD}@host/tuning", True),
        (f"postgresql://user@host/tuning?sslmode=require&password={PASSWORD}", True),
        (f"postgresql:///tuning?host=host&sslpassword={PASSWORD}", True),
        (f"mysql+pymysql://user@host/tuning?PASSWD={PASSWORD}", True),
    ],
)
def test_passwords_within_addresses(storage: str, *, holds: bool) -> None:
    known = config_of(storage=storage)
    assert database.holds_password(known) is holds
    assert PASSWORD not in database.shown_address(known)

    def fail() -> None:
        with database.database_errors(known):
            raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception(f"refused: {PASSWORD if holds else '***'}"))

    assert ": refused: ***. Fix it" in refusal(SearchStoreError, fail)


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///:memory:"])
def test_memory_is_no_storage(tmp_path: Path, storage: str) -> None:
    assert "names no file" in refusal(ConfigError, lambda: opened(tmp_path, storage=storage))


def test_studies_of_one_name_in_two_databases_are_two(tmp_path: Path) -> None:
    here, there = (f"sqlite:///{tmp_path}/{name}.db" for name in ("here", "there"))
    assert opened(tmp_path, storage=here).id == opened(tmp_path, storage=here).id != opened(tmp_path, storage=there).id


def test_another_programs_study_is_left_alone(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/theirs.db"
    theirs = optuna.create_study(study_name="mine", storage=address)
    theirs.tell(theirs.ask(), 1.0)
    message = refusal(ConfigError, lambda: opened(tmp_path, storage=address, study="mine"))
    assert "was made by another program" in message
    assert not theirs.user_attrs


def test_files_that_are_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_TABLES_S", 0.0)
    (tmp_path / "text").write_text("a file of quite another kind, and long enough to be read as one\n" * 40)
    (tmp_path / "folder").mkdir()
    other = {"folder": "unable to open database file", "text": "file is not a database", "text/x.db": "File exists"}
    for name, words in other.items():
        message = refusal(SearchStoreError, lambda name=name: opened(tmp_path, storage=f"sqlite:///{tmp_path}/{name}"))
        assert message == f"The storage sqlite:///{tmp_path}/{name}: {words}. Fix it, or choose another storage."


def test_a_database_of_another_release_of_optuna(tmp_path: Path) -> None:
    opened(tmp_path)
    with sqlite3.connect(tmp_path / "tuning.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
    database.close()
    message = refusal(SearchStoreError, lambda: opened(tmp_path))
    assert message.startswith(f"The storage sqlite:///{tmp_path}/tuning.db: The runtime optuna version ")


def test_a_storage_that_fails_in_mid_study(tmp_path: Path) -> None:
    store = opened(tmp_path)

    def objective(trial: Trial) -> float:
        with sqlite3.connect(tmp_path / "tuning.db") as database:
            database.execute("DROP TABLE trial_values")
        database.close()
        return 0.5

    message = refusal(SearchStoreError, lambda: work(store, objective))
    assert "no such table: trial_values" in message


# What is private to Optuna


def test_optunas_hooks_are_still_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should Optuna go round them, trials beyond those asked for would be made, and some twice."""
    called = []
    storage = database.DealtStorage
    for hook in ("_create_new_trial", "_get_prepared_new_trial"):
        whole = getattr(storage, hook)
        assert hook in vars(optuna.storages.RDBStorage)
        monkeypatch.setattr(storage, hook, lambda *args, whole=whole, hook=hook: called.append(hook) or whole(*args))
    store = opened(tmp_path, trials=1)
    assert called == ["_create_new_trial", "_get_prepared_new_trial"]
    work(store)
    with pytest.raises(database.NoTrialLeft):
        store.optuna_study.optimize(lambda _: 0.5, n_trials=1)
    assert states(store) == [TrialState.COMPLETE.name]
    assert WORKER in store.optuna_study.get_trials()[0].user_attrs


def test_a_transaction_on_sqlite_keeps_others_out_from_its_first_word(tmp_path: Path) -> None:
    """Else two workers might both read that a trial waits, and both take it."""
    store = opened(tmp_path, trials=1)
    engine = store.optuna_study._storage._backend.engine  # type: ignore[attr-defined]
    with engine.connect() as connection, sqlite3.connect(tmp_path / "tuning.db", timeout=0) as other:
        connection.execute(optuna.storages._rdb.models.TrialModel.__table__.select()).all()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("UPDATE trials SET state = 'RUNNING'")
    other.close()


# The thread ends itself by SystemExit, of which Python says nothing and pytest does.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_heartbeat_outlives_an_interrupt_at_the_wrong_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna starts a thread and then stores it: an interrupt in between leaves the thread running."""
    monkeypatch.setattr(database, "_HEARTBEAT_S", 1)
    begin = HeartbeatThread.start
    threads = []

    def interrupted(self: HeartbeatThread) -> None:
        begin(self)
        threads.append(self._thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(HeartbeatThread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(opened(tmp_path))
    (thread,) = threads
    assert thread is not None
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("pruner", "first", "epochs"), [("hyperband", 1, 9), ("hyperband", 2, 11), ("median", 2, 4), ("none", 1, 3)]
)
def test_the_pruner_is_asked_wherever_it_could_end_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, first: int, epochs: int
) -> None:
    """Asked at every epoch, it ends the same trials at the same epochs."""

    def ended(ask: Callable[[TrialStore, Trial, int], bool], name: str) -> dict[int, int]:
        train = {"fit": {"epochs": epochs}}
        store = opened(
            tmp_path / name, pruner=pruner, pruner_first_epoch=first, trials=10, train=train, study="the same"
        )
        at: dict[int, int] = {}

        def one(trial: Trial) -> float:
            rng = np.random.default_rng(trial.number)
            for epoch in range(1, epochs + 1):
                trial.report(float(rng.random()), epoch)
                if epoch < epochs and ask(store, trial, epoch):
                    at[trial.number] = epoch
                    raise TrialPruned
            return 0.5

        store.work(one, lambda: False)
        return at

    always = ended(lambda store, trial, epoch: trial.should_prune(), "always")
    assert ended(TrialStore.should_prune, "sparing") == always
    assert bool(always) == (pruner != "none")
