"""A run that its store leaves alone for a while is in the end what it would have been."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests.memory_tracking import Connection, MemoryTracker

from wastelens.errors import RunError, StoreUnreachable
from wastelens.system import interrupts
from wastelens.tracking import patient as patient_tracking
from wastelens.tracking.mlflow_tracker import MlflowTracker
from wastelens.tracking.patient import PatientTracker
from wastelens.tracking.tracker import PyfuncModel

OPERATIONS = 20  # of `steps`


class Flaky(Connection):
    """Fails from the request of one number to that of another, both counted from 0.

    ``loses``: the first of them reaches the store, and only its answer is lost.
    """

    def __init__(self, first: int, last: int, loses: bool) -> None:
        super().__init__()
        self.requests = 0
        self._first, self._last, self._loses = first, last, loses

    @contextlib.contextmanager
    def request(self):
        number, self.requests = self.requests, self.requests + 1
        fails = self._first <= number < self._last
        if not fails or (self._loses and number == self._first):
            yield
        if fails:
            raise StoreUnreachable("The store in memory")


@pytest.fixture(autouse=True)
def at_every_operation(monkeypatch):
    """Retry at once, without sleeping."""
    monkeypatch.setattr(patient_tracking, "RETRY_S", 0.0)
    monkeypatch.setattr(patient_tracking, "POLL_S", 0.0)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Files to be logged, and a model made of them."""
    folder = tmp_path_factory.mktemp("material")
    for name in ("page/index.html", "page/below/1.png", "weights.h5", "code.py", "package/__init__.py", "arrays.npz"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def model_of(material):
    return PyfuncModel(
        code=material / "code.py",
        files={"weights": material / "weights.h5", "page": material / "page" / "index.html"},
        columns={"image": "binary"},
        settings={"batch_size": 4},
        input_example=pd.DataFrame({"image": [b"\x00"]}),
        output_example=np.zeros((1, 2), np.float32),
        packages=material / "package",
        requirements=["numpy"],
    )


def steps(run, material, tmp_path):
    """One of each operation, and those that overwrite each other; yields before each."""
    page = tmp_path / "page"
    shutil.copytree(material / "page", page)
    arrays = tmp_path / "arrays.npz"
    written = [
        lambda: run.log_parameters({"epochs": 3, "augment": False, "rate": 0.1 + 0.2}),
        lambda: run.set_tags({"step": "train", "collapsed": True}),
        lambda: run.log_dataset(
            pd.DataFrame({"a": [1, 2]}), source=material, name="sample", digest="d" * 40, context="train"
        ),
        lambda: run.log_metrics({"loss": 3.0, "val_loss": np.float32(4.0)}, step=np.int64(1)),
        lambda: (arrays.write_text("first"), run.log_file(arrays, "checkpoint/a")),
        lambda: run.log_metrics({"loss": 2.0}, step=2),
        lambda: (arrays.write_text("second"), run.log_file(arrays, "checkpoint/b")),
        lambda: run.log_metrics({"loss": 1.0, "val_loss": math.inf}, step=3),
        lambda: (arrays.write_text("third"), run.log_file(arrays, "checkpoint/a")),
        lambda: (arrays.unlink(), run.log_table(pd.DataFrame({"a": [1, 2]}), "tables/table.csv")),
        lambda: run.log_text("ä\n", "notes.txt"),
        lambda: run.log_figure(Figure(figsize=(1, 1)), "figures/empty.png"),
        lambda: run.log_text("of an older page", "explanations/old.txt"),
        lambda: run.replace_folder(page, "explanations"),
        lambda: (shutil.rmtree(page / "below"), run.replace_folder(page, "explanations")),
        lambda: run.log_file(material / "weights.h5"),
        lambda: run.set_tags({"collapsed": False}),
        lambda: run.log_model(model_of(material), "model"),
        lambda: run.delete("checkpoint"),
        lambda: run.log_metrics({"test_macro_ap": 0.5}),
    ]
    assert len(written) == OPERATIONS
    for operation in written:
        yield
        operation()


def what_is_left(run):
    """All there is to know of a run kept in memory, but for its id, its times and where its files lie."""
    files = {path.relative_to(run.folder).as_posix(): path.read_bytes() for path in run.folder.rglob("*.*")}
    models = {
        name: (model.settings, model.columns, model.requirements, model.input_example.to_dict(), model.code.name)
        for name, model in run.models.items()
    }
    return {
        "status": run.status,
        "parameters": run.parameters,
        "metrics": run.metrics,
        "history": run.history,
        "tags": run.tags,
        "datasets": run.datasets,
        "models": models,
        "files": files,
    }


def whole_run(tracker, material, tmp_path, before=lambda number: None):
    with tracker.start("train") as run:
        for number, _ in enumerate(steps(run, material, tmp_path)):
            before(number)
    return run


@pytest.fixture(scope="module")
def undisturbed(material, tmp_path_factory):
    tracker = MemoryTracker(draws=True)
    folder = tmp_path_factory.mktemp("undisturbed")
    whole_run(PatientTracker(tracker, folder / "waiting"), material, folder)
    return what_is_left(tracker.runs[0])


def test_without_an_outage_a_run_is_what_the_tracker_behind_makes_of_it(undisturbed, material, tmp_path):
    plain = MemoryTracker(draws=True)
    whole_run(plain, material, tmp_path)
    expected = what_is_left(plain.runs[0])
    drawn = [
        left["files"].pop("figures/empty.png")
        for left in (expected, dict(undisturbed, files=undisturbed["files"].copy()))
    ]
    assert all(picture.startswith(b"\x89PNG") for picture in drawn)
    assert expected == {**undisturbed, "files": {k: v for k, v in undisturbed["files"].items() if "empty.png" not in k}}
    assert expected["status"] == "FINISHED"
    assert "explanations/below/1.png" not in expected["files"]


@pytest.mark.parametrize("loses", [False, True], ids=["nothing arrives", "the first answer is lost"])
@pytest.mark.parametrize("length", [1, 1000])
@pytest.mark.parametrize("first", range(1, OPERATIONS + 2))
def test_an_outage_at_any_operation_leaves_no_trace(undisturbed, material, tmp_path, first, length, loses):
    tracker = MemoryTracker()
    tracker.connection = Flaky(first, first + length, loses)
    patient = PatientTracker(tracker, tmp_path / "waiting")
    whole_run(patient, material, tmp_path)
    tracker.connection._last = 0
    lasted = first + length > OPERATIONS + 2  # until after the end of the run
    assert patient.log_waiting() == (1 if lasted else 0)
    assert what_is_left(tracker.runs[0]) == undisturbed
    assert list((tmp_path / "waiting").glob("*")) == []


def test_what_was_measured_keeps_its_time(tmp_path, monkeypatch):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path)
    clock = iter([1000.0, 2000.0, 3000.0])
    with patient.start("train") as run:
        tracker.reachable = False
        monkeypatch.setattr(patient_tracking, "_now_ms", lambda: int(next(clock)))
        run.log_metrics({"loss": 2.0}, step=1)
        run.log_metrics({"loss": 1.0}, step=2)
    tracker.reachable = True
    assert patient.log_waiting() == 1
    assert tracker.runs[0].measured_ms == [1000, 2000]
    assert tracker.runs[0].ended_ms == 3000


