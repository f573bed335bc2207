"""Who trains what, where several processes share a study: the tracking server is the only place they meet.

A cell is claimed by writing a parameter of a ledger, which MLflow lets be written once. The ledger is one for all
studies of a dataset, as cells are. Workers that are alive say so in a tag of it, again and again; what a dead one had
claimed is claimed again, under the next number.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from wastelens.system.processes import is_of_here, name_of, runs_here
from wastelens.tracking.tracker import Run, StoredRun, Tracker

CELL, ATTEMPT, ABANDONED = "cell", "attempt", "abandoned"
_BEAT_S = 15.0
_ENDED = "ended"
_WORKER = "worker "
_LONGEST_REASON = 250  # characters; some stores take no longer parameters


@dataclass(frozen=True)
class Task:
    """Something that one process is to do once: a cell's training, or a pretraining that cells share.

    Attributes:
        key: the digest of its configuration and dataset, by which its run is recognised anywhere in the store.
        label: what it is called.
        needs: the key of the task that comes before it, or "".
    """

    key: str
    label: str
    needs: str = ""


@dataclass(frozen=True)
class Offer:
    """A task that is nobody's.

    Attributes:
        attempt: which one this is, from 1.
        earlier: the run of an earlier attempt that nobody writes any more, to go on with; or "".
        abandoned: runs of earlier attempts that nobody goes on with.
    """

    attempt: int
    earlier: str = ""
    abandoned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Standing:
    """How things stand with all tasks: each key is in one of these.

    Attributes:
        done: key → its finished run.
        failed: key → the run that failed since this process began, or "" where it failed before it had one.
        taken: keys that another process is working on.
        free: key → what there is to claim.
    """

    done: Mapping[str, StoredRun]
    failed: Mapping[str, str]
    taken: Sequence[str]
    free: Mapping[str, Offer]


@dataclass
class _Silence:
    """A record of what a worker elsewhere has said last, and for how many seconds nothing else since."""

    said: str
    looked_at: float
    seconds: float = 0.0


@dataclass
class Claims:
    """The claims of a study's workers, as one of them sees them.

    Attributes:
        tracker: the store.
        ledger: the run in which they claim cells and say that they are alive.
        digests: of the datasets that its cells are of.
        timeout_s: how long a worker elsewhere may say nothing before it is taken for dead.
    """

    tracker: Tracker
    ledger: Run
    digests: Sequence[str]
    timeout_s: float
    worker: str = field(default_factory=lambda: name_of(os.getpid()))
    _heard: dict[str, _Silence] = field(default_factory=dict)
    _over_before: dict[str, int] = field(default_factory=dict)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Tell the others, while this lasts, that this process is at work."""
        ended = threading.Event()

        def say(what: object) -> None:
            with contextlib.suppress(Exception):  # whatever ails the server, the next word may reach it
                self.ledger.set_tags({f"{_WORKER}{self.worker}": what})

        def beat() -> None:
            for number in count():
                say(number)
                if ended.wait(_BEAT_S):
                    return

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join(timeout=_BEAT_S)
            say(_ENDED)

    def standing(self, tasks: Sequence[Task]) -> Standing:
        """How things stand with these tasks now."""
        runs = self._runs()
        ledger = self.tracker.stored(self.ledger.id)
        done: dict[str, StoredRun] = {}
        failed: dict[str, str] = {}
        taken: list[str] = []
        free: dict[str, Offer] = {}
        for task in tasks:
            own = runs.get(task.key, [])
            attempts = _attempts(task, ledger.parameters)
            last = _of_attempt(own, len(attempts))
            gave_up = _gave_up(task, len(attempts)) in ledger.parameters or _has_status(last, "FAILED")
            killed = _has_status(last, "KILLED")
            # What was over when this process began may be tried again; what fails from then on, by anybody, may not.
            over = len(attempts) if gave_up or killed else max(len(attempts) - 1, 0)
            before = self._over_before.setdefault(task.key, over)
            if finished := [run for run in own if run.status == "FINISHED"]:
                done[task.key] = finished[-1]  # the first that was
            elif gave_up and len(attempts) > before:
                failed[task.key] = last.run.id if last else ""
            elif attempts and not gave_up and not killed and self._works(attempts[-1], ledger):
                taken.append(task.key)
            else:
                free[task.key] = self._offer(own, attempts, ledger)
        return Standing(done, failed, taken, free)

    def claim(self, task: Task, offer: Offer) -> bool:
        """Take a task, unless another process was faster."""
        return self.tracker.settle(self.ledger.id, _taken(task, offer.attempt), self.worker) == self.worker

    def give_up(self, task: Task, offer: Offer, reason: str) -> None:
        """Tell that a claimed task failed, also where it failed before it had a run."""
        self.tracker.settle(self.ledger.id, _gave_up(task, offer.attempt), reason[:_LONGEST_REASON])

    def _runs(self) -> dict[str, list[StoredRun]]:
        """Key → the runs that have it, the newest first."""
        runs: dict[str, list[StoredRun]] = {}
        for digest in self.digests:
            for run in self.tracker.found({"dataset_digest": digest}):
                if key := run.tags.get(CELL):
                    runs.setdefault(key, []).append(run)
        return runs

    def _offer(self, runs: Sequence[StoredRun], attempts: Sequence[str], ledger: StoredRun) -> Offer:
        """Return the next attempt; it goes on with a run only where it is sure that nobody writes that any more.

        A worker elsewhere that has merely been silent may wake up, and would write into the same run.
        """
        unfinished = [run for run in runs if run.status in ("RUNNING", "KILLED") and ABANDONED not in run.tags]
        left = [run.run.id for run in unfinished if run.status == "KILLED" or self._gone(run, attempts, ledger)]
        earlier = left[0] if left else ""
        abandoned = tuple(run.run.id for run in unfinished if run.run.id != earlier)
        return Offer(len(attempts) + 1, earlier, abandoned)

    def _gone(self, run: StoredRun, attempts: Sequence[str], ledger: StoredRun) -> bool:
        """Whether the process that wrote a run has surely ended."""
        attempt = int(run.tags.get(ATTEMPT, "0"))
        if not 1 <= attempt <= len(attempts):
            return False
        worker = attempts[attempt - 1]
        said = ledger.tags.get(f"{_WORKER}{worker}", "")
        return worker == self.worker or said == _ENDED or (is_of_here(worker) and not runs_here(worker))

    def _works(self, worker: str, ledger: StoredRun) -> bool:
        """Whether a worker is alive: a process of this machine that runs, or one elsewhere that said so lately."""
        said = ledger.tags.get(f"{_WORKER}{worker}", "")
        # Whoever asks is at no task: what it once claimed and is not done was given up before there was a run.
        if worker == self.worker or said == _ENDED:
            return False
        if is_of_here(worker):
            return runs_here(worker)
        now = time.monotonic()
        heard = self._heard.get(worker)
        if heard is None or heard.said != said:
            self._heard[worker] = _Silence(said, now)
            return True
        # Time in which nobody looked, as the server was away or this machine slept, is no silence of the worker's.
        heard.seconds += min(now - heard.looked_at, 2 * _BEAT_S)
        heard.looked_at = now
        return heard.seconds < self.timeout_s


def _attempts(task: Task, parameters: Mapping[str, str]) -> list[str]:
    """Return the workers that have claimed a task, one after another."""
    workers: list[str] = []
    while worker := parameters.get(_taken(task, len(workers) + 1)):
        workers.append(worker)
    return workers


def _of_attempt(runs: Sequence[StoredRun], attempt: int) -> StoredRun | None:
    """Return the run of this attempt; None where it had none yet."""
    return next((run for run in runs if run.tags.get(ATTEMPT) == str(attempt)), None)


def _has_status(run: StoredRun | None, status: str) -> bool:
    return run is not None and run.status == status


def _taken(task: Task, attempt: int) -> str:
    return f"taken.{task.key}.{attempt}"


def _gave_up(task: Task, attempt: int) -> str:
    return f"failed.{task.key}.{attempt}"
