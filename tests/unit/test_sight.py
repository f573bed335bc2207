"""The figures a person looks at before training: the numbers they draw, and where they draw them."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from wastelens.data import sight
from wastelens.data.coco import Annotation, Image, Outline, outline
from wastelens.errors import MappingError

ALL_MATERIALS = tuple(f"stuff_{number}" for number in range(11))
MATERIALS = ALL_MATERIALS[:3]


def make_labels(photos: int, materials: tuple[str, ...], groups: int = 5, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    numbers = np.arange(photos)
    frame = pd.DataFrame({"file_name": [f"photo_{number:04}.jpg" for number in numbers]})
    frame["width"], frame["height"] = 300, np.where(numbers % 2, 400, 200)
    for material in materials:
        frame[material] = (rng.random(photos) < 0.3).astype(np.int64)
    frame["group"] = [f"batch_{number % groups}" for number in numbers]
    frame["split"] = np.array(["train", "train", "val", "test"])[(numbers % groups) % 4]
    return frame


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


def draw(figure: Figure) -> int:
    """Render it; bytes of the PNG. Warnings, as of a layout that does not fit, are errors."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return len(buffer.getvalue())


def brightness_on_paper(figure: Figure, axes: Axes, x: float, y: float) -> float:
    """Grey level, 0 to 255, at this share of the axes' width and (from the top) height."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    column, row = axes.transAxes.transform((x, 1 - y))
    return float(pixels[len(pixels) - 1 - int(row), int(column), :3].mean())


def bar_widths(axes: Axes) -> list[list[float]]:
    """Lengths of the bars, one list a series, top row first."""
    return [[bar.get_width() for bar in series] for series in axes.containers]


def texts_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("count", [1, 2, 11, 24, 25, 200])
def test_every_material_has_a_colour_of_its_own(count: int) -> None:
    materials = [f"stuff_{number}" for number in range(count)]
    colours = sight.material_colours(materials)
    assert list(colours) == materials
    assert len(set(colours.values())) == count
    assert all(to_hex(colour) == colour.lower() for colour in colours.values())


def test_more_materials_do_not_change_the_colours_of_the_first() -> None:
    few, many = sight.material_colours(ALL_MATERIALS[:4]), sight.material_colours(ALL_MATERIALS)
    assert few.items() <= many.items()


@pytest.mark.parametrize("materials", [ALL_MATERIALS[:2], ALL_MATERIALS])
def test_every_figure_draws_without_a_warning(materials: tuple[str, ...]) -> None:
    labels, objects = make_labels(30, materials), make_objects(30, materials)
    figures = [
        sight.photos_per_material(labels, materials),
        sight.photos_per_category(objects, materials),
        sight.material_cooccurrence(labels, materials),
        sight.object_size(objects, materials, image_side_px=224),
        sight.photos_per_group(labels),
    ]
    assert all(draw(figure) > 1000 for figure in figures)


def test_frames_without_rows_draw_too() -> None:
    labels, objects = make_labels(5, MATERIALS).iloc[:0], make_objects(5, MATERIALS).iloc[:0]
    photos = np.zeros((0, 8, 8, 3), dtype=np.uint8)
    figures = [
        sight.photos_per_material(labels, MATERIALS),
        sight.photos_per_category(objects, MATERIALS),
        sight.material_cooccurrence(labels, MATERIALS),
        sight.object_size(objects, MATERIALS, image_side_px=224),
        sight.photos_per_group(labels),
        sight.contact_sheet(labels, photos, {}, MATERIALS, rng=np.random.default_rng(0), rows=1, columns=2),
    ]
    assert all(draw(figure) > 1000 for figure in figures)


def test_material_bars_are_shares_of_their_split_with_counts_written() -> None:
    labels = make_labels(60, MATERIALS)
    figure = sight.photos_per_material(labels, MATERIALS)
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
    figure = sight.photos_per_category(objects, MATERIALS)
    draw(figure)  # a $ in a name starts no formula
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Cup", "Can", "Jar of $1 and _x_ $"]
    assert bar_widths(axes) == [[2, 1, 1]]
    assert texts_of(axes) == ["2", "1", "1"]
    colours = sight.material_colours(MATERIALS)
    faces = [to_hex(bar.get_facecolor()).upper() for bar in axes.containers[0]]
    assert faces == [colours["stuff_1"], colours["stuff_0"], colours["stuff_2"]]


def test_all_categories_are_shown_however_many() -> None:
    names = [f"Thing {number}" for number in range(101)]
    objects = pd.DataFrame({"file_name": "a", "category": names, "material": "stuff_0"})
    figure = sight.photos_per_category(objects, MATERIALS)
    shown = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert sorted(shown) == sorted(names)


def test_cooccurrence_against_counting_by_hand() -> None:
    labels = pd.DataFrame({"a": [1, 1, 1, 1, 0], "b": [1, 0, 0, 0, 1], "c": [0, 0, 0, 0, 0]})
    axes = sight.material_cooccurrence(labels, ("a", "b", "c")).axes[0]
    rows = [["4", "1", "25 %", "0", "0 %"], ["1", "50 %", "2", "0", "0 %"], ["0", "-", "0", "-", "0"]]
    assert texts_of(axes) == [text for row in rows for text in row]


def test_object_size_marks_the_medians_and_leaves_broken_outlines_out() -> None:
    objects = pd.DataFrame(
        {
            "material": ["stuff_0"] * 3 + ["stuff_1"] * 4,
            "area_share": [0.001, 0.02, 1.0, 0.5, 0.25, np.nan, 0.0],
        }
    )
    figure = sight.object_size(objects, MATERIALS)
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
    edges = sight._size_edges(100 * objects["area_share"])
    assert np.histogram(100 * objects["area_share"], edges)[0].sum() == len(objects)


def test_pixel_axis_gives_the_side_of_an_equal_square() -> None:
    figure = sight.object_size(make_objects(20, MATERIALS), MATERIALS, image_side_px=200)
    draw(figure)
    above = figure.axes[0].child_axes[0]
    share_percent = 100 * (np.array(figure.axes[0].get_xlim()))
    assert above.get_xlim() == pytest.approx(np.sqrt(share_percent / 1e4) * 200)


def test_few_groups_are_all_shown_largest_first() -> None:
    labels = pd.DataFrame({"group": ["b_10"] * 2 + ["b_2"] * 2 + ["b_1"] * 3, "split": ["val"] * 2 + ["train"] * 5})
    axes = sight.photos_per_group(labels).axes
    assert len(axes) == 1
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["b_1", "b_2", "b_10"]
    assert bar_widths(axes[0]) == [[3, 2, 0], [0, 0, 2]]
    assert texts_of(axes[0]) == ["3  train", "2  train", "2  val"]


def test_a_group_in_two_splits_says_so() -> None:
    labels = pd.DataFrame({"group": ["g"] * 3, "split": ["train", "test", "train"]})
    assert texts_of(sight.photos_per_group(labels).axes[0]) == ["3  train 2, test 1"]


def test_of_many_groups_the_rest_are_summed() -> None:
    labels = make_labels(1000, MATERIALS, groups=400)
    figure = sight.photos_per_group(labels)
    draw(figure)
    groups, others = figure.axes
    assert np.shape(bar_widths(groups)) == (3, 40)
    assert np.sum(bar_widths(groups)) + np.sum(bar_widths(others)) == len(labels)
    assert others.get_yticklabels()[0].get_text().startswith("360 smaller groups")


def sheet(labels: pd.DataFrame, outlines: dict[str, list[sight.DrawnOutline]], **size: int) -> Figure:
    photos = np.random.default_rng(0).integers(256, size=(len(labels), 16, 16, 3), dtype=np.uint8)
    materials = tuple(name for name in labels if name.startswith("stuff_"))
    return sight.contact_sheet(labels, photos, outlines, materials, rng=np.random.default_rng(1), **size)


def shown_names(figure: Figure) -> list[str]:
    return [axes.get_title("left").split("\n")[0] for axes in figure.axes if axes.images]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("materials", [ALL_MATERIALS[:2], ALL_MATERIALS])
def test_contact_sheet_shows_each_material_a_few_times(materials: tuple[str, ...], seed: int) -> None:
    labels = make_labels(300, materials, seed=seed)
    labels[materials[-1]] = 0
    labels.loc[[7, 70, 170], materials[-1]] = 1  # a rare one
    chosen = sight.choose_photos(labels, materials, 24, np.random.default_rng(seed))
    assert len(set(chosen)) == 24
    assert labels.iloc[chosen][list(materials)].sum().min() >= 2


def test_contact_sheet_draws_each_chosen_photo_once_with_its_split() -> None:
    labels = make_labels(40, MATERIALS)
    figure = sheet(labels, {}, rows=2, columns=3)
    names = shown_names(figure)
    assert len(set(names)) == 6
    of_name = labels.set_index("file_name")
    for axes in figure.axes:
        name, split = axes.get_title("left").split("\n")
        assert of_name.loc[name, "split"] == split
    counts = of_name.loc[names, list(MATERIALS)].sum()
    assert legend_texts(figure) == [f"stuff {number} ({counts.iloc[number]})" for number in range(3)]
    assert draw(figure) > 1000


def test_the_same_generator_chooses_the_same_photos() -> None:
    labels = make_labels(100, MATERIALS)
    assert shown_names(sheet(labels, {})) == shown_names(sheet(labels, {}))


def test_fewer_photos_than_cells_are_all_shown() -> None:
    labels = make_labels(5, MATERIALS)
    labels[list(MATERIALS)] = 0  # not even one material among them
    figure = sheet(labels, {}, rows=2, columns=4)
    assert sorted(shown_names(figure)) == list(labels["file_name"])
    assert draw(figure) > 1000


def test_each_cell_shows_the_row_of_its_name() -> None:
    labels = make_labels(12, MATERIALS)
    photos = np.zeros((12, 4, 4, 3), dtype=np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None, None]
    figure = sight.contact_sheet(labels, photos, {}, MATERIALS, rng=np.random.default_rng(0), rows=3, columns=3)
    for axes, name in zip(figure.axes, shown_names(figure), strict=True):
        assert np.all(np.asarray(axes.images[0].get_array()) == int(name[6:10]))


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 600), (100, 100), (1000, 100)])
def test_outlines_lie_where_they_lie_in_the_photo_of_any_proportions(width: int, height: int) -> None:
    """Shares of the photo become the same shares of the drawn photo, which has the real proportions."""
    labels = make_labels(1, MATERIALS).assign(width=width, height=height)
    photo = np.zeros((1, 100, 100, 3), dtype=np.uint8)
    photo[0, 20:60, 50:90] = 255  # y 0.2 to 0.6, x 0.5 to 0.9 of the photo
    square = np.array([[0.5, 0.2], [0.9, 0.2], [0.9, 0.6], [0.5, 0.6]])
    outlines = {"photo_0000.jpg": [sight.DrawnOutline("stuff_1", (square,))]}
    figure = sight.contact_sheet(labels, photo, outlines, MATERIALS, rng=np.random.default_rng(0), rows=1, columns=1)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    box = axes.get_window_extent()
    assert box.width / box.height == pytest.approx(width / height, rel=0.01)  # the photo's own proportions
    polygon, frame = axes.patches
    assert isinstance(polygon, Polygon)
    assert isinstance(frame, Rectangle)
    on_paper = (axes.transData.transform(polygon.get_xy()[:4]) - box.min) / box.size
    np.testing.assert_allclose(on_paper, np.column_stack([square[:, 0], 1 - square[:, 1]]), atol=1e-6)
    assert brightness_on_paper(figure, axes, x=0.7, y=0.4) > 250  # amid the patch
    assert brightness_on_paper(figure, axes, x=0.3, y=0.8) < 5  # where a photo turned over would have it
    left, top = np.array(frame.get_xy()) / (width, height)
    right, bottom = left + frame.get_width() / width, top + frame.get_height() / height
    margin = 0.011 * max(width, height) / np.array([width, height])
    assert max(0, 0.5 - margin[0]) <= left <= 0.5
    assert 0.9 <= right <= min(1, 0.9 + margin[0])
    assert max(0, 0.2 - margin[1]) <= top <= 0.2
    assert 0.6 <= bottom <= min(1, 0.6 + margin[1])


def test_outlines_have_their_materials_colour_and_may_be_empty_or_missing() -> None:
    labels = make_labels(2, MATERIALS)
    triangle = np.array([[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]])
    two_parts = sight.DrawnOutline("stuff_2", (triangle, triangle[:, ::-1] * 0.01, np.empty((0, 2))))
    outlines = {"photo_0000.jpg": [two_parts, sight.DrawnOutline("stuff_0", ())]}
    figure = sheet(labels, outlines, rows=1, columns=2)
    patches = dict(zip(shown_names(figure), (axes.patches for axes in figure.axes), strict=True))
    assert len(patches["photo_0001.jpg"]) == 0
    colour = sight.material_colours(MATERIALS)["stuff_2"]
    assert [to_hex(patch.get_edgecolor()).upper() for patch in patches["photo_0000.jpg"]] == [colour] * 3
    assert draw(figure) > 1000


def test_drawn_outlines_are_shares_of_the_annotated_photo() -> None:
    image = Image(0, "a.jpg", 200, 400)
    polygon = np.array([[20.0, 40.0], [100.0, 40.0], [100.0, 200.0]])
    drawn = sight.drawn_outline(Outline((polygon,), None, 0.1), image, "paper")
    np.testing.assert_allclose(drawn.polygons[0], [[0.1, 0.1], [0.5, 0.1], [0.5, 0.5]])
    assert drawn.material == "paper"
    assert sight.drawn_outline(Outline((), None, 0.0, "broken"), image, "paper").polygons == ()


def test_run_length_masks_are_traced() -> None:
    import msgspec

    mask = np.zeros((40, 20), dtype=int)
    mask[10:30, 5:15] = 1
    flat = mask.T.ravel()  # column by column, as COCO has it
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    segmentation = msgspec.Raw(msgspec.json.encode({"size": [40, 20], "counts": counts}))
    image = Image(0, "a.jpg", 20, 40)
    drawn = sight.drawn_outline(outline(Annotation(0, 0, segmentation=segmentation), image), image, "paper")
    (polygon,) = drawn.polygons
    half_a_pixel = [0.5 / 20, 0.5 / 40]
    np.testing.assert_allclose(polygon.min(axis=0), np.array([0.25, 0.25]) + half_a_pixel)
    np.testing.assert_allclose(polygon.max(axis=0), np.array([0.75, 0.75]) - half_a_pixel)


def test_category_table_lists_the_whole_mapping() -> None:
    objects = pd.DataFrame(
        {
            "file_name": ["a", "a", "b", "c"],
            "category": ["Can", "Can", "Cup", "Cup"],
            "supercategory": ["Cans", "Cans", "Cups", "Cups"],
        }
    )
    mapping = {"Jar": "glass", "Can": "aluminium", "Cup": "paper"}
    table = sight.category_table(objects, mapping, {"Cup": "thin lining"})
    assert table.to_dict("list") == {
        "category": ["Cup", "Can", "Jar"],
        "supercategory": ["Cups", "Cans", ""],
        "material": ["paper", "aluminium", "glass"],
        "objects": [2, 2, 0],
        "photos": [2, 1, 0],
        "reason": ["thin lining", "", ""],
    }
    assert "reason" not in sight.category_table(objects, mapping)
    with pytest.raises(MappingError, match="'Cup' has no material"):
        sight.category_table(objects, {"Can": "aluminium"})


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (1, "100 %"), (0.123, "12 %"), (0.0995, "10 %"), (0.089, "8.9 %"), (0.00046, "0.046 %")],
)
def test_percentages_keep_two_digits(share: float, text: str) -> None:
    assert sight._percent(share) == text
