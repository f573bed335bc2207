"""Small tools for measuring: best time of several, peak memory of a process, a table line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Measurement:
    """One line of the results: what was measured, against what, and the ratio that was wanted."""

    what: str
    ours: str
    peer: str
    ratio: str
    wanted: str
    reached: bool


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """The shortest of several times, in seconds: what the machine can do when nothing disturbs it."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def alternating(repeats: int, first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float]:
    """Best times of two rivals, run by turns, so that a busy minute hits both."""
    firsts, seconds = [], []
    for _ in range(repeats):
        firsts.append(best_of(1, first))
        seconds.append(best_of(1, second))
    return min(firsts), min(seconds)


def run_python(code: str) -> tuple[float, float]:
    """Run code in a fresh interpreter with ``src`` on the path: (seconds, peak resident memory in GiB)."""
    # Not resource's ru_maxrss, which begins at the memory of the process that started this one.
    peak = "next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))"
    wrapped = f"{code}\nprint('peak_kib', {peak})\n"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", wrapped], env=environment, check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    return seconds, int(answer.stdout.rsplit("peak_kib", 1)[1]) / 2**20


class Silent:
    """A watcher that keeps nothing."""

    def batch_done(self, epoch: int) -> None: ...
    def epoch_done(self, *figures: object) -> None: ...
