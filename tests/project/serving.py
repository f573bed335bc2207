"""MLflow's scoring server as a real process, and questions to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.project.running import PATIENCE_S, environment

Ask = Callable[[Any], tuple[int, Any]]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@contextmanager
def served(command: str, port: str, folder: Path, env: dict[str, str]) -> Iterator[Path]:
    """A server while the block runs; what it says is in the file."""
    output = folder / f"server_{port}.txt"
    with output.open("w") as said:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env=environment(**env),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not answers(port):
            assert process.poll() is None, output.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield output
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def asking(port: str) -> Ask:
    def ask(request: Any) -> tuple[int, Any]:
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        call = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(call, timeout=PATIENCE_S) as answer:
                return 200, json.loads(answer.read(), parse_constant=pytest.fail)["predictions"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["message"]

    return ask
