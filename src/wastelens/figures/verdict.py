"""Figures of a model run. Each is a standalone matplotlib ``Figure``: no pyplot, no global state, no display."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from wastelens.evaluation.calibration import NONE, recalibrated
from wastelens.evaluation.metrics import (
    METRICS,
    average_precision,
    checked_decisions,
    checked_probabilities,
    expected_calibration_error,
    risk_over_coverage,
)
from wastelens.evaluation.verdict import Verdict, f1_over_thresholds
from wastelens.figures.style import blank_figure, floor_style, label_text
from wastelens.system.arrays import BoolArray, FloatArray, IndexArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color Universal Design": colour-blind readers can tell them apart.
_BLUE, _GREEN, _GREY, _PALE = "#0072B2", "#009E73", "#595959", "#B8B8B8"
_PALE_BLUE = "#7FB8DA"
_COLUMNS = 3


def verdict_figures(
    verdict: Verdict, history: Sequence[Mapping[str, float]] = (), best_epoch: int = 0
) -> dict[str, Figure]:
    """Draw all figures of a model run; return file name → figure. history: one dict of metrics per epoch.

    There are no learning curves of fewer than two epochs, nor of a finished model that is judged on other photos.
    """
    labels, materials = verdict.test_table.labels, verdict.test.materials
    thresholds = np.array(list(verdict.thresholds.values()))
    floor = float(np.mean(verdict.val.prevalence)) if verdict.val else 0.0
    return {
        "average_precision": average_precision_bars(verdict),
        **({"learning_curves": learning_curves(history, floor, best_epoch)} if len(history) > 1 else {}),
        "precision_recall": precision_recall(labels, verdict.probabilities, materials, thresholds),
        "confusion": confusion_per_material(labels, verdict.decisions, materials),
        "thresholds": threshold_curves(labels, verdict.probabilities, materials, thresholds),
        "reliability": reliability(verdict),
        "risk_coverage": risk_coverage(verdict),
    }


def average_precision_bars(verdict: Verdict) -> Figure:
    """Draw average precision with its interval, overall and per material, beside the floor and strongest control."""
    evaluation = verdict.test
    figure = blank_figure(9.5, 5.2)
    axes = figure.add_subplot()
    rows = np.arange(len(evaluation.materials) + 1)
    low, high = evaluation.macro_ap_interval
    scores = evaluation.values["macro_ap"]
    ap = np.append(scores.value, scores.materials)
    bounds = np.array([np.append(low, scores.materials_low), np.append(high, scores.materials_high)])
    floor = np.append(verdict.floors.macro_ap, np.where(evaluation.prevalence > 0, evaluation.prevalence, np.nan))
    rival = np.append(verdict.strongest_control_macro_ap, verdict.strongest_control_ap)
    _draw_bars(axes, rows, ap, bounds)
    axes.vlines(floor, rows - 0.33, rows + 0.33, **floor_style("prevalence"))
    diamonds: dict[str, Any] = {"marker": "D", "s": 42, "color": "white", "edgecolor": "black", "zorder": 5}
    diamonds["clip_on"] = False
    axes.scatter(rival, rows, label=f"strongest control: {verdict.strongest_control}", **diamonds)
    sentences = [verdict.sentence]
    if verdict.start:
        start = np.append(verdict.start.test_macro_ap, verdict.start.test_ap)
        axes.scatter(start, rows, label=verdict.start.words, **{**diamonds, "marker": "^", "color": _GREEN})
        sentences.append(verdict.start.sentence)
    _write_numbers(axes, rows, ap, bounds)
    axes.set_yticks(rows, ["all (macro)", *(label_text(m) for m in evaluation.materials)])
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set(xlim=(0, 1), xlabel=f"average precision on {evaluation.photos:,} photos")
    title = "\n".join(textwrap.fill(sentence, 104) for sentence in sentences)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    figure.legend(loc="outside lower center", ncols=3 if verdict.start else 4, frameon=False)
    return figure


def _draw_bars(axes: Axes, rows: IndexArray, ap: FloatArray, bounds: FloatArray) -> None:
    """Draw bars with whiskers, the first (all materials) in a stronger blue; bounds: (2, rows), low and high."""
    axes.barh(rows, ap, 0.56, color=[_BLUE, *[_PALE_BLUE] * (len(rows) - 1)], label="model", zorder=2)
    whiskers: dict[str, Any] = {"ecolor": "black", "elinewidth": 1.2, "capsize": 3, "zorder": 3}
    axes.errorbar(ap, rows, xerr=np.abs(bounds - ap), fmt="none", label="its 95 % interval", **whiskers)
    axes.axhline(0.5, color=_PALE, linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xticks(np.linspace(0, 1, 6))
    _tidy(axes, "x")


def _write_numbers(axes: Axes, rows: IndexArray, values: FloatArray, bounds: FloatArray) -> None:
    """Write the model's numbers in a column beside the bars, where no mark of a control is near."""
    texts = [
        "in no photo" if np.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
        for value, low, high in zip(values, *bounds, strict=True)
    ]
    for row, text in zip([-0.75, *rows], ["model [95 %]", *texts], strict=True):
        place: dict[str, Any] = {"textcoords": "offset points", "xycoords": axes.get_yaxis_transform()}
        axes.annotate(text, (1, row), (8, 0), va="center", color=_BLUE, fontsize=9, annotation_clip=False, **place)


