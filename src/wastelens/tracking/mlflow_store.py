"""Access to MLflow's store: whether it answers, and its errors translated to ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from wastelens.errors import RunError, StoreUnreachable
from wastelens.system import borrowed
from wastelens.system.passwords import without_passwords

_ANSWER_S = 5.0
SOON = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # Applies to large artifacts, too.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block."""
    before = {key: os.environ[key] for key in values if key in os.environ}
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.update(before)
        for key in values.keys() - before.keys():
            os.environ.pop(key, None)


@contextlib.contextmanager
def outages() -> Iterator[None]:
    """Translate MLflow's errors from an unreachable server to StoreUnreachable; let all others pass."""
    import mlflow
    import requests

    try:
        yield
    except (mlflow.exceptions.MlflowException, requests.RequestException, ConnectionError) as error:
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

    return mlflow.MlflowClient()


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def answers() -> bool:
    """Return whether the server answers within seconds, even if only with a refusal."""
    # A proxy's answer for an absent server, and a server's answer for an absent database, count as none.
    return borrowed.mlflow_answer(_ANSWER_S) not in (None, 500, 502, 503, 504)


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


def unreachable() -> StoreUnreachable:
    return StoreUnreachable(f"MLflow's server {store_shown()}")


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Translate errors of MLflow and its database to a RunError of one line."""
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with outages():
            yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        reason = " ".join(_origin(error).split())[:200].rstrip(".")
        raise RunError(f"MLflow's store {store_shown()} cannot be used: {reason}. Fix it, and run again.") from error


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
    import mlflow

    return without_passwords(mlflow.get_tracking_uri())
