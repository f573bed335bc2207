"""The report of a study has the numbers of its tables, says what matters, and is safe to open."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests import factories

from wastelens.evaluation.paired import ALL_MODELS
from wastelens.evaluation.spread import holm, verdict_of
from wastelens.studies import findings
from wastelens.studies.contents import StudyContents
from wastelens.studies.report import html, markdown, sentences, tables
from wastelens.system import console

MATERIALS = factories.MATERIALS
NASTY = """<b>"a" & 'b'</b> </style> {{ 1 }} | [x](http://x) _é_ ゴミ"""
VOID = {"meta", "link", "img", "input", "br"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
METRICS = ["macro_ap", "macro_f1", *(f"ap_{material}" for material in MATERIALS)]


def make_cells(
    models: Sequence[str], arms: Sequence[str], strata: Sequence[str], seeds: int, folds: int, effect: float = 0.01
) -> pd.DataFrame:
    """study.csv of a study that is complete, without collapsed cells; strata: text, as ``labels_percent=10``."""
    rng = np.random.default_rng(7)
    rows = []
    for model, stratum, arm, seed, fold in itertools.product(models, strata, arms, range(seeds), range(1, folds + 1)):
        labels = {"labels_percent": stratum.partition("=")[2]} if stratum else {}
        ap = 0.33 + 0.02 * models.index(model) + effect * arms.index(arm) + rng.normal(0, 0.02)
        ap += 0.0005 * float(labels.get("labels_percent", 0))
        row = {"model": model, "arm": arm, "stratum": stratum, "seed": seed, "fold": fold, "augment": arm, **labels}
        rows.append(row | {"status": "finished", "run_id": rng.bytes(16).hex()} | _scores(ap, rng))
    cells = pd.DataFrame(rows)
    return cells.assign(pretraining_minutes=np.where(cells["model"] == "dbn", 1.5, 0.0), git_commit=COMMIT)


def _scores(ap: float, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "test_macro_ap": ap,
        "test_macro_ap_low": ap - 0.04,
        "test_macro_ap_high": ap + 0.05,
        "test_macro_f1": ap + rng.normal(0.05, 0.01),
        **{f"test_ap_{material}": ap + rng.normal(0, 0.05) for material in MATERIALS},
        "val_macro_ap": ap + 0.03,
        "floor_macro_ap": 0.281,
        "strongest_control": "colour",
        "strongest_control_macro_ap": 0.203,
        "gain_over_controls": ap - 0.203,
        "gain_over_controls_low": ap - 0.205,
        "collapsed": False,
        "above_controls": True,
        "below_strongest_control": False,
        "best_epoch": int(rng.integers(3, 38)),
        "minutes": rng.uniform(2, 6),
    }


def paired(cells: pd.DataFrame, metric: str, first: str, second: str) -> pd.DataFrame:
    """The pairs of one model and stratum: fold, seed, and the metric of both arms."""
    done = cells[cells["status"] == "finished"].set_index(["fold", "seed"])
    arms = [done[done["arm"] == arm][f"test_{metric}"] for arm in (first, second)]
    return pd.concat(arms, axis=1, keys=["first", "second"]).dropna()


def over_folds(values: pd.Series[float]) -> float:
    """Mean over folds of the mean over seeds."""
    return float(values.groupby("fold").mean().mean())


def make_comparisons(cells: pd.DataFrame, first: str = "false", half_width: float = 0.02) -> pd.DataFrame:
    """comparisons.csv with true differences, and intervals and p values that are made up."""
    rows = []
    strata, models = cells["stratum"].unique(), list(cells["model"].unique())
    seconds = [arm for arm in cells["arm"].unique() if arm != first]
    for stratum, second, metric in itertools.product(strata, seconds, METRICS):
        of_models = [
            paired(cells[(cells["model"] == model) & (cells["stratum"] == stratum)], metric, first, second)
            for model in models
        ]
        named = {"stratum": stratum, "first": first, "second": second, "metric": metric}
        rows += [
            named | {"model": model} | _comparison([pairs], half_width)
            for model, pairs in zip(models, of_models, strict=True)
        ]
        if len(models) > 1:
            rows.append(named | {"model": ALL_MODELS} | _comparison(of_models, half_width))
    frame = pd.DataFrame(rows)
    frame["p_adjusted"] = frame.groupby("metric")["p_value"].transform(holm)
    frame["verdict"] = [verdict_of(a, b) for a, b in zip(frame["difference"], frame["p_adjusted"], strict=True)]
    without = [f"without_collapsed_{name}" for name in ("pairs", "difference", "low", "high")]
    frame[without] = frame[["pairs", "difference", "low", "high"]].where(frame["metric"] == "macro_ap")
    return frame


def _comparison(of_models: Sequence[pd.DataFrame], half_width: float) -> dict[str, Any]:
    means = {f"{arm}_mean": np.mean([over_folds(pairs[arm]) for pairs in of_models]) for arm in ("first", "second")}
    value = float(np.mean([over_folds(pairs["second"] - pairs["first"]) for pairs in of_models]))
    index = pd.concat(of_models).index
    return {
        **means,
        "difference": value,
        "low": value - half_width,
        "high": value + half_width,
        "standard_error": half_width / 2,
        "degrees_of_freedom": 9.0,
        "p_value": float(np.exp(-3.0 * abs(value) / half_width)),
        "training_known": index.nunique() > index.get_level_values("fold").nunique(),
        "seeds_needed": 8.2,
        "pairs": len(index),
        "seeds": index.get_level_values("seed").nunique(),
        "folds": index.get_level_values("fold").nunique(),
        "groups": 11,
        "photos": 290,
    }


def make_curves(cells: pd.DataFrame, epochs: int) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    frames = []
    for row in cells.to_dict("records"):
        epoch = np.arange(1, rng.integers(max(1, epochs // 2), epochs + 1) + 1)
        names = {name: row[name] for name in ("model", "arm", "stratum", "seed", "fold")}
        decay = np.exp(-epoch / 8)
        frames.append(
            pd.DataFrame(names, index=epoch).assign(
                epoch=epoch,
                loss=0.3 + 0.4 * decay + rng.normal(0, 0.004, len(epoch)),
                val_loss=0.45 + 0.3 * decay + rng.normal(0, 0.01, len(epoch)),
                val_macro_ap=row["val_macro_ap"] - 0.08 * decay + rng.normal(0, 0.008, len(epoch)),
            )
        )
    return pd.concat(frames, ignore_index=True)


def make_contents(
    models: Sequence[str] = ("base", "dbn", "vgg16"),
    arms: Sequence[str] = ("false", "true"),
    strata: Sequence[str] = ("",),
    seeds: int = 2,
    folds: int = 3,
    epochs: int = 6,
    effect: float = 0.01,
) -> StudyContents:
    cells = make_cells(models, arms, strata, seeds, folds, effect)
    settings = {"dataset": "taco", "photos": "1,500", "seeds": str(seeds), "command": "wastelens study --seeds 2"}
    comparisons, curves = make_comparisons(cells, arms[0]), make_curves(cells, epochs)
    return StudyContents("Does it help?", "augment", arms[0], cells, comparisons, curves, settings, MATERIALS)


def spoiled(contents: StudyContents, collapsed: int = 2, below: int = 3, failed: int = 2) -> StudyContents:
    """The first cells collapsed or below their control, half of all not above it, the last failed or missing."""
    cells = contents.cells.astype(dict.fromkeys(("collapsed", "above_controls", "below_strongest_control"), object))
    cells.loc[: collapsed - 1, "collapsed"] = True
    cells.loc[: below - 1, "below_strongest_control"] = True
    cells.loc[: len(cells) // 2, "above_controls"] = False
    last = cells.index[-failed:]
    cells.loc[last, "status"] = ["failed", *["missing"] * (failed - 1)]
    cells.loc[last, cells.columns[cells.columns.get_loc("test_macro_ap") :]] = np.nan
    comparisons = make_comparisons(cells, contents.first)
    main = (comparisons["metric"] == "macro_ap") & comparisons["model"].isin([cells["model"].iloc[0], ALL_MODELS])
    comparisons.loc[main, "without_collapsed_pairs"] -= 2
    comparisons.loc[main, "without_collapsed_difference"] += 0.001
    return replace(contents, cells=cells, comparisons=comparisons, notes=["Cells were made by 2 versions of the code."])


class Page(HTMLParser):
    """The page's elements, its texts, and its tables (title, rows of texts); fails where tags do not match."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[tuple[str, list[list[str]]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "div" and dict(attrs).get("class") == "scroll":
            self.tables.append((str(dict(attrs)["aria-label"]), []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][1][-1][-1] += data

    def count(self, tag: str, class_: str = "") -> int:
        """Elements of this tag whose classes begin so."""
        return sum(name == tag and (found.get("class") or "").startswith(class_) for name, found in self.elements)


def html_tables(contents: StudyContents) -> list[tuple[str, list[list[str]]]]:
    return Page(html(contents)).tables


def markdown_tables(contents: StudyContents) -> list[tuple[str, list[list[str]]]]:
    """Heading and rows of each table, read as Markdown writes them."""
    found: list[tuple[str, list[list[str]]]] = []
    heading, inside = "", False
    for line in markdown(contents).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("|") and not inside:
            found.append((heading, []))
        inside = line.startswith("|")
        if inside and not line.startswith("| :"):
            found[-1][1].append([cell.strip().strip("*") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


FORMS = pytest.mark.parametrize("read", [html_tables, markdown_tables])
Read = Callable[[StudyContents], list[tuple[str, list[list[str]]]]]


def one_table(read: Read, contents: StudyContents, title: str) -> list[dict[str, str]]:
    """The rows of the first table of this title, column → text."""
    rows = next(rows for heading, rows in read(contents) if heading == title)
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"[-+]?[0-9]+\.[0-9]+", text)]


@pytest.fixture
def contents() -> StudyContents:
    return make_contents()


@FORMS
def test_means_are_those_of_the_cells(read: Read, contents: StudyContents) -> None:
    contents = spoiled(contents)
    done = contents.cells[contents.cells["status"] == "finished"]
    rows = one_table(read, contents, "Means of each arm")
    assert len(rows) == 6
    for row in rows:
        cells = done[(done["model"] == row["model"]) & (done["arm"] == row["augment"])]
        spread = [cells["test_macro_ap"].mean(), cells["test_macro_ap"].std(ddof=1)]
        assert numbers(row["test macro AP ± sd"]) == pytest.approx(spread, abs=5.1e-4)
        assert numbers(row["macro F1"]) == pytest.approx([cells["test_macro_f1"].mean()], abs=5.1e-4)
        assert (row["floor"], row["strongest control"]) == ("0.281", "0.203 (colour)")
        assert row["cells"] == f"{len(cells)} of 6"
        assert row["collapsed"] == str(cells["collapsed"].sum())
        assert row["below control"] == str(cells["below_strongest_control"].sum())
        assert numbers(row["minutes per cell"]) == pytest.approx([cells["minutes"].mean()], abs=0.051)


@FORMS
@pytest.mark.parametrize("strata", [("",), ("labels_percent=10", "labels_percent=50")])
def test_differences_are_those_of_the_pairs_of_cells(read: Read, strata: tuple[str, ...]) -> None:
    contents = spoiled(make_contents(strata=strata))
    rows = one_table(read, contents, "augment=true against false")
    assert len(rows) == 4 * len(strata)
    for row in rows:
        cells = contents.cells[contents.cells["stratum"] == row.get("at", "")]
        chosen = list(contents.cells["model"].unique()) if row["model"] == ALL_MODELS else [row["model"]]
        of_models = [paired(cells[cells["model"] == model], "macro_ap", "false", "true") for model in chosen]
        value = np.mean([over_folds(pairs["second"] - pairs["first"]) for pairs in of_models])
        expected = [value, value - 0.02, value + 0.02]
        assert numbers(row["difference [95 % interval]"]) == pytest.approx(expected, abs=5.1e-4)
        assert row["pairs"] == str(sum(map(len, of_models)))
        means = [np.mean([over_folds(pairs[arm]) for pairs in of_models]) for arm in ("first", "second")]
        assert numbers(row["augment=false"] + " " + row["augment=true"]) == pytest.approx(means, abs=5.1e-4)


@FORMS
def test_materials_are_those_of_the_comparisons(read: Read, contents: StudyContents) -> None:
    found = [rows for _, rows in read(contents) if rows[0][0] == "material"]
    assert [row[0] for row in found[0][1:]] == [material.replace("_", " ") for material in MATERIALS]
    frame = contents.comparisons.set_index(["model", "metric"])
    for material, row in zip(MATERIALS, found[0][1:], strict=True):
        for model, text in zip(found[0][0][1:], row[1:], strict=True):
            expected = frame.loc[(model, f"ap_{material}")]
            got = numbers(text.replace("< 0.001", "0.000"))
            assert got == pytest.approx([*expected[["difference", "low", "high", "p_adjusted"]]], abs=1e-3)


@FORMS
def test_every_cell_and_every_hour_is_listed(read: Read, contents: StudyContents) -> None:
    contents = spoiled(contents)
    rows = one_table(read, contents, "All cells")
    assert [row["run"] for row in rows] == list(contents.cells["run_id"])
    assert [row["status"] for row in rows] == list(contents.cells["status"])
    assert [row["commit"] for row in rows[:-2]] == [COMMIT[:10]] * (len(rows) - 2)
    assert rows[0]["remarks"] == "collapsed, below the control"
    assert rows[2]["remarks"] == "below the control"
    assert rows[4]["remarks"] == "not reliably above it"
    for row, cell in zip(rows[:-2], contents.cells.to_dict("records"), strict=False):
        expected = [cell[f"test_macro_ap{end}"] for end in ("", "_low", "_high")]
        assert numbers(row["test macro AP [95 % interval]"]) == pytest.approx(expected, abs=5.1e-4)
    assert rows[-1]["test macro AP [95 % interval]"] == "–"
    cost = one_table(read, contents, "Cost of finished cells")
    hours = contents.cells[["minutes", "pretraining_minutes"]].sum().sum() / 60
    assert numbers(cost[-1]["hours"]) == pytest.approx([hours], abs=5.1e-3)
    assert sum(numbers(row["hours"])[0] for row in cost[:-1]) == pytest.approx(hours, abs=0.04)


def test_the_verdict_comes_first_with_what_would_decide_it() -> None:
    contents = make_contents(effect=0.0)
    frame = contents.comparisons
    main = (frame["metric"] == "macro_ap") & (frame["model"] == ALL_MODELS)
    frame.loc[main, ["difference", "low", "high", "verdict"]] = [0.004, -0.012, 0.02, "undecided"]
    said = sentences(contents)
    assert said[0] == (
        "augment=true against false: undecided over all models: test macro AP +0.004 [-0.012, +0.020], 2 seeds x "
        "3 folds, 11 groups of photos. About 9 seeds instead of 2 would decide it if the difference stays the same."
    )
    assert [line.partition(":")[0] for line in said[1:4]] == ["base", "dbn", "vgg16"]
    assert said[4].startswith("Verdicts on macro AP are corrected for 4 comparisons (Holm)")
    page = Page(html(contents))
    assert page.text.index("undecided over all models") < page.text.index("Checks and warnings")
    assert markdown(contents).splitlines()[2] == f"**{said[0].partition(' About')[0]}**"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "About 4 seeds instead of 3 would decide it"),
        ({"seeds_needed": np.nan}, "No number of seeds would decide it: there are too few photos"),
        ({"seeds_needed": np.nan, "seeds": 1, "training_known": False}, "Undecided whatever p says: one seed per "),
        ({"seeds_needed": np.nan, "seeds": 4, "training_known": False}, "Undecided whatever p says: one seed per "),
        ({"low": np.nan, "high": np.nan}, "There are too few groups of photos to judge other photos by: test photos f"),
        ({"difference": 0.0, "seeds_needed": np.nan}, ""),
        ({"difference": 0.0, "low": np.nan, "high": np.nan, "standard_error": 0.0}, ""),
        ({"verdict": "helps"}, ""),
    ],
)
def test_what_would_decide(row: dict[str, Any], expected: str) -> None:
    base = {"verdict": "undecided", "difference": 0.05, "low": -0.1, "high": 0.2, "seeds_needed": 3.0, "seeds": 3}
    found = {**base, "training_known": True, **row}
    said = findings.decider(found)
    assert said.startswith(expected)
    assert bool(said) == bool(expected)
    assert (findings.seeds_to_decide(found) == "–") == ("would decide it" not in said or "groups" in said)


@pytest.mark.parametrize(
    ("error", "reason"), [(np.nan, "too few groups of photos"), (0.0, "the same in every resample")]
)
def test_why_there_is_no_interval(error: float, reason: str) -> None:
    row = {"difference": 0.05, "low": np.nan, "high": np.nan, "standard_error": error}
    assert findings.difference(row) == f"+0.050 (no interval: {reason})"
    of_sound = {f"without_collapsed_{name}": value for name, value in row.items()}
    assert findings.difference({**row, **of_sound}, "without_collapsed_") == "+0.050 (no interval)"


def test_most_cells_not_above_the_controls_is_the_first_breath(contents: StudyContents) -> None:
    cells = contents.cells.copy()
    half = len(cells) // 2
    cells.loc[: half - 1, "above_controls"] = False
    assert sentences(replace(contents, cells=cells))[0].startswith("augment=true")
    cells.loc[half, "above_controls"] = False
    spoilt = replace(contents, cells=cells)
    warning = f"{half + 1} of {2 * half} cells are not reliably above the strongest control: "
    assert sentences(spoilt)[0].startswith(warning)
    assert markdown(spoilt).splitlines()[2].startswith(f"**{warning}")
    text = Page(html(spoilt)).text
    assert (
        f"No cell scores below its strongest control. {half + 1} of {2 * half} cells are not reliably above it" in text
    )
    assert text.index(warning) < text.index("augment=true against false:")


def test_what_must_not_be_overlooked_is_counted_and_named(contents: StudyContents) -> None:
    contents = spoiled(contents)
    page, plain, said = Page(html(contents)).text, markdown(contents), "\n".join(sentences(contents))
    for text in (page, plain, said):
        assert "2 of 34 cells collapsed (augment=false: 2 of 18, augment=true: 0 of 16)." in text
        assert (
            "3 of 34 cells score below the strongest control (augment=false: 3 of 18, augment=true: 0 of 16)." in text
        )
        assert "36 planned cells: 1 failed and 1 missing;" in text
        assert "base, augment=false, seed 0, fold 1" in text
        assert "(augment=true against false, all models, 14 of 16 pairs)" in text
        assert "Cells were made by 2 versions of the code." in text
    names = [
        f"{row['model']}, augment={row['arm']}, seed {row['seed']}, fold {row['fold']}"
        for row in contents.cells.loc[[0, 1, 2, 34, 35]].to_dict("records")
    ]
    for name, run_id in zip(names, contents.cells.loc[[0, 1, 2, 34, 35], "run_id"], strict=True):
        assert f"{name} (run {run_id})" in page
        assert f"{name} (run {run_id})" in plain
    without = contents.comparisons.query("metric == 'macro_ap' and model == 'base'").iloc[0]
    shown = [row for title, rows in html_tables(contents) if "without" in title for row in rows]
    assert len(shown) == 3
    assert numbers(shown[1][4])[0] == pytest.approx(without["without_collapsed_difference"], abs=5.1e-4)
    assert shown[1][5] == "4"


def test_long_lists_of_cells_are_cut_in_the_terminal_only(contents: StudyContents) -> None:
    cells = contents.cells.assign(collapsed=True)
    said = next(line for line in sentences(replace(contents, cells=cells)) if "collapsed" in line)
    assert said.endswith("; and 31 more.")
    assert Page(html(replace(contents, cells=cells))).text.count("vgg16, augment=true, seed 1, fold 3") == 1


def test_a_sound_study_says_what_was_looked_for(contents: StudyContents) -> None:
    text = Page(html(contents)).text
    for sentence in ("All 36 planned cells finished.", "No cell collapsed.", "No cell scores below its strongest"):
        assert sentence in text
    assert len(sentences(contents)) == 5


def test_one_model_has_no_row_of_all_models() -> None:
    contents = make_contents(models=("base",))
    assert re.match(r"augment=true against false: (undecided|helps) for base: ", sentences(contents)[0])
    assert len(sentences(contents)) == 2
    assert f"over {ALL_MODELS}" not in html(contents) + markdown(contents)


def test_no_pair_at_all_is_said_and_nothing_is_drawn(contents: StudyContents) -> None:
    cells = contents.cells[contents.cells["arm"] == "false"]
    for kept in (cells, cells.assign(status="missing")):
        empty = replace(
            contents, cells=kept, comparisons=contents.comparisons.iloc[:0], curves=contents.curves.iloc[:0]
        )
        finished = int((kept["status"] == "finished").sum())
        fact = f"{finished} of 18 cells finished, and no two of them differ in augment alone"
        assert fact in sentences(empty)[0]
        assert fact in Page(html(empty)).text
        assert fact in markdown(empty)
        assert tables(empty) == []
        assert "Learning curves" not in html(empty)


def test_one_group_and_one_seed_say_so() -> None:
    contents = make_contents(seeds=1)
    unknown = dict.fromkeys(("low", "high", "p_value", "p_adjusted", "standard_error"), np.nan)
    frame = contents.comparisons.assign(**unknown, groups=1, verdict="undecided")
    contents = replace(contents, comparisons=frame)
    said = " ".join(sentences(contents))
    assert "(no interval: too few groups of photos), 1 seed x 3 folds, 1 group of photos." in said
    caution = "One seed per fold does not show how results vary between trainings: that leaves 4 of 4 comparisons of "
    assert f"{caution}test macro AP undecided" in said
    assert said.count("ndecided whatever p says: one seed per fold") == 4
    assert "instead of" not in said
    assert "would decide it" not in said
    assert "Holm" not in said
    page = html(contents)
    assert len(re.findall(r'<g id="forest-[^"]*-mark-', page)) == 8
    assert "nan" not in Page(page).text.lower()


def test_one_model_without_a_second_seed_is_told_apart() -> None:
    contents = make_contents(effect=0.0)
    frame = contents.comparisons.assign(verdict="undecided")
    frame["training_known"] = frame["model"] != "dbn"
    first, *rest = sentences(replace(contents, comparisons=frame))
    assert "About 9 seeds instead of 2 would decide it" in first
    of_dbn = next(line for line in rest if line.startswith("dbn:"))
    one_seed = "one seed per fold does not show how results vary between trainings"
    assert of_dbn.endswith(f"; undecided whatever p says: {one_seed}.")
    assert sum("whatever p says" in line for line in rest) == 2
    assert any("that leaves 1 of 4 comparisons" in line for line in rest)


def test_one_fold_is_one_set_of_training_photos(contents: StudyContents) -> None:
    said = "of this one set of training photos"
    assert not any(said in line for line in sentences(contents))
    alone = make_contents(folds=1)
    assert any(line.startswith("One fold: ") and said in line for line in sentences(alone))
    for text in (Page(html(alone)).text, markdown(alone)):
        assert said in text
        assert "other test photos and other seeds, on these sets of training photos" in text


@pytest.mark.parametrize("strata", [("",), ("labels_percent=10", "labels_percent=50")])
def test_arms_of_other_labels_are_other_tasks(strata: tuple[str, ...]) -> None:
    contents = make_contents(arms=("false", "true", "twice"), strata=strata)
    cells, by_fold = contents.cells, contents.cells["fold"].map({1: 0.25, 2: 0.30, 3: 0.26})
    task = "The arms have different labels: part of the difference is between tasks"
    floors = by_fold + np.where(cells["arm"] == "true", 0.006, 1e-16)
    apart = replace(contents, cells=cells.assign(floor_macro_ap=floors))
    expected = (
        f"{task}, not between trainings. A predictor that gives every photo the same answer scores a macro AP of 0.270 "
    )
    expected += "with augment=false and 0.276 with augment=true (+0.006)."
    assert sentences(apart)[1] == expected
    page, plain = Page(html(apart)).text, markdown(apart)
    assert page.index(sentences(apart)[0][:30]) < page.index(task) < page.index("Checks and warnings")
    assert plain.index(task) < plain.index("Checks and warnings")
    # Folds, and combinations of the other factors, may have other floors: their pairs are of one task.
    alike = by_fold + np.where(cells["stratum"] == strata[0], 0.1, 0.0)
    for same in (contents, replace(contents, cells=cells.assign(floor_macro_ap=alike))):
        assert task not in " ".join(sentences(same)) + html(same) + markdown(same)


def test_floors_of_unfinished_cells_are_no_other_task(contents: StudyContents) -> None:
    unknown = contents.cells.assign(floor_macro_ap=contents.cells["floor_macro_ap"].where(contents.cells["fold"] == 1))
    for cells in (unknown, contents.cells.assign(floor_macro_ap=np.nan)):
        assert findings.tasks_warning(cells, "augment", contents.arms) == ""


def test_what_a_part_of_the_labels_means_is_said_where_it_varies(contents: StudyContents) -> None:
    meaning = "only training labels are fewer"
    assert meaning not in html(contents) + markdown(contents)
    arms = ("labels_percent=10 augment=false", "labels_percent=100 augment=true")
    over_labels = make_contents(strata=("labels_percent=10", "labels_percent=100"))
    noted = replace(contents, notes=["The arms differ in labels_percent (10, 100)."])
    for varied in (over_labels, make_contents(arms=arms), noted):
        assert meaning in Page(html(varied)).text
        assert meaning in markdown(varied)


def figure_texts(content: str, kind: str) -> list[list[str]]:
    """The texts of each figure of a kind, ``forest`` or ``chart``."""
    found = re.findall(rf'<figure class="{kind}".*?</figure>', content, re.DOTALL)
    return [re.findall(r"<text[^>]*>([^<]*)</text>", figure) for figure in found]


def test_forest_plots_have_a_line_for_each_model_and_stratum() -> None:
    strata = tuple(f"labels_percent={percent}" for percent in (1, 5))
    contents = make_contents(models=("base", "vgg16"), arms=("false", "true", "twice"), strata=strata)
    forests = figure_texts(html(contents), "forest")
    contrasts = list(itertools.product(("macro_ap", "macro_f1"), ("true", "twice")))
    for forest, (metric, second) in zip(forests, contrasts, strict=True):
        assert {"← augment=false better", f"augment={second} better →"} <= set(forest)
        names = [text for text in forest if text.startswith(("base", "vgg16", ALL_MODELS))]
        assert names == [f"{model}, {stratum}" for model in ("base", "vgg16", ALL_MODELS) for stratum in strata]
        frame = contents.comparisons
        rows = frame[(frame["metric"] == metric) & (frame["second"] == second)].to_dict("records")
        differences = {f"{row['difference']:+z.3f}" for row in rows}
        assert {text.partition(" ")[0] for text in forest if "[" in text} == differences


def test_a_figure_over_the_labels_where_they_vary_as_numbers() -> None:
    strata = tuple(f"labels_percent={percent}" for percent in (10, 50, 100))
    contents = make_contents(models=("base", "vgg16"), strata=strata)
    page = html(contents)
    assert "Test macro AP against labels percent" in page
    assert page.count('test macro AP against labels percent"') == 2
    assert "undecided in " in sentences(contents)[0]
    assert " of 3 comparisons of test macro AP." in sentences(contents)[0]
    cells = contents.cells.assign(labels_percent=contents.cells["labels_percent"].map({"10": "few"}).fillna("many"))
    for other in (replace(contents, cells=cells), make_contents()):
        assert "Test macro AP against" not in html(other)


def test_learning_curves_of_each_model_and_what_was_not_measured(contents: StudyContents) -> None:
    page = Page(html(contents))
    labels = [found["aria-label"] for tag, found in page.elements if tag == "figure" and found["class"] == "chart"]
    kinds = ("macro AP on val", "loss")
    assert labels == [f"{model}: {kind} against epoch" for kind in kinds for model in ("base", "dbn", "vgg16")]
    curves = contents.curves[contents.curves["epoch"] <= 2].assign(val_macro_ap=np.nan)
    text = Page(html(replace(contents, curves=curves))).text
    assert text.count("Nothing was measured more than once.") == 1
    assert text.index("macro AP on val") < text.index("Nothing was measured more than once.") < text.rindex("loss")


def test_names_from_outside_are_text_and_nothing_else() -> None:
    plain, nasty = make_contents(models=("a", "b")), make_contents(models=("a", NASTY))
    nasty = spoiled(replace(nasty, title=NASTY, settings={NASTY: NASTY}, materials=MATERIALS))
    nasty = replace(nasty, notes=[NASTY], cells=nasty.cells.assign(strongest_control=NASTY))
    page = Page(html(nasty))
    assert page.count("b") == page.count("a") == 0
    assert page.count("strong") == Page(html(spoiled(plain))).count("strong")
    assert NASTY in page.text
    assert "{{ 1 }}" in page.text
    text = markdown(nasty)
    assert r"\<b\>" in text
    assert re.search(r"(?<!\\)<", text) is None
    assert "](" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    widths = [len(re.split(r"(?<!\\)\|", line)) for line in rows]
    assert widths == [
        len(re.split(r"(?<!\\)\|", line)) for line in markdown(spoiled(plain)).splitlines() if line[:1] == "|"
    ]


def test_the_page_asks_for_nothing_and_stays_small() -> None:
    contents = make_contents(models=("base", "dbn", "vgg16", "efficientnetv2", "resnet"), seeds=3, folds=2, epochs=40)
    assert len(contents.cells) == 60
    content = html(contents)
    page = Page(content)
    assert len(content.encode()) < 1_500_000
    assert not [found for _, found in page.elements if {"src", "srcset", "action", "poster"} & found.keys()]
    assert {found["href"] for _, found in page.elements if "href" in found} == {"data:,"}
    assert all(str(found["xlink:href"]).startswith("#") for _, found in page.elements if "xlink:href" in found)
    assert not re.findall(r"url\((?!#)", content)
    assert "@import" not in content
    policies = [found["content"] for _, found in page.elements if found.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0]
    assert policies[0].startswith("default-src 'none'")
    assert page.count("script") == 0


def test_closing_table_fits_a_log(contents: StudyContents, capsys: pytest.CaptureFixture[str]) -> None:
    contents = make_contents(models=("base", "efficientnetv2"), strata=("labels_percent=10", "labels_percent=100"))
    ((title, columns, rows),) = tables(contents)
    console.table(title, columns, rows)
    printed = capsys.readouterr().out
    assert title == "Test macro AP: augment=true against false"
    for row in contents.comparisons.query("metric == 'macro_ap'").to_dict("records"):
        assert findings.difference(row) in printed
        assert row["stratum"] in printed


@pytest.mark.parametrize(
    ("value", "plain", "with_sign", "p"),
    [(0.31249, "0.312", "+0.312", "0.312"), (-0.0001, "0.000", "+0.000", ""), (np.nan, "–", "–", "–")],
)
def test_numbers_as_people_read_them(value: float, plain: str, with_sign: str, p: str) -> None:
    assert (findings.number(value), findings.signed(value)) == (plain, with_sign)
    if p:
        assert findings.p_value(value) == p
    assert findings.p_value(0.00049) == "< 0.001"
