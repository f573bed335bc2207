"""A real ``mlflow server`` on loopback that can be stopped and started again on the same port and store."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from tests.project.running import environment

PATIENCE_S = 180
# No telemetry, and no runner of background jobs.
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# Ends the server with all its workers when standard input ends: also where this process is killed.
WHILE_WE_LIVE = '("$@"; kill -KILL -$$) & read -r; kill -KILL -$$'


def runs_of(client: Any, filters: str) -> list[Any]:
    """Return the runs of all experiments."""
    return list(client.search_runs([one.experiment_id for one in client.search_experiments()], filters))


class Server:
    """``mlflow server`` on a port of its own, with a store that outlives it."""

    def __init__(self, folder: Path, store: str = "") -> None:
        """Not started; store: the database behind it, a SQLite file in the folder if empty."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = str(free.getsockname()[1])
        self.address = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._store = store or f"sqlite:///{folder}/mlflow.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return as soon as it answers."""
        if self._process and self._process.poll() is None:
            return
        store = ("--backend-store-uri", self._store)
        artifacts = ("--artifacts-destination", str(self._folder / "artifacts"))
        command = ("mlflow", "server", *store, *artifacts, "--port", self._port, "--workers", "1")
        with (self._folder / "output.txt").open("a") as output:
            self._process = subprocess.Popen(
                ("bash", "-c", WHILE_WE_LIVE, "bash", *command),
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(**SETTINGS),
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "output.txt").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it with all its workers, and return when nobody answers."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            self._process.wait()
        while self._answers():
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
