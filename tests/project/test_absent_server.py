"""A real MLflow server that goes away in the middle of a run, and comes back on the same port and store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests.project.server import Server
from wastelens.tracking.patient import PatientTracker

from wastelens.errors import RunError, StoreUnreachable
from wastelens.tracking import patient as patient_tracking
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


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import mlflow

    before = mlflow.get_tracking_uri()
    running = Server(tmp_path_factory.mktemp("server"))
    mlflow.set_tracking_uri(running.address)
    try:
        yield running
    finally:
        running.stop()
        mlflow.set_tracking_uri(before)


@pytest.fixture
def server(shared_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, which answers; what waits is tried again at every operation."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(patient_tracking, "RETRY_S", 0.0)
    monkeypatch.syspath_prepend(tmp_path)  # the model's package is here, as wastelens is where models are logged
    monkeypatch.delitem(sys.modules, "package", raising=False)
    shared_server.start()
    with MlflowTracker().giving_up_soon():
        yield shared_server
    sys.modules.pop("package", None)


def model_in(folder: Path) -> PyfuncModel:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("def answer():\n    return 42.0\n")
    (folder / "model.py").write_text(CODE)
    (folder / "weights.bin").write_bytes(b"\x00\x01")
    return PyfuncModel(
        code=folder / "model.py",
        files={"weights": folder / "weights.bin"},
        columns={"image": "double"},
        settings={"batch_size": 4},
        input_example=pd.DataFrame({"image": [1.0]}),
        output_example=pd.DataFrame({"answer": np.array([42.0])}),
        packages=folder / "package",
        requirements=["numpy"],
    )


def writes(run: Run, model: PyfuncModel, folder: Path) -> list[Callable[[], object]]:
    """All that a training says of itself, in its order."""
    page = folder / "page"
    page.mkdir()
    (page / "index.html").write_text("page")
    table = pd.DataFrame({"a": [1, 2]})
    return [
        lambda: run.log_parameters({"epochs": 3, "rate": 0.1}),
        lambda: run.log_metrics({"loss": 3.0, "val_loss": 4.0}, step=1),
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
    for path, content in (("tables/table.csv", b"a\n1\n2\n"), ("explanations/index.html", b"page")):
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


def perform(
    operations: list[Callable[[], object]], before: dict[int, Callable[[], object]]
) -> dict[int, tuple[int, int]]:
    """Do them in order, with what is to happen before some of them; ms since 1970 around each step's metrics."""
    times, step = {}, 0
    for number, operation in enumerate(operations):
        before.get(number, int)()
        began = int(time.time() * 1000)
        operation()
        if number in (1, 3, 10):
            step += 1
            times[step] = (began, int(time.time() * 1000))
    return times


def test_server_that_comes_back_during_the_run(server: Server, tmp_path: Path, capsys: Any) -> None:
    patient = PatientTracker(MlflowTracker(), tmp_path / "waiting")
    model = model_in(tmp_path)
    with patient.start("train") as run:
        times = perform(writes(run, model, tmp_path), {2: server.stop, 10: server.start})
        assert [row["epoch"] for row in run.metric_history(["loss"])] == [1, 2, 3]
    check_whole(run.id, tmp_path, times)
    assert list((tmp_path / "waiting").iterdir()) == []
    said = capsys.readouterr().out
    assert said.count(f"MLflow's server {server.address} does not answer. Results wait in") == 1
    assert said.count("The server is back: 9 waiting entries were logged.") == 1


def test_server_that_comes_back_after_the_run(server: Server, tmp_path: Path) -> None:
    """Log from another process, into a run that is not open there."""
    import mlflow

    model = model_in(tmp_path)
    with PatientTracker(MlflowTracker(), tmp_path / "waiting").start("train") as run:
        times = perform(writes(run, model, tmp_path), {2: server.stop})
        assert [row["epoch"] for row in run.metric_history(["loss"])] == [1, 2, 3]
        ended = int(time.time() * 1000)
    server.start()
    later = PatientTracker(MlflowTracker(), tmp_path / "waiting")
    assert later.stored(run.id).status == "RUNNING"
    assert later.log_waiting() == 1
    check_whole(run.id, tmp_path, times)
    assert ended <= mlflow.MlflowClient().get_run(run.id).info.end_time < ended + 60_000


@pytest.mark.parametrize("fails", ["log_outputs", "log_model_artifacts", "finalize_logged_model"])
def test_model_whose_logging_broke_off_is_completed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """After each of the requests that make a model, also where only the answer was lost."""
    import mlflow
    import requests

    client = mlflow.MlflowClient
    model = model_in(tmp_path)
    original = getattr(client, fails)

    def broken(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        raise requests.ConnectionError("no answer")

    with PatientTracker(MlflowTracker(), tmp_path / "waiting").start("train") as run:
        operations = writes(run, model, tmp_path)
        times = perform(
            operations,
            {
                8: lambda: monkeypatch.setattr(client, fails, broken),
                9: lambda: monkeypatch.setattr(client, fails, original),
            },
        )
    check_whole(run.id, tmp_path, times)


def test_without_patience_an_absent_server_is_told_in_one_line(server: Server, tmp_path: Path) -> None:
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
