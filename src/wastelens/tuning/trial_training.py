"""Train one trial of ``tune`` as a task, on train and val alone, in a child run of the search."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial

from wastelens.config.train import TrainConfig
from wastelens.config.tune import COMPLETE, FAILED, PRUNED, RUNNING, TuneConfig
from wastelens.data.prepared.copies import DatasetPlace
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import (
    BalanceError,
    ConfigError,
    NonFiniteLossError,
    RunError,
    StoppedEarly,
    StoreUnreachable,
)
from wastelens.experiment.finished_runs import find_run
from wastelens.experiment.fitting import Fitting, Start, ready_to_train, seen_by, with_encoder
from wastelens.experiment.pretrain_one import pretrain_one
from wastelens.experiment.resuming import checkpoint_of, has_checkpoint, keeper_of
from wastelens.models.backend import forget_networks, is_out_of_memory, load_backend
from wastelens.studies.cell_training import CELL, data_folder_here
from wastelens.studies.cells import configuration_key
from wastelens.system.text import reason_of
from wastelens.tracking.metric_names import log_closing
from wastelens.tracking.tracker import Run, StoredRun, Tracker
from wastelens.training.checkpoint import CHECKPOINT_FOLDER, Progress
from wastelens.tuning.database import database_errors
from wastelens.tuning.results import LOST
from wastelens.tuning.search import may_prune_at
from wastelens.tuning.space import Space, Values
from wastelens.tuning.trials import (
    ERROR,
    RUN_ID,
    STOPPED,
    WORKER,
    run_of,
)

STATE, TRIAL_RUN = "state", "trial_run"
INTERRUPTED = "it was interrupted: the next call continues it"
_LONGEST_REASON = 500


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
    if (before := stored_run(run_of(_in_database(trial)), tracker)) is not None:
        if (before.status, before.tags.get(STATE)) == ("FINISHED", COMPLETE):  # but Optuna was not told any more
            trial.set_user_attr(RUN_ID, before.run.id)
            reports.of_run(before.run)
            return TrialEnd(COMPLETE, before.metrics["val/macro_ap"])
        if has_checkpoint(before.run, data_folder):
            resume = before.run.id
        else:
            end_lost_run(before, tracker, LOST)
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


def stored_run(run_id: str, tracker: Tracker) -> StoredRun | None:
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
        for row in run.metric_history(["val/macro_ap"])[:epochs]:
            best = max(best, row["val/macro_ap"])
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
            reason = reason_of(error, _LONGEST_REASON)
            tracked.set_tags({STATE: FAILED, ERROR: reason})
            raise _TrialFailed(reason) from None
        closing = {"val/macro_ap": progress.best_value, "best_epoch": progress.best_epoch}
        closing["minutes"] = (time.monotonic() - started) / 60
        log_closing(tracked, closing, ["val/macro_ap"], progress.epochs_done)
        tracked.set_tags({STATE: COMPLETE})
        tracked.delete(CHECKPOINT_FOLDER)
        return TrialEnd(COMPLETE, progress.best_value)

    def _train(self, config: TrainConfig, *, resumes: bool) -> Progress:
        trial = self.job.trial
        self.dataset = seen_by(config, self.tracker, self.dataset)
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


def end_lost_run(stored: StoredRun, tracker: Tracker, reason: str) -> None:
    if stored.tags.get(STATE) != FAILED:
        stored.run.set_tags({STATE: FAILED, ERROR: reason})
    for run in (stored, *tracker.found({TRIAL_RUN: stored.run.id})):
        if run.status == "RUNNING":
            tracker.finish(run.run.id, "KILLED")
