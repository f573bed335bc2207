"""One process at a time in a folder, however the process that held it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from wastelens.errors import DatasetError
from wastelens.system.files import alone_in, in_turn

HOLDER = """
import sys, pathlib
from wastelens.system.files import alone_in
with alone_in(pathlib.Path(sys.argv[1]), "data_folder"):
    print("held", flush=True)
    sys.stdin.read()
"""

fcntl = pytest.importorskip("fcntl", reason="this system has no locks on folders")


def holder(folder: Path) -> subprocess.Popen[str]:
    """Start another process that holds the folder until its standard input ends."""
    process = subprocess.Popen(
        (sys.executable, "-c", HOLDER, folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_the_folder_is_made_and_free_again_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        with alone_in(folder, "data_folder"):
            assert folder.is_dir()
    with in_turn(folder, lambda: pytest.fail("nobody holds it")):
        pass


def test_another_process_holds_it_and_is_killed(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        with (
            pytest.raises(DatasetError, match=r"^Another run is writing to .* choose another data_folder\."),
            alone_in(tmp_path, "data_folder"),
        ):
            pytest.fail("two hold it")
        process.kill()
        process.wait()
        with alone_in(tmp_path, "data_folder"):
            pass


def test_each_in_turn(tmp_path: Path) -> None:
    waiting, inside = threading.Event(), threading.Event()

    def take() -> None:
        with in_turn(tmp_path, waiting.set):
            inside.set()

    with holder(tmp_path) as process:
        thread = threading.Thread(target=take)
        thread.start()
        assert waiting.wait(timeout=60)
        assert not inside.is_set()
        process.communicate("")
        thread.join(timeout=60)
        assert inside.is_set()


@pytest.mark.parametrize(("owner", "name", "gone"), [(Path, "mkdir", FileExistsError), (os, "open", FileNotFoundError)])
def test_renamed_by_another_process_this_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, gone: type[OSError]
) -> None:
    def renamed(path: Path, *arguments: Any, **options: Any) -> None:
        raise gone(path)

    monkeypatch.setattr(owner, name, renamed)
    with pytest.raises(DatasetError, match="Another run"), alone_in(tmp_path / "folder", "data_folder"):
        pytest.fail("there is nothing to hold")


def test_its_parent_renamed_by_another_process_this_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(path: Path, **options: Any) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "mkdir", renamed)
    with pytest.raises(DatasetError, match="Another run"), alone_in(tmp_path / "parent" / "folder", "data_folder"):
        pytest.fail("there is nothing to hold")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no folder that takes none")
def test_a_place_that_takes_no_folders() -> None:
    with (
        pytest.raises(DatasetError, match=r"^No folder can be made in /proc\. Choose another than /proc/x\.$"),
        alone_in(Path("/proc/x"), "output"),
    ):
        pytest.fail("there is nothing to hold")


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    with pytest.raises(FileExistsError), alone_in(tmp_path / "folder", "data_folder"):
        pytest.fail("a file was held")


def test_a_file_system_without_locks_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with alone_in(tmp_path, "data_folder"), in_turn(tmp_path, lambda: pytest.fail("nobody holds it")):
        pass
