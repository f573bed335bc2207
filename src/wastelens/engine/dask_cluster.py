"""Tasks on a Dask cluster: the one module that knows Dask.

A task's key identifies it on a cluster. Its result is published under that key until it has been delivered, so that a
task outlives the process that started it: whoever starts a task of the same key again joins the one that is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import logging
import os
import pickle
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wastelens.engine.task import Done, Task, TaskInterrupted, WorkerLost
from wastelens.errors import EngineError
from wastelens.system import interrupts
from wastelens.system.console import say, warn
from wastelens.system.machine import set_up_libraries, worker_count
from wastelens.system.text import reason_of

_CONNECT_S = 10.0
_NEW_WORKERS_S = 60
_LOOK_S = 0.5
_STOP_S = 60.0
_LOST = "The connection to the scheduler was lost. Start it and its workers, then the same command again: it continues."
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


class DaskEngine:
    """Runs tasks on a Dask cluster, at most one per worker at a time.

    The others wait here: Dask would assign them to workers at once, and count a worker's death against all of them.

    Args:
        client: connected to the scheduler.
        check: raises EngineError where one of these new workers cannot be used.
    """

    is_local = False

    def __init__(self, client: Any, check: Callable[[Any, list[str]], None] = lambda client, workers: None) -> None:
        self._client = client
        self._check = check
        self._waiting: deque[Task] = deque()
        self._submitted: dict[str, tuple[Task, Any]] = {}
        self._known = set(client.list_datasets())
        self._joined: set[str] = set()
        self._checked: set[str] = set()
        self._ended = threading.Event()
        self._has_said_none = False
        self._usable_workers()  # before any work is done

    def workers(self) -> int:
        return max(len(self._addresses()), 1)

    def _addresses(self) -> list[str]:
        try:
            return list(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, KeyError):  # a client that has given up knows nothing of workers
            raise EngineError(_LOST) from None

    def is_known(self, key: str) -> bool:
        return key in self._known or self.is_started(key)

    def is_started(self, key: str) -> bool:
        return key in self._submitted or any(task.key == key for task in self._waiting)

    def start(self, task: Task) -> None:
        if self.is_started(task.key):
            return
        if task.key in self._known:
            self._joined.add(task.key)
            self._follow(task, self._client.get_dataset(task.key))
        else:
            self._waiting.append(task)
            self._submit()

    def _follow(self, task: Task, future: Any) -> None:
        future.add_done_callback(lambda _: self._ended.set())
        self._submitted[task.key] = (task, future)

    def running(self) -> int:
        return len(self._submitted) + len(self._waiting)

    def finished(self, more: Callable[[], None] = lambda: None) -> Iterator[Done]:
        while self.running():
            interrupts.check()
            self._submit()
            ended = [key for key, (_, future) in self._submitted.items() if future.done()]
            for key in ended:
                future = self._submitted[key][1]
                if key in self._joined and future.status == "error":  # its cause may be gone by now
                    self._client.retry([future])
                else:
                    yield self._delivered(key)
                self._joined.discard(key)
            if not ended:
                if self.running() < self.workers():
                    more()
                self._ended.wait(_LOOK_S)
                self._ended.clear()

    def _submit(self) -> None:
        """Submit waiting tasks to idle workers, each under its key, which outlives this process."""
        workers = self._usable_workers()
        while self._waiting and len(self._submitted) < workers:
            task = self._waiting.popleft()
            # The scheduler, too, unpickles what it is sent, except for bytes.
            work = pickle.dumps((task.function, task.arguments))
            future = self._client.submit(_quietly, task.key, work, key=task.key, pure=False)
            self._client.publish_dataset(future, name=task.key, override=True)
            self._follow(task, future)

    def _usable_workers(self) -> int:
        """Check new workers, and return the number of all; say so once where there is none."""
        addresses = self._addresses()
        if new := [address for address in addresses if address not in self._checked]:
            self._check(self._client, new)
            self._checked.update(new)
        if not addresses and not self._has_said_none:
            warn("The scheduler has no workers. Waiting for one.")
        self._has_said_none = not addresses
        return len(addresses)

    def _delivered(self, key: str) -> Done:
        """Return a finished task, and let the cluster forget it."""
        task, future = self._submitted.pop(key)
        done = _done(task, future)
        self._known.discard(key)
        with contextlib.suppress(OSError):  # the scheduler is gone
            self._client.unpublish_dataset(key)
        future.release()
        return done

    def stop_others(self, owner: str, keep: Container[str]) -> None:
        others = {key for key in self._known if key.endswith(owner) and key not in keep}
        self._stop(others, [self._client.get_dataset(key) for key in others])
        self._known -= others

    def send(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> dict[str, Any]:
        return dict(self._client.run(_in_thread, function, *arguments, workers=workers, on_error="return"))

    def cancel(self) -> None:
        """End all started tasks."""
        futures = [future for _, future in self._submitted.values()]
        with contextlib.suppress(Exception):  # the cluster may be gone
            self._stop(set(self._submitted), futures)

    def _stop(self, keys: set[str], futures: list[Any]) -> None:
        """End tasks, and wait until those that run have stopped, at their next training step."""
        if keys:
            self._client.cancel(futures, force=True)
            for key in keys:
                self._client.unpublish_dataset(key)
            self.interrupt(keys)

    def interrupt(self, keys: set[str]) -> None:
        """Interrupt running tasks, and wait until they have ended."""
        deadline = time.monotonic() + _STOP_S
        while any(self._client.run(_interrupt, keys, on_error="ignore").values()) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)


def _done(task: Task, future: Any) -> Done:
    """Return a finished future's result, or its error."""
    from distributed.scheduler import KilledWorker

    if future.status == "finished":
        return Done(task, future.result())
    if future.status != "error":  # cancelled or lost, with the scheduler
        return Done(task, error=EngineError(_LOST))
    error = future.exception()
    if isinstance(error, KilledWorker):
        error = WorkerLost(
            f"{error.allowed_failures + 1} workers died while running it, the last at {error.last_worker.address}."
        )
    return Done(task, error=error)


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function beside a worker's event loop: one that waits for its disk would be taken for dead."""
    return await asyncio.to_thread(function, *arguments)


