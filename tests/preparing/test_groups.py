"""Photos are grouped by batch, scene, near-duplicates or a column, and near-duplicates share a group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wastelens.errors import SplitError
from wastelens.preparing.groups import assign_groups, coarser_grouping, find_copies
from wastelens.system.text import natural_key

SHARED = Path(__file__).parents[3] / "shared"


def photos_of(count, seed=0, side=48):
    """Draw photos of distinct pictures and colours, uint8 (count, side, side, 3)."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return blocks.repeat(side // 6, axis=1).repeat(side // 6, axis=2)


def on_ground(colour, seed, side=48):
    """Draw a grainy ground of one colour with an object somewhere on it."""
    rng = np.random.default_rng(seed)
    photo = np.clip(np.array(colour) + rng.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)
    top, left = rng.integers(0, side - 14, 2)
    photo[top : top + 14, left : left + 14] = rng.integers(0, 256, (14, 14, 3))
    return photo


def grouped(names, photos, group_by="auto", column=None):
    return assign_groups(names, photos, find_copies(names, photos), group_by, column)


def files(batches, each):
    return [f"batch_{b}/{k:06}.jpg" for b in range(1, batches + 1) for k in range(each)]


def test_natural_order_reads_numbers():
    names = ["batch_10/1.jpg", "batch_2/10.jpg", "Batch_2/9.JPG", "b.jpg", "2.jpg", "10.jpg"]
    assert sorted(names, key=natural_key) == [
        "2.jpg", "10.jpg", "b.jpg", "Batch_2/9.JPG", "batch_2/10.jpg", "batch_10/1.jpg",
    ]  # fmt: skip


def test_batches_that_share_a_photo_are_one_group():
    names, photos = files(12, 3), photos_of(36)
    photos[7] = np.rot90(photos[30])  # batch_3 and batch_11
    groups = grouped(names, photos, "auto")
    assert groups.rule == "batch"
    assert groups.copies.near_duplicates.tolist() == [[7, 30]]
    assert set(groups.names) == {f"batch_{k}" for k in (1, 2, 4, 5, 6, 7, 8, 9, 10, 12)} | {"batch_3+batch_11"}
    assert len(groups.merged) == 1
    assert "batch_3/000001.jpg and batch_11/000000.jpg" in groups.merged[0]


