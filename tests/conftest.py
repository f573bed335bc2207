"""Fixtures shared by tests in several folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.factories import config, write_dataset
from tests.memory_tracking import MemoryRun, MemoryTracker

# No test may fail because the machine is busy.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def pillow_limit() -> None:
    """Forget the limit on pixels that an earlier test has decoded with: it is Pillow's, for the whole process."""
    if "PIL.Image" in sys.modules:
        sys.modules["PIL.Image"].MAX_IMAGE_PIXELS = None


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras on TensorFlow, without its log output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    return keras


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a small dataset, ``litter``, once for all tests of a file; they must not write to its tables."""
    from wastelens.steps import prepare  # heavy, and most tests need none of it

    root = tmp_path_factory.mktemp("prepared")
    write_dataset(root / "litter", side=(48, 48))
    settings = f"image_side_px=32 data_folder={root / 'data'} folds=3"
    prepare.run(config("prepare", settings, dataset=str(root / "litter")), MemoryTracker())
    return root


@pytest.fixture(scope="module")
def no_served_models() -> Iterator[None]:
    """Let the trainings of a file log no model to serve: exporting one takes longer than training it here."""
    with pytest.MonkeyPatch.context() as patch:
        for room in ("train_one", "pretrain_one"):
            patch.setattr(f"wastelens.experiment.{room}.served_model", lambda *arguments: None)
        patch.setattr(MemoryRun, "log_model", lambda *arguments: None)
        yield