def test_the_user_is_told_once_of_an_outage_and_once_of_its_end(tmp_path, capsys):
    tracker = MemoryTracker()
    with PatientTracker(tracker, tmp_path).start("train") as run:
        for _ in range(2):
            run.set_tags({"a": 1})
            tracker.reachable = False
            for number in range(5):
                run.log_metrics({"loss": number}, step=number)
            tracker.reachable = True
            run.set_tags({"b": 1})
    went, back = (
        "Warning: The store in memory does not answer. Results wait in "
        f"{tmp_path} and are logged when it is back; training goes on.",
        "The server is back: 6 waiting entries were logged.",
    )
    assert capsys.readouterr().out.splitlines() == [went, back, went, back]


def test_what_waits_is_tried_again_now_and_then_only(tmp_path, monkeypatch):
    monkeypatch.setattr(patient_tracking, "RETRY_S", 3600.0)
    tracker = MemoryTracker()
    tracker.connection = Flaky(1, 1000, loses=False)
    patient = PatientTracker(tracker, tmp_path)
    with patient.start("train") as run:
        for number in range(50):
            run.set_tags({"a": number})
        assert tracker.connection.requests == 2
        tracker.connection._last = 0
        run.log_text("x", "x.txt")
        assert tracker.runs[0].tags == {}
    assert tracker.runs[0].tags == {"a": "49"}
    assert tracker.runs[0].status == "FINISHED"


