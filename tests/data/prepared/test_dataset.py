"""A prepared dataset at a smaller side: the same photos, labels and digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wastelens.data.photos.decode import square
from wastelens.data.photos.shrink import photos_at_side
from wastelens.data.prepared.dataset import load_prepared


def test_photos_are_shrunk_once_and_leave_no_file(prepared_folder: Path) -> None:
    folder = prepared_folder / "data" / "prepared" / "litter"
    dataset, files = load_prepared(folder), set(folder.iterdir())
    small = dataset.at_side(12)
    assert (dataset.side_px, small.side_px) == (32, 12)
    assert small.photos.shape == (len(dataset.frame), 12, 12, 3)
    for row in (0, len(dataset.frame) - 1):
        np.testing.assert_array_equal(small.photos[row], square(dataset.photos[row], 12))
    assert small.digest == dataset.digest
    assert dataset.at_side(12) is small
    assert set(folder.iterdir()) == files


def test_a_folder_that_must_not_be_written_is_left_alone(
    prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    written: list[Path] = []

    def shrunk(photos: Any, side_px: int, folder: Path, progress: Any) -> Any:
        written.append(folder)
        return photos_at_side(photos, side_px, folder, progress)

    monkeypatch.setattr("wastelens.data.prepared.dataset.photos_at_side", shrunk)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert dataset.at_side(9).photos.shape[1] == 9
    assert written == [tmp_path]


def test_photos_are_not_enlarged(prepared_folder: Path) -> None:
    dataset = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    assert {id(dataset.at_side(side_px)) for side_px in (0, 32, 33, 512)} == {id(dataset)}
