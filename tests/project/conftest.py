"""Fixtures for several test files of this folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from tests.factories import write_dataset
from tests.project.running import TINY, ok, wastelens


@pytest.fixture(scope="session")
def filled_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``mlflow.db`` and ``data``: a model trained and explained, and a small study; for reading only.

    The first worker of a test run makes it for all of them.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "filled"
    folder.mkdir(exist_ok=True)
    finished = folder / "finished"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            _fill(folder)
            finished.touch()
    return folder


def _fill(folder: Path) -> None:
    write_dataset(folder / "litter", photos_per_batch=8, side=(96, 64))
    for name, widths in (("small", [4, 8]), ("smaller", [4])):
        network = f"{{kind: cnn, widths: {widths}, pooling: average_and_max, hidden: [], dropout: 0.0}}"
        (folder / f"{name}.yaml").write_text(f"network: {network}\n", encoding="utf-8")
    few = "shap.samples=10 shap.background_photos=5 steps=3 randomised_photos=2 bootstrap_resamples=100"
    short = "train.fit.epochs=3 train.fit.batch_size=16 train.bootstrap_resamples=100 bootstrap_resamples=100"
    for command in (
        ("prepare", "--image_side_px", "32"),
        ("train", "--seed", "3", "--set", f"fit.epochs=12 {TINY}"),  # right, missed and false alarms, all of them
        ("explain", "--set", few),
        ("study", "--preset", "smoke", "--models", "small.yaml,smaller.yaml", "--set", short),
    ):
        ok(wastelens(*command, "--dataset", "litter", cwd=folder))