def precision_recall(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, materials: Sequence[str], thresholds: npt.ArrayLike
) -> Figure:
    """Draw precision over recall, one panel per material, with AP, the prevalence and the point at the threshold.

    labels, probabilities: (n, m); thresholds: (m,).
    """
    view = {"ylim": (-0.02, 1.05), "xlabel": "recall", "ylabel": "precision"}
    return _curves(labels, probabilities, materials, thresholds, 3.1, view, _draw_precision_recall)


def _draw_precision_recall(axes: Axes, truth: BoolArray, scores: FloatArray, threshold: float) -> None:
    decided = scores >= threshold
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(truth[order])[ends]
    recall, precision = found / truth.sum(), found / (ends + 1)
    # steps back from each point, so that the area is the average precision
    axes.step(np.append(0, recall), np.append(precision[0], precision), where="pre", color=_BLUE, label="model")
    axes.axhline(truth.mean(), **floor_style("prevalence"))
    if decided.any():
        hits = (truth & decided).sum()
        point = hits / truth.sum(), hits / decided.sum()
        axes.plot(*point, "o", color="black", markersize=7, clip_on=False, label="at the calibrated threshold")
    text = f"AP {float(average_precision(truth, scores)):.2f}   prevalence {truth.mean():.2f}"
    _write_below_title(axes, text)


def _write_below_title(axes: Axes, text: str) -> None:
    axes.set_title(f"{axes.get_title()}\n", fontsize=11)
    axes.text(0.5, 1.03, text, transform=axes.transAxes, ha="center", color=_GREY, fontsize=9)


def confusion_per_material(labels: npt.ArrayLike, decisions: npt.ArrayLike, materials: Sequence[str]) -> Figure:
    """Draw a two-by-two confusion table per material: photos that show it or not, and predictions of it or not.

    labels, decisions: 0 or 1, (n, m).
    """
    truth, predicted = checked_decisions(labels, decisions)
    figure, panels = _panels(len(materials), 2.7)
    for axes, material, cells in zip(panels, materials, (2 * truth + predicted).T, strict=True):
        _draw_confusion(axes, np.bincount(cells, minlength=4)[::-1].reshape(2, 2))
        axes.set_title(label_text(material), fontsize=11)
    figure.supxlabel("number of photos and their share of the row (shade)", fontsize=9, color=_GREY)
    return figure


