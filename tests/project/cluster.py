"""A real Dask cluster on loopback: a scheduler and workers, each a process of its own that can be killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
from tests.project.running import ROOT, environment

PATIENCE_S = 120
_CLI = (sys.executable, "-m")
# Mounts an empty file system over a folder, for one process and its children.
HIDE = 'mount -t tmpfs none "$1" && shift && exec "$@"'


class Cluster:
    """A scheduler with workers, which run the code of this checkout."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        # Dask gives its workers one thread for NumPy; that counts here as everywhere.
        self._environment = environment(PYTHONPATH=str(ROOT / "src"), **env)
        self._file = folder / "scheduler.json"
        self._scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int) -> None:
        """Return as soon as the scheduler answers."""
        where = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self._file))
        self._scheduler = self._started("distributed.cli.dask_scheduler", *where)
        deadline = time.monotonic() + PATIENCE_S
        while not (self._file.exists() and self._file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(workers):
            self.add_worker()

    def add_worker(self, hidden: Path | None = None, **env: str) -> None:
        """Start a worker as the documentation says; hidden: a folder of this machine that it does not see."""
        where = ("--no-dashboard", "--local-directory", str(self._folder), "--nthreads", "1")
        self.workers.append(self._started("distributed.cli.dask_worker", self.address, *where, hidden=hidden, env=env))

    @property
    def address(self) -> str:
        """The address of the scheduler, as ``engine=`` takes it."""
        return str(json.loads(self._file.read_text())["address"])

    def kill_worker(self, number: int) -> None:
        """Kill a worker with SIGKILL, and the process that would start it again."""
        worker = self.workers[number]
        below = psutil.Process(worker.pid).children(recursive=True)
        for process in (psutil.Process(worker.pid), *below):
            process.send_signal(signal.SIGKILL)
        worker.wait()

    def stop(self) -> None:
        """End all processes."""
        for process in [*self.workers, *([self._scheduler] if self._scheduler else [])]:
            process.terminate()
        for process in [*self.workers, *([self._scheduler] if self._scheduler else [])]:
            process.wait(PATIENCE_S)

    def _started(
        self, module: str, *arguments: str, hidden: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        command = (*_CLI, module, *arguments)
        if hidden is not None:
            command = ("unshare", "--mount", "bash", "-c", HIDE, "bash", str(hidden), *command)
        with (self._folder / "cluster.txt").open("a") as output:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                env={**self._environment, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
