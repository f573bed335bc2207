"""The engine: overhead per task, efficiency of several workers, and `prepare` in processes against threads."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from bench.measure import SHARED, Measurement, alternating, run_python
from bench.photos import SIDE_PX, full_size_photos
from wastelens.data.photos.cache import PhotoSource
from wastelens.data.photos.shards import ShardedCache
from wastelens.engine.engine import opened
from wastelens.engine.task import Engine, Task
from wastelens.system.machine import worker_count

TASKS = 100
WORKERS = (1, 2, 4, 8)
SLEEP_S, SLEEPS_PER_WORKER = 5.0, 4
COPIES = 36  # ten shards, five per process
MANY_PHOTOS = 20_000
PREPARE = """
import sys
from pathlib import Path
from wastelens.cli import prepare_environment
from wastelens.config.files import load_config
from tests.memory_tracking import MemoryTracker
from wastelens.steps import prepare
prepare_environment()
settings = "image_side_px=96 {settings}"
chosen = {{"dataset": {dataset!r}, "materials": "trashnet"}}
config = load_config("prepare", parameters=chosen, settings=settings + " data_folder={data}")
prepare.run(config, MemoryTracker())
"""


def nothing() -> None:
    """Do nothing: what is left is the engine's overhead."""


def _run(engine: Engine, name: str, count: int, function: object = nothing, *arguments: object) -> float:
    """Return the seconds that tasks take, from the first start to the last result."""
    started = time.perf_counter()
    for number in range(count):
        engine.start(Task(f"{name} {number}", function, arguments))  # type: ignore[arg-type]
    for done in engine.finished():
        if done.error is not None:
            raise done.error
    return time.perf_counter() - started


def _sleeping() -> list[Measurement]:
    """Measure tasks that do nothing, and cells that sleep, so that eight workers need no more than two cores."""
    lines = []
    for workers in WORKERS:
        with opened(f"processes:{workers}", retries=0) as engine:
            _run(engine, "first", workers)  # processes are up
            if workers == 1:
                seconds = _run(engine, "nothing", TASKS) / TASKS
                lines.append(
                    Measurement(
                        f"engine: {TASKS} tasks that do nothing, 1 process",
                        f"{seconds * 1000:.0f} ms per task",
                        "–",
                        "–",
                        "≤ 0.5 s",
                        seconds <= 0.5,
                    )
                )
            cells = SLEEPS_PER_WORKER * workers
            seconds = _run(engine, "cell", cells, time.sleep, SLEEP_S)
            ideal = SLEEP_S * SLEEPS_PER_WORKER
            lines.append(
                Measurement(
                    f"engine: {cells} simulated cells of {SLEEP_S:g} s on {workers} workers",
                    f"{seconds:.1f} s",
                    f"{ideal:.0f} s (no overhead)",
                    f"efficiency {ideal / seconds:.2f}",
                    "≥ 0.95 at 8",
                    workers < max(WORKERS) or ideal / seconds >= 0.95,
                )
            )
    return lines


def _decoding() -> Measurement:
    """Compare decoding in two processes with decoding by two threads, the same full-size photos."""
    with tempfile.TemporaryDirectory() as temporary, opened("local", retries=0) as local:
        folder = Path(temporary)
        paths = full_size_photos(folder)
        sources = [PhotoSource(f"{copy}_{path.name}", path) for copy in range(COPIES) for path in paths]
        cores = worker_count("auto")
        runs = iter(range(1000))

        def decode(engine: Engine, threads: int) -> None:
            cache = ShardedCache(folder / f"cache{next(runs)}", SIDE_PX, 200)
            cache.fill(sources, engine=engine, workers=threads)

        with opened(f"processes:{cores}", retries=0) as processes:
            _run(processes, "first", cores)
            by_processes, by_threads = alternating(3, lambda: decode(processes, 1), lambda: decode(local, cores))
    ratio = by_threads / by_processes
    return Measurement(
        f"prepare: decode {len(sources)} photos to {SIDE_PX} px, {cores} processes",
        f"{len(sources) / by_processes:.0f} photos/s",
        f"{len(sources) / by_threads:.0f} photos/s ({cores} threads)",
        f"{ratio:.2f}×",
        "≥ 0.95×",
        ratio >= 0.95,
    )


def many_photos(folder: Path, count: int) -> Path:
    """Make class folders of links to real photos (or rendered ones), each with its own name."""
    real = sorted((SHARED / "data" / "taco" / "photos").rglob("*.jpg")) or full_size_photos(folder)
    dataset = folder / f"litter{count}"
    for number in range(count):
        source = real[number % len(real)]
        place = dataset / ("plastic", "paper", "glass", "metal")[number % 4] / f"{number:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(source.resolve(), place)
    return dataset


def _memory() -> list[Measurement]:
    """Measure the peak memory and time of the whole of ``prepare``, on a number of photos and on half of it."""
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measured = []
        for count in (MANY_PHOTOS // 2, MANY_PHOTOS):
            dataset = many_photos(folder, count)
            code = PREPARE.format(dataset=str(dataset), data=folder / f"data{count}", settings="engine=processes:2")
            measured.append(run_python(code))
            shutil.rmtree(folder / f"data{count}")
        (half_s, _), (seconds, gib) = measured
        lines.append(
            Measurement(
                f"prepare: {MANY_PHOTOS:,} photos (links), processes:2",
                f"{gib:.2f} GiB, {seconds:.0f} s",
                f"{half_s:.0f} s (half of them)",
                f"{seconds / half_s:.2f}× the time for 2 × the photos",
                "< 2 GiB, linear time",
                gib < 2 and seconds / half_s < 2.2,
            )
        )
    return lines


def measure() -> list[Measurement]:
    """Measure all of it; minutes."""
    return [*_sleeping(), _decoding(), *_memory()]


if __name__ == "__main__":
    for one in measure():
        print(one)
