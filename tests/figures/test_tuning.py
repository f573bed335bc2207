"""Figures of a search draw their data, also where there is little or much of it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from tests.figure_checks import draw

from wastelens.config.tune import ChoiceConfig, ParameterConfig, RangeConfig
from wastelens.figures import tuning as figures


def ranged(low: float, high: float, *, log: bool = False) -> RangeConfig:
    return RangeConfig(low=low, high=high, log=log, step=None, when={})


PARAMETERS: dict[str, ParameterConfig] = {
    "schedule.kind": ChoiceConfig(values=("exponential", "constant"), when={}),
    "schedule.peak": ranged(0.0003, 0.01, log=True),
    "schedule.decay_per_epoch": ranged(0.8, 0.99),
    "fit.batch_size": ChoiceConfig(values=(8, 16, 128), when={}),
    "network.widths": ChoiceConfig(values=([4, 8], [12, 24, 32, 48, 64, 96, 128, 192]), when={}),
    "network.dropout": ranged(0.0, 0.6),
}


def trials(count: int, states: tuple[str, ...] = ("COMPLETE", "PRUNED", "FAILED"), *, spread: bool = True) -> Any:
    """A table of trials in these states by turns; the first is the defaults, and only some decay."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        state = states[number % len(states)]
        decays = number % 2 == 0
        rows.append(
            {
                "trial": number,
                "state": state,
                "val_macro_ap": None if state == "FAILED" else 0.5 + spread * 0.3 * rng.random(),
                "defaults": number == 0,
                "schedule.kind": "exponential" if decays else "constant",
                "schedule.peak": str(10 ** rng.uniform(-3.5, -2)),
                "schedule.decay_per_epoch": str(rng.uniform(0.8, 0.99)) if decays else "",
                "fit.batch_size": str((8, 16, 128)[number // 2 % 3]),
                "network.widths": str(([4, 8], [12, 24, 32, 48, 64, 96, 128, 192])[number % 2]),
                "network.dropout": "",
            }
        )
    return pd.DataFrame(rows)


def scatters(figure: Figure, label: str) -> list[Any]:
    return [one for axes in figure.axes for one in axes.collections if one.get_label() == label]


def texts(figure: Figure) -> list[str]:
    assert draw(figure) > 1000
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


CASES = [trials(24), trials(1), trials(2), trials(6, ("COMPLETE",), spread=False), trials(9, ("COMPLETE", "FAILED"))]
IDS = ["all states", "one", "complete and pruned", "no spread", "complete and failed"]


@pytest.mark.parametrize("table", CASES, ids=IDS)
def test_history_marks_each_trial_by_its_state(table: pd.DataFrame) -> None:
    figure = figures.optimisation_history(table)
    texts(figure)
    others = table[~table["defaults"]]
    for label, state in (("complete", "COMPLETE"), ("pruned", "PRUNED")):
        drawn = [one.get_offsets() for one in scatters(figure, label)]
        expected = others[others["state"] == state][["trial", "val_macro_ap"]].to_numpy(dtype=float)
        assert len(drawn) == (len(expected) > 0)  # a mark that stands nowhere is not in the legend
        np.testing.assert_allclose(np.concatenate([*drawn, np.empty((0, 2))]), expected)
    failed = [point for one in scatters(figure, "failed") for point in one.get_offsets().tolist()]
    bottom = figure.axes[0].get_ylim()[0]
    assert failed == [[n, bottom] for n in table[table["state"] == "FAILED"]["trial"]]
    (defaults,) = scatters(figure, "the defaults")
    assert len(defaults.get_offsets()) == 1
    marks = [
        str(one.get_paths()[0].vertices) for name in ("complete", "pruned", "failed") for one in scatters(figure, name)
    ]
    assert len(set(marks)) == len(marks)
    (legend,) = (axes.get_legend() for axes in figure.axes)
    assert {text.get_text() for text in legend.get_texts()} >= {"best so far", "the defaults"}


def test_the_best_so_far_is_of_complete_trials() -> None:
    table = trials(4, ("COMPLETE",)).assign(val_macro_ap=[0.5, 0.9, 0.4, 0.6])
    table["state"] = ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    (line,) = figures.optimisation_history(table).axes[0].lines
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == [0.5, 0.5, 0.5, 0.6]


@pytest.mark.parametrize("table", CASES, ids=IDS)
def test_slices_show_complete_and_pruned_trials_where_a_parameter_was_varied(table: pd.DataFrame) -> None:
    figure = figures.slices(table, PARAMETERS)
    texts(figure)
    shown = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(shown) == [key for key in PARAMETERS if (table[table["state"] != "FAILED"][key] != "").any()]
    assert "network.dropout" not in shown
    for key, axes in shown.items():
        drawn = [point for one in axes.collections if isinstance(one, PathCollection) for point in one.get_offsets()]
        expected = table[(table[key] != "") & (table["state"] != "FAILED")]
        assert sorted(y for _, y in drawn) == pytest.approx(sorted(expected["val_macro_ap"]))


def test_a_trial_that_failed_half_way_is_in_no_slice() -> None:
    table = trials(3)
    table.loc[2, "val_macro_ap"] = 0.99
    (axes, *_) = figures.slices(table, PARAMETERS).axes
    assert sum(len(one.get_offsets()) for one in axes.collections) == 2


def test_values_stand_in_the_order_of_the_space_and_on_its_scale() -> None:
    figure = figures.slices(trials(24), PARAMETERS)
    shown = {axes.get_title(loc="left"): axes for axes in figure.axes}
    labels = [text.get_text() for text in shown["fit.batch_size"].get_xticklabels()]
    assert labels == ["8", "16", "128"]
    assert [text.get_text() for text in shown["schedule.kind"].get_xticklabels()] == ["exponential", "constant"]
    points = np.concatenate([one.get_offsets() for one in shown["schedule.peak"].collections])
    tried = trials(24).query("state != 'FAILED'")["schedule.peak"].astype(float)
    np.testing.assert_allclose(sorted(points[:, 0]), sorted(np.log10(tried)))
    ticks = [float(text.get_text()) for text in shown["schedule.peak"].get_xticklabels()]
    assert ticks[0] == pytest.approx(tried.min(), rel=0.01)
    assert ticks[-1] == pytest.approx(tried.max(), rel=0.01)


@pytest.mark.parametrize("table", CASES, ids=IDS)
def test_parallel_coordinates_have_a_line_a_complete_trial(table: pd.DataFrame) -> None:
    figure = figures.parallel_coordinates(table, PARAMETERS)
    said = texts(figure)
    complete = table[table["state"] == "COMPLETE"].sort_values("val_macro_ap")
    shown = [key for key in PARAMETERS if (complete[key] != "").any()]
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(shown) and line.get_zorder() > 0]
    assert len(lines) == len(complete)
    heights = np.array([line.get_ydata() for line in lines], dtype=float)
    varied = (complete[shown] != "").to_numpy()
    assert ((heights >= 0) == varied).all()
    assert (heights <= 1).all()
    assert ("not varied" in said) == (not varied.all())
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths)
    values = complete["val_macro_ap"]
    spread = f"{values.min():.3f} (pale) to {values.max():.3f} (dark)"
    expected = spread if values.nunique() > 1 else f"{values.max():.3f}"
    assert figure.axes[0].get_title(loc="left") == f"Complete trials: val macro AP {expected}"
    assert lines[-1].get_alpha() > 0.9


