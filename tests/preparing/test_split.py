"""Splits keep groups whole, are optimal for few groups, and do not depend on any order."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wastelens.config.prepare import FractionsConfig
from wastelens.data.prepared.dataset import SPLITS
from wastelens.errors import SplitError
from wastelens.preparing import split as split_module
from wastelens.preparing.split import assign_splits, cross_validation_splits

SHARED = Path(__file__).parents[3] / "shared"
MATERIALS = ("plastic", "glass")
FRACTIONS = FractionsConfig(train=0.7, val=0.15, test=0.15)


def random_photos(seed: int, groups: int = 8, photos: int = 120, materials: int = 2):
    rng = np.random.default_rng(seed)
    labels = (rng.random((photos, materials)) < 0.4).astype(np.uint8)
    return labels, np.array([f"batch_{k}" for k in rng.integers(0, groups, photos)])


def share_difference(labels, split):
    shares = np.array([labels[split == name].mean(axis=0) for name in SPLITS])
    return (shares.max(axis=0) - shares.min(axis=0)).max()


def brute_force(labels, groups, fractions):
    """Find the slow obvious answer: try every assignment of groups to train, val and test."""
    names, row = np.unique(groups, return_inverse=True)
    best = np.inf
    for choice in itertools.product(range(3), repeat=len(names)):
        split = np.array(SPLITS)[np.array(choice)[row]]
        sizes = {name: (split == name).mean() for name in SPLITS}
        if not all(
            0.8 * share - 1e-9 <= sizes[name] <= 4 / 3 * share + 1e-9
            for name, share in (("val", fractions.val), ("test", fractions.test))
        ):
            continue
        if sizes["train"] and all(labels[split == name].any(axis=0).all() for name in SPLITS):
            best = min(best, share_difference(labels, split))
    return best


@given(st.integers(0, 10_000), st.integers(4, 7))
@settings(max_examples=15, deadline=None)
def test_exact_search_equals_brute_force(seed, groups):
    labels, names = random_photos(seed, groups, photos=60)
    fractions = FractionsConfig(train=0.5, val=0.3, test=0.2)
    expected = brute_force(labels, names, fractions)
    if not np.isfinite(expected):
        with pytest.raises(SplitError):
            assign_splits(labels, names, MATERIALS, fractions, np.random.default_rng(0))
        return
    found = assign_splits(labels, names, MATERIALS, fractions, np.random.default_rng(seed))
    assert found.method == "exact"
    assert found.largest_share_difference == pytest.approx(expected, abs=1e-12)
    assert share_difference(labels, found.split) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([12, 40, 150]))
@settings(max_examples=10, deadline=None)
def test_groups_stay_whole_and_order_does_not_matter(seed, groups):
    labels, names = random_photos(seed, groups, photos=400, materials=3)
    rng = np.random.default_rng(seed)
    first = assign_splits(labels, names, ("a", "b", "c"), FRACTIONS, np.random.default_rng(1))
    order = rng.permutation(len(labels))
    second = assign_splits(labels[order], names[order], ("a", "b", "c"), FRACTIONS, np.random.default_rng(1))
    assert (first.split[order] == second.split).all()
    for name in np.unique(names):
        assert len(set(first.split[names == name])) == 1
    for part in ("val", "test"):
        assert 0.12 <= (first.split == part).mean() <= 0.20
    assert all(labels[first.split == part].any(axis=0).all() for part in SPLITS)


def test_seed_picks_among_ties_only():
    labels, names = random_photos(3, groups=10, photos=300)
    runs = [assign_splits(labels, names, MATERIALS, FRACTIONS, np.random.default_rng(s)) for s in range(8)]
    assert len({run.largest_share_difference for run in runs}) == 1
    assert len({tuple(run.split) for run in runs}) > 1  # val and test can always be swapped


def test_local_search_comes_near_the_exact_answer(monkeypatch):
    labels, names = random_photos(5, groups=14, photos=700)
    exact = assign_splits(labels, names, MATERIALS, FRACTIONS, np.random.default_rng(0))
    monkeypatch.setattr(split_module, "EXACT_GROUPS", 0)
    near = assign_splits(labels, names, MATERIALS, FRACTIONS, np.random.default_rng(0))
    assert near.method == "iterative stratification"
    assert exact.largest_share_difference <= near.largest_share_difference <= exact.largest_share_difference + 0.02


def test_many_groups_are_split_evenly():
    labels, names = random_photos(7, groups=20_000, photos=30_000, materials=4)
    found = assign_splits(labels, names, tuple("abcd"), FRACTIONS, np.random.default_rng(0))
    assert found.largest_share_difference < 0.002


def test_a_material_in_too_few_groups_is_named():
    labels, names = random_photos(1)
    labels[:, 1] = np.isin(names, ["batch_0", "batch_1"])
    with pytest.raises(SplitError, match=r"'glass' is in only 2 group.*group_by"):
        assign_splits(labels, names, MATERIALS, FRACTIONS, np.random.default_rng(0))


@pytest.mark.parametrize("small_groups", [6, 30])
def test_a_group_too_large_is_named(small_groups):
    labels, names = random_photos(1, groups=small_groups, photos=600)
    names[:560] = "huge"
    with pytest.raises(SplitError, match=r"'huge', holds 560 of 600.*group_by"):
        assign_splits(labels, names, MATERIALS, FRACTIONS, np.random.default_rng(0))


def test_materials_that_cannot_be_everywhere_at_once_are_reported():
    """Each two of groups 1, 2 and 3 would have to be in different splits: an odd cycle."""
    names = np.repeat([f"g{k}" for k in range(10)], 10)
    held = [("g0", "g1", "g2"), ("g0", "g1", "g3"), ("g0", "g2", "g3")]
    labels = np.column_stack([np.isin(names, groups) for groups in held]).astype(np.uint8)
    with pytest.raises(SplitError, match="every material in every split"):
        assign_splits(labels, names, tuple("abc"), FRACTIONS, np.random.default_rng(0))


@pytest.mark.parametrize("photos", [3, 5, 7, 9, 13])
def test_few_photos_are_split_too(photos):
    labels = np.ones((photos, 1), np.uint8)
    names = np.array([f"photo_{k}" for k in range(photos)])
    found = assign_splits(labels, names, ("plastic",), FRACTIONS, np.random.default_rng(0))
    assert set(found.split) == set(SPLITS)


@given(st.integers(0, 10_000), st.sampled_from([(12, 3), (12, 5), (60, 4)]))
@settings(max_examples=10, deadline=None)
def test_folds_test_every_photo_once(seed, case):
    groups, folds = case
    labels, names = random_photos(seed, groups, photos=500)
    splits = cross_validation_splits(labels, names, MATERIALS, FRACTIONS, folds=folds, rng=np.random.default_rng(seed))
    assert len(splits) == folds
    assert (sum((s.split == "test").astype(int) for s in splits) == 1).all()
    for one in splits:
        assert all(labels[one.split == part].any(axis=0).all() for part in SPLITS)
        assert all(len(set(one.split[names == name])) == 1 for name in np.unique(names))
        assert 0.12 <= (one.split == "val").mean() <= 0.20
        assert one.largest_share_difference == pytest.approx(share_difference(labels, one.split))


def test_too_many_folds_name_the_number_that_works():
    labels, names = random_photos(2, groups=12, photos=400)
    labels[:, 1] = np.isin(names, ["batch_0", "batch_1", "batch_2", "batch_3"])
    with pytest.raises(SplitError, match="Use folds=4, which works"):
        cross_validation_splits(labels, names, MATERIALS, FRACTIONS, folds=6, rng=np.random.default_rng(0))


def taco():
    """Read the labels and batches of all TACO photos, and which photos are present."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    data = json.loads((SHARED / "data/taco/annotations.json").read_text())
    with (SHARED / "reference/predecessor_materials.csv").open() as file:
        material = {row["category"]: row["material"] for row in csv.DictReader(file)}
    materials = tuple(sorted(set(material.values())))
    of_category = {c["id"]: materials.index(material[c["name"]]) for c in data["categories"]}
    row = {image["id"]: k for k, image in enumerate(data["images"])}
    labels = np.zeros((len(row), len(materials)), np.uint8)
    for annotation in data["annotations"]:
        labels[row[annotation["image_id"]], of_category[annotation["category_id"]]] = 1
    files = [image["file_name"] for image in data["images"]]
    present = np.array([(SHARED / "data/taco/photos" / name).is_file() for name in files])
    return labels, np.array([name.split("/")[0] for name in files]), materials, present


@pytest.mark.shared
@pytest.mark.parametrize(("only_present", "points"), [(False, 3.5), (True, 5.0)])
def test_taco_by_batch(only_present, points):
    labels, batches, materials, present = taco()
    rows = present if only_present else np.ones_like(present)
    found = assign_splits(labels[rows], batches[rows], materials, FRACTIONS, np.random.default_rng(0))
    assert found.method == "exact"
    assert round(100 * found.largest_share_difference, 1) == points
