"""MLflow's store in a fresh folder: commands that are killed while it is created, or started together."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.project.running import PROGRAM, complaint, environment, run, start, wastelens

ASK = ("compare", "--run_ids", "a,b")  # ends as soon as the store is there: it has no runs
PLAIN_MLFLOW = (sys.executable, "-c", "import mlflow; mlflow.MlflowClient().search_experiments()")


def expect_a_store(folder: Path) -> None:
    """Check that a command gets beyond the store."""
    assert "There is no run" in complaint(wastelens(*ASK, cwd=folder))
    assert sorted(path.name for path in folder.iterdir() if path.name != "output.txt") == ["mlflow.db"]


def kill_while_creating(
    folder: Path, command: tuple[str, ...], number: signal.Signals, file: str, later_s: float
) -> None:
    """Start a command, and end it this long after it has begun to create its store in ``file``."""
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for_file = folder / file
        while not wait_for_file.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(later_s)
        process.send_signal(number)


def test_a_command_that_is_killed_while_it_creates_the_store_leaves_none(tmp_path: Path) -> None:
    kill_while_creating(tmp_path, (*PROGRAM, *ASK), signal.SIGKILL, ".mlflow.db.new", 0.3)
    assert not (tmp_path / "mlflow.db").exists()
    expect_a_store(tmp_path)


def test_a_store_that_mlflow_itself_left_unfinished_is_made_again(tmp_path: Path) -> None:
    kill_while_creating(tmp_path, PLAIN_MLFLOW, signal.SIGKILL, "mlflow.db", 0.3)
    expect_a_store(tmp_path)
    assert run(*PLAIN_MLFLOW, cwd=tmp_path).returncode == 0


def test_commands_that_start_together_share_one_store(tmp_path: Path) -> None:
    together = [start(*ASK, cwd=tmp_path, output=f"output{number}.txt") for number in range(6)]
    assert [process.wait() for process in together] == [2] * 6
    for number in range(6):
        said = (tmp_path / f"output{number}.txt").read_text()
        assert said.splitlines()[-1].startswith("wastelens: There is no run"), said
        (tmp_path / f"output{number}.txt").unlink()
    expect_a_store(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("attempt", range(8))
def test_kills_at_any_moment(tmp_path: Path, number: signal.Signals, attempt: int) -> None:
    process = start(*ASK, cwd=tmp_path)
    time.sleep(random.Random(attempt).uniform(0, 8))
    process.send_signal(number)
    process.wait()
    expect_a_store(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(8))
def test_kills_of_mlflow_itself_at_any_moment(tmp_path: Path, attempt: int) -> None:
    kill_while_creating(tmp_path, PLAIN_MLFLOW, signal.SIGKILL, "mlflow.db", random.Random(attempt).uniform(0, 5))
    expect_a_store(tmp_path)
