"""Contact sheets show the right photos, draw outlines in the right places, and list near-duplicate pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from tests.factories import blocks
from tests.figure_checks import ALL_MATERIALS, MATERIALS, draw, legend_texts, make_labels

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.data.duplicates.correlation import confirmed_pairs, pair_similarity
from wastelens.data.duplicates.perceptual_hash import perceptual_hashes
from wastelens.data.duplicates.search import near_duplicate_pairs
from wastelens.figures.contact_sheet import (
    PAIR_COLUMNS,
    choose_photos,
    contact_sheet,
    near_duplicate_sheet,
    near_duplicate_table,
)
from wastelens.figures.style import material_colours


def brightness_on_paper(figure: Figure, axes: Axes, x: float, y: float) -> float:
    """Return the grey level, 0 to 255, at this share of the axes' width and height (from the top)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    column, row = axes.transAxes.transform((x, 1 - y))
    return float(pixels[len(pixels) - 1 - int(row), int(column), :3].mean())


def nothing(name: str) -> list[DrawnOutline]:
    return []


def sheet(labels: pd.DataFrame, outlines: dict[str, list[DrawnOutline]], **size: int) -> Figure:
    photos = np.random.default_rng(0).integers(256, size=(len(labels), 16, 16, 3), dtype=np.uint8)
    materials = tuple(name for name in labels if name.startswith("stuff_"))
    return contact_sheet(
        labels, photos, lambda name: outlines.get(name, []), materials, rng=np.random.default_rng(1), **size
    )


def shown_names(figure: Figure) -> list[str]:
    return [axes.get_title("left").split("\n")[0] for axes in figure.axes if axes.images]


def test_a_frame_without_rows_draws_too() -> None:
    labels, photos = make_labels(5, MATERIALS).iloc[:0], np.zeros((0, 8, 8, 3), dtype=np.uint8)
    figure = contact_sheet(labels, photos, nothing, MATERIALS, rng=np.random.default_rng(0), rows=1, columns=2)
    assert draw(figure) > 1000


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("materials", [ALL_MATERIALS[:2], ALL_MATERIALS])
def test_contact_sheet_shows_each_material_a_few_times(materials: tuple[str, ...], seed: int) -> None:
    labels = make_labels(300, materials, seed=seed)
    labels[materials[-1]] = 0
    labels.loc[[7, 70, 170], materials[-1]] = 1  # a rare material
    chosen = choose_photos(labels, materials, 24, np.random.default_rng(seed))
    assert len(set(chosen)) == 24
    assert labels.iloc[chosen][list(materials)].sum().min() >= 2


def test_contact_sheet_draws_each_chosen_photo_once_with_its_split() -> None:
    labels = make_labels(40, MATERIALS)
    figure = sheet(labels, {}, rows=2, columns=3)
    names = shown_names(figure)
    assert len(set(names)) == 6
    of_name = labels.set_index("file_name")
    for axes in figure.axes:
        name, facts = axes.get_title("left").split("\n")
        assert facts.split(":")[0] == of_name.loc[name, "split"]
    counts = of_name.loc[names, list(MATERIALS)].sum()
    assert legend_texts(figure) == [f"stuff {number} ({counts.iloc[number]})" for number in range(3)]
    assert draw(figure) > 1000


def test_materials_are_named_where_no_outline_shows_them() -> None:
    labels = make_labels(3, MATERIALS)
    labels[list(MATERIALS)] = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    square = np.array([[0.5, 0.2], [0.9, 0.2], [0.9, 0.6], [0.5, 0.6]])
    figure = sheet(labels, {"photo_0002.jpg": [DrawnOutline("stuff_1", (square,))]}, rows=1, columns=3)
    facts = dict(axes.get_title("left").split("\n") for axes in figure.axes)
    of_split = labels.set_index("file_name")["split"]
    assert facts["photo_0000.jpg"] == f"{of_split['photo_0000.jpg']}: stuff 0, stuff 2"
    assert facts["photo_0001.jpg"] == of_split["photo_0001.jpg"]
    assert facts["photo_0002.jpg"] == of_split["photo_0002.jpg"]


def test_the_same_generator_chooses_the_same_photos() -> None:
    labels = make_labels(100, MATERIALS)
    assert shown_names(sheet(labels, {})) == shown_names(sheet(labels, {}))


def test_fewer_photos_than_cells_are_all_shown() -> None:
    labels = make_labels(5, MATERIALS)
    labels[list(MATERIALS)] = 0  # no materials at all
    figure = sheet(labels, {}, rows=2, columns=4)
    assert sorted(shown_names(figure)) == list(labels["file_name"])
    assert draw(figure) > 1000


