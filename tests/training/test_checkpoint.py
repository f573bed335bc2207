"""Checkpoints: what is saved comes back, the newest whole slot wins, and a damaged one is passed over."""

from __future__ import annotations

import json
import math
import zipfile

import numpy as np
import pytest
from tests.memory_tracking import MemoryRun

from wastelens.training.checkpoint import (
    SLOTS,
    Checkpoint,
    CheckpointKeeper,
    Progress,
    load_checkpoint,
    save_checkpoint,
)


@pytest.fixture
def run(tmp_path):
    return MemoryRun(id="run-0", name="train", folder=tmp_path)


def checkpoint(epochs, best_value=0.5):
    rng = np.random.default_rng(epochs)
    arrays = [rng.normal(size=(3, 2)).astype(np.float32), np.array(epochs, dtype=np.int64), np.empty((0, 4))]
    many = [np.full(2, number, dtype=np.float32) for number in range(12)]
    return Checkpoint(Progress(epochs, max(0, epochs - 1), best_value), arrays, many, arrays[::-1], number=epochs)


def assert_same(found, expected):
    assert found is not None
    assert found.progress == expected.progress
    for kind in ("network", "optimizer", "best"):
        for array, wanted in zip(getattr(found, kind), getattr(expected, kind), strict=True):
            assert array.dtype == wanted.dtype
            np.testing.assert_array_equal(array, wanted)


def file_of(run, epochs, name):
    return run.folder / "checkpoint" / SLOTS[epochs % 2] / name


def test_nothing_saved(run):
    assert load_checkpoint(run) is None


def test_round_trip(run):
    save_checkpoint(checkpoint(1), run)
    assert_same(load_checkpoint(run), checkpoint(1))
    assert math.isinf(Progress().best_value)
    save_checkpoint(checkpoint(2, best_value=float("-inf")), run)
    assert_same(load_checkpoint(run), checkpoint(2, best_value=float("-inf")))


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_newest_wins_and_two_slots_are_all_there_is(run, last):
    for epochs in range(1, last + 1):
        save_checkpoint(checkpoint(epochs), run)
    assert_same(load_checkpoint(run), checkpoint(last))
    assert {path.name for path in (run.folder / "checkpoint").iterdir()} <= set(SLOTS)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "cut": cut,
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "not utf-8": lambda path: path.write_bytes(b"\xff\xfe"),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "no digest": lambda path: path.write_text('{"epochs_done": 9}'),
    "unknown key": lambda path: path.write_text(json.dumps({"arrays_digest": "0", "number": 9, "epochs": 9})),
    "another zip": lambda path: zipfile.ZipFile(path, "w").close(),
}


@pytest.mark.parametrize("name", ["arrays.npz", "state.json"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("newest", [4, 5])
def test_damaged_newest_slot_falls_back_to_the_other(run, name, damage, newest):
    save_checkpoint(checkpoint(newest - 1), run)
    save_checkpoint(checkpoint(newest), run)
    DAMAGES[damage](file_of(run, newest, name))
    assert_same(load_checkpoint(run), checkpoint(newest - 1))
    DAMAGES[damage](file_of(run, newest - 1, name))
    assert load_checkpoint(run) is None
    save_checkpoint(checkpoint(newest + 1), run)
    assert_same(load_checkpoint(run), checkpoint(newest + 1))


def test_kill_between_arrays_and_state_falls_back(run):
    save_checkpoint(checkpoint(1), run)
    save_checkpoint(checkpoint(2), run)

    class Dying:
        def log_file(self, file, folder=""):
            if file.name == "state.json":
                raise KeyboardInterrupt
            run.log_file(file, folder)

        def download(self, path, into):
            return run.download(path, into)

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(checkpoint(3), Dying())
    assert_same(load_checkpoint(run), checkpoint(2))


def test_keeper_continues_with_the_older_slot(run):
    CheckpointKeeper(run).offer(lambda: checkpoint(7))
    first = load_checkpoint(run)
    CheckpointKeeper(run, first).offer(lambda: checkpoint(8))
    assert load_checkpoint(run).progress.epochs_done == 8
    DAMAGES["cut"](run.folder / "checkpoint" / SLOTS[1] / "arrays.npz")
    assert load_checkpoint(run).progress.epochs_done == 7


@pytest.mark.parametrize(("cost_s", "least", "most"), [(2.0, 9, 11), (0.2, 333, 334)])
def test_keeper_saves_every_epoch_unless_that_takes_more_than_a_twentieth_of_the_time(
    run, monkeypatch, cost_s, least, most
):
    now = [0.0]
    monkeypatch.setattr("wastelens.training.checkpoint.time.monotonic", lambda: now[0])
    made = []

    def made_slowly():
        now[0] += cost_s
        made.append(now[0])
        return checkpoint(len(made))

    keeper = CheckpointKeeper(run)
    while now[0] < 400:
        keeper.offer(made_slowly)
        now[0] += 1.0
    assert least <= len(made) <= most
