"""The tables of a report, as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wastelens.evaluation.paired import ALL_MODELS, AP
from wastelens.figures.style import label_text
from wastelens.studies import findings
from wastelens.studies.contents import StudyContents
from wastelens.studies.findings import UNKNOWN, Row, number
from wastelens.studies.results import FINISHED


@dataclass(frozen=True)
class ReportTable:
    """A table of texts; marks: the cells to set in bold, (row, column)."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: frozenset[tuple[int, int]] = frozenset()


def difference_tables(contents: StudyContents, metric: str) -> list[ReportTable]:
    """Return a table for each level that is compared with the first."""
    frame = contents.comparisons[contents.comparisons["metric"] == metric]
    return [_difference_table(contents, findings.rows_of(part)) for _, part in frame.groupby("second", sort=False)]


def _difference_table(contents: StudyContents, rows: Sequence[Row]) -> ReportTable:
    strata = len({row["stratum"] for row in rows}) > 1
    arms = [findings.arm_name(contents.factor, rows[0][side]) for side in ("first", "second")]
    columns = ["model", *(["at"] if strata else []), *arms, "difference [95 % interval]", "p (Holm)", "verdict"]
    columns += ["seeds to decide", "pairs"]
    body = [
        [
            *([row["model"], row["stratum"]] if strata else [row["model"]]),
            number(row["first_mean"]),
            number(row["second_mean"]),
            findings.difference(row),
            findings.p_value(row["p_adjusted"]),
            row["verdict"],
            findings.seeds_to_decide(row),
            number(row["pairs"], 0),
        ]
        for row in rows
    ]
    marks = frozenset((place, columns.index("verdict")) for place, row in enumerate(rows) if _decided(row))
    title = findings.contrast_name({**rows[0], **({"stratum": ""} if strata else {})}, contents.factor)
    return ReportTable(title, columns, body, marks)


def _decided(row: Row | None) -> bool:
    return row is not None and row["verdict"] in ("helps", "hurts")


def without_collapsed_table(contents: StudyContents) -> ReportTable:
    """Return the differences with and without pairs in which a cell collapsed; no rows where nothing collapsed."""
    rows = [row for row in findings.macro_ap_rows(contents.comparisons) if findings.lost_pairs(row)]
    columns = ["model", "comparison", "all pairs", "pairs", "without collapsed cells", "pairs left"]
    body = [
        [
            row["model"],
            findings.contrast_name(row, contents.factor),
            findings.difference(row),
            number(row["pairs"], 0),
            findings.difference(row, "without_collapsed_"),
            number(row["without_collapsed_pairs"], 0),
        ]
        for row in rows
    ]
    return ReportTable("Test macro AP with and without pairs in which a cell collapsed", columns, body)


def material_tables(contents: StudyContents) -> list[ReportTable]:
    """Return a table for each contrast and stratum: a row per material, a column per model."""
    frame = contents.comparisons[contents.comparisons["metric"].str.startswith(AP)]
    found = []
    for _, part in frame.groupby(["stratum", "second"], sort=False):
        rows = {(row["model"], row["metric"]): row for row in findings.rows_of(part)}
        models = sorted({model: None for model, _ in rows}, key=lambda model: model != ALL_MODELS)
        metrics = [f"{AP}{material}" for material in contents.materials]
        body = [
            [label_text(metric.removeprefix(AP)), *(_material_cell(rows.get((model, metric))) for model in models)]
            for metric in metrics
        ]
        marks = frozenset(
            (i, j)
            for i, metric in enumerate(metrics)
            for j, model in enumerate(models, start=1)
            if _decided(rows.get((model, metric)))
        )
        title = findings.contrast_name(next(iter(rows.values())), contents.factor)
        found.append(ReportTable(title, ["material", *models], body, marks))
    return found


def _material_cell(row: Row | None) -> str:
    return UNKNOWN if row is None else findings.difference(row) + findings.with_p(row)