class _Running:
    """The task of this worker process, which has one thread."""

    key = ""


def _interrupt(keys: Container[str]) -> bool:
    """Interrupt this worker's task, if it is one of these; return whether it is."""
    if _Running.key not in keys:
        return False
    interrupts.request()
    return True


def _quietly(key: str, work: bytes) -> Any:
    """Call a pickled function in a worker, without its progress bars; an interrupt ends the task, not the worker."""
    _Running.key = key
    interrupts.forget()
    set_up_libraries()
    with Path(os.devnull).open("w", encoding="utf-8") as silence, contextlib.redirect_stdout(silence):
        try:
            function, arguments = pickle.loads(work)
            return function(*arguments)
        except KeyboardInterrupt:
            raise TaskInterrupted("It was interrupted.") from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise EngineError(f"The disk of a worker on {socket.gethostname()} is full. Free space.") from None
            raise
        finally:
            _Running.key = ""


@contextlib.contextmanager
def _ending_with_block(
    client: Any, check: Callable[[Any, list[str]], None] = lambda client, workers: None
) -> Iterator[DaskEngine]:
    """Yield an engine whose tasks are cancelled where the block is interrupted or fails."""
    engine = DaskEngine(client, check)
    if client.dashboard_link and find_spec("bokeh"):
        say(f"Dashboard: {client.dashboard_link}")
    try:
        yield engine
    except BaseException:
        engine.cancel()
        raise


