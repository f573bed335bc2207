"""A real MLflow server that goes away while somebody logs to it, and comes back on the same port and store."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests.factories import write_dataset
from tests.mlflow_store import mlflow_store
from tests.project.running import PATIENCE_S, complaint, ok, output_of, start, wait_for, wastelens
from tests.project.server import Server, runs_of

from wastelens.errors import RunError, StoreUnreachable
from wastelens.tracking.mlflow_tracker import MlflowTracker
from wastelens.tracking.tracker import PyfuncModel, Run

pytestmark = [
    pytest.mark.slow,
    # MLflow 3.17's own, when it logs a model: type hints of its classes and of ours, what it compares with pandas 3.
    pytest.mark.filterwarnings("ignore:.*type hint:UserWarning"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

CODE = """
import mlflow
import pandas as pd
from package import answer


class Constant(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return pd.DataFrame({"answer": [answer()] * len(model_input)})


mlflow.models.set_model(Constant())
"""


EPOCHS = 60
SETTINGS = f"model=base network.widths=[4] fit.epochs={EPOCHS} fit.patience_epochs={EPOCHS} fit.batch_size=16"
TRAIN = ("train", "--dataset", "litter", "--set", f"{SETTINGS} bootstrap_resamples=100 outage_minutes=")
CURVES = ("loss", "val/loss", "val/macro_ap", "learning_rate")
# One thread adds up in one order: the same seed gives the same numbers to the last digit.
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
LONG, SHORT = "5", "0.1"  # minutes
OUTAGE_S = 30


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server with a store in this folder."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


# ── Commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Store:
    """The runs of a server, asked by MLflow's own client."""

    def __init__(self, server: Server) -> None:
        import mlflow

        self._client = mlflow.MlflowClient(tracking_uri=server.address)
        self.environment = {"MLFLOW_TRACKING_URI": server.address, **ONE_THREAD}

    def runs(self) -> list[Any]:
        return runs_of(self._client, "tags.step = 'train'")

    def status(self, run_id: str) -> str:
        return str(self._client.get_run(run_id).info.status)

    def epochs(self) -> int:
        """Epochs that the only run has logged."""
        runs = self.runs()
        return len(self._client.get_metric_history(runs[0].info.run_id, "learning_rate")) if runs else 0

    def history(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        """Metric → steps and values, in order."""
        return {
            name: sorted((one.step, one.value) for one in self._client.get_metric_history(run_id, name))
            for name in CURVES
        }


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset, prepared."""
    folder = tmp_path_factory.mktemp("workplace")
    write_dataset(folder / "litter", side=(48, 48))
    ok(wastelens("prepare", "--dataset", "litter", "--image_side_px", "32", cwd=folder))
    return folder


@pytest.fixture(scope="module")
def undisturbed(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, float]]]:
    """The metrics of a training whose server is there all the time."""
    with serving(tmp_path_factory.mktemp("undisturbed")) as server:
        store = Store(server)
        ok(wastelens(*TRAIN[:-1], f"{TRAIN[-1]}{LONG}", cwd=workplace, env=store.environment))
        (run,) = store.runs()
        history = store.history(run.info.run_id)
    assert {step for step, _ in history["loss"]} == set(range(1, EPOCHS + 1))
    return history


@contextlib.contextmanager
def cut_off(workplace: Path, server: Server, outage_minutes: str) -> Iterator[Any]:
    """A training whose server stops after a few epochs."""
    store = Store(server)
    training = start(*TRAIN[:-1], f"{TRAIN[-1]}{outage_minutes}", cwd=workplace, env=store.environment)
    try:
        wait_for(training, lambda: store.epochs() >= 3)
        assert store.epochs() < EPOCHS - 10, "it is too fast for an outage in the middle"
        server.stop()
        yield training
    finally:
        training.kill()
        training.wait()


def test_a_training_waits_for_its_server(
    workplace: Path, tmp_path: Path, undisturbed: dict[str, list[tuple[int, float]]]
) -> None:
    with serving(tmp_path) as server:
        with cut_off(workplace, server, LONG) as training:
            time.sleep(OUTAGE_S)
            server.start()
            assert training.wait(PATIENCE_S) == 0, output_of(training)
        said = " ".join((workplace / "output.txt").read_text().split())
        assert said.count(f"MLflow's server {server.address} does not answer. Waiting for it, up to 5 minutes.") == 1
        assert "Traceback" not in said
        store = Store(server)
        (run,) = store.runs()
        assert run.info.status == "FINISHED"
        assert store.history(run.info.run_id) == undisturbed
    assert not (workplace / "data" / "unlogged" / run.info.run_id).exists()


def test_a_training_that_waited_long_enough_keeps_its_last_epoch(
    workplace: Path, tmp_path: Path, undisturbed: dict[str, list[tuple[int, float]]]
) -> None:
    with serving(tmp_path) as server:
        store = Store(server)
        with cut_off(workplace, server, SHORT) as training:
            assert training.wait(PATIENCE_S) == 2
        lines = (workplace / "output.txt").read_text().splitlines()
        fix = "Start it, or set MLFLOW_TRACKING_URI to one that runs."
        assert lines[-1] == f"wastelens: MLflow's server {server.address} does not answer. {fix}"
        assert not [line for line in lines if "Traceback" in line or "WARNING" in line]
        server.start()
        (run,) = store.runs()
        run_id = run.info.run_id
        assert run.info.status == "RUNNING"
        assert f"resume={run_id}" in " ".join("".join(lines).split())
        aside = workplace / "data" / "unlogged" / run_id
        assert {path.name for path in aside.iterdir()} == {"arrays.npz", "state.json", "metrics.json"}
        resumed = ok(
            wastelens("train", "--dataset", "litter", "--resume", run_id, cwd=workplace, env=store.environment)
        )
        assert resumed.stderr == ""
        assert (store.status(run_id), len(store.runs())) == ("FINISHED", 1)
        assert store.history(run_id) == undisturbed
        assert not aside.exists()


@pytest.mark.parametrize("kind", ["refuses", "is silent"])
def test_a_server_that_is_absent_at_the_start(workplace: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # connections wait there, and nobody answers
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if kind == "refuses":
            listening.close()
        answer = wastelens(*TRAIN[:-1], f"{TRAIN[-1]}{LONG}", cwd=workplace, env={"MLFLOW_TRACKING_URI": address})
    assert complaint(answer).startswith(f"wastelens: MLflow's server {address} does not answer.")
    assert answer.stdout == ""


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder) as running, mlflow_store(folder) as mlflow:
        mlflow.set_tracking_uri(running.address)
        yield running


@pytest.fixture
def server(shared_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, which answers."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)  # the model's package is here, as wastelens is where models are logged
    monkeypatch.delitem(sys.modules, "package", raising=False)
    shared_server.start()
    yield shared_server
    sys.modules.pop("package", None)
    MlflowTracker()  # which waits for no server, like those of other tests


def model_in(folder: Path) -> PyfuncModel:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("def answer():\n    return 42.0\n")
    (folder / "model.py").write_text(CODE)
    (folder / "weights.bin").write_bytes(b"\x00\x01")
    return PyfuncModel(
        code=folder / "model.py",
        files={"weights": folder / "weights.bin"},
        settings={"batch_size": 4},
        input_example=pd.DataFrame({"image": [1.0]}),
        output_example=pd.DataFrame({"answer": np.array([42.0])}),
        packages=folder / "package",
        requirements=["numpy"],
    )


def writes(run: Run, model: PyfuncModel, folder: Path) -> list[Callable[[], object]]:
    """All that a training says of itself, in its order."""
    page = folder / "page"
    page.mkdir(exist_ok=True)
    (page / "index.html").write_text("page")
    table = pd.DataFrame({"a": [1, 2]})
    return [
        lambda: run.log_parameters({"epochs": 3, "rate": 0.1}),
        lambda: run.log_metrics({"loss": 3.0, "val/loss": 4.0}, step=1),
        lambda: run.log_dataset(table, source=folder, name="sample", digest="d" * 40, context="train"),
        lambda: run.log_metrics({"loss": 2.0}, step=2),
        lambda: run.log_file(model.files["weights"], "checkpoint/a"),
        lambda: run.set_tags({"collapsed": False}),
        lambda: run.log_table(table, "tables/table.csv"),
        lambda: run.log_figure(Figure(figsize=(1, 1)), "figures/empty.png"),
        lambda: run.log_model(model, "model"),
        lambda: run.replace_folder(page, "explanations"),
        lambda: run.log_metrics({"loss": 1.0}, step=3),
        lambda: run.delete("checkpoint"),
    ]


def check_whole(run_id: str, tmp_path: Path, times: dict[int, tuple[int, int]]) -> None:
    """All of `writes` is in the store, once, each metric with the time it was measured at."""
    import mlflow

    client: Any = mlflow.MlflowClient()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params.items() >= {"epochs": "3", "rate": "0.1"}.items()
    assert run.data.tags.items() >= {"collapsed": "false"}.items()
    history = client.get_metric_history(run_id, "loss")
    assert [(one.step, one.value) for one in history if one.model_id is None] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    for one in history:
        began, ended = times[one.step]
        assert began <= one.timestamp <= ended
    assert [(one.dataset.name, one.tags[0].value) for one in run.inputs.dataset_inputs] == [("sample", "train")]
    (tmp_path / "read").mkdir()
    read = MlflowTracker().stored(run_id).run
    for path, content in (("tables/table.csv", b'"a"\n"1"\n"2"\n'), ("explanations/index.html", b"page")):
        copy = read.download(path, tmp_path / "read")
        assert copy is not None
        assert copy.read_bytes() == content
    picture = read.download("figures/empty.png", tmp_path / "read")
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert read.download("checkpoint/a/weights.bin", tmp_path / "read") is None
    (model,) = {one.model_id for one in run.outputs.model_outputs}
    assert client.get_logged_model(model).status == "READY"
    assert len(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")) == 1
    code = client.list_logged_model_artifacts(model, "code/package")
    assert [one.path for one in code] == ["code/package/__init__.py"]
    loaded = mlflow.pyfunc.load_model(f"models:/{model}")
    assert loaded.predict(pd.DataFrame({"image": [1.0]}))["answer"].tolist() == [42.0]


STEPS = {1: 1, 3: 2, 10: 3}  # of `writes`: those that log metrics of a step


def perform(
    operations: list[Callable[[], object]],
    numbers: range = range(12),
    before: Mapping[int, Callable[[], object]] = MappingProxyType({}),
) -> dict[int, tuple[int, int]]:
    """Do some, with what is to happen before them; ms since 1970 around each step's metrics."""
    times = {}
    for number in numbers:
        before.get(number, int)()
        began = int(time.time() * 1000)
        operations[number]()
        if number in STEPS:
            times[STEPS[number]] = (began, int(time.time() * 1000))
    return times


def test_requests_of_every_kind_wait_for_the_server(server: Server, tmp_path: Path, capsys: Any) -> None:
    restarts: list[Thread] = []

    def outage() -> None:
        for thread in restarts:
            thread.join()
        server.stop()
        restarts.append(Thread(target=server.start))
        restarts[-1].start()

    with MlflowTracker(outage_minutes=2).start("train") as run:
        outages = dict.fromkeys((2, 3, 4, 8, 9, 11), outage)  # inputs, metrics, files and models, written and deleted
        times = perform(writes(run, model_in(tmp_path), tmp_path), before=outages)
    restarts[-1].join()
    check_whole(run.id, tmp_path, times)
    said = " ".join(capsys.readouterr().out.split())
    assert f"MLflow's server {server.address} does not answer. Waiting for it, up to 2 minutes." in said


@pytest.mark.parametrize("fails", ["log_outputs", "log_model_artifacts", "finalize_logged_model"])
def test_a_model_whose_logging_broke_off_is_completed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """After each of the requests that make a model, also where only the answer was lost."""
    import mlflow
    import requests

    model = model_in(tmp_path)
    original = getattr(mlflow.MlflowClient, fails)

    def broken(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        raise requests.ConnectionError("no answer")

    def train() -> None:
        with tracker.start("train") as run:
            operations = writes(run, model, tmp_path)
            ids.append(run.id)
            times.update(perform(operations, range(8)))
            with monkeypatch.context() as patch:
                patch.setattr(mlflow.MlflowClient, fails, broken)
                operations[8]()

    tracker, ids, times = MlflowTracker(), list[str](), dict[int, tuple[int, int]]()
    with pytest.raises(StoreUnreachable):
        train()
    assert tracker.stored(ids[0]).status == "KILLED"
    with tracker.start("train", resume=ids[0]) as run:
        times.update(perform(writes(run, model, tmp_path), range(8, 12)))
    check_whole(run.id, tmp_path, times)


def test_without_waiting_an_absent_server_is_told_in_one_line(server: Server, tmp_path: Path) -> None:
    tracker = MlflowTracker()

    def train() -> None:
        with tracker.start("train") as run:
            run.log_text("x", "x.txt")
            assert run.download("none.txt", tmp_path) is None
            with pytest.raises(RunError, match=r"There is no run"):
                tracker.stored("0" * 32)
            server.stop()
            for operation in [
                *writes(run, model_in(tmp_path), tmp_path),
                lambda: run.download("x.txt", tmp_path),
                lambda: run.metric_history(["loss"]),
                lambda: tracker.stored(run.id),
                lambda: tracker.finished({}),
                lambda: tracker.finish(run.id, "FAILED"),
                tracker.check_reachable,
                tracker.start("another").__enter__,
            ]:
                with pytest.raises(StoreUnreachable) as told:
                    operation()
                fix = "Start it, or set MLFLOW_TRACKING_URI to one that runs."
                assert str(told.value) == f"MLflow's server {server.address} does not answer. {fix}"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
