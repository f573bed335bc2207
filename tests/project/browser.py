"""A real browser and a real MLflow UI: Debian's Chromium, driven headless, on a server of its own.

Nothing is fetched to drive it: selenium is told where both programs are. Nothing leaves the machine either, not even
what Chromium asks for by itself: all that is not loopback goes to a proxy that is not there.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from tests.project.running import environment

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
_MISSING = [str(program) for program in (CHROMIUM, CHROMEDRIVER) if not program.exists()]
needs_browser = pytest.mark.skipif(
    bool(_MISSING),
    reason=f"{' and '.join(_MISSING)} missing: install Debian's chromium and chromium-driver for the browser tests",
)

PATIENCE_S = 180
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    *("--window-size=1400,1000", "--proxy-server=http://127.0.0.1:9"),
    # A sandboxed frame in a process of its own is left out of both logs; see `console` and `requested`.
    "--disable-features=IsolateSandboxedIframes",
)
# No telemetry; and no runner of background jobs, seven processes that no page here asks for anything.
_SERVER = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
# Ends the server with all its workers when standard input ends: also where this process is killed.
_WHILE_WE_LIVE = '("$@"; kill -KILL -$$) & read -r; kill -KILL -$$'

Answer = TypeVar("Answer")


def soon(happened: Callable[[], Answer], what: str) -> Answer:
    """Return a function's answer as soon as it is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := happened()):
        assert time.monotonic() < deadline, f"not in {PATIENCE_S} s: {what}"
        time.sleep(0.05)
    return answer


@contextlib.contextmanager
def browser(net_log: Path | None = None) -> Iterator[Any]:
    """A Chromium without a past; net_log: a file for all that it sends, complete when it has ended."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}", *([f"--log-net-log={net_log}"] if net_log else [])):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
        try:
            driver.get("about:blank")  # in place of Chromium's own first page
            requested(driver)
            yield driver
        finally:
            driver.quit()


def console(driver: Any, levels: tuple[str, ...] = ("WARNING", "SEVERE")) -> list[str]:
    """Return the complaints of the page and its frames since the last call."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in levels]


def requested(driver: Any) -> set[str]:
    """Addresses that the page and its frames have asked for since the last call, also those that were refused."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return {one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"}


def sent(net_log: Path) -> set[str]:
    """Addresses that a page, its frames and its workers have sent requests to, but for the browser's own.

    What Chromium asks for of itself has no origin; neither has the first request of a page.
    """
    log = json.loads(net_log.read_text(encoding="utf-8"))
    started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    requests = [event["params"] for event in log["events"] if event["type"] == started and "params" in event]
    return {one["url"] for one in requests if one.get("initiator", "not an origin") != "not an origin"}


@contextlib.contextmanager
def mlflow_ui(store: Path, folder: Path) -> Iterator[str]:
    """``mlflow ui`` on a store, in a working directory of its own; its address, such as http://127.0.0.1:5000."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    output = folder / "output.txt"
    command = ("mlflow", "ui", "--backend-store-uri", f"sqlite:///{store}", "--port", port, "--workers", "1")
    with output.open("w") as file:
        server = subprocess.Popen(
            ("bash", "-c", _WHILE_WE_LIVE, "bash", *command),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(**_SERVER),
            start_new_session=True,
        )
    assert server.stdin
    started: list[psutil.Process] = []
    try:
        soon(lambda: _answers(server, f"http://127.0.0.1:{port}/health", output), "an answer of mlflow ui")
        yield f"http://127.0.0.1:{port}"
        started = psutil.Process(server.pid).children(recursive=True)
    finally:
        server.stdin.close()
        server.wait()
        soon(lambda: not any(_lives(process) for process in started), "the end of all of MLflow's processes")


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _answers(server: subprocess.Popen[bytes], address: str, output: Path) -> bool:
    assert server.poll() is None, output.read_text()[-2000:]
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
