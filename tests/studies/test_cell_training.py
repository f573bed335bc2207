"""Cells on an engine: what is started when, and what each way to end leads to."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.memory_tracking import MemoryTracker

from wastelens.config.files import train_config_of
from wastelens.config.pretrain import PretrainConfig
from wastelens.data.prepared.copies import DATA_FOLDER, DatasetPlace
from wastelens.engine.task import Done, Task, TaskInterrupted, WorkerLost
from wastelens.errors import ConfigError, DatasetLacking, NonFiniteLossError, StoreUnreachable
from wastelens.studies import cell_training
from wastelens.studies.cell_training import (
    ABANDONED,
    CELL,
    STUDY,
    Standing,
    Training,
    data_folder_here,
    train_cells,
    trainings_of,
)
from wastelens.studies.cells import Cell
from wastelens.studies.results import Place
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
        self.kept: Container[str] = ()

    def workers(self) -> int:
        return 2

    def running(self) -> int:
        return len(self.queue)

    def is_known(self, key: str) -> bool:
        return False

    def start(self, task: Task) -> None:
        if task.key not in [one.key for one in self.queue]:
            self.started.append(task.key.removesuffix(" of study study"))
            self.queue.append(task)

    def stop_others(self, owner: str, keep: Container[str]) -> None:
        self.kept = keep

    def is_started(self, key: str) -> bool:
        return key in [task.key for task in self.queue]

    def send(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> dict[str, Any]:
        return {}

    def finished(self, more: Callable[[], None] = lambda: None) -> Iterator[Done]:
        while self.queue:
            task = self.queue.pop(0)
            end = self.ends.get(task.key.removesuffix(" of study study"))
            error = end.pop(0) if isinstance(end, list) and end else end
            if isinstance(error, BaseException):
                yield Done(task, error=error)
            else:
                sentence = "" if isinstance(task.arguments[0].config, PretrainConfig) else "Above."
                yield Done(task, result=(self._run(task), 1.0, sentence))

    def _run(self, task: Task) -> str:
        training = task.arguments[0]
        with self.tracker.start(training.name, tags={CELL: training.key, "dataset_digest": DIGEST}) as run:
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
    assert engine.kept == {"e of study study", "b of study study"}


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


@pytest.mark.parametrize(
    "error", [ConfigError("no such weights"), StoreUnreachable("no server"), TaskInterrupted("by Ctrl-C")]
)
def test_any_other_error_ends_the_study(tracker: MemoryTracker, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        outcome(Played(tracker, a=error), [cell("a"), cell("b")])


def test_a_dataset_that_workers_lack_is_sent(tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(cell_training, "send_copy", lambda place, send: sent.append(place))
    engine = Played(tracker, a=[DatasetLacking("litter")], b=[DatasetLacking("litter")])
    standing = outcome(engine, [cell("a"), cell("b")])
    assert sent == [PLACE, PLACE]
    assert engine.started == ["a", "b", "a", "b"]
    assert set(standing.done) == {"a", "b"}


def test_a_worker_that_lacks_it_even_then_ends_the_study(
    tracker: MemoryTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_training, "send_copy", lambda place, send: None)
    with pytest.raises(DatasetLacking):
        outcome(Played(tracker, a=DatasetLacking("litter")), [cell("a")])


def test_progress_is_told_whenever_it_has_changed(tracker: MemoryTracker, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Played(tracker, c=WorkerLost("died"))
    outcome(engine, [encoder("e"), cell("a"), cell("b", "e"), cell("c")])
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Study: ")]
    assert said == [
        "Study: 0 of 3 cells done, 2 tasks running on 2 workers.",
        # Trainings take a minute here, and pretrainings do not count.
        "Study: 1 of 3 cells done, 2 tasks running on 2 workers, about 1 minutes left.",
        "Study: 1 of 3 cells done, 1 tasks running on 2 workers, 1 failed, about 0 minutes left.",
        "Study: 2 of 3 cells done, 0 tasks running on 2 workers, 1 failed.",
    ]


def test_trainings_of_cells(tracker: MemoryTracker) -> None:
    levels = {"mapping": "mine/other.csv", "augment": "true", "labels": "10"}
    config = train_config_of([("the test", {"model": "autoencoder", "pretrained": "auto"})])
    cells = [Cell(Place("autoencoder", levels, seed, 0), config, f"cell {seed}", "encoder", DIGEST) for seed in (1, 2)]
    trainings = trainings_of(cells, {DIGEST: PLACE})
    assert list(trainings) == ["encoder", "cell 1", "cell 2"]
    assert [one.needs for one in trainings.values()] == ["", "encoder", "encoder"]
    assert isinstance(trainings["encoder"].config, PretrainConfig)
    assert {one.dataset for one in trainings.values()} == {PLACE}
    assert trainings["cell 1"].tags == {"augment": "true", "labels": "10", "stratum": cells[0].place.stratum}
    assert pickle.loads(pickle.dumps(trainings)) == trainings


def test_a_worker_without_the_coordinators_data_folder_uses_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATA_FOLDER, str(tmp_path / "own"))
    assert data_folder_here(tmp_path) == tmp_path
    assert not (tmp_path / "own").exists()
    assert data_folder_here(tmp_path / "gone") == tmp_path / "own"
    assert (tmp_path / "own").is_dir()


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
        return cell_training._interrupted("a", tracker, "study", Path("nowhere"))

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
