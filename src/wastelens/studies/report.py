"""The report of a study or comparison: written once as Markdown, shown as a page, and in short in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wastelens.evaluation.paired import ALL_MODELS, MACRO_AP, MACRO_F1
from wastelens.figures import study as figures
from wastelens.studies import findings, report_tables
from wastelens.studies.contents import StudyContents
from wastelens.studies.findings import Finding
from wastelens.studies.markdown_text import line_start, one_line, table_text
from wastelens.studies.page import page_of
from wastelens.studies.report_tables import ReportTable
from wastelens.studies.results import FINISHED
from wastelens.system.console import say, table
from wastelens.tracking.tracker import Run, Tracker, run_note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METRICS = (("Test macro AP", MACRO_AP), ("Test macro F1", MACRO_F1))
_METHOD = (
    "A difference is between two trainings that share model, seed, fold and all other factors, scored on the same test "
    "photos: the mean over folds of the mean over seeds, with equal weight for each model.",
    "Its 95 % interval holds for other test photos and other seeds, on these sets of training photos: whole groups of "
    "photos are resampled, the same for both arms, all seeds and all models, and the variation between seeds beyond "
    "that is added. All seeds of a fold share their training photos: how other training photos would affect one arm "
    "and not the other shows only between folds, and is in no interval.",
    "p adjusted is corrected for the number of comparisons of the same metric (Holm 1979); it decides the verdict. "
    "Means per arm are over all finished cells, differences over complete pairs only.",
)
_ON_LABELS = (
    "With a share of the labels, only training labels are fewer: weights and thresholds are still chosen on all labels "
    "of val, and an encoder has seen all training photos, without labels."
)
_LABELS = ("labels", "labels_percent")
_NAMING = ("model", "arm", "stratum", "seed", "fold")
_LEDGER_NOTE = (
    "Lines: means over cells (all seeds and folds). Bands: minimum to maximum over cells. Dashed: the strongest "
    "control."
)
_LEARNING_NOTE = (
    "Lines: means over cells. Bands: minimum to maximum over cells. Solid: val; dashed: loss on train. Faint: "
    "where some cells had ended already."
)
_MATERIALS_NOTE = (
    "Difference [95 % interval], p corrected for all these comparisons together (Holm). In bold: what helps or hurts "
    "after that."
)
_MEANS_NOTE = (
    "Means over finished cells, sd between them. Floor: the best predictor that gives every photo the same answer. "
    "Strongest control: what can be predicted without looking at the litter."
)
_CURVES = (("macro AP on val", "macro AP", ("val_macro_ap",)), ("loss", "nats", ("val_loss", "loss")))


def log_report(tracked: Run, contents: StudyContents) -> None:
    """Log the tables, the report as a page and as Markdown, and the metrics by which runs can be sorted."""
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
    said = sentences(contents)
    page = "The whole report: `report.html` among the artifacts."
    tracked.set_tags({"verdict": said[0], **run_note(tracked.id, f"**{said[0]}**", page, *said[1:])})


def say_report(contents: StudyContents, run_id: str, tracker: Tracker) -> None:
    """Print the closing tables and sentences, where the report is, and how to see it."""
    for title, columns, rows in tables(contents):
        table(title, columns, rows)
    for sentence in sentences(contents):
        say(sentence)
    say(f"The report: report.html among the artifacts of run {run_id}.")
    say(f"See the runs: {tracker.finished_hint()}", "bold")


def sentences(contents: StudyContents) -> list[str]:
    """Return the verdict first, then what would decide it, a sentence for each model, and the warnings."""
    first, *others = _findings(contents)
    found = [_with_decider(first), _tasks_warning(contents), *map(_with_decider, others)]
    found.append(findings.correction(contents.comparisons))
    cautions = findings.cautions(contents.cells, contents.comparisons, contents.factor)
    return [text for text in (*found, *(one.line for one in cautions if one.grave), *contents.notes) if text]


def _findings(contents: StudyContents) -> list[Finding]:
    """Return the verdict, after the warning about the controls, then the findings on contrasts and models."""
    first, *rest = findings.verdicts(contents.cells, contents.comparisons, contents.factor)
    first = replace(first, text=f"{findings.controls_warning(contents.cells)} {first.text}".strip())
    return [first, *rest, *findings.model_statements(contents.comparisons)]


def _tasks_warning(contents: StudyContents) -> str:
    return findings.tasks_warning(contents.cells, contents.factor, contents.arms)


def _with_decider(found: Finding) -> str:
    return f"{found.text} {found.decider}".strip()


def tables(contents: StudyContents) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return the closing tables for `system.console.table`, one for each compared level: title, columns, rows."""
    shown = report_tables.difference_tables(contents, MACRO_AP)
    # Without the number of pairs: with it, intervals would be broken at the width of a log.
    return [
        (f"Test macro AP: {one.title}", list(one.columns[:-1]), [list(row[:-1]) for row in one.rows]) for one in shown
    ]


