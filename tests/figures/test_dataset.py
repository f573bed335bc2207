"""Figures of the dataset draw the right numbers in the right places."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from tests.figure_checks import ALL_MATERIALS, MATERIALS, draw, legend_texts, make_labels

from wastelens.figures import dataset as dataset_figures
from wastelens.figures.style import material_colours


def make_objects(photos: int, materials: tuple[str, ...], seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    kinds = rng.integers(2 * len(materials), size=4 * photos)
    return pd.DataFrame(
        {
            "file_name": [f"photo_{number:04}.jpg" for number in rng.integers(photos, size=4 * photos)],
            "category": [f"Thing {kind}" for kind in kinds],
            "supercategory": "Things",
            "material": [materials[kind // 2] for kind in kinds],
            "area_share": 10 ** rng.uniform(-5, 0, size=4 * photos),
            "iscrowd": 0,
        }
    )


def bar_widths(axes: Axes) -> list[list[float]]:
    """Return the lengths of the bars, one list per series, top row first."""
    return [[bar.get_width() for bar in series] for series in axes.containers]


def texts_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("materials", [ALL_MATERIALS[:2], ALL_MATERIALS])
def test_every_figure_draws_without_a_warning(materials: tuple[str, ...]) -> None:
    labels, objects = make_labels(30, materials), make_objects(30, materials)
    figures = [
        dataset_figures.photos_per_material(labels, materials),
        dataset_figures.photos_per_category(objects, materials),
        dataset_figures.material_cooccurrence(labels, materials),
        dataset_figures.object_size(objects, materials, image_side_px=224),
        dataset_figures.photos_per_group(labels),
    ]
    assert all(draw(figure) > 1000 for figure in figures)


def test_frames_without_rows_draw_too() -> None:
    labels, objects = make_labels(5, MATERIALS).iloc[:0], make_objects(5, MATERIALS).iloc[:0]
    figures = [
        dataset_figures.photos_per_material(labels, MATERIALS),
        dataset_figures.photos_per_category(objects, MATERIALS),
        dataset_figures.material_cooccurrence(labels, MATERIALS),
        dataset_figures.object_size(objects, MATERIALS, image_side_px=224),
        dataset_figures.photos_per_group(labels),
    ]
    assert all(draw(figure) > 1000 for figure in figures)


def test_material_bars_are_shares_of_their_split_with_counts_written() -> None:
    labels = make_labels(60, MATERIALS)
    figure = dataset_figures.photos_per_material(labels, MATERIALS)
    wanted = [100 * labels.loc[labels["split"] == split, list(MATERIALS)].mean() for split in ("train", "val", "test")]
    np.testing.assert_allclose(bar_widths(figure.axes[0]), wanted)
    counts = [text.split()[0] for text in texts_of(figure.axes[0])]
    assert counts[: len(MATERIALS)] == [str(labels.loc[labels["split"] == "train", name].sum()) for name in MATERIALS]
    assert legend_texts(figure) == [
        f"{split}: {n} photos" for split, n in labels["split"].value_counts()[["train", "val", "test"]].items()
    ]


def test_category_bars_count_photos_not_objects_in_their_materials_colour() -> None:
    objects = pd.DataFrame(
        {
            "file_name": ["a", "a", "b", "c", "a"],
            "category": ["Cup", "Cup", "Cup", "Can", "Jar of $1 and _x_ $"],
            "material": ["stuff_1", "stuff_1", "stuff_1", "stuff_0", "stuff_2"],
        }
    )
    figure = dataset_figures.photos_per_category(objects, MATERIALS)
    draw(figure)  # a $ in a name must not start a formula
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Cup", "Can", "Jar of $1 and _x_ $"]
    assert bar_widths(axes) == [[2, 1, 1]]
    assert texts_of(axes) == ["2", "1", "1"]
    colours = material_colours(MATERIALS)
    faces = [to_hex(bar.get_facecolor()).upper() for bar in axes.containers[0]]
    assert faces == [colours["stuff_1"], colours["stuff_0"], colours["stuff_2"]]


def test_all_categories_are_shown_however_many() -> None:
    names = [f"Thing {number}" for number in range(101)]
    objects = pd.DataFrame({"file_name": "a", "category": names, "material": "stuff_0"})
    figure = dataset_figures.photos_per_category(objects, MATERIALS)
    shown = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert sorted(shown) == sorted(names)


def test_cooccurrence_against_counting_by_hand() -> None:
    labels = pd.DataFrame({"a": [1, 1, 1, 1, 0], "b": [1, 0, 0, 0, 1], "c": [0, 0, 0, 0, 0]})
    axes = dataset_figures.material_cooccurrence(labels, ("a", "b", "c")).axes[0]
    rows = [["4", "1", "25 %", "0", "0 %"], ["1", "50 %", "2", "0", "0 %"], ["0", "-", "0", "-", "0"]]
    assert texts_of(axes) == [text for row in rows for text in row]


def test_object_size_marks_the_medians_and_leaves_broken_outlines_out() -> None:
    objects = pd.DataFrame(
        {
            "material": ["stuff_0"] * 3 + ["stuff_1"] * 4,
            "area_share": [0.001, 0.02, 1.0, 0.5, 0.25, np.nan, 0.0],
        }
    )
    figure = dataset_figures.object_size(objects, MATERIALS)
    axes = figure.axes[0]
    medians = [float(line.get_xdata()[0]) for line in axes.lines]
    assert medians == pytest.approx([2.0, 37.5])
    assert "5 objects; 2 without a usable outline left out" in axes.get_title("left")
    assert texts_of(axes)[0].startswith("median 2.0 %")
    assert texts_of(axes)[2] == "no objects"
    low, high = axes.get_xlim()
    assert low <= 0.1
    assert high == pytest.approx(100)


def test_every_object_is_in_a_bin() -> None:
    objects = make_objects(50, MATERIALS)
    objects.loc[0, "area_share"] = 1.0
    objects.loc[1, "area_share"] = 10.0**-6
    edges = dataset_figures._size_edges(100 * objects["area_share"])
    assert np.histogram(100 * objects["area_share"], edges)[0].sum() == len(objects)


def test_pixel_axis_gives_the_side_of_an_equal_square() -> None:
    figure = dataset_figures.object_size(make_objects(20, MATERIALS), MATERIALS, image_side_px=200)
    draw(figure)
    above = figure.axes[0].child_axes[0]
    share_percent = 100 * (np.array(figure.axes[0].get_xlim()))
    assert above.get_xlim() == pytest.approx(np.sqrt(share_percent / 1e4) * 200)


def test_few_groups_are_all_shown_largest_first() -> None:
    labels = pd.DataFrame({"group": ["b_10"] * 2 + ["b_2"] * 2 + ["b_1"] * 3, "split": ["val"] * 2 + ["train"] * 5})
    axes = dataset_figures.photos_per_group(labels).axes
    assert len(axes) == 1
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["b_1", "b_2", "b_10"]
    assert bar_widths(axes[0]) == [[3, 2, 0], [0, 0, 2]]
    assert texts_of(axes[0]) == ["3  train", "2  train", "2  val"]


def test_a_group_in_two_splits_says_so() -> None:
    labels = pd.DataFrame({"group": ["g"] * 3, "split": ["train", "test", "train"]})
    assert texts_of(dataset_figures.photos_per_group(labels).axes[0]) == ["3  train 2, test 1"]


def test_of_many_groups_the_rest_are_summed() -> None:
    labels = make_labels(1000, MATERIALS, groups=400)
    figure = dataset_figures.photos_per_group(labels)
    draw(figure)
    groups, others = figure.axes
    assert np.shape(bar_widths(groups)) == (3, 40)
    assert np.sum(bar_widths(groups)) + np.sum(bar_widths(others)) == len(labels)
    assert others.get_yticklabels()[0].get_text().startswith("360 smaller groups")


def test_category_table_lists_the_whole_mapping() -> None:
    objects = pd.DataFrame(
        {
            "file_name": ["a", "a", "b", "c"],
            "category": ["Can", "Can", "Cup", "Cup"],
            "supercategory": ["Cans", "Cans", "Cups", "Cups"],
        }
    )
    mapping = {"Jar": "glass", "Can": "aluminium", "Cup": "paper"}
    table = dataset_figures.category_table(objects, mapping, {"Cup": "thin lining"})
    assert table.to_dict("list") == {
        "category": ["Cup", "Can", "Jar"],
        "supercategory": ["Cups", "Cans", ""],
        "material": ["paper", "aluminium", "glass"],
        "objects": [2, 2, 0],
        "photos": [2, 1, 0],
        "reason": ["thin lining", "", ""],
    }


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.123, "12 %"), (0.0995, "10 %"), (0.089, "8.9 %"), (0.00046, "0.046 %")],
)
def test_percentages_keep_two_digits(share: float, text: str) -> None:
    assert dataset_figures._percent(share) == text