def _draw_confusion(axes: Axes, counts: IntArray) -> None:
    """Draw counts (2, 2), rows present and absent, columns predicted and not predicted; the shade is the row share."""
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros((2, 2)), where=total > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
    for (row, column), count in np.ndenumerate(counts):
        text = f"{count:,}\n{share[row, column]:.0%}" if total[row, 0] else "none"
        colour = "white" if share[row, column] > 0.7 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=10)
    axes.axvline(0.5, color="white", linewidth=5)
    axes.axhline(0.5, color="white", linewidth=5)
    axes.set_xticks([0, 1], ["predicted", "not predicted"])
    axes.set_yticks([0, 1], ["present", "absent"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def threshold_curves(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, materials: Sequence[str], thresholds: npt.ArrayLike
) -> Figure:
    """Draw F1 over the threshold, one panel per material, with the chosen threshold and the F1 of always predicting it.

    labels, probabilities: (n, m); thresholds: (m,), chosen on val, so on test their point need not be the peak.
    """
    view = {"ylim": (0, 1.02), "xlabel": "threshold", "ylabel": "F1"}
    return _curves(labels, probabilities, materials, thresholds, 2.8, view, _draw_thresholds)


def _curves(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    materials: Sequence[str],
    thresholds: npt.ArrayLike,
    row_height_in: float,
    view: Mapping[str, Any],
    draw: Callable[[Axes, BoolArray, FloatArray, float], None],
) -> Figure:
    """Draw a panel per material, from its labels (n,), probabilities (n,) and threshold."""
    truth, numbers = checked_probabilities(labels, probabilities)
    cuts = np.asarray(thresholds, dtype=np.float64).tolist()
    figure, panels = _panels(len(materials), row_height_in)
    for axes, material, shown, scores, cut in zip(panels, materials, truth.T, numbers.T, cuts, strict=True):
        axes.set_title(label_text(material), fontsize=11)
        axes.set(xlim=(-0.02, 1.02), **view)
        _tidy(axes, "both")
        if shown.any():
            draw(axes, shown, scores, cut)
        else:
            axes.text(0.5, 0.5, "not in any photo", transform=axes.transAxes, ha="center", va="center", color=_GREY)
    _shared_legend(figure, panels)
    return figure


def _draw_thresholds(axes: Axes, truth: BoolArray, probabilities: FloatArray, chosen: float) -> None:
    _, f1 = f1_over_thresholds(truth, probabilities)
    distinct = np.unique(probabilities)
    # F1 is constant up to each probability and changes just above it; above the last nothing is predicted
    axes.step(np.append(0, [*distinct, 1]), np.append(f1[0], [*f1, 0]), where="pre", color=_BLUE, label="model")
    everything = 2 * truth.mean() / (1 + truth.mean())
    axes.axhline(everything, **floor_style("always predicted"))
    decided = probabilities >= chosen
    reached = 2 * (truth & decided).sum() / (decided.sum() + truth.sum())
    axes.plot(chosen, reached, "o", color="black", markersize=7, clip_on=False, label="calibrated on val")
    _write_below_title(axes, f"threshold {chosen:.2f}   F1 {reached:.2f}")


def reliability(verdict: Verdict) -> Figure:
    """Draw the share of photos that show a material over its probability, for all pairs and each material.

    The curve is the best rising fit (Dimitriadis, Gneiting & Jordan 2021), so nothing depends on bins. The pale band
    holds 95 of 100 such curves if the calibrated probabilities are right.
    """
    labels, materials = verdict.test_table.labels.astype(bool), verdict.test.materials
    report = verdict.calibration
    figure, panels = _panels(len(materials) + 1, 3.0)
    is_changed = report.kind != NONE
    stages = {"the network's own": verdict.network_probabilities} if is_changed else {}
    stages[f"calibrated ({report.kind})" if is_changed else "the network's own"] = verdict.probabilities
    columns = [(labels.ravel(), {name: one.ravel() for name, one in stages.items()})]
    columns += [(labels[:, j], {name: one[:, j] for name, one in stages.items()}) for j in range(len(materials))]
    pooled = expected_calibration_error(labels.reshape(-1, 1), verdict.probabilities.reshape(-1, 1))
    scores = [(report.after.brier.value, float(pooled[0]))]
    scores += list(zip(report.after.brier.materials, report.after.ece.materials, strict=True))
    titles = ["all pairs", *(label_text(material) for material in materials)]
    for axes, title, (truth, shown), (brier, ece) in zip(panels, titles, columns, scores, strict=True):
        axes.set_title(title, fontsize=11)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability", ylabel="share that shows it")
        _tidy(axes, "both")
        _draw_reliability(axes, truth, shown)
        _write_below_title(axes, f"Brier {brier:.3f}   calibration error {ece:.3f}")
    _shared_legend(figure, panels)
    return figure


def _draw_reliability(axes: Axes, truth: BoolArray, shown: Mapping[str, FloatArray]) -> None:
    calibrated = np.sort(list(shown.values())[-1])
    rng = np.random.default_rng(0)
    draws = [recalibrated(rng.random(len(calibrated)) < calibrated, calibrated) for _ in range(100)]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    axes.fill_between(calibrated, low, high, color="#DDE9F2", linewidth=0, label="by chance, if calibrated", zorder=1)
    axes.plot([0, 1], [0, 1], color=_PALE, linewidth=1, zorder=2)
    axes.axhline(truth.mean(), **floor_style("prevalence"))
    styles: list[dict[str, Any]] = [{"color": _GREY, "linewidth": 1.2}, {"color": _BLUE, "linewidth": 2}]
    for (label, numbers), style in zip(shown.items(), styles[-len(shown) :], strict=True):
        order = np.argsort(numbers, kind="stable")
        axes.plot(numbers[order], recalibrated(truth, numbers)[order], label=label, zorder=3, **style)
    axes.plot(calibrated, np.full(len(calibrated), -0.01), "|", color=_BLUE, alpha=0.25, markersize=5, clip_on=False)


def risk_coverage(verdict: Verdict) -> Figure:
    """Draw the share of wrong answers among the surest photos over their share, for each material.

    The answer is yes from a calibrated probability of 0.5.
    """
    labels, materials = verdict.test_table.labels.astype(bool), verdict.test.materials
    figure, panels = _panels(len(materials), 2.8)
    rival = verdict.control_probabilities
    curves: dict[str, tuple[FloatArray, dict[str, Any]]] = {}
    curves["model"] = (verdict.probabilities, {"color": _BLUE, "linewidth": 2})
    if rival is not None:
        name = f"strongest control: {verdict.strongest_control}"
        curves[name] = (rival, {"color": "black", "linewidth": 1, "linestyle": ":"})
    areas = verdict.test.values["aurc"].materials
    for place, (axes, material) in enumerate(zip(panels, materials, strict=True)):
        axes.set_title(label_text(material), fontsize=11)
        axes.set(xlim=(-0.02, 1.02), xlabel="share of photos answered", ylabel="wrong among them")
        _tidy(axes, "both")
        for label, (scores, style) in curves.items():
            coverage, risk = risk_over_coverage(labels[:, place], scores[:, place])
            axes.step(np.append(0, coverage[0]), np.append(risk[0, 0], risk[0]), where="pre", label=label, **style)
        share = labels[:, place].mean()
        floor = min(share, 1 - share)
        axes.axhline(floor, **floor_style("one answer for all"))
        axes.set_ylim(-0.02 * max(axes.get_ylim()[1], 0.05), max(axes.get_ylim()[1], 0.05))
        _write_below_title(axes, f"area {areas[place]:.3f}   floor {floor:.3f}")
    _shared_legend(figure, panels)
    return figure


def learning_curves(history: Sequence[Mapping[str, float]], floor: float, best_epoch: int) -> Figure:
    """Draw loss, validation macro AP and learning rate over the epochs.

    Args:
        history: one dict per epoch: ``epoch`` and those of ``loss``, ``val/loss``, ``val/macro_ap`` and
            ``learning_rate`` that were measured.
        floor: macro AP of the best constant predictor on the val photos.
        best_epoch: the epoch whose weights were kept.
    """
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history] or [0.0]
    figure = blank_figure(9.5, 3.8)
    panels = figure.subplots(1, 3)
    losses, ap, rate = panels
    _draw_series(losses, history, {"loss": ("train", _GREY), "val/loss": ("val", _BLUE)})
    _draw_series(ap, history, {"val/macro_ap": ("val", _BLUE)})
    _draw_series(rate, history, {"learning_rate": ("learning rate", _GREEN)})
    ap.axhline(floor, **floor_style("prevalence"))
    for axes, title in zip(panels, ("loss", f"{METRICS['macro_ap'].title} on val", "learning rate"), strict=True):
        axes.axvline(best_epoch, color=_PALE, linewidth=1.2, zorder=1, label=f"kept: epoch {best_epoch}")
        axes.set_title(title, fontsize=11)
        # whole epochs only, with room for a single one
        axes.set(xlim=(min(epochs) - 0.5, max(epochs) + 0.5), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        _tidy(axes, "y")
    losses.set_ylim(0, 1.05 * losses.get_ylim()[1])
    rate.set_ylim(0, rate.get_ylim()[1])
    _shared_legend(figure, list(panels[:2]))
    return figure


def _draw_series(axes: Axes, history: Sequence[Mapping[str, float]], series: Mapping[str, tuple[str, str]]) -> None:
    for name, (label, colour) in series.items():
        points = [(row["epoch"], row[name]) for row in history if np.isfinite(row.get(name, np.nan))]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=".", label=label)


def _panels(count: int, row_height_in: float) -> tuple[Figure, list[Any]]:
    """Return a figure with ``count`` panels, three per row, and no empty ones at the end."""
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = blank_figure(3.2 * columns, row_height_in * rows + 0.3)
    return figure, [figure.add_subplot(rows, columns, at + 1) for at in range(count)]


def _shared_legend(figure: Figure, panels: list[Any]) -> None:
    """Draw one legend below all panels, with each kind of mark once."""
    marks: dict[str, Any] = {}
    for axes in panels:
        handles, names = axes.get_legend_handles_labels()
        marks = dict(zip(names, handles, strict=True)) | marks
    if marks:
        figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=len(marks), frameon=False)


def _tidy(axes: Axes, grid: Literal["both", "x", "y"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
