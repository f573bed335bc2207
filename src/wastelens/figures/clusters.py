"""Figures of clusters of photos. Each is a standalone matplotlib ``Figure``: no pyplot, no global state, no display."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wastelens.data.prepared.tables import LabelTable
from wastelens.evaluation.clustering import ClusterScores
from wastelens.evaluation.kmeans import Assignment, Clustering
from wastelens.figures.style import (
    SMALL_PT,
    TEXT_PT,
    TITLE_PT,
    blank_figure,
    floor_style,
    keep_sides,
    label_text,
    material_colours,
    shortened,
    write_title,
)
from wastelens.system.arrays import BoolArray, FloatArray, IndexArray, IntArray, PhotoArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

# Okabe & Ito 2008, "Color Universal Design": colour-blind readers can tell them apart.
_BLUE, _ORANGE, _GREY, _PALE = "#0072B2", "#D55E00", "#595959", "#B8B8B8"
_CONTROL_COLOUR = "#A6A6A6"

MAP_PHOTOS = 2000
_LEAST_FOR_TSNE = 10
_PERPLEXITY = 30.0
# A little noise, in standard deviations: t-SNE's gradient has no direction between photos at the same place.
_JITTER = 1e-6

_ROW_IN, _COLUMN_IN, _HEAD_IN, _MARGIN_IN = 0.4, 1.2, 0.6, 1.35
_PHOTO_IN, _CAPTION_IN, _GAP_IN, _SIDE_IN = 1.25, 0.46, 0.1, 1.05
_CAPTION_LETTERS = 21


def materials_per_cluster(table: LabelTable, assignment: Assignment) -> Figure:
    """Draw a histogram of materials per cluster: one row for each, the largest first, below a row of all photos.

    A bar is the share of the cluster's photos that show the material; a tick marks the share of all photos. Photos with
    several materials count for each of them, so the shares of a row may add up to more than 1.

    table: the assignment's photos in its order.
    """
    _check_table(table, assignment)
    members = np.eye(assignment.k, dtype=np.int64)[assignment.clusters]
    counts = members.T @ table.labels.astype(np.int64)
    order, sizes = assignment.largest_first, assignment.sizes
    rows = np.vstack([counts.sum(axis=0), counts[order]])
    totals = np.append(len(table), sizes[order])
    names = ["all photos", *(f"cluster {cluster}" for cluster in order)]
    figure = blank_figure(_MARGIN_IN + _COLUMN_IN * len(table.materials) + 0.2, _HEAD_IN + 0.75 + _ROW_IN * len(names))
    axes = figure.add_subplot()
    _draw_histograms(axes, rows, totals, table.materials)
    labels = [f"{name}   {total:,}" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(len(names)), labels, fontsize=TEXT_PT)
    axes.get_yticklabels()[0].set_fontweight("bold")
    note = "number and share of the cluster's photos that show the material (bar), and its share of all photos (tick)"
    axes.set_xlabel("\n".join(textwrap.wrap(note, int(11 * figure.get_figwidth()))), fontsize=TEXT_PT, color=_GREY)
    return figure


def _draw_histograms(axes: Axes, counts: IntArray, totals: IndexArray, materials: tuple[str, ...]) -> None:
    """Draw counts (rows, materials) of totals (rows,) photos; bars start at the left edge of their column."""
    colours = material_colours(materials)
    share = counts / np.maximum(totals, 1)[:, None]
    places, wide = np.arange(len(counts)), 0.9
    for j, material in enumerate(materials):
        axes.barh(places + 0.22, wide, 0.26, left=j, color="#EDEDED", zorder=1)
        axes.barh(places + 0.22, wide * share[:, j], 0.26, left=j, color=colours[material], zorder=2)
        overall = np.full(len(places) - 1, j + wide * share[0, j])
        axes.vlines(overall, places[1:] + 0.06, places[1:] + 0.38, color="black", linewidth=1.2, zorder=3)
        for row, count in enumerate(counts[:, j]):
            text = f"{count:,}  {share[row, j]:.0%}" if totals[row] else "–"
            axes.text(j, row - 0.1, text, va="center", fontsize=SMALL_PT)
    axes.axhline(0.5, color=_PALE, linewidth=0.8)
    axes.set(xlim=(-0.05, len(materials) - 0.05), ylim=(len(counts) - 0.5, -0.5))
    axes.xaxis.tick_top()
    headings = [textwrap.fill(shortened(label_text(material), 24), 13) for material in materials]
    axes.set_xticks(np.arange(len(materials)) + wide / 2, headings, fontsize=TEXT_PT)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)  # names are data: a $ in them does not start a formula
    axes.tick_params(length=0)
    keep_sides(axes, ())


def nearest_photos(table: LabelTable, assignment: Assignment, photos: PhotoArray, *, per_cluster: int = 8) -> Figure:
    """Draw the photos nearest to each cluster's centre: one row per cluster with photos, the largest cluster first.

    Args:
        table: the assignment's photos in its order, with columns ``file_name`` and ``photo_index``; with ``width`` and
            ``height``, photos are drawn in their real proportions, otherwise as squares.
        photos: uint8 (photos, side, side, 3), each stretched to a square; only those shown are read.
        per_cluster: largest number of photos per row.
    """
    _check_table(table, assignment)
    clusters = [cluster for cluster in assignment.largest_first if assignment.sizes[cluster]]
    columns = min(per_cluster, int(assignment.sizes.max()))
    cell = np.array([_PHOTO_IN + _GAP_IN, _PHOTO_IN + _CAPTION_IN + _GAP_IN])
    size = np.array([_SIDE_IN + columns * cell[0], 0.1 + len(clusters) * cell[1]])
    figure = blank_figure(float(size[0]), float(size[1]))
    figure.set_layout_engine("none")  # cells of equal size need no layout, which would take a minute for 160 of them
    for line, cluster in enumerate(clusters):
        top_in = size[1] - 0.1 - line * cell[1]
        middle = (top_in - _PHOTO_IN / 2) / size[1]
        count = int(assignment.sizes[cluster])
        text = f"cluster {cluster}\n{count:,} photo{'s' if count > 1 else ''}"
        figure.text(0.08 / size[0], middle, text, va="center", fontsize=TEXT_PT)
        rows = np.flatnonzero(assignment.clusters == cluster)
        nearest = rows[np.argsort(assignment.distances[rows], kind="stable")][:columns]
        for column, photo in enumerate(nearest):
            corner = np.array([_SIDE_IN + column * cell[0], top_in - _PHOTO_IN])
            axes = figure.add_axes((*(corner / size), *(_PHOTO_IN / size)))
            _draw_photo(axes, table, int(photo), photos)
    return figure


def _draw_photo(axes: Axes, table: LabelTable, row: int, photos: PhotoArray) -> None:
    record = table.frame.iloc[row]
    width, height = (float(record.get(side, 1.0)) for side in ("width", "height"))
    pixels = np.asarray(photos[int(record["photo_index"])])
    axes.imshow(pixels, extent=(0, width, height, 0), aspect="equal", interpolation="antialiased")
    axes.set_anchor("SW")  # the caption is right below, and does not extend beyond its cell
    axes.set_axis_off()
    shown = [label_text(m) for m, on in zip(table.materials, table.labels[row], strict=True) if on]
    lines = textwrap.wrap(", ".join(shown) or "no material", _CAPTION_LETTERS + 1)
    if len(lines) > 2:
        lines = [lines[0], f"{shortened(lines[1], _CAPTION_LETTERS - 1)} …"]
    caption = "\n".join([shortened(str(record["file_name"]), _CAPTION_LETTERS), *lines])
    style: dict[str, Any] = {"fontsize": 6.5, "linespacing": 1.15, "va": "top", "ha": "left", "parse_math": False}
    axes.annotate(caption, (0, 0), (0, -2), xycoords="axes fraction", textcoords="offset points", **style)


def cluster_map(table: LabelTable, assignment: Assignment, points: FloatArray, *, seed: int) -> Figure:
    """Draw photos on a plane, near each other where their features are: coloured by cluster, and by material.

    The map is the t-SNE (van der Maaten & Hinton 2008, JMLR) of at most 2,000 sampled photos; below 10 photos, their
    two principal axes. Only neighbourhoods carry meaning: neither the distances between groups nor their sizes do
    (Wattenberg et al. 2016, Distill).

    points: the scaled features that were clustered, float64 (photos, dims); seed: of the sample and of t-SNE.
    """
    _check_table(table, assignment)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(table))[:MAP_PHOTOS])
    flat, how = plane_of(points[rows], seed)
    figure = blank_figure(11, 6.2)
    by_cluster, by_material = figure.subplots(1, 2)
    dot_pt = float(np.clip(6000 / len(rows), 9, 40))  # the area of a dot, in square points
    _draw_clusters(by_cluster, flat, assignment.clusters[rows], dot_pt)
    _draw_materials(by_material, flat, table.take(rows), dot_pt)
    for axes in (by_cluster, by_material):
        axes.set(xticks=[], yticks=[])
        axes.margins(0.06)
    shown = f"{len(rows):,} photos" if len(rows) == len(table) else f"{len(rows):,} of {len(table):,} photos"
    figure.suptitle(f"{how} of {shown}: neighbours have similar features", fontsize=TITLE_PT, x=0.01, ha="left")
    return figure


def plane_of(points: FloatArray, seed: int) -> tuple[FloatArray, str]:
    """Project points (photos, dims) to the plane, (photos, 2); return them and the name of the method."""
    left, length, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    length[length < 1e-9 * max(1.0, float(np.abs(points).max(initial=0)))] = 0.0
    axes = (left * length)[:, :2]  # the first two principal axes; zeros if there are fewer
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    if len(points) < _LEAST_FOR_TSNE or not axes.any():
        return axes, "principal axes"
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    noise = np.random.default_rng(seed).normal(scale=_JITTER * points.std(), size=points.shape)
    first = axes + np.random.default_rng(seed).normal(scale=_JITTER * axes.std(), size=axes.shape)
    # start from the principal axes at scikit-learn's scale, so that the map does not depend on the seed
    start = (first / first[:, 0].std() * 1e-4).astype(np.float32)
    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init=start, random_state=seed, max_iter=750)
    with threadpool_limits(1):  # threads add up in any order, and wait for each other on busy cores
        places = tsne.fit_transform(points + noise)
    return np.asarray(places, dtype=np.float64), "t-SNE"


def _draw_clusters(axes: Axes, flat: FloatArray, clusters: IndexArray, dot_pt: float) -> None:
    """Draw dots in the colour of the cluster, and its number near the middle of its dots."""
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke

    palette = colormaps["tab20b"]  # four shades of five hues, which the materials do not have
    for cluster in np.unique(clusters):
        own = flat[clusters == cluster]
        style: dict[str, Any] = {"color": palette((4 * cluster + cluster // 5) % palette.N), "linewidth": 0}
        axes.scatter(own[:, 0], own[:, 1], dot_pt, **style)
    for cluster in np.unique(clusters):  # above all dots
        own = flat[clusters == cluster]
        middle = own[np.square(own - np.median(own, axis=0)).sum(axis=1).argmin()]
        rim = [withStroke(linewidth=2.5, foreground="white")]
        style = {"fontsize": TITLE_PT, "fontweight": "bold", "path_effects": rim, "textcoords": "offset points"}
        axes.annotate(str(cluster), (float(middle[0]), float(middle[1])), (2, 2), **style)
    write_title(axes, "by cluster")


def _draw_materials(axes: Axes, flat: FloatArray, table: LabelTable, dot_pt: float) -> None:
    """Draw dots in the colour of the photo's material; photos with several or none get marks of their own."""
    colours, labels = material_colours(table.materials), table.labels
    count = labels.sum(axis=1)
    diamond = {"marker": "D", "color": "none", "edgecolor": "black", "linewidth": 0.8}
    kinds: list[tuple[str, BoolArray, float, dict[str, Any]]] = [
        ("no material", count == 0, dot_pt, {"marker": "x", "color": _PALE, "linewidth": 1.0}),
        ("several materials", count > 1, 0.8 * dot_pt, diamond),
    ]
    for j, material in enumerate(table.materials):
        alone = (count == 1) & (labels[:, j] == 1)
        kinds.append((label_text(material), alone, dot_pt, {"color": colours[material], "linewidth": 0}))
    for name, rows, size, style in kinds:
        if rows.any():
            axes.scatter(flat[rows, 0], flat[rows, 1], size, label=f"{shortened(name, 24)} ({rows.sum():,})", **style)
    for text in _legend_below(axes, ncols=5, handletextpad=0.2).get_texts():
        text.set_parse_math(False)
    write_title(axes, "by material")


