"""Output for the user: lines, progress bars and tables, all on standard output; commands to run next."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

DATA_FOLDER = Path("data")  # the default in every conf/*.yaml
LOG_WIDTH = 140
SECONDS_BETWEEN_LINES = 20
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Commands are at the end of what is said.
_COMMAND = re.compile(r"(?=\b(?:mlflow (?:run|ui) |wastelens (?!materials)[a-z]+ --))")
_BESIDE_DESCRIPTION = 46  # letters of a progress line for the bar, the count and the time left
_BORDERS = 3  # letters around a table's column


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
    """Print a text; ``style`` is one of rich's (``bold``, ``yellow``, ``green``).

    In a log it stays on one line. A terminal gets it wrapped at words, with a command on a line of its own, which can
    be copied whole.
    """
    drawn, text = console(), printable(text)
    lines = wrapped(text, drawn.width) if drawn.is_terminal else [text]
    drawn.print("\n".join(lines), style=style or None, markup=False)


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text: wrapped at words, and from where a command begins in one piece."""
    if len(text) <= width:
        return [text]
    sentence, *command = _COMMAND.split(text, maxsplit=1)
    return [*textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False), *command]


def warn(text: str) -> None:
    """Print a line that should not be overlooked."""
    say(f"Warning: {text}", "yellow")


class Bar:
    """A progress bar that can show a few figures below it."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._done = 0.0
        self._written_at = time.monotonic()

    def advance(self, steps: float = 1) -> None:
        """Advance by this number of steps, or by a part of one."""
        self._done += steps
        self._progress.update(self._task, completed=round(self._done, 6))  # parts of a step add up to whole ones

    def show(self, figures: str) -> None:
        """Replace the text below the bar; in a log, where no bar can move, print it as a line now and then."""
        self._progress.update(self._task, figures=printable(figures))
        if not self._progress.console.is_terminal and time.monotonic() - self._written_at >= SECONDS_BETWEEN_LINES:
            self._written_at = time.monotonic()
            say(figures)


class _FiguresBelow(Progress):
    """A progress display with the figures of each task on a line of their own, so that they never displace the bar."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the bar, and its figures."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["figures"]:
                yield Text(task.fields["figures"], no_wrap=True, overflow="ellipsis", style="dim")


@contextlib.contextmanager
def progress_bar(what: str, total: int) -> Iterator[Bar]:
    """Show a progress bar with count and time left; it moves on a terminal and appears once in a log."""
    drawn = console()
    longest = max(drawn.width - _BESIDE_DESCRIPTION, 10)
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=longest)),
        BarColumn(bar_width=20 if drawn.width < LOG_WIDTH else 30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with _FiguresBelow(*columns, console=drawn, refresh_per_second=4) as progress:
        yield Bar(progress, progress.add_task(escape(printable(what)), total=total, figures=""))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a titled table: the first column aligned left, the others (numbers) aligned right.

    Columns that do not fit beside the others follow in a further table, below the same first column.
    """
    cells = [[printable(cell) for cell in row] for row in (columns, *rows)]
    width = console().width
    say(title, "bold")
    for places in _fitting(cells, width):
        drawn = Table()
        # Left to itself, rich would cut figures rather than wrap a heading.
        is_tight = sum(max(cell_len(row[place]) for row in cells) + _BORDERS for place in places) + 1 > width
        for place in places:
            least = min(_room(cells, 0), width // 2) if place == 0 else _room(cells, place)
            justify: Literal["left", "right"] = "left" if place == 0 else "right"
            drawn.add_column(escape(cells[0][place]), width=least if is_tight else None, justify=justify)
        for row in cells[1:]:
            drawn.add_row(*(escape(row[place]) for place in places))
        Console(highlight=False, width=width).print(drawn)


def _room(cells: Sequence[Sequence[str]], place: int) -> int:
    """Return the width that a column needs at least: its cells are not wrapped, its heading is, at words."""
    heading = max(map(cell_len, cells[0][place].split()), default=0)
    return max(heading, *(cell_len(row[place]) for row in cells[1:])) if len(cells) > 1 else heading


def _fitting(cells: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yield the columns of each table that fits the width; the first column is in all of them."""
    first = min(_room(cells, 0), width // 2) + _BORDERS + 1
    taken, places = first, [0]
    for place in range(1, len(cells[0])):
        room = _room(cells, place) + _BORDERS
        if taken + room > width and len(places) > 1:
            yield places
            taken, places = first, [0]
        taken, places = taken + room, [*places, place]
    yield places


def next_command(entry_point: str, parameters: Mapping[str, object], data_folder: Path = DATA_FOLDER) -> str:
    """Return the command that runs an entry point, in the form in which this process was called.

    That is the installed program ``wastelens``, or ``mlflow run`` from the project's folder. Parameters with empty
    values are left out; so is the data folder of the calling step if it is the default.
    """
    quoted = json.dumps(str(data_folder), ensure_ascii=False)  # YAML: the path may contain spaces
    elsewhere = f"data_folder={quoted}" if data_folder != DATA_FOLDER else ""
    settings = [str(parameters.get("set", "")), elsewhere]
    given = {**parameters, "set": " ".join(setting for setting in settings if setting)}
    if os.path.basename(sys.argv[0]) == "wastelens" and os.path.isfile(sys.argv[0]):  # not the package's folder
        options = [f"--{name} {shlex.quote(str(value))}" for name, value in given.items() if str(value)]
        return " ".join(["wastelens", entry_point, *options])
    words = [shlex.quote(f"{name}={value}") for name, value in given.items() if str(value)]
    return " ".join([f"mlflow run . -e {entry_point} --env-manager local", *(f"-P {word}" for word in words)])
