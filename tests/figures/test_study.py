"""The figures of a study's report are drawn to scale, and their SVG is safe to embed."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wastelens.figures import study
from wastelens.figures.study import ForestLine, forest, forest_reach, lines_with_bands, mean_and_range, svg

NASTY = """<b>"a" & 'b'</b> </style> $x$ ]]> -- ゴミ"""
ARMS = [("false", "augment=false"), ("true", "augment=true")]


def line(name: str, difference: float, low: float = np.nan, high: float = np.nan, pooled: bool = False) -> ForestLine:
    return ForestLine(name, difference, low, high, "undecided", f"{difference:+.3f}", pooled)


def drawn(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """x and y of each line: by its id, or its place."""
    lines = figure.axes[0].get_lines()
    return {
        one.get_gid() or str(place): (list(map(float, one.get_xdata())), list(map(float, one.get_ydata())))
        for place, one in enumerate(lines)
    }


def test_forest_plot_puts_numbers_to_scale() -> None:
    lines = [line("base", 0.01, -0.01, 0.03), line("dbn", -0.02, -9.0, 9.0), line("all models", 0.0, pooled=True)]
    figure = forest("forest", lines, ("augment=false", "augment=true"), 0.05)
    axes, found = figure.axes[0], drawn(figure)
    assert axes.get_xlim() == (-0.05, 0.05)
    assert axes.yaxis_inverted()
    assert [found[f"forest-mark-{row}"] for row in range(3)] == [([0.01], [0]), ([-0.02], [1]), ([0.0], [2])]
    spans = sorted((x for x, _ in found.values() if len(x) == 2), key=lambda ends: ends[1])
    assert spans == [[-0.01, 0.03], [-0.05, 0.05]]
    markers = [(one.get_marker(), float(one.get_xdata()[0])) for one in axes.get_lines()]
    assert {("<", -0.05), (">", 0.05), ("|", -0.01), ("|", 0.03), ("D", 0.0), ("o", 0.01)} <= set(markers)
    texts = [text.get_text() for text in axes.texts]
    assert texts[:2] == ["← augment=false better", "augment=true better →"]
    assert [texts[2::2], texts[3::2]] == [["base", "dbn", "all models"], ["+0.010", "-0.020", "+0.000"]]


def test_one_wide_interval_does_not_shrink_all_others() -> None:
    usual = [[0.01, -0.01, 0.03]] * 3
    assert forest_reach(np.array(usual)) == pytest.approx(1.05 * 0.03)
    assert forest_reach(np.array([*usual, [0.0, -9.0, 9.0]])) == pytest.approx(1.05 * 3 * 0.03)
    assert forest_reach(np.array([*usual, [0.5, np.nan, np.nan]])) == pytest.approx(1.05 * 0.5)
    assert forest_reach(np.array([[np.nan] * 3])) == 0.01
    assert forest_reach(np.zeros((0, 3))) == 0.01


def curves(epochs: dict[str, list[int]]) -> pd.DataFrame:
    """A cell for each entry of an arm, of that many epochs, with random losses."""
    rng = np.random.default_rng(3)
    cells = [
        pd.DataFrame({"arm": arm, "epoch": range(1, last + 1), "val_loss": rng.random(last), "loss": rng.random(last)})
        for arm, lasts in epochs.items()
        for last in lasts
    ]
    return pd.concat(cells, ignore_index=True)


def test_lines_are_means_between_the_least_and_the_greatest() -> None:
    cells = curves({"false": [6, 6], "true": [4, 6, 6]})
    figure = lines_with_bands("dbn", ("epoch", "nats"), cells, "epoch", ["val_loss", "loss"], ARMS)
    assert figure is not None
    axes = figure.axes[0]
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) == ("dbn", "epoch", "nats")
    values = cells[cells["arm"] == "true"].groupby("epoch")["val_loss"].agg(["mean", "min", "max"])
    solid, fading = axes.get_lines()[1:3]
    assert solid.get_xdata() == pytest.approx(np.arange(1, 5))
    assert solid.get_ydata() == pytest.approx(values["mean"].to_numpy()[:4])
    assert fading.get_xdata() == pytest.approx(np.arange(4, 7))
    assert (solid.get_alpha(), fading.get_alpha()) == (None, 0.4)
    (band,) = axes.collections[1].get_paths()
    for epoch, row in values.iterrows():
        at = band.vertices[band.vertices[:, 0] == epoch][:, 1]
        assert (at.min(), at.max()) == pytest.approx((row["min"], row["max"]))
    assert len(axes.collections) == 2  # the dashed lines have no bands
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["augment=false", "augment=true"]


def test_one_epoch_beside_several_is_a_point_and_alone_no_figure() -> None:
    cells = curves({"false": [1], "true": [2]})
    figure = lines_with_bands("dbn", ("epoch", "nats"), cells, "epoch", ["val_loss"], ARMS)
    assert figure is not None
    assert [one.get_marker() for one in figure.axes[0].get_lines()] == ["o", "None"]
    single = curves({"false": [1], "true": [1]})
    assert lines_with_bands("dbn", ("epoch", "nats"), single, "epoch", ["val_loss"], ARMS) is None
    nothing = cells.assign(val_loss=np.inf)
    assert lines_with_bands("dbn", ("epoch", "nats"), nothing, "epoch", ["val_loss"], ARMS) is None
    assert mean_and_range(nothing, "epoch", "val_loss").empty


def test_svg_takes_its_colours_from_the_page_and_names_are_text() -> None:
    figure = forest("forest", [line(NASTY, 0.01, -0.01, 0.03)], (NASTY, NASTY), 0.05)
    chart = lines_with_bands(NASTY, (NASTY, NASTY), curves({"false": [3, 2]}), "epoch", ["val_loss", "loss"], ARMS)
    assert chart is not None
    sheet = (Path(study.__file__).parents[1] / "studies" / "page.css").read_text()
    for drawing in (svg(figure), svg(chart)):
        root = ElementTree.fromstring(drawing)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "<b>" not in drawing
        assert "var(--ink)" in drawing
        assert not re.findall(r"#[0-9a-f]{6}\b", drawing)
        assert not re.findall(r"""url\((?!#)|href="(?!#)""", drawing)
        assert all(f"{name}:" in sheet for name in set(re.findall(r"var\((--\w+)\)", drawing)))
        assert any("ゴミ" in "".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text"))
    assert all(f"--{name}: {colour}" in sheet for name, colour in study.COLOURS.items())
