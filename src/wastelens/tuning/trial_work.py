"""Trials one after another in this process, with lines on their progress."""

from __future__ import annotations

import contextlib
import time

from optuna.trial import Trial

from wastelens.config.tune import FAILED
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError, StoreUnreachable
from wastelens.models.backend import load_backend
from wastelens.system.console import say
from wastelens.tracking.tracker import Tracker
from wastelens.tuning.results import LEFT_ALONE, LOST
from wastelens.tuning.space import Space
from wastelens.tuning.trial import STATE, TRIAL_RUN, DefaultsNotDone, Trials
from wastelens.tuning.trials import ERROR, RUN_ID, SearchProgress, TrialStore, is_lost

_MINUTE_S = 60.0


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
        elapsed = time.monotonic() - self._began
        here = done - self._done_before
        if here <= 0 or done >= self._store.asked:
            return ""
        left = elapsed / here * (self._store.asked - done)
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
