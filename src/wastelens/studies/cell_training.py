"""Train the cells of a study on an engine: each as a task, after the pretraining that it starts from."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wastelens.config.pretrain import PretrainConfig
from wastelens.config.study import DATASET_FACTORS
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.copies import DatasetPlace, own_data_folder, send_copy
from wastelens.engine.task import Done, Engine, Task, WorkerLost
from wastelens.errors import BalanceError, DatasetLacking, NonFiniteLossError, OutOfMemory
from wastelens.experiment.pretrain_one import pretrain_one
from wastelens.experiment.resuming import has_checkpoint
from wastelens.experiment.train_one import train_one
from wastelens.models.backend import forget_networks, is_out_of_memory, load_backend
from wastelens.studies.cells import Cell
from wastelens.system.console import say, warn
from wastelens.tracking.tracker import StoredRun, Tracker

CELL, STUDY, ABANDONED = "cell", "study", "abandoned"
_FAILURES = (NonFiniteLossError, BalanceError, OutOfMemory, WorkerLost)  # of one cell; the study continues


@dataclass(frozen=True)
class Training:
    """A training, or a pretraining that cells share, to be done once.

    Attributes:
        key: the digest of its settings and dataset, by which its run is recognised anywhere in the store.
        name: of its run.
        config: its settings.
        dataset: to train on.
        tags: of its run.
        needs: the key of the pretraining before it, or "".
    """

    key: str
    name: str
    config: TrainConfig | PretrainConfig
    dataset: DatasetPlace
    tags: Mapping[str, object]
    needs: str = ""


@dataclass(frozen=True)
class Standing:
    """The outcome of trainings: key → finished run; key → the failed run, or "" where it failed before it had one."""

    done: dict[str, StoredRun] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def trainings_of(cells: Sequence[Cell], places: Mapping[str, DatasetPlace]) -> dict[str, Training]:
    """Return the trainings of these cells by key, each pretraining before the first cell that starts from it.

    Args:
        cells: of a study.
        places: digest → place of each dataset that they are trained on.
    """
    trainings: dict[str, Training] = {}
    for cell in cells:
        place, dataset = cell.place, places[cell.dataset_digest]
        if cell.encoder_key and cell.encoder_key not in trainings:
            name = f"pretraining for {place.model} seed {place.seed} fold {place.fold}"
            trainings[cell.encoder_key] = Training(cell.encoder_key, name, cell.config.pretraining(), dataset, {})
        # A file's path is no name of a mapping or of corrections; train itself tags its run with that.
        tags: dict[str, object] = {name: level for name, level in place.levels.items() if name not in DATASET_FACTORS}
        tags |= {"stratum": place.stratum} if place.stratum else {}
        trainings[cell.key] = Training(cell.key, place.label, cell.config, dataset, tags, cell.encoder_key)
    return trainings


def finished_runs(keys: Sequence[str], digests: Sequence[str], tracker: Tracker) -> dict[str, StoredRun]:
    """Return key → the finished run with it, the first of several, among the runs on these datasets."""
    wanted = set(keys)
    runs = (run for digest in digests for run in tracker.finished({"dataset_digest": digest}))
    return {run.tags[CELL]: run for run in runs if run.tags.get(CELL) in wanted}  # newest first: the first run stays


def train_cells(
    trainings: Mapping[str, Training], engine: Engine, tracker: Tracker, study: str, *, telling: bool = True
) -> Standing:
    """Train those that have no finished run yet.

    Args:
        trainings: as of :func:`trainings_of`.
        engine: to train them on.
        tracker: where their runs go.
        study: the id of the study's run, which they lie below.
        telling: whether to say how many are done.
    """
    digests = list({training.dataset.digest for training in trainings.values()})
    known = finished_runs(list(trainings), digests, tracker)
    return _Work(trainings, engine, tracker, study, Standing(done=known), telling).do_all()


@dataclass
class _Work:
    trainings: Mapping[str, Training]
    engine: Engine
    tracker: Tracker
    study: str
    standing: Standing
    telling: bool
    cell_minutes: list[float] = field(default_factory=list)
    told: str = ""
    lacked: set[str] = field(default_factory=set)  # keys of trainings whose worker lacked the dataset

    def do_all(self) -> Standing:
        owner = f" of study {self.study}"
        self.engine.stop_others(owner, {self._task_key(one.key) for one in self._open()})
        self._start_those_that_can()
        self._tell()
        for done in self.engine.finished():
            self._note(done, self.trainings[done.task.key.removesuffix(owner)])
            self._start_those_that_can()
            self._tell()
        return self.standing

    def _open(self) -> list[Training]:
        over = self.standing.done.keys() | self.standing.failed.keys()
        return [training for training in self.trainings.values() if training.key not in over]

    def _start_those_that_can(self) -> None:
        """Start the cells whose encoder is there, and the pretrainings that a cell is waiting for."""
        waiting = self._open()
        wanted = {training.needs for training in waiting}
        for training in waiting:
            if training.needs in self.standing.failed:
                self.standing.failed[training.key] = ""
            elif isinstance(training.config, TrainConfig) or training.key in wanted:
                encoder = self.standing.done.get(training.needs)
                if encoder or not training.needs:
                    self._start(training, encoder.run.id if encoder else "")

    def _task_key(self, key: str) -> str:
        """Return the key of a training's task, which no other study on the same cluster has."""
        return f"{key} of study {self.study}"

    def _start(self, training: Training, encoder: str) -> None:
        if not self.engine.is_started(self._task_key(training.key)):
            arguments = (training, encoder, self.tracker.below(self.study), self.study)
            self.engine.start(Task(self._task_key(training.key), do_training, arguments))

    def _note(self, done: Done, training: Training) -> None:
        if isinstance(done.error, DatasetLacking) and training.key not in self.lacked:
            self.lacked.add(training.key)
            send_copy(training.dataset, self.engine.send)
        elif isinstance(done.error, _FAILURES):
            warn(f"{training.name} failed: {done.error} The study goes on without it.")
            self.standing.failed[training.key] = self._end_failed(training.key)
        elif done.error is not None:
            raise done.error
        else:
            run_id, minutes, sentence = done.result
            self.standing.done[training.key] = self.tracker.stored(run_id)
            if sentence:
                self.cell_minutes.append(minutes)
                above = self.standing.done[training.key].tags.get("above_controls") == "true"
                say(f"{training.name}: {sentence}", "green" if above else "yellow")

    def _end_failed(self, key: str) -> str:
        """End the run of a failed training where its worker could not; return its id, or "" where there is none."""
        runs = self.tracker.found({CELL: key, STUDY: self.study})
        for run in runs:
            if run.status == "RUNNING":
                self.tracker.finish(run.run.id, "FAILED")
        return runs[0].run.id if runs else ""

    def _tell(self) -> None:
        """Say how far the study is, whenever that has changed."""
        cells = [training for training in self.trainings.values() if isinstance(training.config, TrainConfig)]
        done = sum(cell.key in self.standing.done for cell in cells)
        failed = sum(cell.key in self.standing.failed for cell in cells)
        workers = self.engine.workers()
        line = f"Study: {done} of {len(cells)} cells done"
        if not self.engine.is_local:
            line += f", {min(self.engine.running(), workers)} tasks running on {workers} workers"
        line += f", {failed} failed" if failed else ""
        left = len(cells) - done - failed
        if left and self.cell_minutes:
            mean = sum(self.cell_minutes) / len(self.cell_minutes)
            line += f", about {left * mean / workers:.0f} minutes left"
        if self.telling and line != self.told:
            say(f"{line}.", "bold")
            self.told = line


