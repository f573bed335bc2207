"""The Tracker: MLflow's and the one in memory behave alike."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests.memory_tracking import MemoryTracker
from tests.mlflow_store import mlflow_store

from wastelens.errors import EngineError, RunError, StoppedEarly, StoreUnreachable
from wastelens.tracking import mlflow_tracker as mlflow_tracking
from wastelens.tracking.mlflow_tracker import MlflowTracker, git_commit_tag
from wastelens.tracking.tracker import logged_text, run_note, start_or_continue, to_json

# MLflow 3.17 on SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """MLflow's default store, in a separate folder."""
    with mlflow_store(tmp_path_factory.mktemp("mlflow")) as mlflow, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")
        mlflow.set_experiment("tests")
        yield mlflow


class Memory:
    """Access to the runs kept in memory, for tests."""

    def __init__(self):
        self.tracker = MemoryTracker(draws=True)

    def _run(self, run_id):
        return next(run for run in self.tracker.runs if run.id == run_id)

    def status(self, run_id):
        return self._run(run_id).status

    def tags(self, run_id):
        return self._run(run_id).tags

    def parameters(self, run_id):
        return self._run(run_id).parameters

    def metrics(self, run_id):
        return self._run(run_id).metrics

    def parent(self, run_id):
        return self._run(run_id).parent

    def datasets(self, run_id):
        return [(one["name"], one["context"]) for one in self._run(run_id).datasets]


class InMlflow:
    """Access to the runs in MLflow's store, for tests."""

    def __init__(self, mlflow):
        self.tracker = MlflowTracker()
        self._client = mlflow.MlflowClient()

    def status(self, run_id):
        return self._client.get_run(run_id).info.status

    def tags(self, run_id):
        return self._client.get_run(run_id).data.tags

    def parameters(self, run_id):
        return self._client.get_run(run_id).data.params

    def metrics(self, run_id):
        return self._client.get_run(run_id).data.metrics

    def parent(self, run_id):
        return self.tags(run_id).get("mlflow.parentRunId", "")

    def datasets(self, run_id):
        inputs = self._client.get_run(run_id).inputs.dataset_inputs
        return [(one.dataset.name, one.tags[0].value) for one in inputs]


@pytest.fixture(params=["memory", "mlflow"])
def kept(request):
    return Memory() if request.param == "memory" else InMlflow(request.getfixturevalue("store"))


def test_a_run_keeps_what_is_logged(kept, tmp_path):
    file = tmp_path / "weights.h5"
    file.write_bytes(b"\x00\x01")
    with kept.tracker.start("train") as run:
        run.log_parameters({"epochs": 3, "augment": False, "rate": 0.1 + 0.2})
        run.log_metrics({"loss": 2.0, "val/loss": 3.0}, step=1)
        run.log_metrics({"loss": 1.0}, step=2)
        run.log_metrics({"test/macro_ap": 0.5})
        run.log_metrics({"closing": 4.0}, step=2)
        run.log_metrics({"closing": 5.0}, step=2)
        run.set_tags({"collapsed": True, "note": "x"})
        run.set_tags({})
        run.log_text("hello\n", "notes/hello.txt")
        run.log_table(pd.DataFrame({"a": [1, 2]}), "table.csv")
        run.log_figure(Figure(), "figures/empty.png")
        run.log_file(file, "export")
        run.log_file(file)
        run.log_dataset(pd.DataFrame({"a": [1]}), source=Path("x.csv"), name="sample", digest="d" * 40, context="train")
    assert kept.status(run.id) == "FINISHED"
    assert kept.parameters(run.id) == {"epochs": "3", "augment": "false", "rate": "0.3"}
    assert kept.metrics(run.id) == {"loss": 1.0, "val/loss": 3.0, "test/macro_ap": 0.5, "closing": 5.0}
    assert kept.tags(run.id).items() >= {"collapsed": "true", "note": "x"}.items()
    assert kept.datasets(run.id) == [("sample", "train")]
    history = run.metric_history(["loss", "val/loss", "never"])
    assert history == [{"epoch": 1, "loss": 2.0, "val/loss": 3.0}, {"epoch": 2, "loss": 1.0}]
    assert run.metric_history(["closing"]) == [{"epoch": 2, "closing": 4.0}], "an epoch's value, not the closing one"
    for path, content in [
        ("notes/hello.txt", b"hello\n"),
        ("table.csv", b'"a"\n"1"\n"2"\n'),
        ("export/weights.h5", b"\x00\x01"),
        ("weights.h5", b"\x00\x01"),
    ]:
        copy = run.download(path, tmp_path)
        assert copy is not None
        assert copy.read_bytes() == content
    picture = run.download("figures/empty.png", tmp_path)
    assert picture is not None
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run.download("no/such/file.txt", tmp_path) is None


