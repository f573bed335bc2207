"""Copies of a prepared dataset on machines that lack it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wastelens.data.prepared import copies
from wastelens.data.prepared.copies import DATA_FOLDER, DatasetPlace, place_of, send_copy
from wastelens.data.prepared.dataset import load_prepared
from wastelens.errors import DatasetLacking, PreparedDatasetError


@pytest.fixture
def here(prepared_folder: Path, tmp_path: Path) -> Path:
    """A prepared folder of this test alone."""
    return Path(shutil.copytree(next((prepared_folder / "prepared").glob("[!.]*")), tmp_path / "here"))


@pytest.fixture
def elsewhere(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetPlace:
    """The dataset as a worker on another machine sees it: its coordinator's folder is not there."""
    monkeypatch.setenv(DATA_FOLDER, str(tmp_path / "worker"))
    place = place_of(load_prepared(here))
    return DatasetPlace(tmp_path / "gone", place.name, place.digest)


class Worker:
    """A worker that calls what it is sent, with the arguments that ``change`` makes of them."""

    def __init__(self, change: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments) -> None:
        self.change = change
        self.calls = 0

    def __call__(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> Mapping[str, Any]:
        self.calls += 1
        try:
            return {"tcp://worker": function(*self.change(*arguments))}
        except Exception as error:
            return {"tcp://worker": error}


def test_the_coordinators_folder_is_opened_where_it_is_there(here: Path) -> None:
    assert place_of(load_prepared(here)).opened().folder == here.resolve()


def test_a_worker_without_it_says_so_and_opens_what_it_is_sent(here: Path, elsewhere: DatasetPlace) -> None:
    with pytest.raises(DatasetLacking):
        elsewhere.opened()
    _send(here, elsewhere)
    copy = elsewhere.opened()
    assert copy.digest == elsewhere.digest
    assert copy.folder == elsewhere.copy_folder()
    np.testing.assert_array_equal(copy.photos, load_prepared(here).photos)


def test_a_dataset_of_the_workers_own_data_folder_is_used(here: Path, elsewhere: DatasetPlace, tmp_path: Path) -> None:
    own = tmp_path / "worker" / "prepared" / elsewhere.name
    shutil.copytree(here, own)
    assert elsewhere.opened().folder == own


def test_a_dataset_of_that_name_with_another_digest_is_not(here: Path, elsewhere: DatasetPlace, tmp_path: Path) -> None:
    shutil.copytree(here, tmp_path / "worker" / "prepared" / elsewhere.name)
    other = DatasetPlace(elsewhere.folder, elsewhere.name, "0" * 32)
    with pytest.raises(DatasetLacking):
        other.opened()


def test_a_worker_that_has_it_is_sent_nothing(here: Path, elsewhere: DatasetPlace) -> None:
    _send(here, elsewhere)
    again = Worker()
    _send(here, elsewhere, again)
    assert again.calls == 1  # the question whether it has it
    assert [path.name for path in elsewhere.copy_folder().parent.iterdir()] == [elsewhere.copy_folder().name]


def test_a_file_larger_than_a_block(here: Path, elsewhere: DatasetPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_BLOCK_BYTES", 1000)
    _send(here, elsewhere)
    assert elsewhere.opened().digest == elsewhere.digest


def test_damage_on_the_way_is_refused_and_leaves_nothing(here: Path, elsewhere: DatasetPlace) -> None:
    def damaged(*arguments: Any) -> tuple[Any, ...]:
        if arguments[1:2] == ("labels.csv",):
            return (*arguments[:3], b"x" * len(arguments[3]))
        return arguments

    with pytest.raises(PreparedDatasetError, match=r"labels\.csv has changed"):
        _send(here, elsewhere, Worker(damaged))
    assert list(elsewhere.copy_folder().parent.iterdir()) == []
    with pytest.raises(DatasetLacking):
        elsewhere.opened()


def _send(here: Path, place: DatasetPlace, worker: Worker | None = None) -> None:
    """Send the files of ``here`` to a worker that does not see that folder."""
    receiving = worker or Worker()

    def send(
        function: Callable[..., Any], _: DatasetPlace, *arguments: Any, workers: Sequence[str] | None = None
    ) -> Mapping[str, Any]:
        return receiving(function, place, *arguments, workers=workers)

    send_copy(DatasetPlace(here, place.name, place.digest), send)
