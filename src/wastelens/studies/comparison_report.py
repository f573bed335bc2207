"""What ``study`` and ``compare`` leave behind: tables, the report twice, and the closing lines."""

from __future__ import annotations

from collections.abc import Sequence

from wastelens.studies.report import StudyContents, html, markdown, sentences, tables
from wastelens.studies.results import FINISHED, Result
from wastelens.system.console import say, table
from wastelens.tracking.tracker import Run, Tracker


def log_report(tracked: Run, contents: StudyContents) -> None:
    """study.csv, comparisons.csv, curves.csv, report.html and report.md, and what the runs table can be sorted by."""
    tracked.log_table(contents.cells, "study.csv")
    tracked.log_table(contents.comparisons, "comparisons.csv")
    tracked.log_table(contents.curves, "curves.csv")
    tracked.log_text(html(contents), "report.html")
    tracked.log_text(markdown(contents), "report.md")
    finished = contents.cells[contents.cells["status"] == FINISHED]
    counts = {
        "cells": len(contents.cells),
        "finished_cells": len(finished),
        "collapsed_cells": int(finished["collapsed"].sum()),
        "cells_above_controls": int(finished["above_controls"].sum()),
        "minutes": float(finished["minutes"].sum() + finished["pretraining_minutes"].sum()),
    }
    tracked.log_metrics(counts)
    tracked.set_tags({"verdict": sentences(contents)[0]})


def say_report(contents: StudyContents, run_id: str, tracker: Tracker) -> None:
    """The closing tables and sentences, where the report is, and how to see it."""
    for title, columns, rows in tables(contents):
        table(title, columns, rows)
    for sentence in sentences(contents):
        say(sentence)
    say(f"The report: report.html among the artifacts of run {run_id}.")
    say(f"See the runs: {tracker.finished_hint()}", "bold")


def notes_on_code(results: Sequence[Result]) -> list[str]:
    """What a reader has to know of the code that made the runs."""
    commits = {result.tags["git_commit"] for result in results if "git_commit" in result.tags}
    notes = []
    if len(commits) > 1:
        notes.append(f"The runs were made by {len(commits)} versions of the code: see git_commit in study.csv.")
    if any(commit.endswith("-dirty") for commit in commits):
        notes.append("Some runs were made by code with changes that no commit holds.")
    return notes