def means_table(contents: StudyContents) -> ReportTable:
    """Return a row per stratum, model and arm: means over finished cells."""
    several = contents.has_strata
    columns = ["model", *(["at"] if several else []), contents.factor, "test macro AP ± sd", "floor"]
    columns += ["strongest control", "macro F1", "cells", "collapsed", "below control", "minutes per cell"]
    body: list[list[str]] = []
    marks = set()
    for (model, stratum, arm), planned in contents.cells.groupby(["model", "stratum", "arm"], sort=False):
        cells = planned[planned["status"] == FINISHED]
        flags = [int(cells[name].astype(bool).sum()) for name in ("collapsed", "below_strongest_control")]
        for column, count in zip(("collapsed", "below control"), flags, strict=True):
            if count:
                marks.add((len(body), columns.index(column)))
        ap, control = cells["test_macro_ap"], number(cells["strongest_control_macro_ap"].mean())
        names = ", ".join(dict.fromkeys(cells["strongest_control"].dropna().astype(str)))
        row = [str(model), *([str(stratum)] if several else []), str(arm)]
        row.append(number(ap.mean()) + (f" ± {number(ap.std())}" if ap.count() > 1 else ""))
        row += [number(cells["floor_macro_ap"].mean()), f"{control} ({names})" if names else UNKNOWN]
        row.append(number(cells["test_macro_f1"].mean()))
        row += [f"{len(cells)} of {len(planned)}", *map(str, flags), number(cells["minutes"].mean(), 1)]
        body.append(row)
    return ReportTable("Means of each arm", columns, body, frozenset(marks))


def cost_table(contents: StudyContents) -> ReportTable:
    """Return minutes per cell and hours, by model and arm and together."""
    finished = contents.cells[contents.cells["status"] == FINISHED]
    groups = [(names, part) for names, part in finished.groupby(["model", "arm"], sort=False)]
    body = []
    for names, cells in [*groups, (("together", ""), finished)]:
        minutes = cells[["minutes", "pretraining_minutes"]].astype(float)
        means = [number(cells[name].mean(), 1) for name in minutes]
        body.append([*map(str, names), str(len(cells)), *means, number(minutes.sum().sum() / 60, 2)])
    columns = ["model", contents.factor, "cells", "minutes per cell", "pretraining minutes per cell", "hours"]
    return ReportTable("Cost of finished cells", columns, body if groups else [])


def cells_table(contents: StudyContents) -> ReportTable:
    """Return a row per planned cell."""
    columns = ["model", *(["at"] if contents.has_strata else []), contents.factor, "seed", "fold", "status"]
    columns += ["test macro AP [95 % interval]", "macro F1", "val macro AP", "floor", "strongest control"]
    columns += ["gain over it [low]", "remarks", "best epoch", "minutes", "run", "commit"]
    body: list[list[str]] = []
    marks = set()
    for row in findings.rows_of(contents.cells):
        remarks = _remarks(row)
        if remarks or row["status"] != FINISHED:
            marks.add((len(body), columns.index("remarks" if remarks else "status")))
        identity = [str(row["model"]), *([str(row["stratum"])] if contents.has_strata else []), str(row["arm"])]
        run_id, commit = (row[name] if isinstance(row[name], str) else "" for name in ("run_id", "git_commit"))
        ends = [number(row["best_epoch"], 0), number(row["minutes"], 1), run_id, commit[:10]]
        body.append(
            [*identity, *(str(row[name]) for name in ("seed", "fold", "status")), *_scores(row), remarks, *ends]
        )
    return ReportTable("All cells", columns, body, frozenset(marks))


def _scores(row: Row) -> list[str]:
    if row["status"] != FINISHED:
        return [UNKNOWN] * 6
    ap, low, high = (number(row[f"test_macro_ap{end}"]) for end in ("", "_low", "_high"))
    return [
        f"{ap} [{low}, {high}]",
        *(number(row[name]) for name in ("test_macro_f1", "val_macro_ap", "floor_macro_ap")),
        f"{number(row['strongest_control_macro_ap'])} ({row['strongest_control']})",
        f"{findings.signed(row['gain_over_controls'])} [{findings.signed(row['gain_over_controls_low'])}]",
    ]


def _remarks(row: Row) -> str:
    if row["status"] != FINISHED:
        return ""
    said = {
        "collapsed": row["collapsed"],
        "below the control": row["below_strongest_control"],
        "not reliably above it": not row["above_controls"] and not row["below_strongest_control"],
    }
    return ", ".join(text for text, is_so in said.items() if is_so)
