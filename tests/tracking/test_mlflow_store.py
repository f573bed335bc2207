"""The private parts of MLflow that ``mlflow_store`` uses are there and work as expected."""

from __future__ import annotations

import inspect

import mlflow
import pytest

from wastelens.tracking import mlflow_store


def test_the_system_metrics_monitor_of_a_run_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Monitor:
        finished = False

        def finish(self) -> None:
            self.finished = True

    monitor = Monitor()
    monkeypatch.setitem(mlflow.tracking.fluent.run_id_to_system_metrics_monitor, "a", monitor)
    mlflow_store.stop_system_metrics("b")
    assert not monitor.finished
    mlflow_store.stop_system_metrics("a")
    assert monitor.finished
    assert "a" not in mlflow.tracking.fluent.run_id_to_system_metrics_monitor


def test_mlflow_registers_its_monitors_under_that_name() -> None:
    assert "run_id_to_system_metrics_monitor" in inspect.getsource(mlflow.start_run)
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    assert callable(SystemMetricsMonitor.finish)


def test_a_request_takes_the_arguments_that_keep_it_short() -> None:
    from mlflow.utils.rest_utils import http_request

    assert {"host_creds", "endpoint", "method", "max_retries", "timeout", "raise_on_status"} <= set(
        inspect.signature(http_request).parameters
    )


def test_credentials_have_the_host() -> None:
    from mlflow.utils.credentials import get_default_host_creds

    assert get_default_host_creds("http://127.0.0.1:9").host == "http://127.0.0.1:9"


def test_an_absent_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "http://127.0.0.1:9")
    assert not mlflow_store.answers()


def test_artifacts_can_be_deleted() -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    assert callable(get_artifact_repository("file:///tmp").delete_artifacts)