def html(contents: StudyContents) -> str:
    """Return the report as one page that requests nothing."""
    drawn = _figures(contents)
    text = _written(contents, {name: title for name, (title, _) in drawn.items()})
    verdict = "doubt" if findings.controls_warning(contents.cells) else _findings(contents)[0].verdict
    return page_of(text, contents.title, verdict, {name: figures.svg(figure) for name, (_, figure) in drawn.items()})


def markdown(contents: StudyContents) -> str:
    """Return the report as Markdown, without its pictures."""
    return _written(contents, {})


def _written(contents: StudyContents, pictures: Mapping[str, str]) -> str:
    """Write the report; pictures: name → title of those to show."""
    # Where arms differ in several settings, their names and the notes say which.
    spelled_out = any(_LABELS[1] in text for text in (*contents.arms, *contents.notes))
    labels_vary = spelled_out or any(name in contents.cells for name in _LABELS)
    blocks = [
        f"# {line_start(contents.title)}",
        *_verdict(contents),
        "## Checks and warnings",
        _cautions(contents),
        *_section(report_tables.without_collapsed_table(contents)),
        *_differences(contents, pictures),
        *_ledger_section(contents, pictures),
        *_materials(contents),
        *_section(report_tables.means_table(contents), _MEANS_NOTE),
        *_learning_curves(contents, pictures),
        *_section(report_tables.cost_table(contents)),
        *_section(report_tables.cells_table(contents)),
        "## Settings, and how the intervals are made",
        "\n".join(f"- {line_start(name)}: {one_line(value)}" for name, value in contents.settings.items()),
        *map(line_start, [*_METHOD, _ON_LABELS] if labels_vary else _METHOD),
    ]
    return "\n\n".join(blocks) + "\n"


def _verdict(contents: StudyContents) -> Iterator[str]:
    first, *others = _findings(contents)
    yield f"**{one_line(first.text)}**"
    if first.decider:
        yield line_start(first.decider)
    if tasks := _tasks_warning(contents):
        yield f"**{one_line(tasks)}**"
    if others:
        yield "\n".join(f"- {line_start(_with_decider(one))}" for one in others)
    if correction := findings.correction(contents.comparisons):
        yield line_start(correction)


def _cautions(contents: StudyContents) -> str:
    lines = []
    for one in findings.cautions(contents.cells, contents.comparisons, contents.factor):
        lines.append(f"- {'**!**' if one.grave else '✓'} {one_line(one.text)}")
        lines += [
            f"  - {line_start(name)}{f' (run {one_line(run_id)})' if run_id else ''}" for name, run_id in one.cells
        ]
    return "\n".join([*lines, *(f"- **!** {one_line(note)}" for note in contents.notes)])


def _differences(contents: StudyContents, pictures: Mapping[str, str]) -> Iterator[str]:
    for title, metric in _METRICS:
        for place, one in enumerate(report_tables.difference_tables(contents, metric)):
            if not place:
                yield f"## {title}: differences"
            yield f"### {line_start(one.title)}"
            if image := _images(f"forest-{metric}-{place}", pictures):
                yield image
            yield table_text(one)


def _materials(contents: StudyContents) -> Iterator[str]:
    if shown := report_tables.material_tables(contents):
        yield "## Average precision of each material: differences"
        for one in shown:
            yield f"### {line_start(one.title)}"
            yield table_text(one)
        yield f"*{_MATERIALS_NOTE}*"


def _learning_curves(contents: StudyContents, pictures: Mapping[str, str]) -> Iterator[str]:
    if not any(name.startswith("learning") for name in pictures):
        return
    yield "## Learning curves"
    for place, stratum in enumerate(dict.fromkeys(contents.curves["stratum"])):
        for curve, (kind, *_) in enumerate(_CURVES):
            yield f"### {line_start(', '.join(filter(None, [kind, str(stratum)])))}"
            yield _images(f"learning-{place}-{curve}", pictures) or "Nothing was measured more than once."
    yield f"*{_LEARNING_NOTE}*"


def _ledger_section(contents: StudyContents, pictures: Mapping[str, str]) -> Iterator[str]:
    if images := _images("ledger", pictures):
        yield f"## Test macro AP against {one_line(_spelled(_amount(contents)))}"
        yield images
        yield f"*{_LEDGER_NOTE}*"


