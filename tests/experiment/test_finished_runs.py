"""Descriptions and networks of finished runs whose files somebody or something has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import RunError
from wastelens.experiment.finished_runs import EXPORT, FinishedRun, about_run, network_of
from wastelens.tracking.tracker import StoredRun

ABOUT = {
    "step": "train",
    "config": {"fold": 0, "seed": 0, "model": "base"},
    "dataset": "litter",
    "dataset_digest": "abc",
    "image_side_px": 32,
    "materials": ["glass", "paper"],
}
DEEP = "[" * 100_000


@pytest.fixture
def run() -> MemoryRun:
    tracker = MemoryTracker()
    with tracker.start("train"):
        pass
    return tracker.runs[0]


def stored(run: MemoryRun) -> StoredRun:
    return StoredRun(run, "train", "FINISHED", {}, {})


def write(run: MemoryRun, name: str, content: str | bytes) -> None:
    file = run.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_description_is_what_the_step_wrote(run: MemoryRun) -> None:
    assert about_run(stored(run)) == {}
    write(run, "config.json", json.dumps({**ABOUT, "more": [1]}))
    assert about_run(stored(run)) == {**ABOUT, "more": [1]}


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "1", DEEP, b"\xff\xfe"]
    + [json.dumps({key: value for key, value in ABOUT.items() if key != left_out}) for left_out in ABOUT]
    + [
        json.dumps({**ABOUT, **odd})
        for odd in (
            {"config": []},
            {"config": {"fold": "0", "seed": 0}},
            {"config": {"fold": 0, "seed": None}},
            {"config": {"fold": 0, "seed": 0, "network": 3}},
            {"materials": "glass"},
            {"materials": [1]},
            {"materials": []},
            {"image_side_px": "32"},
            {"image_side_px": 0},
            {"dataset_digest": 3},
        )
    ],
)
def test_an_odd_description_is_none(run: MemoryRun, text: str | bytes) -> None:
    write(run, "config.json", text)
    assert about_run(stored(run)) == {}


def test_an_odd_network_is_refused_in_one_line(run: MemoryRun, keras: Any, tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    good = json.loads(network.to_json())
    network.save_weights(tmp_path / "model.weights.h5")
    architecture, weights = EXPORT
    write(run, weights, (tmp_path / "model.weights.h5").read_bytes())

    def read(text: str | bytes, side_px: int = 32, materials: int = 2) -> Any:
        write(run, architecture, text)
        return network_of(FinishedRun(run.id, stored(run), "train", {}, side_px, materials))

    assert read(json.dumps(good)).count_params() == network.count_params()
    for text, said in {
        "[]": "describes no network",
        "{}": "describes no network",
        "null": "describes no network",
        DEEP: "recursion",
        b"\xff": "decode",
        json.dumps({**good, "config": 5}): "to be a dict",
        json.dumps({**good, "class_name": "Unknown"}): "Unknown",
        json.dumps({**good, "module": "os", "class_name": "system", "config": "true"}): "system",
    }.items():
        with pytest.raises(
            RunError, match=rf"^The network of run {run.id} cannot be read .*{said}.*\. Run it again\.$"
        ):
            read(text)
    with pytest.raises(RunError, match=r"takes \(None, 32, 32, 3\), not photos of 64 px"):
        read(json.dumps(good), side_px=64)
    with pytest.raises(RunError, match=r"answers with \(None, 2\), not for 3 materials"):
        read(json.dumps(good), materials=3)
