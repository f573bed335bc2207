"""``make ui``: it opens the table of runs."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from tools import ui


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    monkeypatch.chdir(tmp_path)
    return mlflow.MlflowClient(tracking_uri=ui.STORE)


# MLflow 3.17 on SQLAlchemy 2.1.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")
def test_the_page_is_that_of_the_project_s_experiment(store: mlflow.MlflowClient) -> None:
    assert ui.experiment_id() == "0"
    made = store.create_experiment("wastelens")
    assert made != "0"
    assert ui.experiment_id() == made


@pytest.mark.parametrize("screen", [True, False])
def test_a_browser_is_opened_only_on_a_screen(monkeypatch: pytest.MonkeyPatch, screen: bool) -> None:
    opened: list[str] = []

    class Server:
        def __init__(self, command: list[str]) -> None:
            assert command[-3:] == ["ui", "--backend-store-uri", ui.STORE]

        def poll(self) -> None:
            return None

        def wait(self) -> int:
            return 0

        def terminate(self) -> None: ...

    monkeypatch.setattr(ui.subprocess, "Popen", Server)
    monkeypatch.setattr(ui, "is_served", iter([False, True]).__next__)
    monkeypatch.setattr(ui.webbrowser, "open", opened.append)
    monkeypatch.setattr(ui, "experiment_id", lambda: "7")
    monkeypatch.setattr(ui, "has_screen", lambda: screen)
    assert ui.main() == 0
    page = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=wastelens"
    assert opened == ([page] if screen else [])


def test_another_server_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "is_served", lambda: True)
    with pytest.raises(SystemExit, match="already"):
        ui.main()
