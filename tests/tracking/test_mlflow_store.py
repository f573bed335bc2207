"""Waiting for MLflow's server: how requests are repeated, and what is said meanwhile."""

from __future__ import annotations

import logging
import os

import pytest
from urllib3.util.retry import Retry

from wastelens.config.engine import LONGEST_OUTAGE_MINUTES
from wastelens.tracking import mlflow_store
from wastelens.tracking.mlflow_store import wait_in_outages, without_waiting

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
