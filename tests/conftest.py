"""Fixtures shared by tests in several folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.factories import config, write_dataset
from tests.memory_tracking import MemoryTracker

# No test may fail because the machine is busy.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


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
