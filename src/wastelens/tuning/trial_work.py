"""Trials of ``tune`` on an engine, on train and val alone, each in a child run; and the retraining of the best."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from wastelens.config.train import TrainConfig
from wastelens.config.tune import COMPLETE, FAILED, PRUNED, RUNNING, TuneConfig
from wastelens.data.prepared.copies import DatasetPlace, place_of, send_copy
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.engine.task import Done, Engine, Task, WorkerLost
from wastelens.errors import (
    BalanceError,
    ConfigError,
    DatasetLacking,
    NonFiniteLossError,
    RunError,
    StoppedEarly,
    StoreUnreachable,
)
from wastelens.experiment.finished_runs import find_run
from wastelens.experiment.fitting import Fitting, Start, ready_to_train, with_encoder
from wastelens.experiment.pretrain_one import pretrain_one
from wastelens.experiment.resuming import checkpoint_of, has_checkpoint, keeper_of
from wastelens.models.backend import forget_networks, is_out_of_memory, load_backend
from wastelens.studies.cell_work import CELL, data_folder_here, train_cells, trainings_of
from wastelens.studies.cells import cell_of, configuration_key
from wastelens.studies.results import Place
from wastelens.system.console import say, warn
from wastelens.tracking.tracker import Run, StoredRun, Tracker
from wastelens.training.checkpoint import CHECKPOINT_FOLDER, Progress
from wastelens.tuning.database import database_errors
from wastelens.tuning.results import LEFT_ALONE, LOST, SearchResults
from wastelens.tuning.search import may_prune_at
from wastelens.tuning.space import Space, Values
from wastelens.tuning.trials import (
    ERROR,
    RUN_ID,
    STOPPED,
    WORKER,
    SearchProgress,
    TrialStore,
    is_lost,
    run_of,
    search_name,
)

STATE, TRIAL_RUN = "state", "trial_run"
INTERRUPTED = "it was interrupted: the next call continues it"
_LONGEST_REASON = 500
_MINUTE_S = 60.0
_RETRAINED_METRICS = ("test_macro_ap", "test_macro_ap_low", "test_macro_ap_high", "gain_over_controls")


@dataclass(frozen=True)
class TrialJob:
    """A trial as a task.

    Attributes:
        config: of the search.
        trial: Optuna's, to which epochs are reported.
        values: to try.
        is_defaults: whether these are the defaults, which no pruner ends.
        dataset: to train on.
        search_run: the run of the search.
        until: when the trial ends, in seconds since 1970; None for no limit.
    """

    config: TuneConfig
    trial: Trial
    values: Values
    is_defaults: bool
    dataset: DatasetPlace
    search_run: str
    until: float | None


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended: COMPLETE with its value, PRUNED, FAILED with the reason, or RUNNING where it is to go on."""

    state: str
    value: float | None = None
    reason: str = ""


class _TrialFailed(Exception):  # noqa: N818  a state, no error
    """A trial failed, for this reason; raised within ``Tracker.start``, it ends the run as FAILED."""


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


def do_trial(job: TrialJob, tracker: Tracker) -> TrialEnd:
    """Train with a trial's values, in whatever process the engine chose.

    Continue the run of the same trial that was interrupted, by a worker's death too.

    Raises:
        ConfigError: even the defaults cannot be trained.
    """
    load_backend()
    try:
        with database_errors(job.config):
            return _trained(job, tracker)
    except StoppedEarly:
        return TrialEnd(RUNNING if job.is_defaults else PRUNED)
    except _TrialFailed as failed:
        return TrialEnd(FAILED, reason=str(failed))
    finally:
        forget_networks()


def _trained(job: TrialJob, tracker: Tracker) -> TrialEnd:
    """Do a trial; see :func:`do_trial`."""
    trial, config = job.trial, job.config
    trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
    dataset, data_folder = job.dataset.opened(), data_folder_here(config.data_folder)
    reports = _Reports(trial)
    resume = ""
    if (before := _stored(run_of(_in_database(trial)), tracker)) is not None:
        if (before.status, before.tags.get(STATE)) == ("FINISHED", COMPLETE):  # but Optuna was not told any more
            trial.set_user_attr(RUN_ID, before.run.id)
            reports.of_run(before.run)
            return TrialEnd(COMPLETE, before.metrics["val_macro_ap"])
        if has_checkpoint(before.run, data_folder):
            resume = before.run.id
        else:
            _end_lost_run(before, tracker, LOST)
    tags = {
        "step": "trial",
        "study": job.search_run,
        "trial": trial.number,
        "defaults": job.is_defaults,
        STATE: RUNNING,
        "model": Space(config).defaults.model,
        "dataset": job.dataset.name,
        "dataset_digest": job.dataset.digest,
        **({ERROR: "", STOPPED: ""} if resume else {}),
    }
    name = f"trial {trial.number}{' defaults' if job.is_defaults else ''}"
    with tracker.start(name, resume=resume, tags=tags) as tracked:
        trial.set_user_attr(RUN_ID, tracked.id)
        clock = Clock(None if job.until is None else job.until - time.time())
        work = _TrialRun(job, tracker, dataset, tracked, data_folder, clock, reports)
        return work.run(resumes=bool(resume))


def _in_database(trial: Trial) -> FrozenTrial:
    """Return a trial as it is in the database: a task that runs again has it as it was when the task was made."""
    return trial.study.get_trials(deepcopy=False)[trial.number]


def _stored(run_id: str, tracker: Tracker) -> StoredRun | None:
    """Return a trial's run; None where it has none, or somebody deleted it."""
    if not run_id:
        return None
    try:
        return tracker.stored(run_id)
    except StoreUnreachable:
        raise
    except RunError:
        return None


