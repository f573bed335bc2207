"""Access to MLflow's store: whether it answers, how long to wait for it, and its errors translated to ours."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from wastelens.errors import RunError, StoreUnreachable
from wastelens.system import borrowed
from wastelens.system.console import warn
from wastelens.system.machine import package_version
from wastelens.system.passwords import without_passwords
from wastelens.tracking.local_store import make_whole

_ANSWER_S = 5.0
_RETRIES = 10  # MLflow takes no more
_LONGEST_PAUSE_S = 120.0  # of urllib3
_NEW_OUTAGE_S = 300.0  # without a request that was repeated: longer than such a request lasts, with its pause
_RETRY_LOGGER = "urllib3.connectionpool"
_LONGEST_REASON = 2000  # letters: MLflow's advice comes last; a proxy may answer with a whole page
# Of MLflow's tables, in its own complaint or in that of alembic, which upgrades them.
_REVISION = re.compile(r"found version (\w+), but expected|Can't locate revision identified by '(\w+)'")
_set_here: dict[str, str] = {}  # environment variables


def wait_in_outages(minutes: float) -> None:
    """Let every request of MLflow's client be repeated until the server has not answered for this long.

    Where it does not even refuse, the last attempt and the pause after it may end up to four minutes later. This holds
    for this process and its children. Variables that the user has set stay. The first request that has to wait says so.
    """
    retries, factor = _retries_for(60 * minutes)
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries), "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": str(factor)}
    for name, value in wanted.items():
        if os.environ.get(name, _set_here.get(name)) == _set_here.get(name):
            os.environ[name] = _set_here[name] = value
    logger = logging.getLogger(_RETRY_LOGGER)
    logger.filters[:] = [one for one in logger.filters if not isinstance(one, _Waiting)]
    logger.addFilter(_Waiting(minutes))


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """Let requests within the block fail at once where the server does not answer."""
    hurry = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    before = {name: os.environ.get(name) for name in hurry}
    os.environ.update(hurry)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _retries_for(seconds: float) -> tuple[int, int]:
    """Return the retries, and the factor of their pauses (0, 2, 4, 8, ... times it), that wait for this long."""
    if seconds <= 0:
        return 0, 1
    for factor in range(1, int(_LONGEST_PAUSE_S) + 1):
        waited = 0.0
        for retry in range(2, _RETRIES + 1):
            waited += min(factor * 2 ** (retry - 1), _LONGEST_PAUSE_S)
            if waited >= seconds:
                return retry, factor
    return _RETRIES, int(_LONGEST_PAUSE_S)


class _Waiting(logging.Filter):
    """Replaces urllib3's warnings about MLflow's server by one line in each outage, and ends the wait in time.

    urllib3 counts pauses only; where a server neither answers nor refuses, every attempt takes MLflow's time-out, too.
    """

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self._minutes = minutes
        self._repeated_at = -math.inf
        self._began_at: dict[int, float] = {}  # thread → when its request was first sent

    def filter(self, record: logging.LogRecord) -> bool:
        """Decide, as a request is about to be repeated, whether it still may be; let no warning about it pass.

        Raises:
            requests.ConnectionError: there was no answer to it for long enough.
        """
        if "/mlflow" not in str(record.args):  # of another server
            return True
        before, self._repeated_at = self._repeated_at, time.monotonic()
        if self._repeated_at - before > _NEW_OUTAGE_S:
            warn(f"MLflow's server {store_shown()} does not answer. Waiting for it, up to {self._minutes:g} minutes.")
        if isinstance(record.args, tuple):
            self._end_in_time(*record.args[:2])
        return False

    def _end_in_time(self, retries: object, error: object) -> None:
        import requests
        from urllib3.exceptions import NewConnectionError
        from urllib3.exceptions import TimeoutError as NoAnswer

        silent = isinstance(error, NoAnswer) and not isinstance(error, NewConnectionError)  # that one is a refusal
        now, thread = self._repeated_at, threading.get_ident()
        if len(getattr(retries, "history", ())) <= 1:
            self._began_at[thread] = now - (_time_out_s() if silent else 0)
        if now - self._began_at.get(thread, now) >= max(60 * self._minutes, 0.001):
            raise requests.ConnectionError("no answer in time")


def _time_out_s() -> float:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT

    return float(MLFLOW_HTTP_REQUEST_TIMEOUT.get())


@contextlib.contextmanager
def outages(part: str = "store") -> Iterator[None]:
    """Translate MLflow's errors from an unreachable server to StoreUnreachable; let all others pass.

    ``part`` is ``registry`` for requests to that: it may have a server of its own.
    """
    import mlflow
    import requests

    try:
        yield
    except (mlflow.exceptions.MlflowException, requests.RequestException, ConnectionError) as error:
        if part == "registry" and registry_is_away():
            raise unreachable(part) from error
        if _is_outage(error):
            raise unreachable() from error
        raise


def _is_outage(error: BaseException) -> bool:
    """Return whether the server could not be reached: by the error, or because a small request now fails."""
    import mlflow

    if not is_server(mlflow.get_tracking_uri()):
        return False
    if isinstance(error, mlflow.exceptions.RestException):
        return str(error.error_code) == "TEMPORARILY_UNAVAILABLE"
    return _without_answer(error) or not answers()


def store_client() -> Any:
    """Return a client of MLflow's store; mlflow is imported only here and where it is used, as it takes a second."""
    import mlflow

    create_store(mlflow.get_tracking_uri())
    return mlflow.MlflowClient()