def _legend_below(axes: Axes, **options: Any) -> Legend:
    """Draw the axes' legend below the whole figure."""
    marks = axes.get_legend_handles_labels()
    legend: Legend = axes.figure.legend(*marks, loc="outside lower center", frameon=False, fontsize=TEXT_PT, **options)
    return legend


def k_choice(clustering: Clustering, features: str) -> Figure:
    """Draw silhouette and inertia of the training photos over k, with the chosen k marked; features: their name."""
    from matplotlib.ticker import MaxNLocator

    figure = blank_figure(9, 3.6)
    tried = clustering.candidates
    ks = [one.k for one in tried]
    for axes, name in zip(figure.subplots(1, 2), ("silhouette", "inertia"), strict=True):
        values = [float(getattr(one, name)) for one in tried]
        axes.plot(ks, values, color=_BLUE, marker=".", markersize=7)
        kept = float(getattr(clustering.chosen, name))
        axes.plot(clustering.k, kept, "o", color="black", markersize=9, zorder=3, label=f"chosen: k = {clustering.k}")
        axes.axvline(clustering.k, color=_GREY, linewidth=1.0, zorder=1)
        axes.set(xlim=(min(ks) - 0.5, max(ks) + 0.5), xlabel="k, number of clusters")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(y=0.12)
        write_title(axes, f"{name}, {'higher is better' if name == 'silhouette' else 'always falls with k'}")
        keep_sides(axes, ("left", "bottom"))
        axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
    _legend_below(figure.axes[0])
    figure.suptitle(f"{_named(features)}, training photos", fontsize=TITLE_PT, x=0.01, ha="left", parse_math=False)
    return figure


