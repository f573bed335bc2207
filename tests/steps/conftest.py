"""What the steps' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.factories import config, write_dataset

from wastelens.memory_tracking import MemoryTracker
from wastelens.steps import prepare


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset, ``litter``, prepared once for all tests of a file; nobody writes into its tables."""
    root = tmp_path_factory.mktemp("prepared")
    write_dataset(root / "litter", side=(48, 48))
    settings = f"image_side_px=32 data_folder={root / 'data'} folds=3"
    prepare.run(config("prepare", settings, dataset=str(root / "litter")), MemoryTracker())
    return root
