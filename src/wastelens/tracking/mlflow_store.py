"""MLflow's store, as all of our modules see it: whether it answers, and its errors as ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from wastelens.errors import RunError, StoreUnreachable
from wastelens.system.passwords import without_passwords

SOON = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # Large artifacts, too, have to be answered within it.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@contextlib.contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables, set for a while."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def outages() -> Iterator[None]:
    """MLflow's errors for want of a server as StoreUnreachable; all others as they are."""
    import mlflow
    import requests

    try:
        yield
    except (mlflow.exceptions.MlflowException, requests.RequestException, ConnectionError) as error:
        if _is_outage(error):
            raise unreachable() from error
        raise


def _is_outage(error: BaseException) -> bool:
    """Whether the server could not be reached: the error says so, or the server now leaves a small question open."""
    import mlflow

    if not is_server(mlflow.get_tracking_uri()):
        return False
    if isinstance(error, mlflow.exceptions.RestException):
        return str(error.error_code) == "TEMPORARILY_UNAVAILABLE"
    return _without_answer(error) or not answers()


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def answers() -> bool:
    """Whether the server answers within seconds, if only with a refusal."""
    import mlflow
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        # Not by MlflowClient: how long that waits is in the environment, and other threads are in their requests.
        answer = http_request(
            get_default_host_creds(mlflow.get_tracking_uri()),
            "/api/2.0/mlflow/experiments/search",
            "POST",
            json={"max_results": 1},
            max_retries=0,
            timeout=5,
            raise_on_status=False,
        )
    except mlflow.exceptions.MlflowException:
        return False
    # What a proxy says of a server that is not there, and a server of a database that is not.
    return answer.status_code not in (500, 502, 503, 504)


def _without_answer(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised in handling of, is that of a connection or of a server in trouble."""
    import requests

    kinds = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.RetryError,  # 429 and 5xx again and again: a database that is locked, say
        ConnectionError,
    )
    while error is not None and not isinstance(error, StoreUnreachable):  # that one is of an earlier request
        if isinstance(error, kinds):
            return True
        error = error.__context__
    return False


def unreachable() -> StoreUnreachable:
    return StoreUnreachable(f"MLflow's server {store_shown()}")


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """MLflow's and its database's errors as one line."""
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with outages():
            yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        reason = " ".join(_origin(error).split())[:200].rstrip(".")
        raise RunError(f"MLflow's store {store_shown()} cannot be used: {reason}. Mend it, and go on.") from error


def _origin(error: BaseException) -> str:
    """What a database's driver said, where an error goes back to that; SQLAlchemy and MLflow wrap it in statements."""
    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and cause.orig is not None:
            return str(cause.orig)
        cause = cause.__cause__ or cause.__context__
    return str(error)


def store_shown() -> str:
    """The address of MLflow's store as it may be shown: without a password."""
    import mlflow

    return without_passwords(mlflow.get_tracking_uri())
