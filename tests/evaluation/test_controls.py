"""Each control finds its own signal and nothing else."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from wastelens.data.prepared.tables import LabelTable, TestTable, TrainTable, ValTable
from wastelens.evaluation import controls
from wastelens.evaluation.metrics import macro_average_precision

MATERIALS = ("plastic", "glass")
CONTROLS = ("random", "neighbours", "size", "colour")
DAY = {"width": 40, "height": 30}


@pytest.fixture(autouse=True)
def _small_forests(monkeypatch):
    monkeypatch.setattr(controls, "TREES", 25)
    monkeypatch.setattr(controls, "RANDOM_DRAWS", 60)


def frame(names: list[str], labels: np.ndarray, **columns) -> pd.DataFrame:
    table = pd.DataFrame(labels.astype(np.uint8), columns=list(MATERIALS))
    table.insert(0, "file_name", [name.replace("/", "_") for name in names])
    return table.assign(source_file=names, photo_index=np.arange(len(names)), **{**DAY, **columns})


def split(table: pd.DataFrame, rng: np.random.Generator, held_out: np.ndarray | None = None):
    """Split at random into half for train and a quarter each for val and test, or hold out rows for the latter two."""
    part = rng.permutation(len(table)) % 4 if held_out is None else np.where(held_out, 2 + np.arange(len(table)) % 2, 0)
    train, val, test = (table[rows].reset_index(drop=True) for rows in (part < 2, part == 2, part == 3))
    return TrainTable(train, MATERIALS), {"val": ValTable(val, MATERIALS), "test": TestTable(test, MATERIALS)}


def scenes(rng: np.random.Generator) -> pd.DataFrame:
    """Return four folders of 40 photos, five in a row of the same scene."""
    names = [f"batch_{folder}/{number}.jpg" for folder in (1, 2, 9, 10) for number in range(40)]
    return frame(names, np.repeat(rng.integers(0, 2, (32, 2)), 5, axis=0))


def grey(n: int) -> np.ndarray:
    return np.full((n, 12, 12, 3), 128, dtype=np.uint8)


def test_neighbours_remember_scenes_and_the_warning_says_so():
    rng = np.random.default_rng(0)
    train, others = split(scenes(rng), rng)
    found = controls.score_controls(train, others, grey(160), seed=1)
    assert max(found.macro_ap, key=lambda name: found.macro_ap[name]["test"]) == "neighbours"
    assert found.macro_ap["neighbours"]["test"] > 0.8
    assert (controls.neighbour_warning(found, "hold them together") or "").endswith("scenes; hold them together.")


def test_neighbours_are_constant_where_whole_folders_are_held_out():
    rng = np.random.default_rng(0)
    table = scenes(rng)
    train, others = split(table, rng, table["source_file"].str.startswith("batch_9/").to_numpy())
    found = controls.score_controls(train, others, grey(160), seed=1)
    for name in ("val", "test"):
        np.testing.assert_allclose(np.ptp(found.scores["neighbours"][name], axis=0), 0)
    assert controls.neighbour_warning(found, "hold them together") is None


def test_neighbours_against_the_slow_answer():
    names = [f"a/{number}.jpg" for number in (1, 2, 10, 11)]
    table = frame(names, np.array([[1, 0], [0, 0], [0, 1], [1, 1]]))
    train = TrainTable(table.iloc[[0, 2, 3]].reset_index(drop=True), MATERIALS)
    test = TestTable(table.iloc[[1]].reset_index(drop=True), MATERIALS)
    scores = controls.neighbour_scores(controls.ControlInputs(train, {"test": test}, grey(4)))["test"]
    # 2.jpg is one place from 1.jpg and from 10.jpg, two places from 11.jpg
    np.testing.assert_allclose(scores, [[(1 + 0 + 0.5) / 2.5, (0 + 1 + 0.5) / 2.5]], atol=1e-5)


def test_class_folders_do_not_make_a_control():
    rng = np.random.default_rng(0)
    names = [f"{folder}/{number}.jpg" for folder in ("plastic", "glass") for number in range(20)]
    train, others = split(frame(names, np.repeat(np.eye(2), 20, axis=0)), rng)
    found = controls.score_controls(train, others, grey(40), seed=0)
    assert "labels" in found.note
    assert np.ptp(found.scores["neighbours"]["test"], axis=0).max() == 0


def test_natural_order():
    names = ["batch_10/1.jpg", "batch_2/10.JPG", "batch_2/9.jpg", "Batch_2/IMG_4.JPG", "batch_2/9.jpg"]
    order = controls.file_order(names)
    assert sorted(order, key=order.__getitem__) == [
        "batch_2/9.jpg", "batch_2/10.JPG", "Batch_2/IMG_4.JPG", "batch_10/1.jpg",
    ]  # fmt: skip


def test_size_and_colour_each_find_only_their_own_signal():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (160, 2))
    names = [f"{number}.jpg" for number in rng.permutation(160)]
    photos = rng.integers(90, 130, (160, 12, 12, 3), dtype=np.uint8)
    photos[labels[:, 1] == 1, :, :, 0] += 100  # glass is on red ground
    table = frame(names, labels, width=np.where(labels[:, 0], 60, 40))
    train, others = split(table, rng)
    found = controls.score_controls(train, others, photos, seed=0)
    truth = others["test"].labels
    for name, own, other in (("size", 0, 1), ("colour", 1, 0)):
        scores = found.scores[name]["test"]
        assert macro_average_precision(truth[:, [own]], scores[:, [own]]) > 0.95
        assert macro_average_precision(truth[:, [other]], scores[:, [other]]) < 0.85


def test_the_same_seed_gives_the_same_scores_and_copies_do_not_count(tmp_path):
    rng = np.random.default_rng(4)
    train, others = split(scenes(rng), rng)
    photos = rng.integers(0, 255, (160, 12, 12, 3), dtype=np.uint8)
    np.save(tmp_path / "photos.npy", photos)
    mapped = np.load(tmp_path / "photos.npy", mmap_mode="r")
    copied = train.take(np.append(np.arange(len(train)), [3, 3, 5]))
    one = controls.score_controls(train, others, photos, seed=9)
    again = controls.score_controls(copied, others, mapped, seed=9)
    for name in CONTROLS:
        for part in ("val", "test"):
            np.testing.assert_array_equal(one.scores[name][part], again.scores[name][part])
    assert one.metrics() == again.metrics()
    assert set(one.metrics()) == {f"controls/{n}_{split}macro_ap" for n in CONTROLS for split in ("val_", "")}


@pytest.mark.parametrize("varying", [1, 0])
def test_a_material_constant_in_train_gets_its_prevalence(varying):
    rng = np.random.default_rng(5)
    labels = np.column_stack([rng.integers(0, 2, 40) * varying, np.ones(40)])
    scores = controls.forest_scores({"train": rng.random((40, 3)), "test": rng.random((7, 3))}, labels.astype("u1"), 0)
    assert scores["test"].shape == (7, 2)
    assert (scores["test"][:, 1] == 1).all()
    assert (scores["test"][:, 0].max() > 0) == bool(varying)


def test_random_reports_the_mean_and_keeps_a_typical_draw():
    rng = np.random.default_rng(6)
    train, others = split(scenes(rng), rng)
    found = controls.score_controls(train, others, grey(160), seed=2)
    kept = float(macro_average_precision(others["test"].labels, found.scores["random"]["test"]))
    assert kept == pytest.approx(found.macro_ap["random"]["test"], abs=0.01)


def test_colours_are_shares_and_a_thumbnail():
    red = np.zeros((2, 12, 12, 3), dtype=np.uint8)
    red[1, :, :, 0] = 255
    features = controls.colour_features(red, np.array([1, 0, 1]))
    assert features.shape == (3, 192 + 108)
    np.testing.assert_allclose(features[:, :192].sum(axis=1), 1)
    np.testing.assert_array_equal(features[0], features[2])
    np.testing.assert_allclose(features[0, 192:].reshape(36, 3), np.tile([1, 0, 0], (36, 1)))


def test_controls_survive_a_csv_file_in_another_order():
    rng = np.random.default_rng(7)
    train, others = split(scenes(rng), rng)
    found = controls.score_controls(train, others, grey(160), seed=0)
    text = controls.controls_frame(found, others).sample(frac=1, random_state=0).to_csv(index=False)
    read = pd.read_csv(io.StringIO(text))
    assert found.note == ""
    for name in CONTROLS:
        for part, table in others.items():
            back = controls.control_scores(read, name, table)
            np.testing.assert_allclose(back, found.scores[name][part], atol=1e-12)
    assert len(read) == 4 * sum(len(table) for table in others.values())


def test_scores_of_another_split_are_refused():
    rng = np.random.default_rng(8)
    train, others = split(scenes(rng), rng)
    table = controls.controls_frame(controls.score_controls(train, others, grey(160), seed=0), others)
    with pytest.raises(ValueError, match="'size'"):
        controls.control_scores(table, "size", train)
    with pytest.raises(ValueError, match="several"):
        controls.control_scores(pd.concat([table, table]), "size", others["test"])


def test_only_train_is_fitted_on():
    rng = np.random.default_rng(10)
    train, others = split(scenes(rng), rng)
    swapped: LabelTable = others["test"]
    with pytest.raises(TypeError, match="TestTable"):
        controls.score_controls(swapped, others, grey(160), seed=0)
    with pytest.raises(ValueError, match="uint8"):
        controls.score_controls(train, others, grey(160).astype(np.float32), seed=0)
    with pytest.raises(ValueError, match="no rows"):
        controls.score_controls(train, {"test": others["test"].take(np.array([], dtype=int))}, grey(160), seed=0)


def test_cross_fitted_controls_know_nothing_of_a_photos_own_group():
    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(24), 6)
    of_group = rng.permuted(np.tile([[0], [1]], (12, len(MATERIALS))), axis=0)
    names = [f"{one}/{number}.jpg" for number, one in enumerate(group)]
    table = frame(names, of_group[group], width=100 + group, height=50, group=group.astype(str))
    photos = rng.integers(0, 256, (len(table), 8, 8, 3), dtype=np.uint8)
    own = TestTable(table, MATERIALS)
    leaking = controls.score_controls(TrainTable(table, MATERIALS), {"test": own}, photos, 0)
    assert leaking.macro_ap["size"]["test"] > 0.95, "the width tells the group, and the group its labels"
    fitted = controls.cross_fitted_controls(own, own.groups, photos, 0)
    assert fitted.macro_ap["size"]["test"] < 0.7
    for name in CONTROLS:
        assert fitted.scores[name]["test"].shape == own.labels.shape
        if name != "random":
            ap = macro_average_precision(own.labels, fitted.scores[name]["test"])
            assert fitted.macro_ap[name]["test"] == pytest.approx(float(ap))
    # Photo by photo, its neighbours in the group tell it.
    each = [str(row) for row in range(len(own))]
    assert controls.cross_fitted_controls(own, each, photos, 0).macro_ap["size"]["test"] > 0.95
