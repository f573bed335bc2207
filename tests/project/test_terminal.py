"""Commands on a real terminal (a pseudo-terminal of the kernel): bars, figures and commands fit 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from tests.project.running import PROGRAM, environment, ok, wastelens

pytestmark = pytest.mark.slow

COLUMNS, ROWS = 80, 24
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TINY = "network.widths=[4,8] fit.epochs=3 bootstrap_resamples=100"


def on_terminal(*arguments: str, cwd: Path) -> list[str]:
    """Run a command on a terminal, and return all lines that stood on it, those that were drawn over too."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    shown = {**environment(), "TERM": "xterm-256color"}
    process = subprocess.Popen([*PROGRAM, *arguments], cwd=cwd, env=shown, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the last writer is gone
            break
        if not piece:
            break
        pieces.append(piece)
    os.close(ours)
    text = b"".join(pieces).decode()
    assert process.wait(timeout=60) == 0, text
    return [line for line in re.split(r"[\r\n]+", ESCAPES.sub("", text)) if line.strip()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal")
    ok(wastelens("prepare", "--dataset", "sample", "--image_side_px", "32", cwd=folder))
    return folder


@pytest.fixture(scope="module")
def training(place: Path) -> list[str]:
    """The lines of a training."""
    return on_terminal("train", "--dataset", "sample", "--model", "base", "--set", TINY, cwd=place)


def test_a_training_shows_bar_count_and_time_left(training: list[str]) -> None:
    bars = [line for line in training if "━" in line]
    assert bars
    for line in bars:
        assert re.search(r"━ +\d+/\d+ +(\d+:)?[\d-]+:[\d-]+ *$", line), line
        assert len(line) <= COLUMNS
    assert any(line.startswith("epoch 3: loss ") for line in training)
    too_long = [line for line in training if len(line) > COLUMNS]
    assert all(re.match(r"http|mlflow (run|ui) |wastelens ", line) for line in too_long), too_long
    assert any(re.match(r"(mlflow run \. -e|wastelens) predict ", line) for line in training)


@pytest.mark.usefixtures("training")
def test_explaining_moves_within_a_batch(place: Path) -> None:
    lines = on_terminal(
        *("explain", "--dataset", "sample", "--methods", "gradcam", "--photos", "3"),
        *("--set", "randomised_photos=1 steps=2 bootstrap_resamples=100"),
        cwd=place,
    )
    assert any(re.match(r"photos 1 to 3 of 3: gradcam", line) for line in lines)
    assert [line for line in lines if re.search(r"━ +3/3 ", line)]
