"""Cells on an engine: what is started when, and what each way to end leads to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.memory_tracking import MemoryTracker

from wastelens.config.files import train_config_of
from wastelens.data.prepared.copies import DatasetPlace
from wastelens.engine.engine import Done, Task, WorkerLost
from wastelens.errors import ConfigError, DatasetLacking, NonFiniteLossError
from wastelens.studies import cell_work
from wastelens.studies.cell_work import ABANDONED, CELL, STUDY, Standing, Training, train_cells
from wastelens.training.checkpoint import CHECKPOINT_FOLDER

DIGEST = "d" * 32
PLACE = DatasetPlace(Path("nowhere"), "litter", DIGEST)
CONFIG = train_config_of([])
PRETRAINING = train_config_of([("the test", {"model": "autoencoder", "pretrained": "auto"})]).pretraining()


def cell(key: str, needs: str = "") -> Training:
    return Training(key, f"cell {key}", CONFIG, PLACE, {}, needs)


def encoder(key: str) -> Training:
    return Training(key, f"encoder {key}", PRETRAINING, PLACE, {})


class Played:
    """An engine whose tasks end as they are told to, in the order in which they are started."""

    is_local = False

    def __init__(self, tracker: MemoryTracker, **ends: Any) -> None:
        self.tracker = tracker
        self.ends = ends
        self.started: list[str] = []
        self.queue: list[Task] = []

    def workers(self) -> int:
        return 2

    def running(self) -> int:
        return len(self.queue)

    def is_known(self, key: str) -> bool:
        return False

    def start(self, task: Task) -> None:
        if task.key not in [one.key for one in self.queue]:
            self.started.append(task.key)
            self.queue.append(task)

    def is_started(self, key: str) -> bool:
        return key in [task.key for task in self.queue]

    def send(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> dict[str, Any]:
        return {}

    def finished(self) -> Iterator[Done]:
        while self.queue:
            task = self.queue.pop(0)
            end = self.ends.get(task.key)
            error = end.pop(0) if isinstance(end, list) and end else end
            if isinstance(error, BaseException):
                yield Done(task, error=error)
            else:
                yield Done(task, result=(self._run(task), 1.0, "Above."))

    def _run(self, task: Task) -> str:
        training = task.arguments[0]
        with self.tracker.start(training.name, tags={CELL: task.key, "dataset_digest": DIGEST}) as run:
            return run.id


@pytest.fixture
def tracker() -> MemoryTracker:
    return MemoryTracker()


def outcome(engine: Played, trainings: Sequence[Training]) -> Standing:
    return train_cells({one.key: one for one in trainings}, engine, engine.tracker, "study")


def test_cells_start_after_the_encoder_they_need(tracker: MemoryTracker) -> None:
    engine = Played(tracker)
    standing = outcome(engine, [encoder("e"), cell("a", "e"), cell("b"), cell("c", "e")])
    assert engine.started == ["e", "b", "a", "c"]
    assert set(standing.done) == {"e", "a", "b", "c"}


def test_what_is_finished_is_not_trained_again(tracker: MemoryTracker) -> None:
    with tracker.start("before", tags={CELL: "a", "dataset_digest": DIGEST}) as before:
        pass
    with tracker.start("twin", tags={CELL: "a", "dataset_digest": DIGEST}):
        pass
    engine = Played(tracker)
    standing = outcome(engine, [encoder("e"), cell("a", "e"), cell("b")])
    assert engine.started == ["b"]  # nor is the encoder, which no cell is waiting for
    assert standing.done["a"].run.id == before.id  # the first that was finished


@pytest.mark.parametrize("error", [NonFiniteLossError("diverged"), WorkerLost("died")])
def test_a_cell_that_fails_is_named_and_the_others_go_on(
    tracker: MemoryTracker, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Played(tracker, a=error)
    standing = outcome(engine, [cell("a"), cell("b")])
    assert standing.failed == {"a": ""}
    assert set(standing.done) == {"b"}
    assert f"cell a failed: {error} The study goes on without it." in capsys.readouterr().out


def test_the_run_of_a_cell_whose_workers_died_does_not_stay_running(tracker: MemoryTracker) -> None:
    opened = tracker.start("cell a", tags={CELL: "a", STUDY: "study", "dataset_digest": DIGEST})
    run = opened.__enter__()
    assert outcome(Played(tracker, a=WorkerLost("died")), [cell("a")]).failed == {"a": run.id}
    assert tracker.stored(run.id).status == "FAILED"


def test_cells_of_an_encoder_that_fails_fail(tracker: MemoryTracker) -> None:
    engine = Played(tracker, e=NonFiniteLossError("diverged"))
    standing = outcome(engine, [encoder("e"), cell("a", "e"), cell("b")])
    assert set(standing.failed) == {"e", "a"}
    assert engine.started == ["e", "b"]


def test_any_other_error_ends_the_study(tracker: MemoryTracker) -> None:
    with pytest.raises(ConfigError, match="weights"):
        outcome(Played(tracker, a=ConfigError("no such weights")), [cell("a"), cell("b")])


def test_a_dataset_that_workers_lack_is_sent(tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(cell_work, "send_copy", lambda place, send: sent.append(place))
    engine = Played(tracker, a=[DatasetLacking("litter")], b=[DatasetLacking("litter")])
    standing = outcome(engine, [cell("a"), cell("b")])
    assert sent == [PLACE, PLACE]
    assert engine.started == ["a", "b", "a", "b"]
    assert set(standing.done) == {"a", "b"}


def test_a_worker_that_lacks_it_even_then_ends_the_study(
    tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_work, "send_copy", lambda place, send: None)
    with pytest.raises(DatasetLacking):
        outcome(Played(tracker, a=DatasetLacking("litter")), [cell("a")])


class TestInterrupted:
    """Which run a training continues."""

    @pytest.fixture
    def left(self, tracker: MemoryTracker) -> Callable[..., str]:
        def leave(status: str, study: str = "study", *, checkpoint: bool = True) -> str:
            with tracker.start("left", tags={CELL: "a", STUDY: study}) as run, tempfile.TemporaryDirectory() as folder:
                if checkpoint:
                    (Path(folder) / "state.json").write_text("{}")
                    run.log_file(Path(folder) / "state.json", f"{CHECKPOINT_FOLDER}/a")
            tracker.finish(run.id, status)
            return run.id

        return leave

    def chosen(self, tracker: MemoryTracker) -> str:
        return cell_work._interrupted("a", tracker, "study", Path("nowhere"))

    @pytest.mark.parametrize("status", ["KILLED", "RUNNING"])
    def test_one_with_a_checkpoint(self, tracker: MemoryTracker, left: Callable[..., str], status: str) -> None:
        run = left(status)
        assert self.chosen(tracker) == run

    def test_none_without(self, tracker: MemoryTracker, left: Callable[..., str]) -> None:
        run = left("RUNNING", checkpoint=False)
        assert self.chosen(tracker) == ""
        assert tracker.stored(run).status == "KILLED"
        assert tracker.stored(run).tags[ABANDONED] == "true"

    def test_one_that_another_study_may_be_writing_is_left_alone(
        self, tracker: MemoryTracker, left: Callable[..., str]
    ) -> None:
        run = left("RUNNING", "another")
        assert self.chosen(tracker) == ""
        assert tracker.stored(run).status == "RUNNING"

    @pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
    def test_not_one_that_ended_by_itself(self, tracker: MemoryTracker, left: Callable[..., str], status: str) -> None:
        left(status)
        assert self.chosen(tracker) == ""

    def test_the_newest_and_the_others_are_ended(self, tracker: MemoryTracker, left: Callable[..., str]) -> None:
        older, newer = left("RUNNING"), left("RUNNING")
        assert self.chosen(tracker) == newer
        assert tracker.stored(older).status == "KILLED"
