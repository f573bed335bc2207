"""Waiting for MLflow's server: how requests are repeated, and what is said meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time

import pytest
import requests
from urllib3.util.retry import Retry

from wastelens.config.engine import LONGEST_OUTAGE_MINUTES
from wastelens.errors import StoreUnreachable
from wastelens.tracking import mlflow_store
from wastelens.tracking.mlflow_store import store_errors, wait_in_outages, without_waiting

RETRIES, FACTOR = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables as they were, and none of them set by the user."""
    for name in (RETRIES, FACTOR):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(mlflow_store, "_set_here", {})


def seconds_waited(retries: int, factor: int) -> float:
    """The pauses that urllib3 makes before it gives up, without jitter."""
    retry, waited = Retry(total=retries, backoff_factor=factor), 0.0
    for _ in range(retries):
        retry = retry.increment(error=ConnectionError())
        waited += retry.get_backoff_time()
    return waited


@pytest.mark.parametrize("minutes", [0, 0.1, 1, 5, 10, LONGEST_OUTAGE_MINUTES])
def test_requests_are_repeated_until_that_time(minutes: float) -> None:
    wait_in_outages(minutes)
    retries, factor = int(os.environ[RETRIES]), int(os.environ[FACTOR])
    assert seconds_waited(retries, factor) >= 60 * minutes
    assert retries <= 10
    assert factor <= 120  # MLflow takes no more


def test_settings_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RETRIES, "3")
    wait_in_outages(10)
    assert os.environ[RETRIES] == "3"


def test_a_later_call_replaces_an_earlier_one() -> None:
    wait_in_outages(0)
    wait_in_outages(10)
    assert os.environ[RETRIES] != "0"


def test_a_block_without_waiting() -> None:
    wait_in_outages(10)
    before = os.environ[RETRIES]
    with without_waiting():
        assert os.environ[RETRIES] == "0"
    assert os.environ[RETRIES] == before


def test_an_outage_is_announced_once_instead_of_urllib3s_warnings(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    wait_in_outages(10)
    logger = logging.getLogger("urllib3.connectionpool")
    for _ in range(3):
        logger.warning("Retrying (%r) after connection broken by '%r': %s", 1, "x", "/api/2.0/mlflow/runs/log-batch")
    logger.warning("Retrying (%r) after connection broken by '%r': %s", 1, "x", "/photos/1.jpg")
    said = capsys.readouterr().out
    assert said.count("does not answer. Waiting for it, up to 10 minutes.") == 1
    assert [record.args[2] for record in caplog.records if isinstance(record.args, tuple)] == ["/photos/1.jpg"]


def test_a_later_outage_is_announced_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(mlflow_store.time, "monotonic", lambda: now[0])
    wait_in_outages(10)
    logger = logging.getLogger("urllib3.connectionpool")
    for pause in (0, 10, 240, 240, 240, 1000, 10):
        now[0] += pause
        logger.warning("Retrying (%r) after connection broken by '%r': %s", 1, "x", "/api/2.0/mlflow/runs/log-batch")
    assert capsys.readouterr().out.count("does not answer. Waiting for it") == 2


def test_a_request_to_an_absent_server_is_repeated_and_then_fails_in_one_line(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow

    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(address)
    began = time.monotonic()
    try:
        wait_in_outages(0.02)
        with pytest.raises(StoreUnreachable, match=f"MLflow's server {address} does not answer"), store_errors():
            mlflow.MlflowClient().search_experiments()
    finally:
        mlflow.set_tracking_uri(before)
    assert time.monotonic() - began >= 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"MLflow's server {address} does not answer. Waiting for it, up to 0.02 minutes.") == 1
    assert not [record for record in caplog.records if record.name.startswith("urllib3")]


def test_a_server_that_keeps_silent_is_given_up_as_early_as_one_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    before, connections = mlflow.get_tracking_uri(), []
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def accept() -> None:
            with contextlib.suppress(OSError):  # it is closed
                while True:
                    connections.append(silent.accept()[0])

        accepting = threading.Thread(target=accept)
        accepting.start()
        mlflow.set_tracking_uri(f"http://127.0.0.1:{silent.getsockname()[1]}")
        wait_in_outages(0.05)
        assert os.environ[RETRIES] == "3"
        try:
            with pytest.raises(StoreUnreachable), store_errors():
                mlflow.MlflowClient().search_experiments()
        finally:
            mlflow.set_tracking_uri(before)
            silent.shutdown(socket.SHUT_RDWR)
            accepting.join()
    for connection in connections:
        connection.close()
    assert len(connections) in (1, 2)  # of four that urllib3 would try: three seconds are over by then


def test_each_request_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(mlflow_store.time, "monotonic", lambda: now[0])
    wait_in_outages(10)
    logger = logging.getLogger("urllib3.connectionpool")

    def repeated(times: int) -> None:
        retry = Retry(total=10)
        for _ in range(times):
            retry = retry.increment(error=ConnectionError())
            now[0] += 100
            logger.warning("Retrying (%r) after %r: %s", retry, ConnectionError(), "/api/2.0/mlflow/runs/log-batch")

    for _ in range(3):
        repeated(5)
    with pytest.raises(requests.ConnectionError):
        repeated(7)
