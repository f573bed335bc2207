"""The database of trials: problems are reported in one line, without passwords."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from optuna.trial import Trial
from tests.tuning.searches import PASSWORD, config_of, opened, refusal, work

from wastelens.errors import ConfigError, SearchStoreError
from wastelens.tuning import database


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where all connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def postgres(port: int | str) -> str:
    return f"postgresql://user:{PASSWORD}@127.0.0.1:{port}/tuning"


def test_nobody_at_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=postgres(port)))
    assert message == (
        f"The storage postgresql://127.0.0.1:{port}/tuning does not answer (Connection refused). Start it, or choose "
        "another storage."
    )


def test_a_server_that_takes_connections_and_says_nothing(
    tmp_path: Path, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 2 * database._ANSWER_S < 30  # the knock and the driver
    monkeypatch.setattr(database, "_ANSWER_S", 2.0)
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=postgres(silent_port)))
    assert message.startswith(f"The storage postgresql://127.0.0.1:{silent_port}/tuning: ")
    assert "timeout expired" in message
    assert message.endswith("Fix it, or choose another storage.")


def test_no_driver(tmp_path: Path, silent_port: int) -> None:
    address = f"mysql+pymysql://user:{PASSWORD}@127.0.0.1:{silent_port}/tuning"
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=address))
    assert message.startswith(
        f"The storage mysql://127.0.0.1:{silent_port}/tuning needs a driver that is not installed"
    )
    message = refusal(SearchStoreError, lambda: opened(tmp_path, storage=f"nosuch://user:{PASSWORD}@127.0.0.1/tuning"))
    assert message.startswith("The storage nosuch://127.0.0.1/tuning")
    assert "nosuch" in message.removeprefix("The storage nosuch:")


@pytest.mark.parametrize("storage", [PASSWORD, f"{PASSWORD}.db", f"postgresql:/u:{PASSWORD}@h/x", postgres(PASSWORD)])
def test_no_address(tmp_path: Path, storage: str) -> None:
    message = refusal(ConfigError, lambda: opened(tmp_path, storage=storage))
    assert message == (
        "Config key 'storage' is no address of a database; write sqlite:///FILE or "
        "postgresql://USER@HOST:PORT/NAME, with the password in the variable PGPASSWORD."
    )


@pytest.mark.parametrize(
    ("storage", "holds"),
    [
        ("", False),
        ("postgresql://user@host/tuning", False),
        ("postgresql://user@host/tuning?passfile=/home/user/.pgpass&sslmode=require", False),
        (f"postgresql://user:{PASSWORD}@host/tuning", True),
        (f"postgresql://user@host/tuning?sslmode=require&password={PASSWORD}", True),
        (f"postgresql:///tuning?host=host&sslpassword={PASSWORD}", True),
        (f"mysql+pymysql://user@host/tuning?PASSWD={PASSWORD}", True),
    ],
)
def test_passwords_within_addresses(storage: str, *, holds: bool) -> None:
    known = config_of(storage=storage)
    assert database.holds_password(known) is holds
    assert PASSWORD not in database.shown_address(known)

    def fail() -> None:
        with database.database_errors(known):
            raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception(f"refused: {PASSWORD if holds else '***'}"))

    assert ": refused: ***. Fix it" in refusal(SearchStoreError, fail)


@pytest.mark.parametrize("storage", ["sqlite://", "sqlite:///:memory:"])
def test_memory_is_no_storage(tmp_path: Path, storage: str) -> None:
    assert "names no file" in refusal(ConfigError, lambda: opened(tmp_path, storage=storage))


def test_files_that_are_no_database(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a file of quite another kind, and long enough to be read as one\n" * 40)
    (tmp_path / "folder").mkdir()
    other = {"folder": "unable to open database file", "text": "file is not a database", "text/x.db": "File exists"}
    for name, words in other.items():
        message = refusal(SearchStoreError, lambda name=name: opened(tmp_path, storage=f"sqlite:///{tmp_path}/{name}"))
        assert message == f"The storage sqlite:///{tmp_path}/{name}: {words}. Fix it, or choose another storage."


def test_a_database_of_another_release_of_optuna(tmp_path: Path) -> None:
    opened(tmp_path)
    with sqlite3.connect(tmp_path / "tuning.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v9.9.9'")
    connection.close()
    message = refusal(SearchStoreError, lambda: opened(tmp_path))
    assert message.startswith(f"The storage sqlite:///{tmp_path}/tuning.db: The runtime optuna version ")


def test_a_storage_that_fails_in_mid_search(tmp_path: Path) -> None:
    store = opened(tmp_path)

    def objective(trial: Trial) -> float:
        with sqlite3.connect(tmp_path / "tuning.db") as connection:
            connection.execute("DROP TABLE trial_values")
        connection.close()
        return 0.5

    message = refusal(SearchStoreError, lambda: work(store, objective))
    assert "no such table: trial_values" in message


@pytest.mark.parametrize(
    ("storage", "shown"), [("", "/tuning.db"), ("sqlite:////shared/t.db", "sqlite:////shared/t.db")]
)
def test_a_file_is_no_database_for_other_machines(storage: str, shown: str) -> None:
    message = refusal(ConfigError, lambda: database.check_shared(config_of(storage=storage)))
    assert message.startswith("Workers on other machines cannot reach storage sqlite:///")
    assert shown in message
    database.check_shared(config_of(storage="postgresql://user@host/tuning"))
