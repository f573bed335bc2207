"""The database that keeps trials: opened with patience, its errors in one line, its trials dealt out atomically."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.trial import FrozenTrial, TrialState

from wastelens.config.tune import TuneConfig
from wastelens.errors import ConfigError, SearchStoreError, WastelensError
from wastelens.system import borrowed
from wastelens.system.passwords import HIDDEN, passwords_in

TURN = "turn"  # the attribute by which a trial is known that is put in line: two with the same are one
_HEARTBEAT_S = 10
_ANSWER_S = 10.0
_TABLE_ATTEMPTS = 10
_TABLES_S = 5.0
_BETWEEN_ATTEMPTS_S = 1.0
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}


class NoTrialLeft(WastelensError):  # noqa: N818  a state, no error
    """All trials that were asked for are done, or with some worker."""


class InLineAlready(WastelensError):  # noqa: N818  a state, no error
    """Another worker put this trial in line."""


class DealtStorage(optuna.storages.RDBStorage):
    """Optuna's storage in a database, where no trial is made by asking for one: all were put in line before."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.may_begin: frozenset[int] = frozenset()  # ids of trials
        self._is_left = False
        if self.engine.dialect.name == "sqlite":
            # It knows no FOR UPDATE, by which Optuna keeps others from what it has read and is about to write.
            sqlalchemy.event.listen(self.engine, "begin", _begin_as_the_only_one)

    # Optuna's cache, which stands in front of it, calls this one and not the public create_new_trial.
    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None:
            raise NoTrialLeft
        return super()._create_new_trial(study_id, template_trial)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's; a trial that may not begin here stays in line, as if another worker had been faster."""
        if state is TrialState.RUNNING and trial_id not in self.may_begin:
            return False
        return super().set_trial_state_values(trial_id, state, values)

    def leave(self) -> None:
        """Let no heartbeat of this process go on: an interrupt at the wrong moment has Optuna forget its thread."""
        self._is_left = True

    def record_heartbeat(self, trial_id: int) -> None:
        if self._is_left:
            raise SystemExit  # of the thread alone, for which the process would wait forever
        # Of a database that is away for a moment: an error would end Optuna's heartbeat, and with it the trial's life.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError, StorageInternalError):
            super().record_heartbeat(trial_id)

    # Called while the study is locked, so that no two workers put the same trial in line.
    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        turn = template_trial.user_attrs[TURN] if template_trial else ""
        models = borrowed.optuna_tables()
        attribute = models.TrialUserAttributeModel
        same = session.query(attribute).join(models.TrialModel).filter(models.TrialModel.study_id == study_id)
        if same.filter(attribute.key == TURN, attribute.value_json == json.dumps(turn)).first():
            raise InLineAlready
        return super()._get_prepared_new_trial(study_id, template_trial, session)


def _begin_as_the_only_one(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


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


def open_storage(config: TuneConfig) -> DealtStorage:
    """Return the database, with its tables.

    Raises:
        SearchStoreError: it does not answer in time, or there is no driver for it.
    """
    address = _address(config)
    if address.get_backend_name() == "sqlite":
        _make_folder(config, Path(address.database or "."))
        # Seconds that a writer waits for another; transactions begin where the storage says so, not the driver.
        options: dict[str, Any] = {"connect_args": {"timeout": 60, "isolation_level": None}}
    else:
        _check_answers(config, address)
        options = {"pool_pre_ping": True}
        if address.get_backend_name() == "postgresql":
            options["connect_args"] = {"connect_timeout": int(_ANSWER_S)}
    began = time.monotonic()
    for attempt in range(_TABLE_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # of the heartbeat
                return DealtStorage(
                    address.render_as_string(hide_password=False),
                    engine_kwargs=options,
                    heartbeat_interval=_HEARTBEAT_S,
                    grace_period=config.worker_timeout_s,
                )
        except ImportError as error:
            raise SearchStoreError(
                f"{shown_address(config)} needs a driver that is not installed: {error}. Install it, or choose another "
                "one."
            ) from None
        except sqlalchemy.exc.SQLAlchemyError as error:
            # Of processes that make its tables at once, all but one fail. A database that is slow to refuse is another
            # matter, and no reason to ask it again.
            made_meanwhile = isinstance(error, sqlalchemy.exc.IntegrityError) or "already exists" in str(error)
            if attempt == _TABLE_ATTEMPTS - 1 or not (made_meanwhile or time.monotonic() - began < _TABLES_S):
                raise
            time.sleep(_BETWEEN_ATTEMPTS_S)
        except RuntimeError as error:  # Optuna's, of tables that another release of it has made
            raise SearchStoreError(f"{shown_address(config)}: {' '.join(str(error).split())}") from None
    raise AssertionError


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
