"""Tuning as users run it on many machines: several workers, a real PostgreSQL, a real ``mlflow server``, kills."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from tests.project.postgresql import PASSWORD, PostgreSQL
from tests.project.running import OUTPUTS, ok, output_of, start, wait_for, wastelens
from tests.project.server import Server

pytestmark = pytest.mark.slow

TRIALS = 12
WORKERS = 3
TINY = (
    "train.fit.epochs=4 train.network.widths=[4,8] space.network.widths=null train.bootstrap_resamples=100 "
    "worker_timeout_s=60"
)
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample, prepared small."""
    folder = tmp_path_factory.mktemp("tuning")
    ok(wastelens("prepare", "--dataset", "sample", "--image_side_px", "32", cwd=folder))
    return folder


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Optuna:
    """A storage, looked into from outside."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._storage: optuna.storages.RDBStorage | None = None

    def trials(self, study: str) -> list[Any]:
        """Those of a study; none before it is begun."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self._storage = self._storage or optuna.storages.RDBStorage(self._address)
            return optuna.load_study(study_name=study, storage=self._storage).trials
        except (KeyError, sqlalchemy.exc.SQLAlchemyError):  # the latter where its tables are being made
            return []

    def close(self) -> None:
        if self._storage:
            self._storage.remove_session()
            self._storage.engine.dispose()


class Place:
    """A storage and a tracking server on one PostgreSQL, as its users see them."""

    def __init__(self, postgresql: PostgreSQL, server: Server) -> None:
        import mlflow

        self.storage = postgresql.database()
        self.optuna = Optuna(self.storage)
        self.client = mlflow.MlflowClient(tracking_uri=server.address)
        self.environment = {"MLFLOW_TRACKING_URI": server.address, **ONE_THREAD}

    def command(self, *more: str) -> tuple[str, ...]:
        tuned = ("tune", "--dataset", "sample", "--trials", str(TRIALS), "--storage", self.storage, "--set", TINY)
        return (*tuned, *more)

    @property
    def trials(self) -> list[Any]:
        return self.optuna.trials("base on sample")

    def runs(self, filters: str) -> list[Any]:
        return list(self.client.search_runs(["0"], filters))


@pytest.fixture
def place(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Place]:
    server = Server(tmp_path, postgresql.database())
    server.start()
    place = Place(postgresql, server)
    try:
        yield place
    finally:
        place.optuna.close()
        server.stop()


def _in_mid_trial(place: Place, process: Any) -> bool:
    """Whether this process has a trial that has come through an epoch, and its run."""
    running = [one for one in place.trials if one.state.name == "RUNNING" and "run_id" in one.user_attrs]
    return any(f":{process.pid}:" in one.user_attrs["worker"] and one.intermediate_values for one in running)


def test_three_workers_on_one_study_one_of_them_killed(workplace: Path, place: Place) -> None:
    names = [f"worker{number}.txt" for number in range(WORKERS)]
    workers = [start(*place.command(), cwd=workplace, output=name, env=place.environment) for name in names]
    victim = workers[0]
    wait_for(victim, lambda: _in_mid_trial(place, victim))
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert [one.wait(timeout=900) for one in workers[1:]] == [0, 0], [output_of(one) for one in workers[1:]]

    states = Counter(one.state.name for one in place.trials)
    assert states["COMPLETE"] + states["PRUNED"] == TRIALS
    assert states["FAIL"] == 1, states
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}

    (parent,) = place.runs("tags.step = 'tune'")
    assert parent.info.status == "FINISHED"
    runs = {int(one.data.tags["trial"]): one for one in place.runs("tags.step = 'trial'")}
    assert len(runs) == len(place.runs("tags.step = 'trial'")) == TRIALS + 1  # none twice
    assert {one.data.tags["mlflow.parentRunId"] for one in runs.values()} == {parent.info.run_id}
    expected = {"COMPLETE": ("FINISHED", "COMPLETE"), "PRUNED": ("KILLED", "PRUNED"), "FAIL": ("FAILED", "FAILED")}
    for trial in place.trials:
        run = runs[trial.number]
        assert run.info.run_id == trial.user_attrs["run_id"]
        assert (run.info.status, run.data.tags["state"]) == expected[trial.state.name]
    (dead,) = [one for one in place.trials if one.state.name == "FAIL"]
    assert f":{victim.pid}:" in dead.user_attrs["worker"]
    assert runs[dead.number].data.tags["error"].startswith("it ended with its worker")
    assert {one.user_attrs["worker"].split(":")[1] for one in place.trials} == {str(one.pid) for one in workers}

    # One of the two remaining workers retrained the best settings, and both reported the same.
    (retrained,) = place.runs("tags.step = 'train'")
    assert parent.data.tags["retrained_run"] == retrained.info.run_id
    assert "test_macro_ap" in retrained.data.metrics
    for one in workers:
        assert PASSWORD not in OUTPUTS[one.pid].read_text()
        assert "Traceback" not in OUTPUTS[one.pid].read_text()
    assert not [one for one in runs.values() if "test_macro_ap" in one.data.metrics]


def test_asked_again_it_has_nothing_to_do_and_says_the_same(workplace: Path, place: Place) -> None:
    short = ("--trials", "2", "--retrain", "false")
    ok(wastelens(*place.command(*short), cwd=workplace, env=place.environment))
    before = [(one.number, one.value) for one in place.trials]
    again = ok(wastelens(*place.command(*short), cwd=workplace, env=place.environment))
    assert [(one.number, one.value) for one in place.trials] == before
    assert "2 trials (2 of them done before)" in again.stdout
    assert PASSWORD not in again.stdout + again.stderr


def test_processes_of_one_machine(workplace: Path) -> None:
    """``workers=2`` with the default storage: one is killed in mid-trial, and the other does its trial again."""
    trials = 6
    more = ("--workers", "2", "--trials", str(trials), "--study", "two", "--retrain", "false", "--set", TINY)
    optuna_here = Optuna(f"sqlite:///{workplace}/data/tuning.db")
    command = start("tune", "--dataset", "sample", *more, cwd=workplace, env=ONE_THREAD)

    def running() -> list[Any]:
        trials = optuna_here.trials("two")
        return [one for one in trials if one.state.name == "RUNNING" and one.intermediate_values]

    wait_for(command, lambda: (workplace / "data" / "tuning.db").exists() and bool(running()))
    victim = int(running()[0].user_attrs["worker"].split(":")[1])
    assert victim != command.pid
    os.kill(victim, signal.SIGKILL)
    assert command.wait(timeout=600) == 0, output_of(command)
    found = optuna_here.trials("two")
    optuna_here.close()
    states = Counter(one.state.name for one in found)
    assert states["COMPLETE"] + states["PRUNED"] == trials
    assert states["FAIL"] <= 1  # none where the trial ended the moment before
    assert len({one.user_attrs["worker"] for one in found}) == 2
    said = OUTPUTS[command.pid].read_text()
    assert "was killed by signal SIGKILL" in said
    assert "Traceback" not in said
