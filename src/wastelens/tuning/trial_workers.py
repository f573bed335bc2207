"""Several processes on this machine that do the trials of one study, with its cores divided among them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

from wastelens.config.tune import TuneConfig
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import EndsLater, InputError, WastelensError
from wastelens.system import interrupts
from wastelens.system.console import progress_bar, warn
from wastelens.tuning.database import database_errors
from wastelens.tuning.space import Space
from wastelens.tuning.trial_work import Clock, Teller, do_trials
from wastelens.tuning.trials import TrialStore

_LOOK_S = 1.0
_END_S = 30.0
INTERRUPTED_STATUS = 130


class WorkersError(InputError):
    """All workers of a study died before it was done; each has said why."""


def work_in_processes(config: TuneConfig, store: TrialStore, study: str, clock: Clock) -> None:
    """Start ``workers`` processes, show how far they are, and wait for them.

    A worker that dies takes its trial with it; another does that again.

    Raises:
        WorkersError: all have died, and trials are left.
    """
    cores = sorted(_cores())
    start = multiprocessing.get_context("spawn")  # a fork would copy TensorFlow's threads in whatever state they are
    processes = [
        start.Process(
            target=_work, args=(config, study, _share(cores, number, config.workers), clock.left(), os.getpid())
        )
        for number in range(config.workers)
    ]
    told = Teller(store, clock)
    with _started(processes), progress_bar("Trials", store.asked) as bar:
        shown, dead = 0, set[int]()
        while any(process.is_alive() for process in processes):
            interrupts.check()
            time.sleep(_LOOK_S)
            dead |= _told_of_the_dead(processes, dead)
            standing = store.progress()
            done = min(standing.done, store.asked)
            bar.advance(done - shown)
            shown = done
            bar.show(told.line(standing))
    told.say_if_changed()
    dead |= _told_of_the_dead(processes, dead)  # the last of them may have died since
    with database_errors(config):
        store.fail_dead_local_trials()
        left = store.asked - store.progress().done
    if left > 0 and len(dead) == len(processes):
        raise WorkersError(f"All workers died, and {left} trials are left. The same command goes on with them.")


def _cores() -> set[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _share(cores: list[int], number: int, workers: int) -> list[int]:
    """Return a worker's cores; where there are more workers than cores, several have the same one."""
    return cores[number::workers] or [cores[number % len(cores)]]


@contextlib.contextmanager
def _started(processes: list[SpawnProcess]) -> Iterator[None]:
    """Start processes that end with this block, whatever ends it."""
    try:
        for process in processes:
            process.start()
        yield
    finally:
        begun = [process for process in processes if process.pid is not None]
        for process in begun:
            process.terminate()  # as Ctrl-C: the run of its trial is KILLED, and the trial is done again
        for process in begun:
            process.join(_END_S)
            process.kill()


def _told_of_the_dead(processes: list[SpawnProcess], known: set[int]) -> set[int]:
    """Say which workers have died; returns their numbers."""
    dead = {number for number, process in enumerate(processes) if process.exitcode not in (None, 0)}
    for number in dead - known:
        code = processes[number].exitcode or 0
        how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        others = "The others go on, and do its trial again." if len(dead) < len(processes) else "It was the last."
        warn(f"Worker {number + 1} {how}. {others}")
    return dead


def _work(config: TuneConfig, study: str, cores: list[int], seconds: float | None, parent: int) -> None:
    """One worker: the same trials as without others, on its share of the cores."""
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(len(cores))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    os.environ.pop("MLFLOW_RUN_ID", None)  # that run is the study's, and its parent's
    interrupts.listen()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    with Path(os.devnull).open("w", encoding="utf-8") as silence:
        spoken, sys.stdout = sys.stdout, silence  # bars of several processes at once are of no use to anybody
        try:
            _do_trials(config, study, Clock(seconds))
        except (WastelensError, OSError) as error:  # of a full disk, too
            sys.stdout = spoken
            warn(str(error))
            sys.exit(error.exit_status if isinstance(error, WastelensError) else WorkersError.exit_status)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED_STATUS)


def _do_trials(config: TuneConfig, study: str, clock: Clock) -> None:
    from wastelens.tracking.mlflow_tracker import MlflowTracker

    dataset = open_dataset(config.dataset, config.data_folder)
    space = Space(config)
    store = TrialStore(config, space, dataset.digest)
    tracker = MlflowTracker()
    ended_by: BaseException | None = None
    # The study's run is opened only so that trials' runs lie below it: who opened it first will end it.
    with contextlib.suppress(EndsLater), tracker.start("", resume=study):
        try:
            do_trials(space, store, dataset, tracker, study, clock)
        except BaseException as error:
            ended_by = error  # the worker's end, and not the study's
        raise EndsLater
    if ended_by is not None:
        raise ended_by


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END_S)
    os._exit(INTERRUPTED_STATUS)  # as the parent would have killed it by now; its trial is done again
