"""Run the trials of ``tune`` on an engine, report their progress, and retrain the best settings."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from wastelens.config.tune import COMPLETE, FAILED, PRUNED, RUNNING, TuneConfig
from wastelens.data.prepared.copies import place_of, send_copy
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.engine.task import Done, Engine, Task, WorkerLost
from wastelens.errors import (
    DatasetLacking,
)
from wastelens.studies.cell_training import train_cells, trainings_of
from wastelens.studies.cells import cell_of
from wastelens.studies.results import Place
from wastelens.system.console import say, warn
from wastelens.tracking.tracker import Run, StoredRun, Tracker
from wastelens.tuning.database import database_errors
from wastelens.tuning.results import LEFT_ALONE, LOST, SearchResults
from wastelens.tuning.space import Space
from wastelens.tuning.trial_training import Clock, TrialJob, do_trial, end_lost_run, stored_run
from wastelens.tuning.trials import (
    SearchProgress,
    TrialStore,
    is_lost,
    run_of,
    search_name,
)

_MINUTE_S = 60.0
_RETRAINED_METRICS = ("test/macro_ap", "test/macro_ap_low", "test/macro_ap_high", "gain_over_controls")


@dataclass
class Search:
    """The trials of a search, run on an engine from this process."""

    config: TuneConfig
    store: TrialStore
    dataset: PreparedDataset
    engine: Engine
    tracker: Tracker
    search_run: str
    clock: Clock
    lacked: set[int] = field(default_factory=set)  # trials whose worker lacked the dataset

    def run(self) -> None:
        """Run trials until the requested number is done or the time is up, and report progress after each."""
        told = Teller(self.store, self.engine, self.clock)
        numbers = self.store.fail_orphans(lambda number: self.engine.is_known(self._key(number)))
        self.engine.stop_others(f" of {self.store.id}", {self._key(number) for number in numbers})
        for number in numbers:
            self.engine.start(Task(self._key(number), do_trial, ()))  # joins the task that is there
        try:
            self._start_trials()
            told.say_if_changed()
            for done in self.engine.finished(self._start_trials):
                self._note(done)
                self._start_trials()
                told.say_if_changed()
        except BaseException:
            with contextlib.suppress(Exception):  # the original exception matters more
                self.store.give_back()
            raise

    def _start_trials(self) -> None:
        while self.engine.running() < self.engine.workers() and not self.clock.is_up():
            trial = self.store.next_trial()
            if trial is None:
                return
            job = TrialJob(
                config=self.config,
                trial=trial,
                values=self.store.suggest(trial),
                is_defaults=self.store.is_defaults(trial),
                dataset=place_of(self.dataset),
                search_run=self.search_run,
                until=None if (left := self.clock.left()) is None else time.time() + left,
            )
            self.engine.start(Task(self._key(trial.number), do_trial, (job, self.tracker.below(self.search_run))))

    def _key(self, number: int) -> str:
        return f"trial {number} of {self.store.id}"

    def _note(self, done: Done) -> None:
        number = int(done.task.key.split()[1])
        if isinstance(done.error, DatasetLacking) and number not in self.lacked:
            self.lacked.add(number)
            send_copy(place_of(self.dataset), self.engine.send)
            if done.task.arguments:
                self.engine.start(done.task)
            else:  # an earlier coordinator started it, and only that one had them
                self.store.give_back(number)
        elif isinstance(done.error, WorkerLost):
            warn(f"Trial {number} failed: {done.error} The search goes on.")
            _end_run_of(self.store.trial(number), self.tracker, str(done.error))
            self.store.tell(number, TrialState.FAIL, error=str(done.error))
        elif done.error is not None:
            with database_errors(self.config):  # a worker that cannot reach the database raises them unpickled
                raise done.error
        elif done.result.state == RUNNING:
            self.store.give_back(number)
        else:
            if done.result.reason:
                warn(f"Trial {number} failed: {done.result.reason} The search goes on.")
            state = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}
            self.store.tell(number, state[done.result.state], done.result.value, done.result.reason)


class Teller:
    """Reports the progress of a search in a line, whenever it has changed."""

    def __init__(self, store: TrialStore, engine: Engine, clock: Clock) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._began = time.monotonic()
        self._done_before = store.progress().done
        self._told = ""

    def line(self, progress: SearchProgress) -> str:
        """Return the line: trials done, pruned, failed and running, the best so far, and the time left."""
        # If earlier calls asked for more trials, more may be done than this call asks for.
        asked = f" of {self._store.asked}" if progress.done <= self._store.asked else ""
        line = f"Trials: {progress.done}{asked} done"
        if progress.done:
            line += f" ({progress.pruned} pruned, {progress.failed} failed)"
        if not self._engine.is_local:
            workers = self._engine.workers()
            line += f", {min(self._engine.running(), workers)} running on {workers} workers"
        if progress.best is not None and progress.best.value is not None:
            line += f", best val macro AP {progress.best.value:.3f} (trial {progress.best.number})"
        return f"{line}{self._time_left(progress.done)}."

    def _time_left(self, done: int) -> str:
        here = done - self._done_before
        if here <= 0 or done >= self._store.asked:
            return ""
        left = (time.monotonic() - self._began) / here * (self._store.asked - done)
        limit = self._clock.left()
        left = left if limit is None else min(left, limit)
        return f", about {left / _MINUTE_S:.0f} min left" if left >= _MINUTE_S else f", about {left:.0f} s left"

    def say_if_changed(self) -> None:
        """Print the line unless nothing has changed since the last one."""
        progress = self._store.progress()
        state = f"{progress.done} {progress.best.number if progress.best else ''}"
        if state != self._told:
            say(self.line(progress), "bold")
            self._told = state


def end_lost_runs(store: TrialStore, tracker: Tracker) -> None:
    """End the runs of trials that were lost and that no other trial continued, and of their pretrainings."""
    lost = store.ended_with_workers()
    numbers = {trial.number for trial in lost}
    continued = {run_of(trial) for trial in store.trials() if trial.number not in numbers}
    for trial in lost:
        if run_of(trial) not in continued:
            _end_run_of(trial, tracker, LOST if is_lost(trial) else LEFT_ALONE)


def _end_run_of(trial: FrozenTrial, tracker: Tracker, reason: str) -> None:
    """End the run of a trial whose worker could not."""
    if stored := stored_run(run_of(trial), tracker):
        end_lost_run(stored, tracker, reason)


def retrain_best(
    config: TuneConfig,
    space: Space,
    found: SearchResults,
    dataset: PreparedDataset,
    engine: Engine,
    tracker: Tracker,
    shared: Run,
) -> StoredRun | None:
    """Train the best settings once more and evaluate them on test, unless that is done.

    Returns:
        None where the training failed.
    """
    best = space.settings(found.best)
    place = Place(Path(config.model).stem, {"tuned": search_name(config)}, best.seed, best.fold)
    cell = cell_of(place, best, dataset)
    say("Retraining the best settings, to evaluate them on test:")
    trainings = trainings_of([cell], {dataset.digest: place_of(dataset)})
    standing = train_cells(trainings, engine, tracker, shared.id, telling=False)
    done = standing.done.get(cell.key)
    if done is None:
        warn("The best settings could not be retrained: see the run above.")
        return None
    shared.set_tags({"retrained_run": done.run.id})
    shared.log_metrics({name: done.metrics[name] for name in _RETRAINED_METRICS if name in done.metrics})
    return done