def test_each_cell_shows_the_row_of_its_name() -> None:
    labels = make_labels(12, MATERIALS)
    photos = np.zeros((12, 4, 4, 3), dtype=np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None, None]
    figure = contact_sheet(labels, photos, nothing, MATERIALS, rng=np.random.default_rng(0), rows=3, columns=3)
    for axes, name in zip(figure.axes, shown_names(figure), strict=True):
        assert np.all(np.asarray(axes.images[0].get_array()) == int(name[6:10]))


@pytest.mark.parametrize(("width", "height"), [(300, 200), (200, 600), (100, 100), (1000, 100)])
def test_outlines_lie_where_they_lie_in_the_photo_of_any_proportions(width: int, height: int) -> None:
    """Shares of the photo become the same shares of the drawn photo, which has the real proportions."""
    labels = make_labels(1, MATERIALS).assign(width=width, height=height)
    photo = np.zeros((1, 100, 100, 3), dtype=np.uint8)
    photo[0, 20:60, 50:90] = 255  # y 0.2 to 0.6, x 0.5 to 0.9 of the photo
    square = np.array([[0.5, 0.2], [0.9, 0.2], [0.9, 0.6], [0.5, 0.6]])
    outlines = {"photo_0000.jpg": [DrawnOutline("stuff_1", (square,))]}
    figure = contact_sheet(
        labels, photo, outlines.__getitem__, MATERIALS, rng=np.random.default_rng(0), rows=1, columns=1
    )
    figure.draw_without_rendering()
    axes = figure.axes[0]
    box = axes.get_window_extent()
    assert box.width / box.height == pytest.approx(width / height, rel=0.01)  # the photo's own proportions
    polygon, frame = axes.patches
    assert isinstance(polygon, Polygon)
    assert isinstance(frame, Rectangle)
    on_paper = (axes.transData.transform(polygon.get_xy()[:4]) - box.min) / box.size
    np.testing.assert_allclose(on_paper, np.column_stack([square[:, 0], 1 - square[:, 1]]), atol=1e-6)
    assert brightness_on_paper(figure, axes, x=0.7, y=0.4) > 250  # inside the patch
    assert brightness_on_paper(figure, axes, x=0.3, y=0.8) < 5  # where it would be in a flipped photo
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
    two_parts = DrawnOutline("stuff_2", (triangle, triangle[:, ::-1] * 0.01, np.empty((0, 2))))
    outlines = {"photo_0000.jpg": [two_parts, DrawnOutline("stuff_0", ())]}
    figure = sheet(labels, outlines, rows=1, columns=2)
    patches = dict(zip(shown_names(figure), (axes.patches for axes in figure.axes), strict=True))
    assert len(patches["photo_0001.jpg"]) == 0
    colour = material_colours(MATERIALS)["stuff_2"]
    assert [to_hex(patch.get_edgecolor()).upper() for patch in patches["photo_0000.jpg"]] == [colour] * 3
    assert draw(figure) > 1000


SIDE_PX = 64