def test_in_an_outage_a_run_still_knows_what_it_was_told(material, tmp_path):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path / "waiting")
    with patient.start("train") as first:
        first.log_metrics({"loss": 3.0, "other": 1.0}, step=1)
        first.log_text("logged", "logged.txt")
    with patient.start("train", resume=first.id) as run:
        run.log_metrics({"loss": 2.0}, step=2)
        tracker.reachable = False
        run.log_metrics({"loss": 1.0, "val_loss": 5.0}, step=3)
        run.log_metrics({"other": 1.0}, step=4)
        expected = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}, {"epoch": 3, "loss": 1.0, "val_loss": 5.0}]
        assert run.metric_history(["loss", "val_loss"]) == expected
        run.log_text("waits", "notes/waits.txt")
        run.replace_folder(material / "page", "explanations")
        run.delete("notes")
        run.log_text("newer", "notes/newer.txt")
        assert run.download("notes/waits.txt", tmp_path) is None
        assert run.download("notes/newer.txt", tmp_path).read_text() == "newer"
        assert run.download("explanations/below/1.png", tmp_path).read_text() == "content of page/below/1.png"
        assert run.download("explanations/none.png", tmp_path) is None
        with pytest.raises(StoreUnreachable):
            run.download("logged.txt", tmp_path)
        tracker.reachable = True
        assert run.metric_history(["loss", "val_loss"])[:3] == expected
        assert run.download("logged.txt", tmp_path).read_text() == "logged"
        assert run.download("notes/waits.txt", tmp_path) is None


def test_of_what_is_overwritten_only_the_newest_waits(tmp_path):
    tracker = MemoryTracker()
    arrays = tmp_path / "arrays.npz"
    waiting = tmp_path / "waiting"
    with PatientTracker(tracker, waiting).start("train") as run:
        tracker.reachable = False
        for epoch in range(10):
            arrays.write_text(f"epoch {epoch}")
            run.log_file(arrays, f"checkpoint/{'ab'[epoch % 2]}")
        copies = sorted(path.read_text() for path in waiting.rglob("arrays.npz"))
        assert copies == ["epoch 8", "epoch 9"]
        run.delete("checkpoint")
        assert list(waiting.rglob("arrays.npz")) == []
        for beat in range(10):
            run.set_tags({"alive": beat})
        run.set_tags({"collapsed": True})
        assert len(run.journal) == 3
        tracker.reachable = True
    assert tracker.runs[0].status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("its own"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(), "FAILED")]
)
@pytest.mark.parametrize("reachable", [True, False])
def test_the_end_of_a_run_that_fails_in_an_outage_waits_and_hides_nothing(tmp_path, error, status, reachable):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path)

    def fail():
        with patient.start("train") as run:
            tracker.reachable = reachable
            run.set_tags({"a": 1})
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    tracker.reachable = True
    assert patient.log_waiting() == (0 if reachable else 1)
    (run,) = tracker.runs
    assert run.status == status
    assert run.tags == {"a": "1", **({"interrupted": "true"} if status == "KILLED" else {})}


def abandon(tracker, folder, write):
    """A process that is killed in mid-run, in an outage: what it holds in memory and its lock are gone."""
    patient = PatientTracker(tracker, folder)
    opened = patient.start("train")
    run = opened.__enter__()
    tracker.reachable = False
    write(run)
    run.journal._lock.close()
    return opened  # kept: collecting it would end the run


def test_what_a_killed_process_left_is_logged_by_the_next(tmp_path, capsys):
    tracker = MemoryTracker()

    def write(run):
        run.log_metrics({"loss": 1.0}, step=1)
        run.log_text("kept", "notes.txt")

    killed = abandon(tracker, tmp_path, write)
    (journal,) = tmp_path.iterdir()
    (journal / "draft").mkdir()  # the kill fell into the writing of the next entry,
    (journal / "draft" / "operation.json").write_text('{"method": "set_tags"')
    (journal / "00000002").mkdir()  # and the power failed: entries of which the disk has nothing, or half
    (journal / "00000003").mkdir()
    (journal / "00000003" / "operation.json").write_text('{"method": "set_tags", "values": {')
    patient = PatientTracker(tracker, tmp_path)
    assert patient.log_waiting() == 0
    assert len(list(tmp_path.iterdir())) == 1
    tracker.reachable = True
    capsys.readouterr()
    assert patient.log_waiting() == 1
    said = capsys.readouterr().out
    assert f"{journal / '00000002'} is not whole" in said
    assert f"{journal / '00000003'} is not whole" in said
    assert "Run run-0: 2 waiting entries were logged." in said
    (run,) = tracker.runs
    assert (run.metrics, run.history, run.tags) == ({"loss": 1.0}, {1: {"loss": 1.0}}, {})
    assert (run.folder / "notes.txt").read_text() == "kept"
    assert list(tmp_path.iterdir()) == []
    del killed


