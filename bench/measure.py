"""Helpers for measurements: the best of several times, the peak memory of a process, a row of the results."""

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
    """A row of the results: the quantity, our value, the peer's, their ratio, and the goal."""

    what: str
    ours: str
    peer: str
    ratio: str
    wanted: str
    reached: bool


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Return the shortest of several times, in seconds: the speed of an undisturbed machine."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def in_turns(repeats: int, *rivals: Callable[[], object]) -> list[tuple[float, ...]]:
    """Return the times of rivals in seconds, a tuple for each turn: a busy minute hits all of a turn."""
    return [tuple(best_of(1, rival) for rival in rivals) for _ in range(repeats)]


def alternating(repeats: int, *rivals: Callable[[], object]) -> tuple[float, ...]:
    """Return the best times of rivals in seconds, run in turns."""
    return tuple(min(times) for times in zip(*in_turns(repeats, *rivals), strict=True))


def run_python(code: str) -> tuple[float, float]:
    """Run code in a fresh interpreter with ``src`` on the path; return seconds and peak resident memory in GiB."""
    # Not ru_maxrss of resource, which starts from the memory of the parent process.
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
    """A watcher that ignores everything."""

    def batch_done(self, epoch: int) -> None: ...
    def epoch_done(self, *figures: object) -> None: ...