def _images(group: str, pictures: Mapping[str, str]) -> str:
    """Return a paragraph of the pictures of a group; "" where there are none."""
    chosen = [name for name in pictures if name == group or name.startswith(f"{group}-")]
    return "\n".join(f"![{one_line(pictures[name])}]({name})" for name in chosen)


def _section(shown: ReportTable, note: str = "") -> list[str]:
    """Return a table under its heading; nothing where it is empty."""
    if not shown.rows:
        return []
    return [f"## {line_start(shown.title)}", table_text(shown), *([f"*{note}*"] if note else [])]


def _figures(contents: StudyContents) -> dict[str, tuple[str, Figure]]:
    """Draw the pictures of the report: name → title and figure."""
    forests = {
        f"forest-{metric}-{place}": (f"Differences in {title[0].lower()}{title[1:]}", figure)
        for title, metric in _METRICS
        for place, figure in enumerate(forest_plots(contents, metric))
    }
    return forests | _ledger(contents) | _learning(contents)


def forest_plots(contents: StudyContents, metric: str) -> Iterator[Figure]:
    """Draw a forest plot for each compared level, all over the same axis."""
    frame = contents.comparisons[contents.comparisons["metric"] == metric]
    reach = figures.forest_reach(frame[["difference", "low", "high"]].to_numpy(np.float64))
    for place, (_, part) in enumerate(frame.groupby("second", sort=False)):
        models = sorted(part["model"].unique(), key=lambda model: bool(model == ALL_MODELS))
        rows = sorted(findings.rows_of(part), key=lambda row: models.index(row["model"]))
        first, second = (findings.arm_name(contents.factor, rows[0][side]) for side in ("first", "second"))
        several = part["stratum"].nunique() > 1
        lines = [
            figures.ForestLine(
                name=f"{row['model']}, {row['stratum']}" if several else str(row["model"]),
                difference=row["difference"],
                low=row["low"],
                high=row["high"],
                verdict=row["verdict"],
                numbers=f"{findings.difference(row)} {row['verdict']}{findings.with_p(row)}",
                pooled=row["model"] == ALL_MODELS,
            )
            for row in rows
        ]
        yield figures.forest(f"forest-{metric}-{place}", lines, (first, second), reach)


def _amount(contents: StudyContents) -> str:
    """Return the other factor, where there is exactly one and it is a number; "" otherwise."""
    names = list(contents.cells.columns)
    factors = [name for name in names[: names.index("status")] if name not in {*_NAMING, contents.factor}]
    varied = [name for name in factors if contents.cells[name].nunique() > 1]
    if len(varied) != 1 or pd.to_numeric(contents.cells[varied[0]], errors="coerce").isna().any():
        return ""
    return varied[0]


def _spelled(name: str) -> str:
    return name.replace("_", " ")


def _ledger(contents: StudyContents) -> dict[str, tuple[str, Figure]]:
    """Draw, for each model, the test macro AP over the other factor; nothing where that is no number."""
    amount = _amount(contents)
    if not amount:
        return {}
    cells = contents.cells.assign(amount=pd.to_numeric(contents.cells[amount], errors="coerce"))
    found = {}
    for place, (model, part) in enumerate(cells[cells["status"] == FINISHED].groupby("model", sort=False)):
        labels, columns = (_spelled(amount), "test macro AP"), ("test_macro_ap", "strongest_control_macro_ap")
        if figure := figures.lines_with_bands(str(model), labels, part, "amount", columns, _arms(contents)):
            found[f"ledger-{place}"] = (f"{model}: test macro AP against {labels[0]}", figure)
    return found


def _learning(contents: StudyContents) -> dict[str, tuple[str, Figure]]:
    """Draw, for each stratum and model, macro AP on val and the losses over the epochs."""
    found = {}
    for place, (_, of_stratum) in enumerate(contents.curves.groupby("stratum", sort=False)):
        for curve, (kind, unit, columns) in enumerate(_CURVES):
            for rank, (model, part) in enumerate(of_stratum.groupby("model", sort=False)):
                labels = ("epoch", unit)
                if figure := figures.lines_with_bands(str(model), labels, part, "epoch", columns, _arms(contents)):
                    found[f"learning-{place}-{curve}-{rank}"] = (f"{model}: {kind} against epoch", figure)
    return found


def _arms(contents: StudyContents) -> list[tuple[str, str]]:
    return [(arm, findings.arm_name(contents.factor, arm)) for arm in contents.arms]