class _Reports:
    """Reports of a trial's epochs to Optuna, each once, also where the trial began in another process."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._known = set(_in_database(trial).intermediate_values)

    def epoch(self, epoch: int, best_value: float) -> None:
        """Report the best value up to an epoch."""
        if epoch in self._known:
            return
        try:
            self._trial.report(best_value, epoch)
        except UpdateFinishedTrialError:  # its coordinator, which was interrupted, gave it back
            raise KeyboardInterrupt from None

    def of_run(self, run: Run, epochs: int | None = None) -> None:
        """Report the epochs that a run logged before, the first of them or all."""
        best = float("-inf")
        for row in run.metric_history(["val_macro_ap"])[:epochs]:
            best = max(best, row["val_macro_ap"])
            self.epoch(int(row["epoch"]), best)


@dataclass
class _TrialRun:
    job: TrialJob
    tracker: Tracker
    dataset: PreparedDataset
    tracked: Run
    data_folder: Path
    clock: Clock
    reports: _Reports

    def run(self, *, resumes: bool) -> TrialEnd:
        """Train, and log how the trial ended."""
        job, tracked, trial = self.job, self.tracked, self.job.trial
        started = time.monotonic()
        try:
            tracked.log_parameters(job.values)
            config = Space(job.config).settings(job.values).model_copy(update={"data_folder": self.data_folder})
            tracked.log_parameters({"seed": config.seed, "fold": config.fold})
            progress = self._train(config, resumes=resumes)
        except StoppedEarly:  # by the pruner or the time limit
            tracked.log_metrics({"minutes": (time.monotonic() - started) / 60})
            tracked.set_tags({STATE: PRUNED, **trial.user_attrs.get(STOPPED, {})})
            raise
        except KeyboardInterrupt:
            with contextlib.suppress(RunError):
                tracked.set_tags({STATE: FAILED, ERROR: INTERRUPTED})
            raise
        except Exception as error:
            # Other settings may work; a wrong configuration of the defaults affects every trial.
            wrong_settings = isinstance(error, ConfigError) and not job.is_defaults
            of_this_trial = wrong_settings or isinstance(error, NonFiniteLossError | BalanceError | MemoryError)
            if not (of_this_trial or is_out_of_memory(error)):
                raise
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            tracked.set_tags({STATE: FAILED, ERROR: reason})
            raise _TrialFailed(reason) from None
        closing = {"val_macro_ap": progress.best_value, "best_epoch": progress.best_epoch}
        closing["minutes"] = (time.monotonic() - started) / 60
        tracked.log_metrics(closing, step=progress.epochs_done)
        tracked.set_tags({STATE: COMPLETE})
        tracked.delete(CHECKPOINT_FOLDER)
        return TrialEnd(COMPLETE, progress.best_value)

    def _train(self, config: TrainConfig, *, resumes: bool) -> Progress:
        trial = self.job.trial
        tables = self.dataset.learning(config.fold)
        start = self._pretrained(ready_to_train(config, self.tracker, self.dataset), config)
        self.tracked.set_tags(start.tags)
        epochs = config.fit.epochs + config.fine_tune.epochs

        def after_epoch(epoch: int, best_value: float) -> None:
            self.reports.epoch(epoch, best_value)
            if epoch == epochs:  # it is complete, but Hyperband would still prune it
                return
            if not self.job.is_defaults and may_prune_at(epoch, self.job.config) and trial.should_prune():
                raise StoppedEarly
            if self.clock.is_up():
                trial.set_user_attr(STOPPED, {STOPPED: "timeout"})
                raise StoppedEarly

        checkpoint = checkpoint_of(self.tracked, self.data_folder) if resumes else None
        if checkpoint is not None:
            self.reports.of_run(self.tracked, checkpoint.progress.epochs_done)
        keeper = keeper_of(self.tracked, self.data_folder, checkpoint)
        _, progress = Fitting(start, self.dataset, tables, self.tracked, keeper, after_epoch).run(checkpoint)
        return progress

    def _pretrained(self, start: Start, config: TrainConfig) -> Start:
        """Add the encoder that the settings require, from a finished run with equal settings if there is one."""
        if start.config.pretrained != "auto":
            return start
        wanted = start.config.pretraining()
        key = configuration_key(wanted, self.dataset)
        known = self.tracker.finished({CELL: key, "dataset_digest": self.dataset.digest})
        if known:
            run_id = known[0].run.id
        else:
            tags = {CELL: key, TRIAL_RUN: self.tracked.id}
            begun = [run for run in self.tracker.found(tags) if has_checkpoint(run.run, self.data_folder)]
            wanted = wanted.model_copy(update={"resume": begun[0].run.id if begun else ""})
            run_id = pretrain_one(wanted, self.tracker, tags=tags, dataset=self.dataset).run_id
        return with_encoder(start, find_run(self.tracker, run_id, self.dataset, wanted.fold, ["pretrain"]))


class Clock:
    """The time limit of a call."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds

    def is_up(self) -> bool:
        """Return whether the time is over."""
        return self._until is not None and time.monotonic() >= self._until

    def left(self) -> float | None:
        """Return the seconds left; None for no limit."""
        return None if self._until is None else max(self._until - time.monotonic(), 0.0)


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
            line += f", best val_macro_ap {progress.best.value:.3f} (trial {progress.best.number})"
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
    if stored := _stored(run_of(trial), tracker):
        _end_lost_run(stored, tracker, reason)


def _end_lost_run(stored: StoredRun, tracker: Tracker, reason: str) -> None:
    if stored.tags.get(STATE) != FAILED:
        stored.run.set_tags({STATE: FAILED, ERROR: reason})
    for run in (stored, *tracker.found({TRIAL_RUN: stored.run.id})):
        if run.status == "RUNNING":
            tracker.finish(run.run.id, "KILLED")


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
