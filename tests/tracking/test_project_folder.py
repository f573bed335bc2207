"""Where ``mlflow run`` reads and writes is said where users would look elsewhere, and only there."""

from __future__ import annotations

from pathlib import Path

import pytest

from wastelens.tracking.project_folder import say_where_things_lie


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, in which MLflow starts its commands."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_nothing_is_said_in_the_project_itself(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "sqlite:///mlflow.db")
    say_where_things_lie(Path("data"), ["data_folder"])
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "http://tracker:5000")
    say_where_things_lie(Path("data"), ["data_folder"])
    assert capsys.readouterr().out == ""


def test_a_project_that_is_run_from_elsewhere(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"sqlite:///{project.parent / 'elsewhere' / 'mlflow.db'}"
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: store)
    say_where_things_lie(Path("data"), ["data_folder"])
    said = " ".join(capsys.readouterr().out.split())
    assert said == (f"Relative paths start in the project's folder, {project}. Data: {project / 'data'}. Runs: {store}")


def test_data_in_a_temporary_copy_of_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, typed_in = tmp_path / "temporary" / "tmp1234", tmp_path / "typed in"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: f"sqlite:///{typed_in / 'mlflow.db'}")
    say_where_things_lie(Path("data"), ["data_folder"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"Warning: The project is a temporary copy, {copy}" in said
    assert f"Give one that stays: -P 'set=data_folder=\"{typed_in / 'data'}\"'" in said
    say_where_things_lie(typed_in / "data", ["data_folder"])  # as advised
    assert "Warning" not in capsys.readouterr().out
