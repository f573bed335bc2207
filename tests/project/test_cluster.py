"""Studies and searches on a real cluster: a scheduler and three workers, ``mlflow server`` on PostgreSQL, and kills."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from tests.factories import write_dataset
from tests.project.cluster import HIDE, Cluster
from tests.project.postgresql import PostgreSQL
from tests.project.running import complaint, ok, start, wait_for, wastelens
from tests.project.server import Server, runs_of

pytestmark = pytest.mark.slow

CELLS, TRIALS, WORKERS = 8, 12, 3
TRAINING = "train.network.widths=[4] train.fit.batch_size=16 train.bootstrap_resamples=100"
STUDY = ("study", "--dataset", "litter", "--models", "base", "--seeds", "4", "--folds", "0")
STUDY_SET = f"{TRAINING} train.fit.epochs=6 bootstrap_resamples=100"
# One thread adds up in one order: the same seed gives the same numbers to the last digit.
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset, prepared."""
    folder = tmp_path_factory.mktemp("coordinator")
    write_dataset(folder / "litter", side=(48, 48))
    ok(wastelens("prepare", "--dataset", "litter", "--image_side_px", "32", cwd=folder))
    return folder


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Server]:
    """MLflow's server on a database of its own."""
    running = Server(tmp_path, postgresql.database())
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    running = Cluster(tmp_path, ONE_THREAD)
    try:
        running.start(WORKERS)
        yield running
    finally:
        running.stop()


class Store:
    """Runs as MLflow's server has them, asked by MLflow's own client."""

    def __init__(self, server: Server) -> None:
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=server.address)
        self.environment = {"MLFLOW_TRACKING_URI": server.address, **ONE_THREAD}

    def runs(self, filters: str) -> list[Any]:
        return runs_of(self._client, filters)

    def below(self, step: str) -> list[Any]:
        """Return the runs below the one run of a step."""
        return [
            run for one in self.runs(f"tags.step = '{step}'") for run in self.runs(f"tags.study = '{one.info.run_id}'")
        ]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of the study's run."""
        (parent,) = self.runs("tags.step = 'study'")
        with tempfile.TemporaryDirectory() as folder:
            return pd.read_csv(self._client.download_artifacts(parent.info.run_id, name, folder))

    def epochs(self, run_id: str) -> list[int]:
        return sorted(one.step for one in self._client.get_metric_history(run_id, "val/loss"))


@pytest.fixture
def store(server: Server) -> Store:
    return Store(server)


