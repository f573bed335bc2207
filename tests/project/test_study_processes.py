"""Studies as users run them: several processes, a real ``mlflow server``, kills, and a server that goes away."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.factories import write_dataset
from tests.project.running import ok, output_of, start, wait_for, wastelens
from tests.project.server import Server

pytestmark = pytest.mark.slow

CELLS = 8
TINY = (
    "train.network.widths=[4] train.fit.epochs=3 train.fit.batch_size=16 train.bootstrap_resamples=100 "
    "bootstrap_resamples=100 worker_timeout_s=60"
)
STUDY = ("study", "--dataset", "litter", "--models", "base", "--seeds", "4", "--folds", "0", "--set", TINY)
# One thread adds up in one order: the same seed gives the same numbers to the last digit.
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset, prepared."""
    folder = tmp_path_factory.mktemp("studies")
    write_dataset(folder / "litter", side=(48, 48))
    ok(wastelens("prepare", "--dataset", "litter", "--image_side_px", "32", cwd=folder))
    return folder


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    """A server with a store of its own: cells that an earlier study has trained would be taken from it."""
    with _running(tmp_path) as server:
        yield server


class Store:
    """A study as a server has it, asked by MLflow's own client."""

    def __init__(self, server: Server) -> None:
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=server.address)
        self.environment = {"MLFLOW_TRACKING_URI": server.address, **ONE_THREAD}

    def runs(self, filters: str) -> list[Any]:
        return list(self._client.search_runs(["0"], filters))

    @property
    def parents(self) -> list[Any]:
        return self.runs("tags.step = 'study'")

    @property
    def cells(self) -> list[Any]:
        return [run for parent in self.parents for run in self.runs(f"tags.study = '{parent.info.run_id}'")]

    def claims(self) -> dict[str, str]:
        """Who has claimed what: written where no runs table of users shows it."""
        (parent,) = self.parents
        assert not [name for name in parent.data.params if name.startswith("taken.")]
        experiment = self._client.get_experiment_by_name("wastelens claims")
        (ledger,) = self._client.search_runs([experiment.experiment_id])
        return {name: worker for name, worker in ledger.data.params.items() if name.startswith("taken.")}

    def table(self) -> pd.DataFrame:
        """study.csv, without what differs from one undisturbed study to the next."""
        with tempfile.TemporaryDirectory() as folder:  # by the client: other tests may have set MLflow's own address
            frame = pd.read_csv(self._client.download_artifacts(self.parents[0].info.run_id, "study.csv", folder))
        return frame.drop(columns=["run_id", "minutes", "pretraining_minutes", "git_commit"])

    def history(self, run_id: str) -> list[tuple[int, float]]:
        return sorted((one.step, one.value) for one in self._client.get_metric_history(run_id, "val_loss"))


@pytest.fixture
def store(running: Server) -> Store:
    return Store(running)


def _is_whole(store: Store) -> None:
    """All cells are finished below one finished parent, and none was trained twice."""
    (parent,) = store.parents
    assert parent.info.status == "FINISHED"
    finished = [run for run in store.cells if run.info.status == "FINISHED"]
    assert Counter(run.data.tags["cell"] for run in finished).most_common(1)[0][1] == 1
    assert len(finished) == CELLS
    assert {run.data.tags["mlflow.parentRunId"] for run in finished} == {parent.info.run_id}
    assert {run.info.status for run in store.cells} <= {"FINISHED", "KILLED"}
    assert (store.table()["status"] == "finished").all()


@pytest.fixture(scope="module")
def undisturbed(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of a study that nothing happens to."""
    with _running(tmp_path_factory.mktemp("server")) as server:
        ok(wastelens(*STUDY, cwd=workplace, env=Store(server).environment))
        return Store(server).table()


def test_two_processes_share_a_study(workplace: Path, store: Store, undisturbed: pd.DataFrame) -> None:
    both = [start(*STUDY, cwd=workplace, output=f"{n}.txt", env=store.environment) for n in "ab"]
    assert [process.wait(timeout=600) for process in both] == [0, 0], [output_of(process) for process in both]
    _is_whole(store)
    assert len(store.cells) == CELLS  # not even begun twice
    workers = Counter(store.claims().values())
    assert sum(workers.values()) == CELLS
    assert len(workers) == 2, workers
    assert store.parents[0].data.metrics["finished_cells"] == CELLS
    pd.testing.assert_frame_equal(store.table(), undisturbed)
    tables = [(workplace / f"{n}.txt").read_text().partition("Test macro AP")[2] for n in "ab"]
    assert tables[0].splitlines()[:8] == tables[1].splitlines()[:8] != []


def test_killed_in_the_middle_and_started_again(workplace: Path, store: Store, undisturbed: pd.DataFrame) -> None:
    process = start(*STUDY, cwd=workplace, env=store.environment)
    wait_for(process, lambda: any("val_loss" in run.data.metrics for run in store.cells[:-2]))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {run.data.tags["cell"]: run.info.run_id for run in store.cells if run.info.status == "FINISHED"}
    assert 1 <= len(before) < CELLS
    ok(wastelens(*STUDY, cwd=workplace, env=store.environment))
    _is_whole(store)
    after = {run.data.tags["cell"]: run.info.run_id for run in store.cells if run.info.status == "FINISHED"}
    assert before.items() <= after.items()
    pd.testing.assert_frame_equal(store.table(), undisturbed)


def test_the_server_goes_away_in_the_middle(
    workplace: Path, running: Server, store: Store, undisturbed: pd.DataFrame
) -> None:
    process = start(*STUDY, cwd=workplace, env=store.environment)
    wait_for(process, lambda: any(run.info.status == "FINISHED" for run in store.cells))
    running.stop()
    written = workplace / "output.txt"
    wait_for(process, lambda: "does not answer" in written.read_text())
    running.start()
    assert process.wait(timeout=600) == 0, output_of(process)
    assert "is back" in written.read_text()
    _is_whole(store)
    assert all([step for step, _ in store.history(run.info.run_id)] == [1, 2, 3] for run in store.cells)
    assert not list((workplace / "data" / "unlogged").glob("*/*"))
    pd.testing.assert_frame_equal(store.table(), undisturbed)
