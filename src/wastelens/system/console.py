"""Output for the user: lines, progress bars and tables, all on standard output; commands to run next."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

DATA_FOLDER = Path("data")  # the default in every conf/*.yaml
LOG_WIDTH = 140
SECONDS_BETWEEN_LINES = 20
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def console() -> Console:
    """Return a console on the current standard output, looked up at each call so that tests can capture it."""
    drawn = Console(highlight=False, soft_wrap=True)
    if not drawn.is_terminal:
        drawn.width = LOG_WIDTH
    return drawn


def printable(text: str) -> str:
    """Return a text on one line that steers no terminal: control characters are shown as escapes, such as ``\\x1b``.

    Names of files and labels come from others. One with a line break could forge a line of ours, one with an escape
    sequence or a mark of text direction change what stands on the screen.
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str, style: str = "") -> None:
    """Print one line; ``style`` is one of rich's (``bold``, ``yellow``, ``green``)."""
    console().print(printable(text), style=style or None, markup=False)


def warn(text: str) -> None:
    """Print a line that should not be overlooked."""
    say(f"Warning: {text}", "yellow")


class Bar:
    """A progress bar that can show a few figures at its end."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._written_at = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        """Advance by this number of steps."""
        self._progress.advance(self._task, steps)

    def show(self, figures: str) -> None:
        """Replace the text at the end of the bar; in a log, where no bar can move, print it as a line now and then."""
        self._progress.update(self._task, figures=printable(figures))
        if not self._progress.console.is_terminal and time.monotonic() - self._written_at >= SECONDS_BETWEEN_LINES:
            self._written_at = time.monotonic()
            say(figures)


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Bar]:
    """Show a progress bar with count and time left; it moves on a terminal and appears once in a log."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console(), refresh_per_second=4) as progress:
        yield Bar(progress, progress.add_task(escape(printable(what)), total=total, figures=""))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a titled table: the first column aligned left, the others (numbers) aligned right."""
    drawn = Table()
    for position, column in enumerate(columns):
        drawn.add_column(escape(printable(column)), justify="left" if position == 0 else "right", no_wrap=position == 0)
    for row in rows:
        drawn.add_row(*(escape(printable(cell)) for cell in row))
    say(title, "bold")
    Console(highlight=False, width=max(100, console().width)).print(drawn)


def next_command(entry_point: str, parameters: Mapping[str, object], data_folder: Path = DATA_FOLDER) -> str:
    """Return the command that runs an entry point from the project's folder.

    Parameters with empty values are left out; so is the data folder of the calling step if it is the default.
    """
    quoted = json.dumps(str(data_folder), ensure_ascii=False)  # YAML: the path may contain spaces
    elsewhere = f"data_folder={quoted}" if data_folder != DATA_FOLDER else ""
    settings = [str(parameters.get("set", "")), elsewhere]
    given = {**parameters, "set": " ".join(setting for setting in settings if setting)}
    words = [shlex.quote(f"{name}={value}") for name, value in given.items() if str(value)]
    return " ".join([f"mlflow run . -e {entry_point} --env-manager local", *(f"-P {word}" for word in words)])