def test_parent_and_child_keep_to_their_own_runs(kept):
    with kept.tracker.start("main") as parent:
        with kept.tracker.start("train") as child:
            child.set_tags({"who": "child"})
            parent.set_tags({"who": "parent"})
            parent.log_text("parent", "who.txt")
            child.log_text("child", "who.txt")
            parent.log_parameters({"who": "parent"})
            parent.log_metrics({"who": 1.0})
        parent.log_metrics({"after": 1.0})
    assert (kept.parent(parent.id), kept.parent(child.id)) == ("", parent.id)
    assert [kept.tags(run.id)["who"] for run in (parent, child)] == ["parent", "child"]
    assert [kept.parameters(run.id).get("who") for run in (parent, child)] == ["parent", None]
    assert kept.metrics(parent.id) == {"who": 1.0, "after": 1.0}
    assert kept.metrics(child.id) == {}


def test_a_whole_folder_is_kept_and_deleted(kept, tmp_path):
    folder = tmp_path / "made"
    for name, content in {
        "index.html": b"<html>",
        "gradcam/1 ü & 'x'.png": b"\x89",
        "gradcam/below/2.png": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with kept.tracker.start("train") as run:
        run.log_text("stays", "config.json")
        run.delete("explanations")  # nothing there yet
        run.replace_folder(folder, "explanations")
        for name in ("index.html", "gradcam/1 ü & 'x'.png", "gradcam/below/2.png"):
            (tmp_path / "copy").mkdir(exist_ok=True)
            copy = run.download(f"explanations/{name}", tmp_path / "copy")
            assert copy is not None, name
            assert copy.read_bytes() == (folder / name).read_bytes()
        run.delete("explanations")
        assert run.download("explanations/index.html", tmp_path) is None
        (folder / "index.html").unlink()
        run.replace_folder(folder, "explanations")
        assert run.download("explanations/index.html", tmp_path) is None
        again = run.download("explanations/gradcam/1 ü & 'x'.png", tmp_path)
        assert again is not None
        assert run.download("config.json", tmp_path).read_text() == "stays"


def test_a_stored_run_has_its_name_status_tags_and_last_metrics(kept):
    with kept.tracker.start("base plain seed 0") as run:
        run.log_metrics({"loss": 2.0, "val/macro_ap": 0.25}, step=1)
        run.log_metrics({"loss": 1.0}, step=2)
        run.set_tags({"step": "train", "collapsed": False})
        assert kept.tracker.stored(run.id).status == "RUNNING"
    stored = kept.tracker.stored(run.id)
    assert (stored.run.id, stored.name, stored.status) == (run.id, "base plain seed 0", "FINISHED")
    assert stored.tags.items() >= {"step": "train", "collapsed": "false"}.items()
    assert stored.metrics == {"loss": 1.0, "val/macro_ap": 0.25}


@pytest.mark.parametrize("step", [None, 3])
def test_closing_values_count_even_where_the_clock_was_put_back(kept, monkeypatch, step):
    real = time.time
    with kept.tracker.start("one") as run:
        run.log_metrics({"val/macro_ap": 0.9}, step=step, measured_ms=int(real() * 1000))
        run.log_metrics({"val/macro_ap": 0.8}, step=step)
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    with kept.tracker.added_to(run.id) as again:
        again.log_metrics({"val/macro_ap": 0.4}, step=step)
        again.log_metrics({"val/macro_ap": 0.3, "test/macro_ap": 0.2}, step=step)
    assert kept.tracker.stored(run.id).metrics == {"val/macro_ap": 0.3, "test/macro_ap": 0.2}
    if step is not None:
        assert again.metric_history(["val/macro_ap"]) == [{"epoch": 3, "val/macro_ap": 0.9}]


def test_a_metric_can_be_taken_back_by_nan(kept):
    with kept.tracker.start("train") as run:
        run.log_metrics({"explain/shap/energy": 2.0, "val/macro_ap": 0.5})
        time.sleep(0.005)  # of two values of one millisecond MLflow keeps the larger
        run.log_metrics({"explain/shap/energy": float("nan")})
    metrics = kept.tracker.stored(run.id).metrics
    assert math.isnan(metrics["explain/shap/energy"])
    assert metrics["val/macro_ap"] == 0.5


def started(kept, name, ends=None, **tags):
    """Run and end a run, and return its id; MLflow orders runs by the millisecond they start in."""

    def run_it():
        with kept.tracker.start(name) as run:
            ids.append(run.id)
            run.set_tags(tags)
            run.log_metrics({"val/macro_ap": 0.5})
            if ends is not None:
                raise ends

    ids: list[str] = []
    time.sleep(0.005)
    if ends is None:
        run_it()
    else:
        with pytest.raises(ends):
            run_it()
    return ids[0]


def test_finished_runs_with_given_tags_are_found_newest_first(kept):
    wanted = {"step": "train", "dataset_digest": f"digest of {type(kept).__name__}"}
    first = started(kept, "first", **wanted)
    started(kept, "of another step", **{**wanted, "step": "pretrain"})
    started(kept, "of another dataset", **{**wanted, "dataset_digest": "another"})
    started(kept, "of no dataset", step="train")
    started(kept, "failed", ends=ValueError, **wanted)
    started(kept, "killed", ends=KeyboardInterrupt, **wanted)
    second = started(kept, "second", **wanted, collapsed=True)
    with kept.tracker.start("still running") as running:
        running.set_tags(wanted)
        found = kept.tracker.finished(wanted)
    assert [(one.run.id, one.name) for one in found] == [(second, "second"), (first, "first")]
    assert [one.metrics for one in found] == [{"val/macro_ap": 0.5}] * 2
    assert [one.run.id for one in kept.tracker.finished({**wanted, "collapsed": "true"})] == [second]
    assert kept.tracker.finished({"dataset_digest": "of none"}) == []


def test_finished_runs_are_found_in_every_experiment_and_on_every_page_but_no_deleted_ones(store, monkeypatch):
    kept = InMlflow(store)
    wanted = {"dataset_digest": "pages"}
    ids = [started(kept, f"number {number}", **wanted) for number in range(4)]
    store.set_experiment("others")
    try:
        ids.append(started(kept, "elsewhere", **wanted))
    finally:
        store.set_experiment("tests")
    deleted = started(kept, "deleted", **wanted)
    store.MlflowClient().delete_run(deleted)
    original = store.MlflowClient.search_runs

    def short_pages(self, ids, conditions, view, most, order_by, token):
        return original(self, ids, conditions, view, min(most, 2), order_by, token)

    monkeypatch.setattr(store.MlflowClient, "search_runs", short_pages)
    assert sorted(one.run.id for one in kept.tracker.finished(wanted)) == sorted(ids)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_finished_run_is_added_to_and_stays_finished(kept, tmp_path, error):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("page")
    model = started(kept, "model", step="train")

    def add():
        with kept.tracker.added_to(model) as run:
            assert run.id == model
            run.set_tags({"explained_by": "shap"})
            run.log_metrics({"explain/shap/energy": 2.0})
            run.replace_folder(tmp_path / "page", "explanations")
            assert kept.status(model) == "FINISHED"
            if error is not None:
                raise error

    if error is None:
        add()
    else:
        with pytest.raises(error):
            add()
    assert kept.status(model) == "FINISHED"
    assert kept.tags(model).items() >= {"step": "train", "explained_by": "shap"}.items()
    assert "interrupted" not in kept.tags(model)
    assert kept.metrics(model) == {"val/macro_ap": 0.5, "explain/shap/energy": 2.0}
    with kept.tracker.start("next") as run:
        pass
    assert kept.parent(run.id) == ""


def test_additions_within_another_run_reach_the_named_run(kept):
    model = started(kept, "model")
    with kept.tracker.start("main") as parent:
        with kept.tracker.added_to(model) as run:
            run.set_tags({"explained_by": "shap"})
            run.log_metrics({"explain/photos": 3.0})
        parent.set_tags({"step": "main"})
    assert kept.tags(model)["explained_by"] == "shap"
    assert "explained_by" not in kept.tags(parent.id)
    assert kept.metrics(parent.id) == {}


def test_wrapper_of_mlflow_run_tells_which_run_is_added_to(store, monkeypatch):
    kept = InMlflow(store)
    model = started(kept, "model")
    wrapper = store.MlflowClient().create_run(store.get_experiment_by_name("tests").experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", wrapper)
    with kept.tracker.added_to(model) as run:
        run.log_metrics({"explain/photos": 3.0})
    assert kept.tags(wrapper)["adds_to_run"] == model
    assert kept.metrics(wrapper) == {}
    assert (kept.status(model), kept.metrics(model)["explain/photos"]) == ("FINISHED", 3.0)
    assert os.environ["MLFLOW_RUN_ID"] == wrapper
    # The main job's own run is one that mlflow run has opened; it is no mere wrapper.
    main = store.MlflowClient().create_run(store.get_experiment_by_name("tests").experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", main)
    with kept.tracker.start("main"), kept.tracker.added_to(model):
        pass
    assert "adds_to_run" not in kept.tags(main)


def test_more_metrics_than_one_request_holds(kept):
    metrics = {f"explain/shap/energy_material{number}": float(number) for number in range(1500)}
    with kept.tracker.start("train") as run:
        run.log_metrics(metrics)
    assert kept.metrics(run.id) == metrics


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (StoppedEarly, "KILLED"), (StoreUnreachable, "KILLED")],
)
def test_status_of_runs_that_end_early(kept, error, status):
    def fail():
        with kept.tracker.start("main") as parent, kept.tracker.start("train") as child:
            ids.extend([parent.id, child.id])
            raise error

    ids: list[str] = []
    with pytest.raises(error):
        fail()
    assert [kept.status(run_id) for run_id in ids] == [status, status]
    with kept.tracker.start("next") as run:
        pass
    assert kept.parent(run.id) == ""


def test_interrupted_run_is_resumed(kept, tmp_path):
    ids: list[str] = []

    def interrupted():
        with kept.tracker.start("train") as run:
            ids.append(run.id)
            run.log_metrics({"loss": 2.0}, step=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with kept.tracker.start("train", resume=ids[0]) as run:
        assert run.id == ids[0]
        run.log_metrics({"loss": 1.0}, step=2)
    assert kept.status(ids[0]) == "FINISHED"
    assert run.metric_history(["loss"]) == [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]


def test_unknown_run_cannot_be_resumed(kept):
    message = r"^There is no run 'abc'\. Copy the run id from the MLflow UI\.$"
    with pytest.raises(RunError, match=message), kept.tracker.start("train", resume="abc"):
        pass


def continued(kept, name, ends=None, **tags):
    """Open a run to start or continue, end it, and return its id."""
    time.sleep(0.005)
    with contextlib.suppress(ends or ()), start_or_continue(kept.tracker, name, tags) as run:
        if ends is not None:
            raise ends
    return run.id


@pytest.mark.parametrize("ends", [None, ValueError, KeyboardInterrupt])
def test_a_run_is_started_once_and_then_continued(kept, ends):
    tags = {"step": "study", "study_key": f"a of Anna's litter {ends and ends.__name__}"}
    first = continued(kept, "study", ends, **tags)
    with start_or_continue(kept.tracker, "another name", tags) as run:
        assert run.id == first
        assert kept.status(first) == "RUNNING"
        with kept.tracker.start("cell") as cell:
            pass
    assert kept.parent(cell.id) == first
    assert kept.tracker.stored(first).name == "study"
    assert (kept.status(first), kept.tags(first)["study_key"]) == ("FINISHED", tags["study_key"])
    assert continued(kept, "study", **{**tags, "study_key": "b of litter"}) != first
    assert continued(kept, "study", **tags) == first


def test_a_run_that_was_deleted_is_not_continued(store):
    kept = InMlflow(store)
    first = continued(kept, "study", study_key="deleted")
    store.MlflowClient().delete_run(first)
    second = continued(kept, "study", study_key="deleted")
    assert second != first
    assert continued(kept, "study", study_key="deleted") == second


def test_tags_are_set_with_the_run(kept):
    with kept.tracker.start("cell", tags={"cell": "abc", "balanced": True, "labels_percent": 12.5}) as run:
        assert kept.tags(run.id).items() >= {"cell": "abc", "balanced": "true", "labels_percent": "12.5"}.items()
    with kept.tracker.start("cell", resume=run.id, tags={"cell": "abc", "study": "another"}):
        pass
    assert kept.tags(run.id).items() >= {"cell": "abc", "study": "another", "balanced": "true"}.items()


def test_found_runs_have_any_status_and_the_newest_is_first(kept):
    wanted = {"dataset_digest": f"found in {type(kept).__name__}"}
    ids = [started(kept, "finished", **wanted)]
    ids.append(started(kept, "failed", ends=ValueError, **wanted))
    ids.append(started(kept, "killed", ends=KeyboardInterrupt, **wanted))
    started(kept, "of another dataset", dataset_digest="another")
    with kept.tracker.start("running") as running:
        running.set_tags({**wanted, "cell": "abc"})
        found = kept.tracker.found(wanted)
        assert [one.run.id for one in kept.tracker.found({**wanted, "cell": "abc"})] == [running.id]
    assert [one.run.id for one in found] == [running.id, *reversed(ids)]
    assert [one.status for one in found] == ["RUNNING", "KILLED", "FAILED", "FINISHED"]
    assert kept.tracker.found({"dataset_digest": "of none"}) == []


def test_a_run_that_nobody_writes_any_more_is_ended(kept):
    with kept.tracker.start("cell") as run:
        kept.tracker.finish(run.id, "KILLED")
        assert kept.status(run.id) == "KILLED"


def test_runs_below_a_run_that_is_open_here(store):
    kept = InMlflow(store)
    with kept.tracker.start("study") as parent:
        below = kept.tracker.below(parent.id)
        with below.start("cell") as cell, below.start("pretraining") as pretraining:
            pass
    assert (kept.parent(cell.id), kept.parent(pretraining.id)) == (parent.id, cell.id)
    assert kept.status(parent.id) == "FINISHED"


BELOW = """
import pickle, sys
from pathlib import Path
tracker = pickle.loads(Path(sys.argv[1]).read_bytes())
with tracker.start("cell", tags={"cell": "abc"}) as cell:
    with tracker.start("pretraining") as pretraining:
        pass
with tracker.start("cell", resume=cell.id):
    pass
print(cell.id, pretraining.id)
"""


def test_runs_below_a_run_that_is_open_in_another_process(store, tmp_path):
    """The other process has no settings of MLflow but those of the tracker, and a run of ``mlflow run`` of its own."""
    kept = InMlflow(store)
    store.set_experiment("of the parent")
    try:
        with kept.tracker.start("study") as parent:
            (tmp_path / "tracker").write_bytes(pickle.dumps(kept.tracker.below(parent.id)))
            clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
            answer = subprocess.run(
                [sys.executable, "-c", BELOW, str(tmp_path / "tracker")],
                env={**clean, "PYTHONPATH": os.pathsep.join(sys.path), "MLFLOW_RUN_ID": parent.id},
                cwd=tmp_path,
                check=True,
                capture_output=True,
                text=True,
            )
    finally:
        store.set_experiment("tests")
    cell, pretraining = answer.stdout.split()
    assert (kept.parent(cell), kept.parent(pretraining)) == (parent.id, cell)
    assert [kept.status(run_id) for run_id in (parent.id, cell, pretraining)] == ["FINISHED"] * 3
    assert kept.tags(cell)["cell"] == "abc"
    experiments = {store.get_run(run_id).info.experiment_id for run_id in (parent.id, cell, pretraining)}
    assert len(experiments) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "tracker"], "a store of its own"


def test_a_tracker_keeps_its_settings_when_it_is_pickled(store):
    tracker = MlflowTracker(outage_minutes=2.5).below("a parent")
    copy = pickle.loads(pickle.dumps(tracker))
    assert (copy._outage_minutes, copy._parent, copy._store) == (2.5, "a parent", store.get_tracking_uri())


@pytest.mark.parametrize(
    ("uri", "engine", "shared"),
    [
        ("sqlite:///mlflow.db", "tcp://a:8786", False),
        ("file:///runs", "tcp://a:8786", False),
        ("/runs", "tcp://a:8786", False),
        ("http://127.0.0.1:5000", "tcp://a:8786", False),
        ("http://localhost:5000", "tls://a:8786", False),
        ("http://127.0.0.1:5000", "tcp://127.0.0.1:8786", True),
        ("http://a:5000", "tcp://a:8786", True),
        ("https://tracker.example.org", "tcp://a:8786", True),
        ("postgresql://user:secret@a/mlflow", "tcp://a:8786", True),
    ],
)
def test_which_stores_other_machines_can_reach(store, monkeypatch, uri, engine, shared):
    monkeypatch.setattr(store, "get_tracking_uri", lambda: uri)
    if shared:
        MlflowTracker().check_shared(engine)
        return
    fix = "Start `mlflow server`, and set MLFLOW_TRACKING_URI to its address, as others know it."
    with pytest.raises(EngineError) as caught:
        MlflowTracker().check_shared(engine)
    assert str(caught.value) == f"Workers on other machines cannot reach MLflow's store {uri}. {fix}"


def test_run_of_mlflow_run_is_joined_and_its_parameters_left(store, monkeypatch):
    opened = store.MlflowClient().create_run(store.get_experiment_by_name("tests").experiment_id)
    store.MlflowClient().log_param(opened.info.run_id, "augment", "True")
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    kept = InMlflow(store)
    with kept.tracker.start("train") as run:
        run.log_parameters({"augment": True, "seed": 0})
    assert run.id == opened.info.run_id
    assert kept.parameters(run.id) == {"augment": "True", "seed": "0"}
    assert kept.tags(run.id)["used.augment"] == "true"
    assert kept.tags(run.id)["mlflow.runName"] == "train"


@pytest.mark.parametrize(("name", "kept_name"), [("vgg-attempt-2", "vgg-attempt-2"), ("bemused-rat-42", "train")])
def test_a_name_that_the_user_gave_mlflow_run_stays(store, monkeypatch, name, kept_name):
    experiment = store.get_experiment_by_name("tests").experiment_id
    opened = store.MlflowClient().create_run(experiment, run_name=name)
    monkeypatch.setenv("MLFLOW_RUN_ID", opened.info.run_id)
    with InMlflow(store).tracker.start("train"):
        pass
    assert store.MlflowClient().get_run(opened.info.run_id).info.run_name == kept_name


def test_wrapper_of_a_resumed_run_ends_with_it(store, monkeypatch):
    kept = InMlflow(store)
    with kept.tracker.start("train") as first:
        pass
    wrapper = store.MlflowClient().create_run(store.get_experiment_by_name("tests").experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", wrapper.info.run_id)
    with kept.tracker.start("train", resume=first.id) as run:
        assert run.id == first.id
        assert "MLFLOW_RUN_ID" not in os.environ
    assert kept.status(wrapper.info.run_id) == kept.status(first.id) == "FINISHED"
    assert kept.tags(wrapper.info.run_id)["resumes_run"] == first.id


def test_the_run_of_mlflow_run_gets_the_name_of_the_step_unless_the_user_has_named_it(store):
    made_up, named = (store.MlflowClient().create_run("0", run_name=name) for name in ("bold-crow-123", "mine"))
    for run in (made_up, named):
        mlflow_tracking.name_opened_run(run.info.run_id, "explain")
    mlflow_tracking.name_opened_run("0" * 32, "explain")  # there is none: no reason to fail
    names = [store.get_run(run.info.run_id).info.run_name for run in (made_up, named)]
    assert names == ["explain", "mine"]


def test_finished_hint(store, monkeypatch):
    page = "/#/experiments/0/runs?workflowType=machine_learning&viewStateShareKey=wastelens"
    assert MlflowTracker().finished_hint() == (
        f"http://127.0.0.1:5000{page} once this runs: mlflow ui --backend-store-uri {store.get_tracking_uri()}"
    )
    tracker = MlflowTracker()
    with tracker.start("train") as run:
        pass
    experiment = store.get_experiment_by_name("tests").experiment_id
    assert f"/#/experiments/{experiment}/runs?" in tracker.finished_hint()
    assert (
        f"/#/experiments/{experiment}/runs/{run.id}?workflowType=machine_learning once this runs:"
        in tracker.finished_hint(run.id)
    )
    page_of_run = f"/#/experiments/{experiment}/runs/{run.id}/artifacts/report.html?workflowType=machine_learning once"
    assert page_of_run in tracker.finished_hint(run.id, "report.html")
    another = MlflowTracker()
    with another.added_to(run.id):
        pass
    assert page_of_run in another.finished_hint(run.id, "report.html")
    monkeypatch.setattr(store, "get_tracking_uri", lambda: "http://tracker:5000")
    assert MlflowTracker().finished_hint() == f"http://tracker:5000{page}"
    assert MemoryTracker().finished_hint()


def git(folder, *words):
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


def test_the_commit_is_a_tag_only_for_code_that_git_tracks(tmp_path, monkeypatch):
    code = tmp_path / "package" / "mlflow_tracking.py"
    code.parent.mkdir()
    code.write_text("first")
    monkeypatch.setattr(mlflow_tracking, "__file__", str(code))
    assert git_commit_tag() == {}, "no checkout"
    git(tmp_path, "init", "--quiet")
    (tmp_path / "other.txt").write_text("")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@e", "commit", "--quiet", "-m", "another's")
    assert git_commit_tag() == {}, "another project's repository"
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@e", "commit", "--quiet", "-m", "ours")
    with monkeypatch.context() as hook:
        hook.setenv("GIT_DIR", str(tmp_path / "of another repository"))
        (clean,) = git_commit_tag().values()
    assert re.fullmatch("[0-9a-f]{40}", clean)
    code.write_text("second")
    assert git_commit_tag() == {"git_commit": f"{clean}-dirty"}

    def no_git(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(mlflow_tracking.subprocess, "run", no_git)
    assert git_commit_tag() == {}


def test_texts():
    assert [logged_text(value) for value in (True, False, 0.1 + 0.2, 3, "x", None, 1e-7)] == [
        *("true", "false", "0.3", "3", "x", "None", "1e-07"),
    ]
    assert to_json({"b": 1, "a": Path("x")}) == '{\n  "a": "x",\n  "b": 1\n}\n'


def test_a_note_stands_on_top_of_the_runs_page(store):
    with MlflowTracker().start("train") as run:
        run.set_tags(run_note(run.id, "**Good.**", "More.", command="mlflow run . -e explain", pictures=["a b/c.png"]))
    assert store.MlflowClient().get_run(run.id).data.tags["mlflow.note.content"] == (
        "**Good.**\n\nMore.\n\nNext:\n\n```sh\nmlflow run . -e explain\n```\n\n"
        f"![a b/c.png](get-artifact?path=a%20b/c.png&run_uuid={run.id})"
    )


def test_a_description_mentions_nobody():
    (note,) = run_note("1" * 32, "**probe @96px @demo is best.**", command="predict @x").values()
    assert note == "**probe \\@96px \\@demo is best.**\n\nNext:\n\n```sh\npredict @x\n```"


def description(store, run_id):
    return store.get_run(run_id).data.tags["mlflow.note.content"]


def test_every_run_has_a_description_when_it_ends(store):
    tracker = MlflowTracker()
    with tracker.start("a") as told, tracker.start("b") as silent:
        silent.set_tags({"verdict": "Good."})
        told.set_tags(run_note(told.id, "Mine."))
    with tracker.start("c") as plain:
        pass
    with contextlib.suppress(KeyboardInterrupt), tracker.start("d") as stopped:
        stopped.set_tags(run_note(stopped.id, "Not true any more."))
        stopped.resumed_by = "train again"
        raise KeyboardInterrupt
    with contextlib.suppress(ValueError), tracker.start("e") as failed:
        failed.set_tags({"error": "No room."})
        raise ValueError
    assert description(store, told.id) == "Mine."
    assert description(store, silent.id) == "**Good.**"
    assert description(store, plain.id) == "**It has finished.**"
    assert description(store, stopped.id) == "**It was stopped before its end.**\n\nNext:\n\n```sh\ntrain again\n```"
    assert description(store, failed.id) == "**It has failed.** No room."