def test_what_waits_of_a_run_is_logged_before_it_is_resumed(tmp_path):
    tracker = MemoryTracker()
    killed = abandon(tracker, tmp_path / "waiting", lambda run: run.log_text("of epoch 7", "checkpoint/a/state.json"))
    patient = PatientTracker(tracker, tmp_path / "waiting")
    with pytest.raises(StoreUnreachable), patient.start("train", resume="run-0"):
        pass
    tracker.reachable = True
    with patient.start("train", resume="run-0") as run:
        assert run.download("checkpoint/a/state.json", tmp_path).read_text() == "of epoch 7"
    assert tracker.runs[0].status == "FINISHED"
    del killed


def test_a_journal_in_use_is_left_to_its_process(tmp_path):
    tracker = MemoryTracker()
    with PatientTracker(tracker, tmp_path).start("train") as run:
        tracker.reachable = False
        run.set_tags({"a": 1})
        tracker.reachable = True
        assert PatientTracker(tracker, tmp_path).log_waiting() == 0
        assert tracker.runs[0].tags == {}
    assert tracker.runs[0].tags == {"a": "1"}


def test_two_processes_that_write_one_shared_run_wait_apart(tmp_path):
    tracker = MemoryTracker()
    first, second = PatientTracker(tracker, tmp_path), PatientTracker(tracker, tmp_path)
    with first.start_shared("study", "key") as one, second.start_shared("study", "key") as other:
        assert one.id == other.id
        tracker.reachable = False
        one.set_tags({"a": 1})
        other.set_tags({"b": 1})
        tracker.reachable = True
    assert tracker.runs[0].tags == {"a": "1", "b": "1"}
    assert tracker.runs[0].status == "FINISHED"


def test_what_waits_of_a_run_that_is_gone_is_told_and_kept(tmp_path, capsys):
    tracker = MemoryTracker()
    for name in ("gone", "there"):
        tracker.reachable = True
        with PatientTracker(tracker, tmp_path).start(name) as run:
            tracker.reachable = False
            run.set_tags({"a": 1})
    patient = PatientTracker(tracker, tmp_path)
    gone = tracker.runs.pop(0)
    tracker.reachable = True
    capsys.readouterr()
    assert patient.log_waiting() == 1
    said = capsys.readouterr().out
    (kept,) = tmp_path.iterdir()
    reason = "There is no run 'run-0'. Copy the run id from the MLflow UI."
    assert f"What waits of run run-0 cannot be logged: {reason} It stays in {kept}." in said
    assert patient.log_waiting() == 0
    assert capsys.readouterr().out == ""
    tracker.runs.insert(0, gone)  # restored
    assert patient.log_waiting() == 1
    assert gone.tags == {"a": "1"}
    assert gone.status == "FINISHED"


def test_what_the_store_refuses_is_raised_as_ever_and_kept(tmp_path, monkeypatch):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path)

    def train():
        with patient.start("train") as run:
            monkeypatch.setattr(run.run, "set_tags", refuse)
            tracker.reachable = False
            run.log_metrics({"loss": 1.0})
            run.set_tags({"a": 1})
            tracker.reachable = True
            run.log_metrics({"loss": 0.5})

    with pytest.raises(RunError, match="refused"):
        train()
    assert tracker.runs[0].metrics == {"loss": 1.0}
    monkeypatch.undo()
    assert patient.log_waiting() == 1
    assert (tracker.runs[0].tags, tracker.runs[0].metrics, tracker.runs[0].status) == (
        {"a": "1"},
        {"loss": 0.5},
        "FAILED",
    )


def refuse(tags):
    raise RunError("refused")


def test_runs_within_each_other_both_wait(tmp_path, capsys):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path)
    with patient.start("study") as study:
        with patient.start("cell") as cell:
            tracker.reachable = False
            cell.set_tags({"who": "cell"})
            study.set_tags({"who": "study"})
        with pytest.raises(StoreUnreachable), patient.start("next cell"):
            pass
        tracker.reachable = True
        with patient.start("next cell"):
            assert [run.tags for run in tracker.runs] == [{"who": "study"}, {"who": "cell"}, {}]
            assert tracker.runs[1].status == "FINISHED"
            assert tracker.runs[0].status != "FINISHED"
    assert [run.status for run in tracker.runs] == ["FINISHED"] * 3
    assert [run.parent for run in tracker.runs] == ["", "run-0", "run-0"]
    assert capsys.readouterr().out.count("does not answer") == 1


