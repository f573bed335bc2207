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
    return Path(shutil.copytree(prepared_folder / "data" / "prepared" / "litter", tmp_path / "here"))


@pytest.fixture
def elsewhere(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetPlace:
    """The dataset as a worker on another machine sees it: its coordinator's folder is not there."""
    monkeypatch.setenv(DATA_FOLDER, str(tmp_path / "worker"))
    copies._opened.cache_clear()  # folders of earlier tests
    place = place_of(load_prepared(here))
    return DatasetPlace(tmp_path / "gone", place.name, place.digest)


class Workers:
    """Workers that call what they are sent, each with a data folder of its own or a shared one.

    Parameters:
        folders: worker → data folder; a single one with the folder of the environment by default.
        change: makes other arguments of those that were sent.
    """

    def __init__(
        self,
        folders: Mapping[str, Path] | None = None,
        change: Callable[..., tuple[Any, ...]] = lambda *arguments: arguments,
    ) -> None:
        self.folders = folders or {"tcp://worker": copies.own_data_folder()}
        self.change = change
        self.calls: list[tuple[str, str]] = []  # worker and function

    def __call__(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> Mapping[str, Any]:
        return {worker: self._call(worker, function, arguments) for worker in workers or self.folders}

    def _call(self, worker: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.calls.append((worker, function.__name__))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(DATA_FOLDER, str(self.folders[worker]))
            try:
                return function(*self.change(*arguments))
            except Exception as error:
                return error


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
    again = Workers()
    _send(here, elsewhere, again)
    assert again.calls == [("tcp://worker", "_where_lacking")]
    assert [path.name for path in elsewhere.copy_folder().parent.iterdir()] == [elsewhere.copy_folder().name]


def test_workers_that_share_a_data_folder_are_sent_one_copy(
    here: Path, elsewhere: DatasetPlace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b, c = tmp_path / "b", tmp_path / "c"
    workers = Workers({"tcp://b:1": b, "tcp://b:2": b, "tcp://c:1": c})
    _send(here, elsewhere, workers)
    assert f"Sending {elsewhere.name} to 2 machines that lack it." in capsys.readouterr().out
    receiving = {worker for worker, function in workers.calls if function == "_receive"}
    assert len(receiving) == 2
    assert "tcp://c:1" in receiving
    for folder in (b, c):
        assert load_prepared(folder / "prepared" / elsewhere.copy_folder().name).digest == elsewhere.digest


def test_a_damaged_copy_is_replaced(here: Path, elsewhere: DatasetPlace) -> None:
    _send(here, elsewhere)
    (elsewhere.copy_folder() / "labels.csv").write_text("damaged")
    copies._opened.cache_clear()
    with pytest.raises(DatasetLacking):
        elsewhere.opened()
    _send(here, elsewhere)
    assert elsewhere.opened().digest == elsewhere.digest


def test_a_folder_of_the_coordinators_name_that_is_another_users(
    here: Path, elsewhere: DatasetPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = copies.read_manifest

    def denied(folder: Path) -> dict[str, Any]:
        if folder == elsewhere.folder:
            raise PermissionError(13, "Permission denied", str(folder))
        return original(folder)

    monkeypatch.setattr(copies, "read_manifest", denied)
    with pytest.raises(DatasetLacking):
        elsewhere.opened()
    _send(here, elsewhere)
    assert elsewhere.opened().folder == elsewhere.copy_folder()


def test_a_worker_that_lacks_it_says_where_it_looked(elsewhere: DatasetPlace, tmp_path: Path) -> None:
    with pytest.raises(DatasetLacking) as caught:
        elsewhere.opened()
    for words in (str(elsewhere.folder), str(elsewhere.copy_folder()), str(tmp_path / "worker" / "prepared")):
        assert words in str(caught.value)


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
        _send(here, elsewhere, Workers(change=damaged))
    assert list(elsewhere.copy_folder().parent.iterdir()) == []
    with pytest.raises(DatasetLacking):
        elsewhere.opened()


def _send(here: Path, place: DatasetPlace, workers: Workers | None = None) -> None:
    """Send the files of ``here`` to workers that do not see that folder."""
    receiving = workers or Workers()

    def send(
        function: Callable[..., Any], _: DatasetPlace, *arguments: Any, workers: Sequence[str] | None = None
    ) -> Mapping[str, Any]:
        return receiving(function, place, *arguments, workers=workers)

    send_copy(DatasetPlace(here, place.name, place.digest), send)
