"""Copies of a prepared dataset on machines that do not see its folder: fetched once, and checked by its digest.

A worker keeps its copies in the folder ``prepared`` of its own data folder: that of the variable
``WASTELENS_DATA_FOLDER``, or ``~/.cache/wastelens``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from wastelens.data.prepared.dataset import PreparedDataset, load_prepared, read_manifest
from wastelens.errors import DatasetLacking, PreparedDatasetError
from wastelens.system.console import say

DATA_FOLDER = "WASTELENS_DATA_FOLDER"
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class DatasetPlace:
    """A prepared dataset as a task names it: where its coordinator has it, and which one it is."""

    folder: Path
    name: str
    digest: str

    def opened(self) -> PreparedDataset:
        """Open the dataset, or this machine's copy of it.

        Raises:
            DatasetLacking: this machine has neither.
        """
        return _opened(self)

    def copy_folder(self) -> Path:
        """Return the folder of this machine's copy."""
        return own_data_folder() / "prepared" / f"{self.name}-{self.digest[:12]}"


def place_of(dataset: PreparedDataset) -> DatasetPlace:
    """Return the place of an open dataset."""
    return DatasetPlace(dataset.folder.resolve(), dataset.name, dataset.digest)


def own_data_folder() -> Path:
    """Return the data folder of a worker that does not share the coordinator's."""
    return Path(os.environ.get(DATA_FOLDER, "~/.cache/wastelens")).expanduser()


@lru_cache
def _opened(place: DatasetPlace) -> PreparedDataset:
    for folder in (place.folder, own_data_folder() / "prepared" / place.name, place.copy_folder()):
        with contextlib.suppress(PreparedDatasetError, OSError):  # a folder of that name may be another user's
            if read_manifest(folder)["digest"] == place.digest:
                return load_prepared(folder)
    raise DatasetLacking(
        f"{socket.gethostname()} has neither {place.folder} nor a copy of it in {place.copy_folder()}. "
        f"Copy the prepared dataset to {own_data_folder() / 'prepared' / place.name} there."
    )


class Send(Protocol):
    """Calls a function with arguments on these workers, or on all; returns worker → result or exception."""

    def __call__(
        self, function: Callable[..., Any], *arguments: Any, workers: Sequence[str] | None = None
    ) -> Mapping[str, Any]: ...


def send_copy(place: DatasetPlace, send: Send) -> None:
    """Send a dataset, whose folder is on this machine, to all machines with a worker that lacks it.

    Raises:
        PreparedDatasetError: a worker received something else, or could not store it.
    """
    # One worker of those that share a folder.
    lacking = {where: worker for worker, where in send(_where_lacking, place).items() if isinstance(where, str)}
    workers = [worker for where, worker in lacking.items() if where]
    if not workers:
        return
    several = "machine that lacks" if len(workers) == 1 else "machines that lack"
    say(f"Sending {place.name} to {len(workers)} {several} it.")
    try:
        for name, offset, block in _blocks(place.folder):
            _check(send(_receive, place, name, offset, block, workers=workers))
        _check(send(_complete, place, workers=workers))
    except BaseException:
        send(_discard, place, workers=workers)
        raise


def _check(answers: Mapping[str, Any]) -> None:
    """Raise the first exception among the answers of workers."""
    for worker, answer in answers.items():
        if isinstance(answer, OSError):
            raise PreparedDatasetError(
                f"The worker {worker} cannot store a copy of the dataset: {answer.strerror or answer}. Fix it, or set "
                f"{DATA_FOLDER} there to another folder."
            )
        if isinstance(answer, BaseException):
            raise answer


def _where_lacking(place: DatasetPlace) -> str:
    """Return the machine and the folder of this worker's copy; "" where it needs none."""
    return "" if _has(place) else f"{socket.gethostname()} {place.copy_folder()}"


def _has(place: DatasetPlace) -> bool:
    try:
        return bool(place.opened())
    except DatasetLacking:
        return False


def _blocks(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            offset = 0
            while block := file.read(_BLOCK_BYTES):
                yield path.name, offset, block
                offset += len(block)


def _draft(place: DatasetPlace) -> Path:
    """Return the folder into which this process receives a copy."""
    return place.copy_folder().with_name(f".{place.copy_folder().name}.{os.getpid()}")


def _receive(place: DatasetPlace, name: str, offset: int, block: bytes) -> None:
    _draft(place).mkdir(parents=True, exist_ok=True)
    with (_draft(place) / name).open("r+b" if offset else "wb") as file:
        file.seek(offset)
        file.write(block)


def _discard(place: DatasetPlace) -> None:
    shutil.rmtree(_draft(place), ignore_errors=True)


def _complete(place: DatasetPlace) -> None:
    """Check what was received, and give it its name; a copy there that cannot be opened is replaced."""
    draft = _draft(place)
    try:
        load_prepared(draft)
        if not _has(place):
            shutil.rmtree(place.copy_folder(), ignore_errors=True)
            draft.rename(place.copy_folder())
    finally:
        shutil.rmtree(draft, ignore_errors=True)