def pictures(photos: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    return np.stack([blocks(rng, (SIDE_PX, SIDE_PX)) for _ in range(photos)])


def labels_of(photos: int) -> pd.DataFrame:
    frame = pd.DataFrame({"file_name": [f"photo_{number:03}.jpg" for number in range(photos)]})
    return frame.assign(group="one", width=300, height=np.where(np.arange(photos) % 2, 400, 200))


@pytest.fixture
def photos() -> npt.NDArray[np.uint8]:
    """Draw four pictures, then the second mirrored, the first unchanged, and the third rotated and brighter."""
    of = pictures(4)
    brighter = np.clip(np.rot90(of[2]) * 2.0, 0, 255).astype(np.uint8)  # bright parts lose their structure
    return np.concatenate([of, of[1:2, :, ::-1], of[:1], brighter[None]])


def found_in(photos: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    return confirmed_pairs(photos, near_duplicate_pairs(perceptual_hashes(photos)))


def test_the_table_has_each_pair_with_its_similarity(photos: npt.NDArray[np.uint8]) -> None:
    table = near_duplicate_table(labels_of(7), photos, found_in(photos))
    assert tuple(table.columns) == PAIR_COLUMNS
    pairs = set(zip(table["file_name_a"], table["file_name_b"], strict=True))
    assert pairs == {(f"photo_{a:03}.jpg", f"photo_{b:03}.jpg") for a, b in ((0, 5), (1, 4), (2, 6))}
    assert set(table["group"]) == {"one"}
    of = table.set_index("file_name_a")
    assert of.loc[["photo_000.jpg", "photo_001.jpg"], "hash_distance_bits"].tolist() == [0, 0]
    assert of.loc[["photo_000.jpg", "photo_001.jpg"], "correlation"].tolist() == [1, 1]
    assert 0.9 < of.loc["photo_002.jpg", "correlation"] < 1


def test_the_most_similar_come_first(photos: npt.NDArray[np.uint8]) -> None:
    pairs = np.array([[0, 1], [2, 6], [0, 5]])
    table = near_duplicate_table(labels_of(7), photos, pairs)
    assert table["file_name_a"].tolist() == ["photo_000.jpg", "photo_002.jpg", "photo_000.jpg"]
    assert table["hash_distance_bits"].is_monotonic_increasing


def test_similarity_equals_a_loop_over_all_orientations(photos: npt.NDArray[np.uint8]) -> None:
    pairs = np.array([[a, b] for a in range(7) for b in range(a)])
    bits, correlation = pair_similarity(photos, pairs)
    words = [perceptual_hashes(np.stack([turned]))[0, 0] for photo in photos for turned in orientations(photo)]
    each = np.array(words).reshape(7, 8)
    apart = [
        [int(word ^ each[one, 0]).bit_count() for one, other in ((a, b), (b, a)) for word in each[other]]
        for a, b in pairs
    ]
    assert bits.tolist() == [min(of_pair) for of_pair in apart]
    assert ((correlation >= -1 - 1e-6) & (correlation <= 1 + 1e-6)).all()


def orientations(photo: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    return [np.rot90(one, quarter) for one in (photo, photo[:, ::-1]) for quarter in range(4)]


def test_similarity_is_the_better_of_both_directions() -> None:
    rng = np.random.default_rng(3)
    first = pictures(40)
    noise = rng.integers(-40, 41, first.shape)
    second = np.ascontiguousarray(np.rot90(np.clip(first + noise, 0, 255).astype(np.uint8), axes=(1, 2)))
    both = np.concatenate([first, second])
    pairs = np.column_stack([np.arange(40), np.arange(40, 80)])
    bits, _ = pair_similarity(both, pairs)
    backwards, _ = pair_similarity(both, pairs[:, ::-1])
    assert bits.tolist() == backwards.tolist()
    near = {tuple(pair) for pair in near_duplicate_pairs(perceptual_hashes(both), 2).tolist()}
    assert [tuple(pair) in near for pair in pairs.tolist()] == (bits <= 2).tolist()


def test_no_pairs_make_an_empty_table(photos: npt.NDArray[np.uint8]) -> None:
    table = near_duplicate_table(labels_of(7), photos, np.empty((0, 2), np.int64))
    assert (len(table), tuple(table.columns)) == (0, PAIR_COLUMNS)


def names_on(figure: Figure) -> list[str]:
    return [axes.get_title() for cell in figure.subfigs for axes in cell.axes]


def test_the_sheet_shows_both_photos_of_a_pair_under_their_names(photos: npt.NDArray[np.uint8]) -> None:
    labels = labels_of(7)
    table = near_duplicate_table(labels, photos, found_in(photos))
    figure = near_duplicate_sheet(table, labels, photos)
    assert names_on(figure) == table[["file_name_a", "file_name_b"]].to_numpy().ravel().tolist()
    for axes in (axes for cell in figure.subfigs for axes in cell.axes):
        row = int(axes.get_title()[6:9])
        np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), photos[row])
        left, right, bottom, top = axes.images[0].get_extent()
        assert (right - left) / (top - bottom) == pytest.approx(labels["width"][row] / labels["height"][row])
    assert draw(figure) > 1000


@pytest.mark.parametrize(("pairs", "shown"), [(1, 1), (4, 4), (30, 24)])
def test_the_sheet_holds_24_pairs_at_most(pairs: int, shown: int) -> None:
    photos = np.repeat(pictures(pairs), 2, axis=0)
    labels = labels_of(2 * pairs)
    table = near_duplicate_table(labels, photos, np.arange(2 * pairs).reshape(pairs, 2))
    figure = near_duplicate_sheet(table, labels, photos)
    assert len(names_on(figure)) == 2 * shown
    title = f"Near-duplicate pairs: {pairs}" + (" (the 24 most similar)" if pairs > shown else "")
    assert figure.get_suptitle() == title
    assert draw(figure) > 1000
