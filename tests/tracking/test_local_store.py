"""The SQLite file of MLflow's store: made whole, made again where it is unfinished, and refused in words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from wastelens.errors import RunError
from wastelens.tracking import local_store
from wastelens.tracking.local_store import make_whole
from wastelens.tracking.mlflow_store import store_errors
from wastelens.tracking.mlflow_tracker import MlflowTracker

# MLflow 3.17 on SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


def execute(file: Path, *commands: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(file)) as database:
        answers = [database.execute(command).fetchall() for command in commands]
        database.commit()
    return answers


def address(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("store") / "new" / "mlflow.db"
    make_whole(address(file))
    return file


def test_a_store_is_created_with_nothing_beside_it(whole: Path) -> None:
    import mlflow

    assert os.listdir(whole.parent) == ["mlflow.db"]
    assert [one.name for one in mlflow.MlflowClient(address(whole)).search_experiments()] == ["Default"]


def test_an_unfinished_store_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    file = tmp_path / "mlflow.db"
    execute(file, "CREATE TABLE experiments (experiment_id INTEGER)", "CREATE TABLE alembic_version (version_num TEXT)")
    (tmp_path / "mlflow.db-journal").write_bytes(b"of a killed process")
    (tmp_path / ".mlflow.db.new").write_bytes(b"of a killed process")
    monkeypatch.setattr(local_store, "_STILL_S", 0)
    make_whole(address(file))
    assert os.listdir(tmp_path) == ["mlflow.db"]
    client = mlflow.MlflowClient(address(file))
    assert client.create_run("0").info.experiment_id == "0"


def test_a_store_that_another_program_is_creating_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mlflow.db"
    execute(file, "CREATE TABLE experiments (experiment_id INTEGER)")

    def goes_on(seconds: float) -> None:
        execute(file, "INSERT INTO experiments VALUES (0)")

    monkeypatch.setattr(local_store, "_STILL_S", 60)
    monkeypatch.setattr(local_store.time, "sleep", goes_on)
    make_whole(address(file))
    assert execute(file, "SELECT * FROM experiments") == [[(0,)]]


def test_a_store_with_experiments_is_never_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    execute(file, "CREATE TABLE experiments (experiment_id INTEGER)", "INSERT INTO experiments VALUES (0)")
    before = file.read_bytes()
    make_whole(address(file))
    assert file.read_bytes() == before


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "postgresql://user@host/name", "http://host:5000"])
def test_other_stores_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.chdir(tmp_path)
    make_whole(uri)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.exc import OperationalError

    def full(uri: str) -> None:
        Path(uri.removeprefix("sqlite:///")).write_bytes(b"half of it")
        raise OperationalError("CREATE TABLE", {}, sqlite3.OperationalError("database or disk is full"))

    monkeypatch.setattr(local_store.borrowed, "create_mlflow_store", full)
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: address(tmp_path / "mlflow.db"))
    with pytest.raises(RunError, match=r"cannot be used: database or disk is full\. Fix it, and run again\.$"):
        MlflowTracker().finished({})
    assert os.listdir(tmp_path) == []


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    file.write_text("not a database, but a long text about something else: " * 20)
    with pytest.raises(RunError, match=r"mlflow\.db is damaged, or something else .*\. Move it away"):
        make_whole(address(file))
    assert file.exists()
    file.rename(tmp_path / "away")
    make_whole(address(file))


def test_a_folder_that_cannot_be_written_is_refused_at_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_store.os, "access", lambda path, mode: path == whole)
    with pytest.raises(RunError, match=r"mlflow\.db cannot be written: no permission to write\. Run from a folder"):
        make_whole(address(whole))


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written: .*\. Run from a folder in which you may write"):
        make_whole(address(tmp_path / "file" / "mlflow.db"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE alembic_version SET version_num = 'fffffffffff1'",
            r"was made by a newer MLflow than [\d.]+ \(its tables are of revision fffffffffff1\)\. Install that",
        ),
        (
            "UPDATE alembic_version SET version_num = '451aebb31d03'",
            r"cannot be used: Detected out-of-date .* run 'mlflow db upgrade <database_uri>' .* for more detail\. Fix",
        ),
    ],
)
def test_tables_of_another_mlflow_are_one_line_with_all_of_its_advice(
    whole: Path, tmp_path: Path, change: str, said: str
) -> None:
    import mlflow

    file = tmp_path / "mlflow.db"
    file.write_bytes(whole.read_bytes())
    execute(file, change)
    make_whole(address(file))
    with pytest.raises(RunError, match=said), store_errors():
        mlflow.MlflowClient(address(file)).search_experiments()


def test_tables_of_a_newer_mlflow_that_misses_some_of_ours(whole: Path, tmp_path: Path) -> None:
    import mlflow

    file = tmp_path / "mlflow.db"
    file.write_bytes(whole.read_bytes())
    execute(file, "UPDATE alembic_version SET version_num = 'fffffffffff1'", "DROP TABLE assessments")
    with pytest.raises(RunError, match=r"was made by a newer MLflow"), store_errors():
        mlflow.MlflowClient(address(file)).search_experiments()