@lru_cache
def create_store(uri: str) -> None:
    """Create the store before its first use, where it is a file that is not there yet; once in a process."""
    make_whole(uri)


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def answers(part: str = "store") -> bool:
    """Return whether the server of the store or registry answers within seconds, even if only with a refusal."""
    # A proxy's answer for an absent server, and a server's answer for an absent database, count as none.
    return borrowed.mlflow_answer(_ANSWER_S, _address(part)) not in (None, 500, 502, 503, 504)


def registry_is_away() -> bool:
    """Return whether the registry has a server of its own, which does not answer within seconds."""
    uri = _address("registry")
    return is_server(uri) and uri != _address("store") and not answers("registry")


def _address(part: str) -> str:
    import mlflow

    return str(mlflow.get_registry_uri() if part == "registry" else mlflow.get_tracking_uri())


def _without_answer(error: BaseException | None) -> bool:
    """Return whether an error, or one in its context, comes from a failed connection or a failing server."""
    import requests

    kinds = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.RetryError,  # repeated 429 or 5xx, for instance from a locked database
        ConnectionError,
    )
    while error is not None and not isinstance(error, StoreUnreachable):  # that comes from an earlier request
        if isinstance(error, kinds):
            return True
        error = error.__context__
    return False


def unreachable(part: str = "store") -> StoreUnreachable:
    what, variable = ("registry", "MLFLOW_REGISTRY_URI") if part == "registry" else ("server", "MLFLOW_TRACKING_URI")
    shown = without_passwords(_address(part))
    return StoreUnreachable(f"MLflow's {what} {shown} does not answer. Start it, or set {variable} to one that runs.")


@contextlib.contextmanager
def store_errors(part: str = "store") -> Iterator[None]:
    """Translate errors of MLflow's store or registry, and of its database, to a RunError of one line."""
    try:
        with outages(part):
            yield
    except Exception as error:
        if not _is_of_store(error):
            raise
        reason = " ".join(_origin(error).split())[:_LONGEST_REASON].rstrip(".")
        raise RunError(_of_newer_mlflow(reason) or _unusable(reason, part)) from error


def _is_of_store(error: Exception) -> bool:
    """Return whether an error is MLflow's, its database's, or that of what upgrades its tables, loaded on demand."""
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    kinds = (mlflow.exceptions.MlflowException, SQLAlchemyError)
    return isinstance(error, kinds) or type(error).__module__ == "alembic.util.exc"


def _unusable(reason: str, part: str) -> str:
    return f"MLflow's {part} {without_passwords(_address(part))} cannot be used: {reason}. Fix it, and run again."


def _of_newer_mlflow(reason: str) -> str:
    """Return what to say about tables of a later MLflow, which cannot be downgraded; "" about anything else."""
    found = _REVISION.search(reason)
    if not found or borrowed.mlflow_knows_schema(found[1] or found[2]):
        return ""
    return (
        f"MLflow's store {store_shown()} was made by a newer MLflow than {package_version('mlflow')} (its tables are "
        f"of revision {found[1] or found[2]}). Install that version, or set MLFLOW_TRACKING_URI to another store."
    )


def _origin(error: BaseException) -> str:
    """Return the message of the database driver if it caused the error; SQLAlchemy and MLflow wrap it in SQL."""
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and cause.orig is not None:
            return str(cause.orig)
        cause = cause.__cause__ or cause.__context__
    return str(error)


def store_shown() -> str:
    """Return the address of MLflow's store without passwords."""
    return without_passwords(_address("store"))
