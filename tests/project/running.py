"""Commands in processes of their own, as users start them; nothing of the test's own environment leaks into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, str(ROOT / "src" / "wastelens"))
PATIENCE_S = 600
TINY = "model=base network.widths=[4,8] fit.batch_size=16 bootstrap_resamples=100"

OUTPUTS: dict[int, Path] = {}


def environment(**more: str) -> dict[str, str]:
    """The environment for a command: this interpreter's programs first, and no settings of MLflow, Python or pytest."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHON", "PYTEST_"))}
    programs = str(Path(sys.executable).parent)  # not resolved: in a virtual environment it is a link
    return {**kept, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}", **more}


def run(
    *command: str, cwd: Path, preexec_fn: Callable[[], None] | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment(**(env or {})),
        timeout=PATIENCE_S,
        check=False,
        preexec_fn=preexec_fn,
    )


def wastelens(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """``python src/wastelens ARGUMENTS``, which is what MLproject's commands are."""
    return run(*PROGRAM, *arguments, cwd=cwd, **options)


def start(
    *arguments: str, cwd: Path, output: str = "output.txt", env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """The same, not waited for; what it says goes to a file."""
    with (cwd / output).open("w") as written:
        process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=cwd,
            stdout=written,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(**(env or {})),
        )
    OUTPUTS[process.pid] = cwd / output
    return process


def output_of(process: subprocess.Popen[str]) -> str:
    """The end of what a process of `start` has written."""
    return OUTPUTS[process.pid].read_text()[-2000:]


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Return as soon as something has happened; fail where the process ends or the patience does before that."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, f"the process ended too early: {output_of(process)}"
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError("it did not happen in time")
        time.sleep(0.005)


def ok(answer: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The answer of a command that has to succeed."""
    assert answer.returncode == 0, f"{answer.stdout[-3000:]}\n{answer.stderr[-5000:]}"
    return answer


def complaint(answer: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """The one line on standard error with which a command refuses its input."""
    assert answer.returncode == status, f"{answer.returncode}\n{answer.stdout[-3000:]}\n{answer.stderr[-5000:]}"
    lines = answer.stderr.splitlines()
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("wastelens: ")
    return lines[0]


def copy_of_the_project(target: Path, without: str = "") -> Path:
    """The working tree as a commit would have it, perhaps without a file, as a git repository of its own."""
    answer = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT)
    for name in ok(answer).stdout.split("\0"):
        if name and name != without and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    who = ("-c", "user.name=tests", "-c", "user.email=tests@localhost", "-c", "commit.gpgsign=false")
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "all"]):
        ok(run("git", *command, cwd=target))
    return target