def test_parallel_coordinates_without_any_parameter() -> None:
    """The defaults may lie outside of every range of a space."""
    table = trials(1).assign(**dict.fromkeys(PARAMETERS, ""))
    assert draw(figures.parallel_coordinates(table, PARAMETERS)) > 1000
    assert draw(figures.slices(table, PARAMETERS)) > 500


def test_importances() -> None:
    figure = figures.parameter_importances({"schedule.peak": 0.75, "network.widths": 0.25, "augment": 0.0})
    said = texts(figure)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["schedule.peak", "network.widths", "augment"]
    assert [patch.get_width() for patch in axes.patches] == [0.75, 0.25, 0.0]
    assert {" 0.75", " 0.25", " 0.00"} <= set(said)


def test_learning_rates_are_curves_over_epochs() -> None:
    curves = {
        "best: trial 3": [{"epoch": epoch, "learning_rate": 0.01 * 0.9**epoch} for epoch in range(1, 8)],
        "worst: trial 1": [{"epoch": 1, "learning_rate": 0.0}, {"epoch": 2, "learning_rate": 0.001}],
    }
    figure = figures.learning_rates(curves)
    texts(figure)
    best, worst = figure.axes[0].lines
    assert list(best.get_xdata()) == list(range(1, 8))
    np.testing.assert_allclose(best.get_ydata(), [row["learning_rate"] for row in curves["best: trial 3"]])
    assert list(worst.get_xdata()) == [2]  # a rate of nothing is on no logarithmic axis
    assert figure.axes[0].get_yscale() == "log"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(curves)
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


@pytest.mark.parametrize("curves", [{}, {"best: trial 0": []}], ids=["none", "one without epochs"])
def test_learning_rates_of_nothing(curves: dict[str, Any]) -> None:
    assert draw(figures.learning_rates(curves)) > 1000


def test_pyplot_is_left_alone() -> None:
    before = "matplotlib.pyplot" in sys.modules
    draw(figures.slices(trials(6), PARAMETERS))
    assert ("matplotlib.pyplot" in sys.modules) == before
