"""Trials of ``tune`` in this process, on train and val alone, each in a child run; and the retraining of the best."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from optuna.exceptions import TrialPruned
from optuna.trial import Trial

from wastelens.config.train import TrainConfig
from wastelens.config.tune import COMPLETE, FAILED, PRUNED, RUNNING, TuneConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import (
    BalanceError,
    ConfigError,
    EndsLater,
    NonFiniteLossError,
    RunError,
    StoreUnreachable,
    WastelensError,
)
from wastelens.experiment.finished_runs import find_run
from wastelens.experiment.fitting import Fitting, Start, ready_to_train, with_encoder
from wastelens.experiment.pretrain_one import pretrain_one
from wastelens.models.backend import forget_networks, is_out_of_memory, load_backend
from wastelens.studies.cell_work import train_cells
from wastelens.studies.cells import cell_of, configuration_key
from wastelens.studies.claims import Claims
from wastelens.studies.results import Place
from wastelens.system.console import say, warn
from wastelens.tracking.patient import PatientTracker
from wastelens.tracking.tracker import Run, StoredRun, Tracker
from wastelens.training.checkpoint import Progress
from wastelens.tuning.results import LEFT_ALONE, LOST, SearchResults
from wastelens.tuning.space import Space, Values
from wastelens.tuning.trials import (
    ERROR,
    RUN_ID,
    STOPPED,
    SearchProgress,
    TrialFailed,
    TrialStore,
    is_lost,
    search_name,
)

STATE, TRIAL_RUN = "state", "trial_run"
INTERRUPTED = "it was interrupted: the next call repeats it"
_CELL = "cell"  # studies recognise an encoder by it too
_LONGEST_REASON = 500
_MINUTE_S = 60.0
_WAITING = "unlogged"
_RETRAINED_METRICS = ("test_macro_ap", "test_macro_ap_low", "test_macro_ap_high", "gain_over_controls")


class DefaultsNotDone(WastelensError):  # noqa: N818  a state, not an error
    """The time limit ended the trial of the defaults: the next call repeats it, as all others are judged by it."""


@dataclass(frozen=True)
class Trials:
    """Runs the trials of a search; search_run: the id of its run; time_is_up: whether a trial ends after this epoch."""

    space: Space
    store: TrialStore
    dataset: PreparedDataset
    tracker: Tracker
    search_run: str
    time_is_up: Callable[[], bool]

    def run(self, trial: Trial) -> float:
        """Train with the suggested values and return the best val_macro_ap.

        Raises:
            TrialPruned: it was ended early.
            TrialFailed: it failed; the search goes on.
            DefaultsNotDone: it is the trial of the defaults, and the time is up.
            ConfigError: even the defaults cannot be trained.
        """
        defaults = self.store.is_defaults(trial)
        values = self.store.suggest(trial)
        name = f"trial {trial.number}{' defaults' if defaults else ''}"
        tags = {
            "step": "trial",
            "study": self.search_run,
            "trial": trial.number,
            "defaults": defaults,
            STATE: RUNNING,
            "model": self.space.defaults.model,
            "dataset": self.dataset.name,
            "dataset_digest": self.dataset.digest,
        }
        try:
            with self.tracker.start(name, tags=tags) as tracked:
                trial.set_user_attr(RUN_ID, tracked.id)
                tracked.log_parameters(values)
                return self._watched(trial, values, tracked)
        except EndsLater:
            self.tracker.finish(trial.user_attrs[RUN_ID], "KILLED")  # like MLflow's own storage for Optuna
            raise (DefaultsNotDone if defaults else TrialPruned) from None
        finally:
            forget_networks()

    def _watched(self, trial: Trial, values: Values, tracked: Run) -> float:
        """Train, and log how the trial ended."""
        started = time.monotonic()
        try:
            config = self.space.settings(values)
            tracked.log_parameters({"seed": config.seed, "fold": config.fold})
            progress = self._train(trial, config, tracked)
        except EndsLater:  # of the pruner or the time limit
            tracked.log_metrics({"minutes": (time.monotonic() - started) / 60})
            tracked.set_tags({STATE: PRUNED, **trial.user_attrs.get(STOPPED, {})})
            raise
        except KeyboardInterrupt:
            with contextlib.suppress(RunError):  # if MLflow's store is unreachable, the next call logs it
                tracked.set_tags({STATE: FAILED, ERROR: INTERRUPTED})
            raise
        except Exception as error:
            # Other settings may work; a wrong configuration of the defaults affects every trial.
            wrong_settings = isinstance(error, ConfigError) and not self.store.is_defaults(trial)
            of_this_trial = wrong_settings or isinstance(error, NonFiniteLossError | BalanceError | MemoryError)
            if not (of_this_trial or is_out_of_memory(error)):
                raise
            reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
            trial.set_user_attr(ERROR, reason)
            tracked.set_tags({STATE: FAILED, ERROR: reason})
            warn(f"Trial {trial.number} failed: {reason} The search goes on.")
            raise TrialFailed(reason) from None
        closing = {"val_macro_ap": progress.best_value, "best_epoch": progress.best_epoch}
        closing["minutes"] = (time.monotonic() - started) / 60
        tracked.log_metrics(closing, step=progress.epochs_done)
        tracked.set_tags({STATE: COMPLETE})
        return progress.best_value

    def _train(self, trial: Trial, config: TrainConfig, tracked: Run) -> Progress:
        tables = self.dataset.learning(config.fold)
        start = self._pretrained(ready_to_train(config, self.tracker, self.dataset), tracked.id)
        tracked.set_tags(start.tags)
        epochs = config.fit.epochs + config.fine_tune.epochs

        def after_epoch(epoch: int, best_value: float) -> None:
            trial.report(best_value, epoch)
            if epoch == epochs:  # it is complete, but Hyperband would still prune it
                return
            if not self.store.is_defaults(trial) and self.store.should_prune(trial, epoch):
                raise EndsLater
            if self.time_is_up():
                trial.set_user_attr(STOPPED, {STOPPED: "timeout"})
                raise EndsLater

        _, progress = Fitting(start, self.dataset, tables, tracked, after_epoch=after_epoch).run()
        return progress

    def _pretrained(self, start: Start, trial_run: str) -> Start:
        """Add the encoder that the settings require, from a finished run with equal settings if there is one."""
        if start.config.pretrained != "auto":
            return start
        wanted = start.config.pretraining()
        key = configuration_key(wanted, self.dataset)
        known = self.tracker.finished({_CELL: key, "dataset_digest": self.dataset.digest})
        tags = {_CELL: key, TRIAL_RUN: trial_run}
        run_id = known[0].run.id if known else pretrain_one(wanted, self.tracker, tags=tags).run_id
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


def do_trials(
    space: Space, store: TrialStore, dataset: PreparedDataset, tracker: Tracker, search_run: str, clock: Clock
) -> None:
    """Run trials in this process until none is left, and report progress after each."""
    load_backend()
    trials = Trials(space, store, dataset, tracker, search_run, clock.is_up)
    told = Teller(store, clock)

    def one(trial: Trial) -> float:
        told.say_if_changed()
        return trials.run(trial)

    end_lost_runs(store, tracker)
    with contextlib.suppress(DefaultsNotDone):
        store.work(one, clock.is_up)
    told.say_if_changed()


class Teller:
    """Reports the progress of a search in a line, whenever it has changed."""

    def __init__(self, store: TrialStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._began = time.monotonic()
        self._done_before = store.progress().done
        self._told = ""

    def line(self, progress: SearchProgress) -> str:
        """Return the line: trials done, pruned and failed, the best so far, and the time left."""
        # If earlier calls asked for more trials, more may be done than this call asks for.
        asked = f" of {self._store.asked}" if progress.done <= self._store.asked else ""
        line = f"Trials: {progress.done}{asked} done"
        if progress.done:
            line += f" ({progress.pruned} pruned, {progress.failed} failed)"
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
    """End the runs of trials whose workers died, and of their pretrainings, which would stay RUNNING."""
    for trial in store.ended_with_workers():
        if run_id := trial.user_attrs.get(RUN_ID):
            _end_lost_run(run_id, tracker, LOST if is_lost(trial) else LEFT_ALONE)
            for below in tracker.found({TRIAL_RUN: run_id}):
                if below.status == "RUNNING":
                    tracker.finish(below.run.id, "KILLED")


def _end_lost_run(run_id: str, tracker: Tracker, reason: str) -> None:
    try:
        stored = tracker.stored(run_id)
    except StoreUnreachable:
        raise
    except RunError:  # somebody deleted it
        return
    if stored.tags.get(STATE) != FAILED:
        stored.run.set_tags({STATE: FAILED, ERROR: reason})
    if stored.status not in ("FAILED", "KILLED"):  # FINISHED too, by a worker that was presumed dead and woke up
        tracker.finish(run_id, "FAILED")


def retrain_best(
    config: TuneConfig, space: Space, found: SearchResults, dataset: PreparedDataset, tracker: Tracker, shared: Run
) -> StoredRun | None:
    """Train the best settings once more and evaluate them on test, unless that is done; only one worker does it.

    Returns:
        None where the training failed.
    """
    best = space.settings(found.best)
    place = Place(Path(config.model).stem, {"tuned": search_name(config)}, best.seed, best.fold)
    cell = cell_of(place, best, dataset)
    patient = PatientTracker(tracker, config.data_folder / _WAITING)
    ledger = patient.ledger(f"claims of {dataset.name} {dataset.digest}")
    claims = Claims(patient, ledger, [dataset.digest], config.worker_timeout_s)
    say("Retraining the best settings, to evaluate them on test:")
    with claims.alive():
        standing = train_cells([cell], claims, patient, shared.id, telling=False)
    done = standing.done.get(cell.key)
    if done is None:
        warn("The best settings could not be retrained: see the run above.")
        return None
    shared.set_tags({"retrained_run": done.run.id})
    shared.log_metrics({name: done.metrics[name] for name in _RETRAINED_METRICS if name in done.metrics})
    return done
