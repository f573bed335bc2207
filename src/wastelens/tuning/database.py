"""The database that keeps trials: opened, checked, its errors in one line."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError

from wastelens.config.tune import TuneConfig
from wastelens.errors import ConfigError, SearchStoreError
from wastelens.system.passwords import HIDDEN, passwords_in
from wastelens.system.text import reason_of

_ANSWER_S = 10.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}


@contextlib.contextmanager
def database_errors(config: TuneConfig) -> Iterator[None]:
    """Say in one line what ails the database, without the password that its address may hold.

    Raises:
        SearchStoreError: it does not answer, or cannot be used.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, UnboundLocalError, AssertionError) as raised:
        # Optuna's own handling of an error of its storage stumbles over what it has not set by then.
        stumbled = isinstance(raised, UnboundLocalError | AssertionError)
        error = raised.__context__ if stumbled else raised
        if not isinstance(error, sqlalchemy.exc.SQLAlchemyError | StorageInternalError):
            raise
        origin = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
        reason = " ".join(str(origin).split())
        for password in passwords_in(_address(config)):
            reason = reason.replace(password, HIDDEN)
        reason = reason[:160].rstrip(".")
        raise SearchStoreError(f"{shown_address(config)}: {reason}. Fix it, or choose another storage.") from None


def _address(config: TuneConfig) -> sqlalchemy.URL:
    """Return the database's address.

    Raises:
        ConfigError: none.
    """
    if not config.storage:
        return sqlalchemy.URL.create("sqlite", database=str(config.data_folder / "tuning.db"))
    try:
        address = sqlalchemy.make_url(config.storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # the latter of a port that is no number
        # Not shown: it may hold a password.
        raise ConfigError(
            "Config key 'storage' is no address of a database; write sqlite:///FILE or "
            "postgresql://USER@HOST:PORT/NAME, with the password in the variable PGPASSWORD."
        ) from None
    if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
        raise ConfigError("Config key 'storage' names no file, and memory is no storage; write sqlite:///FILE.")
    return address


def holds_password(config: TuneConfig) -> bool:
    """Whether the address has the password within it."""
    return bool(passwords_in(_address(config)))


def shown_address(config: TuneConfig) -> str:
    """Return the address as it may be shown."""
    address = _address(config)
    if address.host:
        port = f":{address.port or _PORTS.get(address.get_backend_name(), '')}".rstrip(":")
        return f"The storage {address.get_backend_name()}://{address.host}{port}/{address.database or ''}"
    return f"The storage {address.get_backend_name()}:///{address.database or ''}"


def open_storage(config: TuneConfig) -> optuna.storages.RDBStorage:
    """Return the database, with its tables.

    Raises:
        SearchStoreError: it does not answer in time, or there is no driver for it.
    """
    address = _address(config)
    if address.get_backend_name() == "sqlite":
        _make_folder(config, Path(address.database or "."))
        # Seconds that a worker waits for another.
        options: dict[str, Any] = {"connect_args": {"timeout": 60}}
    else:
        _check_answers(config, address)
        options = {"pool_pre_ping": True}
        if address.get_backend_name() == "postgresql":
            options["connect_args"] = {"connect_timeout": int(_ANSWER_S)}
    try:
        return optuna.storages.RDBStorage(address.render_as_string(hide_password=False), engine_kwargs=options)
    except ImportError as error:
        raise SearchStoreError(
            f"{shown_address(config)} needs a driver that is not installed: {error}. Install it, or choose another one."
        ) from None
    except RuntimeError as error:  # Optuna's, of tables that another release of it has made
        raise SearchStoreError(f"{shown_address(config)}: {reason_of(error)}") from None


def check_shared(config: TuneConfig) -> None:
    """Check that workers on other machines can reach the database.

    Raises:
        ConfigError: it is a file of this machine.
    """
    if _address(config).get_backend_name() == "sqlite":
        raise ConfigError(
            f"Workers on other machines cannot reach {shown_address(config).removeprefix('The ')}. Give a database "
            "server, as in storage=postgresql://USER@HOST/NAME."
        )


def _make_folder(config: TuneConfig, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchStoreError(
            f"{shown_address(config)}: {error.strerror}. Fix it, or choose another storage."
        ) from None


def _check_answers(config: TuneConfig, address: sqlalchemy.URL) -> None:
    """Knock before a driver does, which may wait for minutes."""
    port = address.port or _PORTS.get(address.get_backend_name())
    if not address.host or port is None:
        return
    try:
        with socket.create_connection((address.host, port), timeout=_ANSWER_S):
            pass
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        raise SearchStoreError(
            f"{shown_address(config)} does not answer ({reason}). Start it, or choose another storage."
        ) from None