def test_few_batches_are_split_into_scenes():
    names = files(2, 4)
    grounds = [(120, 120, 125), (50, 110, 40), (205, 180, 130), (120, 120, 125)]
    photos = np.stack([on_ground(grounds[k // 2], seed=k) for k in range(8)])
    groups = grouped(names, photos, "auto")
    assert groups.rule.startswith("scene")
    assert groups.names.tolist() == [names[k] for k in (0, 0, 2, 2, 4, 4, 6, 6)]
    explicit = grouped(names, photos, "scene")
    assert explicit.names.tolist() == groups.names.tolist()
    assert grouped(names, photos, "batch").names.tolist() == ["batch_1"] * 4 + ["batch_2"] * 4


def test_photos_are_joined_by_near_duplicates_only():
    names, photos = files(1, 5), photos_of(5)
    photos[4] = photos[1]
    groups = grouped(names, photos, "photo")
    assert groups.names.tolist() == [names[k] for k in (0, 1, 2, 3, 1)]
    assert groups.rule == "photo"


def test_a_column_groups_and_its_values_merge():
    names, photos = files(1, 6), photos_of(6)
    photos[5] = photos[0]
    columns = pd.DataFrame({"place": ["x", "x", "y", "y", "z", "z"], "day": [1, 1, 1, 2, 2, None]})
    groups = grouped(names, photos, "place", columns["place"])
    assert groups.names.tolist() == ["x+z", "x+z", "y", "y", "x+z", "x+z"]
    assert groups.rule == "column 'place'"
    with pytest.raises(SplitError, match=r"'day' is empty for 1 of 6 photos, the first batch_1/000005\.jpg\. Fill it"):
        grouped(names, photos, "day", columns["day"])
    with pytest.raises(SplitError, match=r"'town' is empty for 2 of 6 photos, the first batch_1/000001\.jpg"):
        grouped(names, photos, "town", pd.Series(["a", "", "b", "b", " ", "NA"]))


def test_long_chains_of_batches_get_a_short_name():
    names, photos = files(7, 1), photos_of(7)
    photos[:] = photos[0]
    assert set(grouped(names, photos, "batch").names) == {"batch_1+batch_2+batch_3+batch_4+3 more"}


def test_photos_of_one_named_source_share_a_group_under_every_rule():
    names, photos = files(1, 5), photos_of(5)
    names[1], names[3] = "train/place/IMG_1_jpg.rf.0123456789ab.jpg", "valid/place/IMG_1_jpg.rf.abcdef012345.jpg"
    for rule in ("batch", "scene", "photo", "auto"):
        groups = grouped(names, photos, rule)
        assert groups.names[1] == groups.names[3]
        assert groups.copies.named_photos() == (2, 1)


def test_a_stem_or_a_pattern_groups():
    names = ["a/IMG_1_1.jpg", "a/IMG_1_2.jpg", "a/IMG_2_1.jpg", "b/IMG_1_1.jpg"]
    assert grouped(names, photos_of(4), "stem").names.tolist() == ["a/IMG_1", "a/IMG_1", "a/IMG_2", "b/IMG_1"]
    by_number = grouped(names, photos_of(4), r"pattern:(\d+)_")
    assert by_number.names.tolist() == ["1", "1", "2", "1"]
    assert by_number.rule == r"pattern:(\d+)_"
    with pytest.raises(SplitError, match=r"finds nothing in 1 of 4 paths, the first b/IMG_1_1\.jpg\. Correct the"):
        grouped(names, photos_of(4), "pattern:^a/(.)")


def test_photos_without_a_folder_are_one_batch():
    assert set(grouped(["a.jpg", "b.jpg"], photos_of(2), "batch").names) == {"."}


@given(st.integers(0, 10_000), st.sampled_from(["batch", "scene", "photo", "auto"]))
@settings(max_examples=12, deadline=None)
def test_order_of_rows_does_not_matter(seed, group_by):
    names, photos = files(11, 3), photos_of(33, seed)
    rng = np.random.default_rng(seed)
    copies, originals = rng.permutation(33)[:8].reshape(2, 4)
    photos[copies] = photos[originals]
    first = grouped(names, photos, group_by)
    order = rng.permutation(33)
    second = grouped([names[k] for k in order], photos[order], group_by)
    assert (first.names[order] == second.names).all()
    for a, b in first.copies.near_duplicates:
        assert first.names[a] == first.names[b]


@pytest.mark.shared
def test_taco_near_duplicates():
    """Find the only two pairs in our copy of TACO, checked by eye; two more have similar hashes but are false."""
    from PIL import Image

    root = SHARED / "data/taco/photos"
    if not root.is_dir():
        pytest.skip("needs ../shared")
    names = [
        "batch_7/000000.JPG", "batch_8/000005.jpg", "batch_6/000100.JPG", "batch_6/000069.JPG",
        "batch_11/000033.jpg", "batch_13/000077.jpg", "batch_6/000053.JPG",
    ]  # fmt: skip
    photos = []
    for name in names:
        with Image.open(root / name) as image:
            image.draft("RGB", (160, 160))
            photos.append(np.asarray(image.convert("RGB").resize((160, 160), reducing_gap=3.0)))
    groups = grouped(names, np.stack(photos), "photo")
    assert groups.copies.near_duplicates.tolist() == [[0, 1], [2, 3]]


def test_the_advice_where_neighbours_are_apart() -> None:
    few = [f"batch_{batch}/{number}.jpg" for batch in range(2) for number in range(3)]
    many = [f"batch_{batch}/{number}.jpg" for batch in range(12) for number in range(3)]
    flat = ["1.jpg", "2.jpg"]

    def advice(files: list[str], rule: str, *, batches: bool = True) -> str:
        return coarser_grouping(files, rule, folders_are_batches=batches)

    assert advice(many, "photo") == advice(many, "scene") == "use group_by=batch"
    assert advice(few, "photo") == advice(flat, "photo") == advice(many, "photo", batches=False) == "use group_by=scene"
    assert advice(few, "scene (batches: 2, fewer than 10)") == "use group_by=batch"
    assert "column" in advice(flat, "scene")
