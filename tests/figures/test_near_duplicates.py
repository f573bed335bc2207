"""The report of near-duplicates: its table of pairs, and its sheet of photos."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from tests.factories import blocks
from tests.figure_checks import draw

from wastelens.data.duplicates.correlation import confirmed_pairs, pair_similarity
from wastelens.data.duplicates.perceptual_hash import perceptual_hashes
from wastelens.data.duplicates.search import near_duplicate_pairs
from wastelens.figures.contact_sheet import PAIR_COLUMNS, near_duplicate_sheet, near_duplicate_table

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
