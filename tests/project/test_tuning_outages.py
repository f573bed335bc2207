"""Tuning where servers, disks and processes end in the middle of it: the same command goes on with what is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psutil
import pytest
import sqlalchemy
from tests.project.postgresql import PASSWORD, PostgreSQL
from tests.project.running import OUTPUTS, complaint, ok, output_of, start, wait_for, wastelens
from tests.project.server import Server, runs_of

pytestmark = pytest.mark.slow

TRIALS = 4
STUDY = "base on sample"
TINY = "train.network.widths=[4,8] space.network.widths=null train.bootstrap_resamples=100 outage_minutes=0"
MANY_EPOCHS = 40
"""Enough of them for a trial to be still at work when the signal arrives: an epoch takes a fifth of a second."""
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample, prepared small."""
    folder = tmp_path_factory.mktemp("outages")
    ok(wastelens("prepare", "--dataset", "sample", "--image_side_px", "32", cwd=folder))
    return folder


class Place:
    """Databases of its own, the command that tunes with them, and what comes of it."""

    def __init__(self, folder: Path, prepared: Path) -> None:
        self.folder = folder
        self.prepared = prepared
        self.storage = f"sqlite:///{folder}/tuning.db"
        self.tracking = f"sqlite:///{folder}/mlflow.db"
        self.workers = "1"
        self.epochs = 4

    def _command(self, more: tuple[str, ...]) -> tuple[str, ...]:
        asked = ("--trials", str(TRIALS), "--retrain", "false", "--workers", self.workers, "--storage", self.storage)
        return ("tune", "--dataset", "sample", *asked, "--set", f"{TINY} train.fit.epochs={self.epochs}", *more)

    @property
    def environment(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": self.tracking, **ONE_THREAD}

    def begin(self, *more: str) -> subprocess.Popen[str]:
        """Start it, and return as soon as a trial has come through an epoch."""
        process = start(*self._command(more), cwd=self.prepared, env=self.environment)
        wait_for(process, lambda: any(one.state.name == "RUNNING" and one.intermediate_values for one in self.trials))
        return process

    def whole(self) -> subprocess.CompletedProcess[str]:
        """The same command, to its end."""
        return wastelens(*self._command(()), cwd=self.prepared, env=self.environment)

    @property
    def trials(self) -> list[Any]:
        if not self._has_tables():
            return []
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = optuna.storages.RDBStorage(self.storage)
        try:
            return optuna.load_study(study_name=STUDY, storage=storage).trials
        except KeyError:
            return []
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def _has_tables(self) -> bool:
        """Whether the database has all tables; Optuna would create those that are missing, while tune does."""
        if self.storage.startswith("sqlite") and not Path(self.storage.removeprefix("sqlite:///")).exists():
            return False
        engine = sqlalchemy.create_engine(self.storage)
        try:
            with engine.connect() as connection:
                return bool(connection.execute(sqlalchemy.text("SELECT * FROM alembic_version")).all())
        except sqlalchemy.exc.SQLAlchemyError:
            return False
        finally:
            engine.dispose()

    def runs(self, filters: str) -> list[Any]:
        return runs_of(mlflow.MlflowClient(tracking_uri=self.tracking), filters)

    def check_all_done(self) -> None:
        """All trials are done, each in its run, and no run of one is left open."""
        done = Counter(one.state.name for one in self.trials)
        assert done["COMPLETE"] + done["PRUNED"] == TRIALS, done
        assert not done["RUNNING"]
        assert not done["WAITING"]
        runs = self.runs("tags.step = 'trial'")
        assert {one.info.status for one in runs} <= {"FINISHED", "KILLED", "FAILED"}
        assert Counter(one.data.tags["state"] for one in runs if one.data.tags["state"] != "FAILED") == Counter(
            one.state.name for one in self.trials if one.state.name != "FAIL"
        )
        (parent,) = self.runs("tags.step = 'tune'")
        assert parent.info.status == "FINISHED"


@pytest.fixture
def place(tmp_path: Path, prepared: Path) -> Place:
    return Place(tmp_path, prepared)


def refusal(process: subprocess.Popen[str]) -> str:
    """The one line by which a process of `start` has refused to go on."""
    assert process.wait(timeout=300) == 2, output_of(process)
    said = OUTPUTS[process.pid].read_text()
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("wastelens: ")]
    return line


