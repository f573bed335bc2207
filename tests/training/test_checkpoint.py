"""Checkpoints: what is saved comes back, the newest whole slot wins, and a damaged one is passed over."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.memory_tracking import MemoryRun

from wastelens.errors import StoreUnreachable
from wastelens.system.digests import file_digest
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
    (tmp_path / "artifacts").mkdir()
    return MemoryRun(id="run-0", name="train", folder=tmp_path / "artifacts")


@pytest.fixture
def aside(tmp_path):
    """Where an epoch is put aside; nothing is there yet."""
    return tmp_path / "unlogged" / "run-0"


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


def test_nothing_saved(run, aside):
    assert load_checkpoint(run, aside) is None


def test_round_trip(run, aside):
    save_checkpoint(checkpoint(1), run)
    assert_same(load_checkpoint(run, aside), checkpoint(1))
    assert math.isinf(Progress().best_value)
    save_checkpoint(checkpoint(2, best_value=float("-inf")), run)
    assert_same(load_checkpoint(run, aside), checkpoint(2, best_value=float("-inf")))


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_newest_wins_and_two_slots_are_all_there_is(run, aside, last):
    for epochs in range(1, last + 1):
        save_checkpoint(checkpoint(epochs), run)
    assert_same(load_checkpoint(run, aside), checkpoint(last))
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
def test_damaged_newest_slot_falls_back_to_the_other(run, aside, name, damage, newest):
    save_checkpoint(checkpoint(newest - 1), run)
    save_checkpoint(checkpoint(newest), run)
    DAMAGES[damage](file_of(run, newest, name))
    assert_same(load_checkpoint(run, aside), checkpoint(newest - 1))
    DAMAGES[damage](file_of(run, newest - 1, name))
    assert load_checkpoint(run, aside) is None
    save_checkpoint(checkpoint(newest + 1), run)
    assert_same(load_checkpoint(run, aside), checkpoint(newest + 1))


def test_kill_between_arrays_and_state_falls_back(run, aside):
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
    assert_same(load_checkpoint(run, aside), checkpoint(2))


def test_keeper_continues_with_the_older_slot(run, aside):
    CheckpointKeeper(run, None, aside).offer(lambda: checkpoint(7))
    first = load_checkpoint(run, aside)
    CheckpointKeeper(run, first, aside).offer(lambda: checkpoint(8))
    assert load_checkpoint(run, aside).progress.epochs_done == 8
    DAMAGES["cut"](run.folder / "checkpoint" / SLOTS[1] / "arrays.npz")
    assert load_checkpoint(run, aside).progress.epochs_done == 7


@pytest.mark.parametrize(("cost_s", "least", "most"), [(2.0, 9, 11), (0.2, 333, 334)])
def test_keeper_saves_every_epoch_unless_that_takes_more_than_a_twentieth_of_the_time(
    run, aside, monkeypatch, cost_s, least, most
):
    now = [0.0]
    monkeypatch.setattr("wastelens.training.checkpoint.time.monotonic", lambda: now[0])
    made = []

    def made_slowly():
        now[0] += cost_s
        made.append(now[0])
        return checkpoint(len(made))

    keeper = CheckpointKeeper(run, None, aside)
    while now[0] < 400:
        keeper.offer(made_slowly)
        now[0] += 1.0
    assert least <= len(made) <= most


LOGGED = {"metrics": {"loss": 0.25}, "step": 3, "measured_ms": 1_700_000_000_123}


def put_aside(run, aside, epochs=3):
    """An epoch that comes after two checkpoints in the store and does not get there."""
    for before in (1, 2):
        save_checkpoint(checkpoint(before), run)
    keeper = CheckpointKeeper(run, load_checkpoint(run, aside), aside)
    keeper.put_aside(checkpoint(epochs), LOGGED)


def test_an_epoch_that_was_put_aside_is_logged_when_the_training_continues(run, aside):
    put_aside(run, aside)
    assert run.history == {}
    assert_same(load_checkpoint(run, aside), checkpoint(3))
    assert run.history == {3: {"loss": 0.25}}
    assert run.measured_ms == [LOGGED["measured_ms"]]
    # From now on it is in the store, like any other.
    assert not aside.exists()
    assert_same(load_checkpoint(run, aside), checkpoint(3))
    assert run.measured_ms == [LOGGED["measured_ms"]]


def test_a_first_epoch_that_was_put_aside(run, aside):
    CheckpointKeeper(run, None, aside).put_aside(checkpoint(1), LOGGED)
    assert_same(load_checkpoint(run, aside), checkpoint(1))


def test_an_epoch_that_was_put_aside_stays_there_until_the_store_has_it(run, aside):
    put_aside(run, aside)
    original, run.log_file = run.log_file, unreachable
    with pytest.raises(StoreUnreachable):
        load_checkpoint(run, aside)
    run.log_file = original
    assert_same(load_checkpoint(run, aside), checkpoint(3))


def unreachable(*arguments):
    raise StoreUnreachable("The store does not answer.")


@pytest.mark.parametrize("number", [3, 4])
def test_a_checkpoint_that_another_machine_has_saved_meanwhile_is_preferred(run, aside, number):
    put_aside(run, aside)
    there = replace(checkpoint(5), number=number)
    save_checkpoint(there, run)
    assert_same(load_checkpoint(run, aside), there)
    assert run.history == {}, "that machine has logged the epoch"
    assert not aside.exists()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, damage) for name in ("arrays.npz", "state.json") for damage in DAMAGES),
        *(("metrics.json", damage) for damage in ("cut", "flipped", "empty", "gone")),
    ],
)
def test_a_damaged_epoch_that_was_put_aside_is_passed_over(run, aside, name, damage):
    put_aside(run, aside)
    DAMAGES[damage](aside / name)
    assert_same(load_checkpoint(run, aside), checkpoint(2))
    assert run.history == {}


def test_metrics_that_are_numpys_can_be_put_aside(run, aside):
    CheckpointKeeper(run, None, aside).put_aside(checkpoint(1), {"metrics": {"loss": np.float32(0.5)}, "step": 1})
    load_checkpoint(run, aside)
    assert run.history == {1: {"loss": 0.5}}


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}"
ONE_ARRAY = b"\x93NUMPY\x01\x00" + bytes([118, 0]) + HEADER.ljust(118)


@pytest.mark.parametrize("content", [b"no archive", b"PK\x05\x06" + bytes(18), b"\x80\x04N.", ONE_ARRAY])
def test_arrays_of_another_origin_are_passed_over(run, aside, content):
    save_checkpoint(checkpoint(1), run)
    arrays = file_of(run, 1, "arrays.npz")
    arrays.write_bytes(content)
    state = file_of(run, 1, "state.json")
    about = {**json.loads(state.read_text()), "arrays_digest": file_digest(arrays)}
    state.write_text(json.dumps(about))
    found = load_checkpoint(run, aside)
    assert found is None or found.network == []  # an archive without arrays


def test_pickled_objects_are_never_read(run, aside, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    save_checkpoint(checkpoint(1), run)
    arrays, state = file_of(run, 1, "arrays.npz"), file_of(run, 1, "state.json")
    np.savez(arrays, network_0000=np.array([Bomb()], dtype=object))
    state.write_text(json.dumps({**json.loads(state.read_text()), "arrays_digest": file_digest(arrays)}))
    assert load_checkpoint(run, aside) is None
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("odd", [{"epochs_done": "1"}, {"best_value": None}, {"phase": [1]}])
def test_a_state_in_another_form_is_passed_over(run, aside, odd):
    save_checkpoint(checkpoint(1), run)
    state = file_of(run, 1, "state.json")
    state.write_text(json.dumps({**json.loads(state.read_text()), **odd}))
    assert load_checkpoint(run, aside) is None
