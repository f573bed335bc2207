"""Who trains what, where several processes share a study: the tracking server is the only place they meet.

A cell is claimed by writing a parameter of the study's ledger, which MLflow lets be written once. Workers that are
alive say so in a tag of it, again and again; what a dead one had claimed is claimed anew, under the next number.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import psutil

from wastelens.errors import RunError
from wastelens.tracking import Run, StoredRun, Tracker

CELL, ATTEMPT = "cell", "attempt"
_BEAT_S = 15.0
_ENDED = "ended"
_WORKER = "worker "
_NOT_IN_KEYS = re.compile(r"[^\w.\- :/]+")


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
class Claimed:
    """A task that is this process's to do.

    Attributes:
        attempt: which one this is, from 1.
        earlier: the run of an attempt that was interrupted, or "".
    """

    attempt: int
    earlier: str


@dataclass(frozen=True)
class Standing:
    """How things stand with all tasks: each key is in one of these.

    Attributes:
        done: key → its finished run.
        failed: key → the run that failed since this process began.
        taken: keys that another process is working on.
        free: key → what there is to claim.
    """

    done: Mapping[str, StoredRun]
    failed: Mapping[str, StoredRun]
    taken: Sequence[str]
    free: Mapping[str, Claimed]


@dataclass
class Claims:
    """The claims of one study, as one of its workers sees them.

    Attributes:
        tracker: the store.
        shared: the run that all workers of the study share.
        ledger: the run in which they claim cells and say that they are alive.
        digests: of the datasets that its runs are of.
        timeout_s: how long a worker elsewhere may say nothing before it is taken for dead.
    """

    tracker: Tracker
    shared: Run
    ledger: Run
    digests: Sequence[str]
    timeout_s: float
    worker: str = field(default_factory=lambda: _name_of(os.getpid()))
    began: float = field(default_factory=time.time)
    _heard: dict[str, tuple[str, float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def alive(self) -> Iterator[None]:
        """Tell the others, while this lasts, that this process is at work."""
        ended = threading.Event()

        def beat() -> None:
            for number in count():
                with contextlib.suppress(RunError):  # a server that is away for a while hears the next one
                    self.ledger.set_tags({f"{_WORKER}{self.worker}": number})
                if ended.wait(_BEAT_S):
                    return

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join(timeout=_BEAT_S)
            with contextlib.suppress(RunError):
                self.ledger.set_tags({f"{_WORKER}{self.worker}": _ENDED})

    def standing(self, tasks: Sequence[Task]) -> Standing:
        """How things stand with these tasks now."""
        runs = self._runs()
        ledger = self.tracker.stored(self.ledger.id)
        done: dict[str, StoredRun] = {}
        failed: dict[str, StoredRun] = {}
        taken: list[str] = []
        free: dict[str, Claimed] = {}
        for task in tasks:
            own = runs.get(task.key, [])
            if finished := [run for run in own if run.status == "FINISHED"]:
                done[task.key] = finished[-1]  # the first that was
                continue
            attempts = self._attempts(task, ledger.parameters)
            last = self._run_of_attempt(own, len(attempts))
            if last and last.status == "FAILED" and last.ended_at >= self.began:
                failed[task.key] = last
            elif attempts and not (last and last.status in ("FAILED", "KILLED")) and self._works(attempts[-1], ledger):
                taken.append(task.key)
            else:
                interrupted = last and last.status in ("RUNNING", "KILLED")
                free[task.key] = Claimed(len(attempts) + 1, last.run.id if last and interrupted else "")
        return Standing(done, failed, taken, free)

    def claim(self, task: Task, offered: Claimed) -> bool:
        """Take a task, unless another process was faster."""
        return self.tracker.settle(self.ledger.id, _parameter(task, offered.attempt), self.worker) == self.worker

    def _runs(self) -> dict[str, list[StoredRun]]:
        """Key → the runs that have it, the newest first."""
        runs: dict[str, list[StoredRun]] = {}
        for digest in self.digests:
            for run in self.tracker.found({"dataset_digest": digest}):
                if key := run.tags.get(CELL):
                    runs.setdefault(key, []).append(run)
        return runs

    def _attempts(self, task: Task, parameters: Mapping[str, str]) -> list[str]:
        """The workers that have claimed a task, one after another."""
        names = (parameters.get(_parameter(task, attempt), "") for attempt in count(1))
        workers: list[str] = []
        for name in names:
            if not name:
                return workers
            workers.append(name)
        return workers

    def _run_of_attempt(self, runs: Sequence[StoredRun], attempt: int) -> StoredRun | None:
        """The run of this study's last attempt; None where it had none yet."""
        mine = [
            run for run in runs if run.tags.get("study") == self.shared.id and run.tags.get(ATTEMPT) == str(attempt)
        ]
        return mine[0] if mine else None

    def _works(self, worker: str, ledger: StoredRun) -> bool:
        """Whether a worker is alive: a process of this machine that runs, or one elsewhere that said so lately."""
        said = ledger.tags.get(f"{_WORKER}{worker}", "")
        # Whoever asks is at no task: what it once claimed and is not done was given up before there was a run.
        if worker == self.worker or said == _ENDED:
            return False
        host, pid, began = worker.split(":")
        if host == _host():
            return _runs_here(int(pid), int(began))
        before, since = self._heard.get(worker, ("", 0.0))
        if before != said or worker not in self._heard:
            self._heard[worker] = (said, time.monotonic())
            return True
        return time.monotonic() - since < self.timeout_s


def _parameter(task: Task, attempt: int) -> str:
    label = _NOT_IN_KEYS.sub("-", task.label)
    return f"taken.{label}.{task.key[:8]}.{attempt}"


def _host() -> str:
    return _NOT_IN_KEYS.sub("-", f"{socket.gethostname()}-{uuid.getnode():012x}").replace(":", "-")


def _name_of(pid: int) -> str:
    """A name that no other process ever has."""
    return f"{_host()}:{pid}:{int(psutil.Process(pid).create_time())}"


def _runs_here(pid: int, began: int) -> bool:
    try:
        process = psutil.Process(pid)
        return int(process.create_time()) == began and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
