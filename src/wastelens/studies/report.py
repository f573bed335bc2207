"""The report of a study: one page that carries everything itself, the same as Markdown, and what the terminal shows.

The page is read in the artifact tab of MLflow, a sandboxed frame in which nothing else can be fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from wastelens.evaluation.paired import ALL_MODELS, AP, MACRO_AP, MACRO_F1
from wastelens.figures.style import label_text
from wastelens.studies import charts as figures
from wastelens.studies import words
from wastelens.studies.results import FINISHED
from wastelens.studies.words import UNKNOWN, Row, number

_METRICS = (("Test macro AP", MACRO_AP), ("Test macro F1", MACRO_F1))
_METHOD = (
    "A difference is that of two trainings that share model, seed, fold and all other factors, scored on the same test "
    "photos: the mean over folds of the mean over seeds, models weighing alike.",
    "Its 95 % interval holds for other test photos and other seeds, on these sets of training photos: groups of photos "
    "are resampled as wholes, the same for both arms, all seeds and all models, and what seeds differ by beyond that "
    "is added. All seeds of a fold share their training photos: what others would change for one arm and not for the "
    "other shows only between folds, and is in no interval.",
    "p adjusted is corrected for the number of comparisons of the same metric (Holm 1979); it decides the verdict. "
    "Means an arm are over all finished cells, differences over complete pairs only.",
)
_ON_LABELS = (
    "With a part of the labels only training labels are fewer: weights and thresholds are still chosen on all labels "
    "of val, and an encoder has seen all training photos, without labels."
)
_LABELS = ("labels", "labels_percent")


@dataclass(frozen=True)
class StudyContents:
    """What a study has found.

    Attributes:
        title: of the report.
        factor: what is compared, as ``augment``.
        first: the level that the others are compared with.
        cells: a row a planned training (study.csv). Columns: model, arm (the compared factor's level, text), stratum
            (the other factors' levels, text, may be empty), seed, fold, one of each factor; then status (finished,
            failed, missing), run_id, test_macro_ap with _low and _high, test_macro_f1, test_ap_<material>,
            val_macro_ap, floor_macro_ap, strongest_control, strongest_control_macro_ap, gain_over_controls and
            gain_over_controls_low, collapsed, above_controls, below_strongest_control, best_epoch, minutes,
            pretraining_minutes (this cell's share, so that they add up), git_commit. NaN where it has not finished.
        comparisons: a row a stratum, second level, model and metric (comparisons.csv): stratum, first, second, then
            the columns of `wastelens.evaluation.paired.Comparison.frame` (training_known: false where one seed a
            fold is all there is), and without_collapsed_pairs, _difference, _low and _high on the rows of macro_ap.
            p_adjusted is corrected over all rows of a metric.
        curves: a row a cell and epoch: model, arm, stratum, seed, fold, epoch, loss, val_loss (nats), val_macro_ap.
        settings: of the study, as text: dataset, seeds, folds, command.
        materials: of the dataset, in its order.
        notes: warnings, a sentence each.
    """

    title: str
    factor: str
    first: str
    cells: pd.DataFrame
    comparisons: pd.DataFrame
    curves: pd.DataFrame
    settings: Mapping[str, str]
    materials: tuple[str, ...]
    notes: Sequence[str] = ()

    @property
    def arms(self) -> list[str]:
        """The compared levels, the first one first."""
        return list(dict.fromkeys([self.first, *self.comparisons["second"], *self.cells["arm"]]))

    @property
    def has_strata(self) -> bool:
        """Whether other factors than the compared one vary."""
        return bool(self.cells["stratum"].nunique() > 1)


@dataclass(frozen=True)
class Table:
    """A table of texts; marks: (row, column) → helps, hurts or doubt, which the page colours."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Mapping[tuple[int, int], str] = field(default_factory=dict)


def html(contents: StudyContents) -> str:
    """The report as one page, which asks for nothing outside itself."""
    return str(_template("report.html.jinja", autoescape=True).render(**_shared(contents), **_drawn(contents)))


def markdown(contents: StudyContents) -> str:
    """The report without its pictures."""
    shared = _shared(contents)
    materials = ("Average precision of each material: differences", shared["materials"])
    single = [(one.title, [one] if one.rows else []) for one in (shared[name] for name in ("means", "cost", "cells"))]
    without = shared["without_collapsed"]
    headed = [(without.title, [without] if without.rows else []), *shared["differences"], materials, *single]
    return str(_template("report.md.jinja", finalize=_markdown_text).render(**shared, headed=headed))


def sentences(contents: StudyContents) -> list[str]:
    """The verdict first, what would decide it, a sentence a model, and what must not be overlooked."""
    cells, comparisons, factor = contents.cells, contents.comparisons, contents.factor
    first, *rest = words.verdicts(cells, comparisons, factor)
    models = words.model_statements(comparisons)
    warning = words.controls_warning(cells)
    found = [_with_decider(f"{warning} {first.text}".strip(), first.decider)]
    found.append(words.tasks_warning(cells, factor, contents.arms))
    found += [_with_decider(one.text, one.decider) for one in (*rest, *models)]
    cautions = [one.line for one in words.cautions(cells, comparisons, factor) if one.grave]
    return [text for text in (*found, words.correction(comparisons), *cautions, *contents.notes) if text]


def tables(contents: StudyContents) -> list[tuple[str, list[str], list[list[str]]]]:
    """The closing table for `system.console.table`, one of each level that is compared: title, columns, rows."""
    shown = _difference_tables(contents, MACRO_AP)
    # without the number of pairs: with it intervals would be broken at the width of a log
    return [
        (f"Test macro AP: {one.title}", list(one.columns[:-1]), [list(row[:-1]) for row in one.rows]) for one in shown
    ]


def _with_decider(text: str, decider: str) -> str:
    return f"{text} {decider}".strip()


def _shared(contents: StudyContents) -> dict[str, Any]:
    """What both forms of the report say."""
    cells, comparisons, factor = contents.cells, contents.comparisons, contents.factor
    return {
        "contents": contents,
        "warning": words.controls_warning(cells),
        "tasks": words.tasks_warning(cells, factor, contents.arms),
        "verdicts": words.verdicts(cells, comparisons, factor),
        "models": words.model_statements(comparisons),
        "correction": words.correction(comparisons),
        "cautions": words.cautions(cells, comparisons, factor),
        "without_collapsed": _without_collapsed_table(contents),
        "differences": [(title, _difference_tables(contents, metric)) for title, metric in _METRICS],
        "materials": _material_tables(contents),
        "means": _means_table(contents),
        "cost": _cost_table(contents),
        "cells": _cells_table(contents),
        "method": _method(contents),
    }


def _method(contents: StudyContents) -> list[str]:
    """How the numbers were made; where arms differ in several settings, their names and the notes say which."""
    spelled_out = any(_LABELS[1] in text for text in (*contents.arms, *contents.notes))
    varied = spelled_out or any(name in contents.cells for name in _LABELS)
    return [*_METHOD, _ON_LABELS] if varied else [*_METHOD]


def _drawn(contents: StudyContents) -> dict[str, Any]:
    """What only the page shows."""
    return {
        "forests": [figures.forests(contents.comparisons, metric, contents.factor) for _, metric in _METRICS],
        "ledger": figures.ledger_charts(contents.cells, contents.factor, contents.arms),
        "learning": figures.learning_charts(contents.curves, contents.arms),
        "arm_names": [words.arm_name(contents.factor, arm) for arm in contents.arms],
        "chart": figures,
    }


def _difference_tables(contents: StudyContents, metric: str) -> list[Table]:
    """A table of each level that is compared with the first."""
    frame = contents.comparisons[contents.comparisons["metric"] == metric]
    return [_difference_table(contents, words.rows_of(part)) for _, part in frame.groupby("second", sort=False)]


def _difference_table(contents: StudyContents, rows: Sequence[Row]) -> Table:
    strata = len({row["stratum"] for row in rows}) > 1
    arms = [words.arm_name(contents.factor, rows[0][side]) for side in ("first", "second")]
    columns = ["model", *(["at"] if strata else []), *arms, "difference [95 % interval]", "p (Holm)", "verdict"]
    columns += ["seeds to decide", "pairs"]
    body = [
        [
            *([row["model"], row["stratum"]] if strata else [row["model"]]),
            number(row["first_mean"]),
            number(row["second_mean"]),
            words.difference(row),
            words.p_value(row["p_adjusted"]),
            row["verdict"],
            words.seeds_to_decide(row),
            number(row["pairs"], 0),
        ]
        for row in rows
    ]
    marks = {(place, columns.index("verdict")): row["verdict"] for place, row in enumerate(rows)}
    return Table(
        words.contrast_name({**rows[0], **({"stratum": ""} if strata else {})}, contents.factor), columns, body, marks
    )


def _without_collapsed_table(contents: StudyContents) -> Table:
    rows = [row for row in words.macro_ap_rows(contents.comparisons) if words.lost_pairs(row)]
    columns = ["model", "comparison", "all pairs", "pairs", "without collapsed cells", "pairs left"]
    body = [
        [
            row["model"],
            words.contrast_name(row, contents.factor),
            words.difference(row),
            number(row["pairs"], 0),
            words.difference(row, "without_collapsed_"),
            number(row["without_collapsed_pairs"], 0),
        ]
        for row in rows
    ]
    return Table("Test macro AP with and without pairs in which a cell collapsed", columns, body)


def _material_tables(contents: StudyContents) -> list[Table]:
    """Of each contrast and stratum: a row a material, a column a model."""
    frame = contents.comparisons[contents.comparisons["metric"].str.startswith(AP)]
    found = []
    for _, part in frame.groupby(["stratum", "second"], sort=False):
        rows = {(row["model"], row["metric"]): row for row in words.rows_of(part)}
        models = sorted({model: None for model, _ in rows}, key=lambda model: model != ALL_MODELS)
        metrics = [f"{AP}{material}" for material in contents.materials]
        body = [
            [label_text(metric.removeprefix(AP)), *(_material_cell(rows.get((model, metric))) for model in models)]
            for metric in metrics
        ]
        marks = {
            (i, j + 1): rows[model, metric]["verdict"]
            for i, metric in enumerate(metrics)
            for j, model in enumerate(models)
            if (model, metric) in rows
        }
        title = words.contrast_name(next(iter(rows.values())), contents.factor)
        found.append(Table(title, ["material", *models], body, marks))
    return found


def _material_cell(row: Row | None) -> str:
    """The difference, and p on a line of its own, so that columns stay narrow."""
    if row is None:
        return UNKNOWN
    p_value = words.p_value(row["p_adjusted"])
    return words.difference(row) + ("" if p_value == UNKNOWN else f"\np {p_value}")


def _means_table(contents: StudyContents) -> Table:
    """A row a stratum, model and arm: means over finished cells."""
    several = contents.has_strata
    columns = ["model", *(["at"] if several else []), contents.factor, "test macro AP ± sd", "floor"]
    columns += ["strongest control", "macro F1", "cells", "collapsed", "below control", "minutes a cell"]
    body: list[list[str]] = []
    marks = {}
    for (model, stratum, arm), planned in contents.cells.groupby(["model", "stratum", "arm"], sort=False):
        cells = planned[planned["status"] == FINISHED]
        flags = [int(cells[name].astype(bool).sum()) for name in ("collapsed", "below_strongest_control")]
        for column, count in zip(("collapsed", "below control"), flags, strict=True):
            if count:
                marks[len(body), columns.index(column)] = "doubt"
        row = [str(model), *([str(stratum)] if several else []), str(arm), mean_and_spread(cells["test_macro_ap"])]
        row += [number(cells["floor_macro_ap"].mean()), _controls(cells), number(cells["test_macro_f1"].mean())]
        row += [f"{len(cells)} of {len(planned)}", *map(str, flags), number(cells["minutes"].mean(), 1)]
        body.append(row)
    return Table("Means of each arm", columns, body, marks)


def mean_and_spread(values: pd.Series[float]) -> str:
    """``0.312 ± 0.021``: mean and standard deviation; the mean alone where one value is all there is."""
    return number(values.mean()) + (f" ± {number(values.std())}" if values.count() > 1 else "")


def _controls(cells: pd.DataFrame) -> str:
    """Mean macro AP of the strongest controls, and their names."""
    names = ", ".join(dict.fromkeys(cells["strongest_control"].dropna().astype(str)))
    return f"{number(cells['strongest_control_macro_ap'].mean())} ({names})" if names else UNKNOWN


def _cost_table(contents: StudyContents) -> Table:
    finished = contents.cells[contents.cells["status"] == FINISHED]
    groups = [((str(model), str(arm)), part) for (model, arm), part in finished.groupby(["model", "arm"], sort=False)]
    body = [_cost_row(names, part) for names, part in (*groups, (("together", ""), finished))]
    columns = ["model", contents.factor, "cells", "minutes a cell", "pretraining minutes a cell", "hours"]
    return Table("Cost of finished cells", columns, body if groups else [])


def _cost_row(names: tuple[str, str], cells: pd.DataFrame) -> list[str]:
    hours = cells[["minutes", "pretraining_minutes"]].astype(float).sum().sum() / 60
    means = [number(cells[name].mean(), 1) for name in ("minutes", "pretraining_minutes")]
    return [*names, str(len(cells)), *means, number(hours, 2)]


def _cells_table(contents: StudyContents) -> Table:
    columns = ["model", *(["at"] if contents.has_strata else []), contents.factor, "seed", "fold", "status"]
    columns += ["test macro AP [95 % interval]", "macro F1", "val macro AP", "floor", "strongest control"]
    columns += ["gain over it [low]", "remarks", "best epoch", "minutes", "run", "commit"]
    body: list[list[str]] = []
    marks = {}
    for row in words.rows_of(contents.cells):
        remarks = _remarks(row)
        if remarks or row["status"] != FINISHED:
            marks[len(body), columns.index("remarks" if remarks else "status")] = "doubt"
        identity = [str(row["model"]), *([str(row["stratum"])] if contents.has_strata else []), str(row["arm"])]
        body.append(
            [*identity, str(row["seed"]), str(row["fold"]), str(row["status"]), *_scores(row), remarks, *_ends(row)]
        )
    return Table("All cells", columns, body, marks)


def _scores(row: Row) -> list[str]:
    ap, low, high = (number(row[f"test_macro_ap{end}"]) for end in ("", "_low", "_high"))
    if row["status"] != FINISHED:
        return [UNKNOWN] * 6
    return [
        f"{ap} [{low}, {high}]",
        *(number(row[name]) for name in ("test_macro_f1", "val_macro_ap", "floor_macro_ap")),
        f"{number(row['strongest_control_macro_ap'])} ({row['strongest_control']})",
        f"{words.signed(row['gain_over_controls'])} [{words.signed(row['gain_over_controls_low'])}]",
    ]


def _ends(row: Row) -> list[str]:
    texts = [row[name] if isinstance(row[name], str) else "" for name in ("run_id", "git_commit")]
    return [number(row["best_epoch"], 0), number(row["minutes"], 1), texts[0], texts[1][:10]]


def _remarks(row: Row) -> str:
    if row["status"] != FINISHED:
        return ""
    said = {
        "collapsed": row["collapsed"],
        "below the control": row["below_strongest_control"],
        "not surely above it": not row["above_controls"] and not row["below_strongest_control"],
    }
    return ", ".join(text for text, is_so in said.items() if is_so)


def _markdown_text(value: object) -> str:
    """Text in which no name starts a tag, a link, a column or emphasis, readable still; on one line."""
    escaped = re.sub(r"([\\|<>&`*~])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", str(value)).replace("](", "]\\(")
    return " ".join(escaped.split())


def _template(name: str, **options: Any) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    ).get_template(name)
