"""The SQLite file of MLflow's store: made as a whole or not at all, by one process at a time.

MLflow creates its tables in dozens of steps in the very file that others open: a kill meanwhile, or a second command,
would leave a file that refuses every later command.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

from wastelens.errors import RunError
from wastelens.system import borrowed
from wastelens.system.console import say
from wastelens.system.files import in_turn

_STILL_S = 3.0  # a program that creates a store does not pause for longer than this
_COMPANIONS = ("-journal", "-wal", "-shm")  # of a database file


def make_whole(uri: str) -> None:
    """Create the store of a SQLite address if it is missing or was left unfinished; other addresses are none of ours.

    Raises:
        RunError: the file is no database, or its folder cannot be written to.
    """
    file = file_of(uri)
    if file is None:
        return
    if not _is_whole(file):
        try:
            with in_turn(file.parent, lambda: say(f"Another process is creating {file}; waiting for it.")):
                if not _is_whole(file) and not _becomes_whole(file):
                    _create(file, uri)
        except OSError as error:
            raise _unwritable(file, error.strerror or str(error)) from None
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):  # SQLite writes beside the file, too
        raise _unwritable(file, "no permission to write")


def file_of(uri: str) -> Path | None:
    """Return the file of a SQLite address; None for any other, and for a database in memory."""
    from sqlalchemy import make_url

    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return Path(name) if name and name != ":memory:" and not name.startswith("file:") else None


def _is_whole(file: Path) -> bool:
    """Return whether MLflow has finished a store: the last thing it makes is the first experiment.

    Raises:
        RunError: it is not a database.
    """
    if not os.path.exists(file):
        return False
    try:
        # Not read-only: what a killed process left half-written has to be rolled back.
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as database:
            return database.execute("SELECT 1 FROM experiments LIMIT 1").fetchone() is not None
    except sqlite3.OperationalError as error:
        return not str(error).startswith("no such table")  # any other, such as a lock, is MLflow's to tell
    except sqlite3.DatabaseError as error:
        raise RunError(
            f"MLflow's store {file} is damaged, or something else ({error}). Move it away, or set MLFLOW_TRACKING_URI "
            "to another."
        ) from None


def _becomes_whole(file: Path) -> bool:
    """Return whether a program without our lock, such as ``mlflow ui``, finishes a store that it is creating."""
    while file.exists() and time.time() - file.stat().st_mtime < _STILL_S:
        time.sleep(0.1)
        if _is_whole(file):
            return True
    return False


def _create(file: Path, uri: str) -> None:
    """Create a store beside its place, then move it there; an unfinished one, which holds no runs, is replaced."""
    from sqlalchemy import make_url

    draft = file.with_name(f".{file.name}.new")
    try:
        _remove(draft)
        borrowed.create_mlflow_store(make_url(uri).set(database=str(draft)).render_as_string(hide_password=False))
        for companion in _COMPANIONS:  # of the unfinished one: SQLite would apply them to the new one
            file.with_name(file.name + companion).unlink(missing_ok=True)
        os.replace(draft, file)
    finally:
        _remove(draft)


def _remove(file: Path) -> None:
    for suffix in ("", *_COMPANIONS):
        file.with_name(file.name + suffix).unlink(missing_ok=True)


def _unwritable(file: Path, reason: str) -> RunError:
    return RunError(
        f"MLflow's store {file.absolute()} cannot be written: {reason}. Run from a folder in which you may write, or "
        "set MLFLOW_TRACKING_URI to another store."
    )