@contextlib.contextmanager
def _processes(number: int, retries: int) -> Iterator[Any]:
    """Start a cluster of processes on this machine, which share its cores."""
    import dask
    from distributed import Client, LocalCluster

    threads = str(max(worker_count("auto") // number, 1))
    options = {
        "n_workers": number,
        "threads_per_worker": 1,
        "processes": True,
        "env": dict.fromkeys(_THREADS, threads),
        "memory_limit": 0,  # Dask would pause or kill a worker that TensorFlow makes large
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # without bokeh it serves a hint to install it
        "silence_logs": logging.CRITICAL,
        "preload": ["wastelens.engine.worker"],
    }
    with (
        tempfile.TemporaryDirectory(prefix="wastelens-workers-") as folder,
        _without_users_configuration(),
        dask.config.set({"distributed.scheduler.allowed-failures": retries}),
        LocalCluster(local_directory=folder, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextlib.contextmanager
def _without_users_configuration() -> Iterator[None]:
    """Use Dask's defaults: what its files and variables say is about the user's clusters, not about processes here."""
    import dask

    before = copy.deepcopy(dask.config.config)
    dask.config.refresh(paths=[], env={})
    try:
        yield
    finally:
        dask.config.config.clear()
        dask.config.update(dask.config.config, before)


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Connect to a scheduler, and check its workers."""
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except TypeError:  # of a missing ssl context
        raise EngineError(
            f"engine={address} needs certificates: set distributed.comm.tls in Dask's configuration "
            "(https://distributed.dask.org/en/stable/tls.html)."
        ) from None
    except (OSError, TimeoutError, ValueError, RuntimeError) as error:
        raise EngineError(
            f"No scheduler answers at {address} ({reason_of(error)}). Start one with `dask "
            "scheduler`, or correct engine=."
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_NEW_WORKERS_S)
        except TimeoutError:
            raise EngineError(
                f"The scheduler at {address} has no workers. Start some: dask worker {address} --nthreads 1"
            ) from None
        yield client


def _check_workers(client: Any, workers: list[str]) -> None:
    """Refuse workers that cannot run the tasks.

    Raises:
        EngineError: one has another version of Python or Wastelens, no TensorFlow, or several threads.
    """
    here = ".".join(str(part) for part in sys.version_info[:2])
    for worker, versions in client.get_versions()["workers"].items():
        if worker in workers and not str(versions["host"]["python"]).startswith(f"{here}."):
            raise EngineError(
                f"The worker {worker} runs Python {versions['host']['python'].split('.final')[0]}, and this process "
                f"{here}. Start it in an environment with Python {here}."
            )
    ours, probe = _code_probe()(), _code_probe()
    for worker, theirs in client.run(probe, workers=workers, on_error="return").items():
        if problem := _unlike(theirs, ours):
            raise EngineError(f"The worker {worker} {problem}")
    for worker, known in client.scheduler_info(n_workers=-1)["workers"].items():
        if worker in workers and known["nthreads"] != 1:
            raise EngineError(
                f"The worker {worker} has {known['nthreads']} threads, which would train several networks at once. "
                "Start it with --nthreads 1."
            )


def _code_probe() -> Callable[[], dict[str, str]]:
    """Return a function that describes a process's code; it is pickled by value, so it runs where Wastelens is not."""

    def probe() -> dict[str, str]:
        import hashlib
        import importlib.util
        import pathlib

        specs = {name: importlib.util.find_spec(name) for name in ("wastelens", "tensorflow")}
        found = {name: "there" for name, spec in specs.items() if spec}
        if (spec := specs["wastelens"]) and spec.origin:
            folder = pathlib.Path(spec.origin).parent
            digest = hashlib.blake2b(digest_size=8)
            for file in sorted(folder.rglob("*.py")):
                digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
            found["wastelens"] = digest.hexdigest()
        return found

    return probe


def _unlike(theirs: Any, ours: Mapping[str, str]) -> str:
    """Return why a worker with this code cannot be used; "" where it can."""
    if not isinstance(theirs, Mapping):
        return f"cannot be used: {theirs}. Restart it."
    if "wastelens" not in theirs:
        return "has no Wastelens. Install it there (pip install .), or start the worker in the same environment."
    if theirs["wastelens"] != ours["wastelens"]:
        return "has another version of Wastelens. Install the version of this process there, and restart the worker."
    if "tensorflow" not in theirs:
        return "has no TensorFlow. Install it there, and restart the worker."
    return ""


@contextlib.contextmanager
def on_processes(number: int, retries: int) -> Iterator[DaskEngine]:
    """Run tasks in this number of processes, which end with the block; see :func:`wastelens.engine.engine.opened`."""
    with _processes(number, retries) as client, _ending_with_block(client) as engine:
        yield engine


@contextlib.contextmanager
def on_scheduler(address: str) -> Iterator[DaskEngine]:
    """Run tasks on the workers of a scheduler; see :func:`wastelens.engine.engine.opened`."""
    with _connected(address) as client, _ending_with_block(client, _check_workers) as engine:
        yield engine