def do_training(training: Training, encoder: str, tracker: Tracker, study: str) -> tuple[str, float, str]:
    """Train, in whatever process the engine chose; return the run's id, the minutes, and a cell's verdict.

    It continues a run of the same training that was interrupted, by a worker's death too: the engine runs a task in
    one place at a time.
    """
    load_backend()
    began = time.monotonic()
    dataset = training.dataset.opened()
    data_folder = data_folder_here(training.config.data_folder)
    resume = _interrupted(training.key, tracker, study, data_folder)
    tags = {CELL: training.key, STUDY: study, **training.tags}
    changes: dict[str, object] = {"resume": resume, "data_folder": data_folder}
    try:
        if isinstance(training.config, PretrainConfig):
            done = pretrain_one(training.config.model_copy(update=changes), tracker, tags=tags, dataset=dataset)
            return done.run_id, (time.monotonic() - began) / 60, ""
        changes |= {"pretrained": encoder} if encoder else {}
        trained = train_one(training.config.model_copy(update=changes), tracker, tags, training.name, dataset)
        return trained.run_id, (time.monotonic() - began) / 60, trained.verdict.sentence
    except Exception as error:
        if isinstance(error, MemoryError) or is_out_of_memory(error):
            raise OutOfMemory(f"It ran out of memory on {socket.gethostname()}.") from None
        raise
    finally:
        forget_networks()


def data_folder_here(data_folder: Path) -> Path:
    """Return the coordinator's data folder, or this machine's own where it does not have that one."""
    if data_folder.exists():
        return data_folder
    own = own_data_folder()
    own.mkdir(parents=True, exist_ok=True)
    return own


def _interrupted(key: str, tracker: Tracker, study: str, data_folder: Path) -> str:
    """Return the run to continue, or ""; other unfinished runs of this study and training are ended.

    A run that is RUNNING counts only if it is this study's: another study may be writing it.
    """
    chosen = ""
    for run in tracker.found({CELL: key}):
        ours = run.tags.get(STUDY) == study
        if ABANDONED in run.tags or not (run.status == "KILLED" or (run.status == "RUNNING" and ours)):
            continue
        if not chosen and has_checkpoint(run.run, data_folder):
            chosen = run.run.id
        elif ours:
            tracker.finish(run.run.id, "KILLED")
            run.run.set_tags({ABANDONED: True})
    return chosen