def test_waiting_for_the_store(tmp_path, capsys, monkeypatch):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path)
    patient.wait_until_reachable()
    assert capsys.readouterr().out == ""
    with patient.start("train") as run:
        tracker.reachable = False
        run.set_tags({"a": 1})
    naps: list[float] = []

    def nap(seconds):
        naps.append(seconds)
        tracker.reachable = len(naps) == 3

    monkeypatch.setattr(patient_tracking.time, "sleep", nap)
    patient.wait_until_reachable()
    assert len(naps) == 3
    assert tracker.runs[0].status == "FINISHED"
    tracker.reachable = False
    monkeypatch.setattr(interrupts._Requested, "ever", True)
    with pytest.raises(KeyboardInterrupt):
        patient.wait_until_reachable()


def test_what_is_read_in_an_outage_is_never_less_than_what_was_written(tmp_path):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path)
    with patient.start("train") as run:
        run.set_tags({"step": "train"})
        tracker.reachable = False
        run.log_metrics({"val_macro_ap": 0.5})
    for read in (
        lambda: patient.stored(run.id),
        lambda: patient.found({"step": "train"}),
        lambda: patient.finished({"step": "train"}),
        lambda: patient.settle(run.id, "winner", "first"),
        lambda: patient.finish(run.id, "KILLED"),
        lambda: patient.added_to(run.id).__enter__(),
    ):
        with pytest.raises(StoreUnreachable, match=r"^The store in memory does not answer\. Start it, or set MLFLOW_"):
            read()
    tracker.reachable = True
    (found,) = patient.finished({"step": "train"})
    assert found.metrics == {"val_macro_ap": 0.5}


def test_threads_that_write_one_run_lose_nothing(tmp_path):
    tracker = MemoryTracker()
    ended = threading.Event()

    def flicker():
        while not ended.is_set():
            tracker.reachable = not tracker.reachable
            time.sleep(0.001)
        tracker.reachable = True

    def write(run, name):
        for step in range(100):
            run.log_metrics({name: step}, step=step)

    with PatientTracker(tracker, tmp_path / "waiting").start("study") as run:
        writers = [threading.Thread(target=write, args=(run, f"metric{number}")) for number in range(3)]
        flickering = threading.Thread(target=flicker)
        for thread in (flickering, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        ended.set()
        flickering.join()
    (stored,) = tracker.runs
    assert stored.history == {step: {f"metric{number}": step for number in range(3)} for step in range(100)}
    assert stored.status == "FINISHED"
    assert list((tmp_path / "waiting").glob("*")) == []


def test_mlflow_gives_up_soon_unless_the_user_has_said_how_long_it_waits(monkeypatch):
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "300")
    with MlflowTracker().giving_up_soon():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "300"


def test_all_else_is_passed_on(tmp_path):
    tracker = MemoryTracker()
    patient = PatientTracker(tracker, tmp_path)
    with patient.start("train") as run:
        run.set_tags({"step": "train"})
        assert patient.settle(run.id, "winner", "first") == patient.settle(run.id, "winner", "second") == "first"
    assert patient.stored(run.id).status == "FINISHED"
    assert [one.run.id for one in patient.finished({"step": "train"})] == [run.id]
    with patient.added_to(run.id) as added:
        added.set_tags({"explained_by": "shap"})
    patient.finish(run.id, "KILLED")
    (found,) = patient.found({"explained_by": "shap"})
    assert found.status == "KILLED"
    assert patient.finished_hint() == tracker.finished_hint()


def test_what_waits_can_be_read(tmp_path):
    tracker = MemoryTracker()
    with PatientTracker(tracker, tmp_path).start("train") as run:
        tracker.reachable = False
        run.log_parameters({"epochs": 3})
        (entry,) = tmp_path.glob("run-0-*/*/operation.json")
        assert json.loads(entry.read_text()) == {
            "method": "log_parameters",
            "values": {"parameters": {"epochs": "3"}},
            "files": {},
        }


def test_what_waits_of_a_run_that_was_finished_since_does_not_spoil_it(tmp_path):
    """Another process may have gone on with the run of one that was killed in an outage."""
    tracker = MemoryTracker()
    ids = []

    def interrupted():
        with PatientTracker(tracker, tmp_path).start("train") as run:
            ids.append(run.id)
            run.log_metrics({"loss": 0.9}, step=1)
            tracker.reachable = False
            run.log_metrics({"loss": 0.8}, step=2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    tracker.reachable = True
    with tracker.start("train", resume=ids[0]) as resumed:
        resumed.log_metrics({"loss": 0.1}, step=2)
    PatientTracker(tracker, tmp_path).log_waiting()
    assert tracker.runs[0].status == "FINISHED"
    assert tracker.runs[0].metrics["loss"] == 0.1
    assert not list(tmp_path.iterdir())