def trials_of(study: str, address: str) -> list[Any]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(address)
    try:
        return optuna.load_study(study_name=study, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def is_training(runs: list[Any]) -> bool:
    """Whether one of these is in the middle of its training."""
    return any(run.info.status == "RUNNING" and "val/loss" in run.data.metrics for run in runs)


def has_finished(runs: list[Any], number: int) -> bool:
    return sum(run.info.status == "FINISHED" for run in runs) >= number


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return study.csv without what differs from one undisturbed study to the next."""
    return table.drop(columns=["run_id", "minutes", "pretraining_minutes", "git_commit"])


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_study_outlives_a_worker_and_its_coordinator(
    workplace: Path, store: Store, cluster: Cluster, tmp_path: Path
) -> None:
    command = (*STUDY, "--engine", cluster.address, "--set", STUDY_SET)
    process = start(*command, cwd=workplace, env=store.environment)
    wait_for(process, lambda: is_training(store.below("study")))
    cluster.kill_worker(0)
    wait_for(process, lambda: has_finished(store.below("study"), 2))
    kill(process)
    ok(wastelens(*command, cwd=workplace, env=store.environment))

    (parent,) = store.runs("tags.step = 'study'")
    assert parent.info.status == "FINISHED"
    cells = [run for run in store.below("study") if run.info.status == "FINISHED"]
    assert len(cells) == CELLS
    assert len({run.data.tags["cell"] for run in cells}) == CELLS  # none twice
    assert {run.data.tags["mlflow.parentRunId"] for run in cells} == {parent.info.run_id}
    assert {run.info.status for run in store.below("study")} <= {"FINISHED", "KILLED"}
    assert [store.epochs(run.info.run_id) for run in cells] == [[1, 2, 3, 4, 5, 6]] * CELLS

    # The numbers are those of a study in one process that nothing happens to.
    alone = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/alone.db", **ONE_THREAD}
    again = ok(wastelens(*STUDY, "--set", STUDY_SET, cwd=workplace, env=alone))
    assert "8 of 8 cells done" in again.stdout
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=alone["MLFLOW_TRACKING_URI"])
    (undisturbed,) = client.search_runs(["0"], "tags.step = 'study'")
    with tempfile.TemporaryDirectory() as folder:
        table = pd.read_csv(client.download_artifacts(undisturbed.info.run_id, "study.csv", folder))
    pd.testing.assert_frame_equal(numbers(store.table("study.csv")), numbers(table))


def test_a_search_outlives_a_worker_and_its_coordinator(
    workplace: Path, store: Store, cluster: Cluster, postgresql: PostgreSQL
) -> None:
    storage = postgresql.database()
    settings = f"{TRAINING} train.fit.epochs=6 space.network.widths=null"
    asked = ("--trials", str(TRIALS), "--storage", storage, "--engine", cluster.address, "--retrain", "false")
    command = ("tune", "--dataset", "litter", *asked, "--set", settings)
    process = start(*command, cwd=workplace, env=store.environment)
    wait_for(process, lambda: is_training(store.below("tune")))
    cluster.kill_worker(0)
    wait_for(process, lambda: has_finished(store.below("tune"), 2))
    kill(process)
    ok(wastelens(*command, cwd=workplace, env=store.environment))

    trials = trials_of("base on litter", storage)
    states = Counter(trial.state.name for trial in trials)
    assert states["COMPLETE"] + states["PRUNED"] == TRIALS
    assert states["RUNNING"] == states["WAITING"] == 0
    done = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len({trial.user_attrs["place"] for trial in done}) == TRIALS  # none twice
    runs = {run.info.run_id: run for run in store.below("tune")}
    assert {trial.user_attrs["run_id"] for trial in done} <= runs.keys()
    assert "RUNNING" not in {run.info.status for run in runs.values()}
    (parent,) = store.runs("tags.step = 'tune'")
    assert parent.info.status == "FINISHED"


def test_a_worker_that_does_not_see_the_dataset_is_sent_a_copy(workplace: Path, store: Store, tmp_path: Path) -> None:
    tried = ("unshare", "--mount", "bash", "-c", HIDE, "bash", str(tmp_path), "true")
    if subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    own = tmp_path / "own"
    cluster = Cluster(tmp_path, ONE_THREAD)
    try:
        cluster.start(workers=0)
        cluster.add_worker(hidden=workplace / "data", WASTELENS_DATA_FOLDER=str(own))
        command = ("study", "--dataset", "litter", "--models", "base", "--seeds", "1", "--folds", "0")
        done = ok(
            wastelens(*command, "--engine", cluster.address, "--set", STUDY_SET, cwd=workplace, env=store.environment)
        )
    finally:
        cluster.stop()
    assert "Sending litter to 1 machine that lacks it." in done.stdout
    assert "2 of 2 cells done" in done.stdout
    [copy] = (own / "prepared").iterdir()
    labels = next((workplace / "data" / "prepared").glob("litter/labels.csv"))
    assert (copy / "labels.csv").read_bytes() == labels.read_bytes()


def test_prepare_on_the_workers_gives_the_same_dataset(workplace: Path, store: Store, cluster: Cluster) -> None:
    command = ("prepare", "--dataset", "litter", "--image_side_px", "32", "--name", "elsewhere")
    ok(wastelens(*command, "--engine", cluster.address, cwd=workplace, env=store.environment))
    here, there = (workplace / "data" / "prepared" / name for name in ("litter", "elsewhere"))
    for name in ("labels.csv", "train_balanced.csv", "controls.csv", "outlines.json", "photos_32px.npy"):
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    (run,) = store.runs("tags.step = 'prepare'")
    assert run.info.status == "FINISHED"


def test_interrupting_the_coordinator_ends_its_tasks(workplace: Path, store: Store, cluster: Cluster) -> None:
    command = (*STUDY, "--engine", cluster.address, "--set", f"{STUDY_SET} train.fit.epochs=500")
    process = start(*command, cwd=workplace, env=store.environment)
    wait_for(process, lambda: is_training(store.below("study")))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130

    deadline = time.monotonic() + 60
    while "RUNNING" in {run.info.status for run in store.below("study")}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("what", ["store", "storage"])
def test_a_store_that_other_machines_cannot_reach_is_refused(workplace: Path, what: str) -> None:
    tracking = "sqlite:///mlflow.db" if what == "store" else "postgresql://nobody@127.0.0.1:9/none"
    command = ("tune", "--dataset", "litter", "--engine", "tcp://127.0.0.1:9")
    answer = wastelens(*command, cwd=workplace, env={"MLFLOW_TRACKING_URI": tracking})
    assert "Workers on other machines cannot reach" in complaint(answer)