def test_the_database_of_trials_ends_and_comes_back(place: Place) -> None:
    postgresql = PostgreSQL()
    try:
        postgresql.start()
        place.storage = postgresql.database()
        process = place.begin()
        postgresql.kill()
        line = refusal(process)
        assert f"127.0.0.1:{postgresql.port}" in line
        assert PASSWORD not in OUTPUTS[process.pid].read_text()
        refused = complaint(place.whole())
        assert "does not answer" in refused
        assert PASSWORD not in refused
        postgresql.start()
        ok(place.whole())
        place.check_all_done()
    finally:
        postgresql.stop()


def test_mlflows_server_ends_and_comes_back(place: Place) -> None:
    server = Server(place.folder)
    server.start()
    try:
        place.tracking = server.address
        process = place.begin()
        server.stop()
        assert "does not answer" in refusal(process)
        server.start()
        ok(place.whole())
        place.check_all_done()
    finally:
        server.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(("mount", "-t", "tmpfs", "-o", "size=8m", "none", disk), capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(("umount", "-l", disk), check=True)


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("database", ["tracking", "storage"])
def test_a_disk_is_full_and_is_mended(place: Place, small_disk: Path, database: str, workers: str) -> None:
    setattr(place, database, f"sqlite:///{small_disk}/own.db")
    place.workers = workers
    process = place.begin()
    filler = _fill(small_disk)
    refusal(process)
    assert "full" in OUTPUTS[process.pid].read_text()
    filler.unlink()
    ok(place.whole())
    place.check_all_done()


def _alive(processes: list[psutil.Process]) -> list[str]:
    """The commands of those that still run."""
    alive = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(" ".join(process.cmdline()))
    return alive


def _below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The workers that it has started, and what helps them."""
    return psutil.Process(process.pid).children()


def _check_end(processes: list[psutil.Process], within_seconds: float) -> None:
    """Hold that none of them runs any longer after that time."""
    deadline = time.monotonic() + within_seconds
    while alive := _alive(processes):
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def test_a_worker_is_killed_and_another_continues_its_trial(place: Place) -> None:
    place.workers = "2"
    place.epochs = MANY_EPOCHS
    process = place.begin()
    running = next(one for one in place.trials if one.state.name == "RUNNING" and one.intermediate_values)
    victim = int(running.user_attrs["worker"].split(":")[1])
    assert victim != process.pid
    os.kill(victim, signal.SIGKILL)
    assert process.wait(timeout=600) == 0, output_of(process)
    place.check_all_done()
    assert len(place.trials) == len(place.runs("tags.step = 'trial'")) == TRIALS
    assert place.trials[running.number].user_attrs["run_id"] == running.user_attrs["run_id"]
    assert "Traceback" not in OUTPUTS[process.pid].read_text()


def test_workers_end_with_the_process_that_started_them(place: Place) -> None:
    place.workers = "2"
    process = place.begin()
    below = _below(process)
    assert len(below) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _check_end(below, within_seconds=120)
    ok(place.whole())
    place.check_all_done()


def test_workers_are_interrupted(place: Place) -> None:
    place.workers = "2"
    place.epochs = MANY_EPOCHS
    process = place.begin()
    below = _below(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130, output_of(process)
    # Python's own resource tracker ends only after it has seen that the process which started it is gone.
    _check_end(below, within_seconds=10)
    assert "Traceback" not in OUTPUTS[process.pid].read_text()
    interrupted = [one for one in place.runs("tags.step = 'trial'") if "interrupted" in one.data.tags.get("error", "")]
    assert interrupted
    assert all(one.info.status in ("KILLED", "FAILED") for one in interrupted)
    ok(place.whole())
    place.check_all_done()


def test_workers_end_when_the_time_is_over(place: Place) -> None:
    settings = f"{TINY} train.fit.epochs=4"
    asked = ("--workers", "2", "--timeout", "60s", "--trials", "500", "--retrain", "false", "--set", settings)
    began = time.monotonic()
    stored = ("--storage", place.storage)
    ok(wastelens("tune", "--dataset", "sample", *asked, *stored, cwd=place.prepared, env=place.environment))
    assert time.monotonic() - began < 180  # libraries are loaded, and the report drawn, outside of the time
    done = Counter(one.state.name for one in place.trials)
    assert done["COMPLETE"]
    assert sum(done.values()) < 500
    assert not done["RUNNING"]
    assert {one.info.status for one in place.runs("tags.step = 'trial'")} <= {"FINISHED", "KILLED"}