def score_bars(scores: Mapping[str, ClusterScores], verdict: str) -> Figure:
    """Draw four scores of each set of features beside those of random clusters of the same sizes.

    scores: ``learned`` (may be absent), ``pixels``, ``colours`` → scores of the same photos; verdict: the title.
    """
    lines = textwrap.wrap(verdict, 122)
    figure = blank_figure(11, 1.6 + 0.2 * len(lines) + 2 * (0.6 + 0.42 * len(scores)))
    names = list(next(iter(scores.values())).scores)
    for axes, name in zip(figure.subplots(2, 2, sharey=True).ravel(), names, strict=True):
        _draw_scores(axes, {features: one.scores[name] for features, one in scores.items()})
        write_title(axes, label_text(name).replace("rand ", "Rand "))
    _legend_below(figure.axes[0], ncols=3)
    figure.suptitle("\n".join(lines), fontsize=TITLE_PT, x=0.01, ha="left", parse_math=False)
    return figure


def _draw_scores(axes: Axes, scores: Mapping[str, Any]) -> None:
    """Draw a bar with its number per set of features; below it, the mean and the 95 % quantile of random clusters."""
    rows = np.arange(len(scores))
    values, random, high = (
        np.array([getattr(one, part) for one in scores.values()]) for part in ("value", "random", "random_high")
    )
    colours = [_BLUE if name == "learned" else _CONTROL_COLOUR for name in scores]
    axes.barh(rows - 0.14, values, 0.44, color=colours, zorder=2)
    below = rows + 0.26
    axes.hlines(below, random, high, color=_ORANGE, linewidth=1.6, zorder=3)
    axes.vlines(random, below - 0.14, below + 0.14, **floor_style("random clusters, mean"))
    style: dict[str, Any] = {"marker": "D", "s": 24, "color": "white", "edgecolor": _ORANGE, "linewidth": 1.6}
    axes.scatter(high, below, zorder=5, label="random clusters, 95 % quantile", **style)
    ends = np.maximum.reduce([values, high, np.zeros(len(rows))])
    for row, value in zip(rows, values, strict=True):
        end = (max(float(value), 0.0), row - 0.14)
        axes.annotate(f"{value:.3f}", end, (4, 0), textcoords="offset points", va="center", fontsize=TEXT_PT)
    axes.set_yticks(rows, [_named(name) for name in scores], fontsize=TEXT_PT)
    axes.axvline(0, color=_PALE, linewidth=0.8)
    low = min(0.0, 1.1 * float(min(values.min(), random.min())))
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(low, max(0.1, 1.22 * float(ends.max()))))
    keep_sides(axes, ("bottom",))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)


def _named(features: str) -> str:
    return "learned features" if features == "learned" else label_text(features)


def _check_table(table: LabelTable, assignment: Assignment) -> None:
    if len(table) != len(assignment.clusters) or not len(table):
        raise ValueError(f"the table has {len(table)} photos, but {len(assignment.clusters)} were assigned")
