"""Models that see photos at a smaller side than the dataset was prepared at: every step that takes them on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.data.prepared.dataset import load_prepared
from wastelens.steps import cluster, explain, labels, pretrain, train
from wastelens.studies.compared_runs import finished_run

pytestmark = pytest.mark.usefixtures("no_served_models")

TINY = "fit.epochs=1 bootstrap_resamples=100"
SIDE_PX = 20  # the dataset has 32, the runs' names tell the difference


def run_of(step: Any, name: str, root: Path, tracker: MemoryTracker, settings: str, **parameters: str) -> MemoryRun:
    text = f"data_folder={root / 'data'} {settings}"
    result = step.run(config(name, text, dataset=str(root / "litter"), **parameters), tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


@pytest.fixture(scope="module")
def tracker(prepared_folder: Path) -> MemoryTracker:
    """Return a tracker with a train run (run 0) and a pretrain run."""
    kept = MemoryTracker()
    small = f"image_side_px={SIDE_PX}"
    run_of(train, "train", prepared_folder, kept, f"{TINY} network.widths=[4,8] {small}", model="base")
    run_of(pretrain, "pretrain", prepared_folder, kept, f"learner.epochs=1 learner.widths=[4,8] {small}")
    return kept


def answers_of(run: MemoryRun) -> pd.DataFrame:
    table = pd.read_csv(run.folder / "predictions_test.csv").set_index("file_name")
    return table[[column for column in table if column.startswith("probability_")]]


def test_a_model_is_trained_on_shrunk_photos(prepared_folder: Path, tracker: MemoryTracker) -> None:
    import keras

    run = tracker.runs[0]
    assert run.name.startswith(f"base @{SIDE_PX}px")
    network = keras.saving.load_model(run.folder / "export" / "network.keras")
    assert network.input_shape == (None, SIDE_PX, SIDE_PX, 3)
    assert json.loads((run.folder / "config.json").read_text())["image_side_px"] == SIDE_PX
    dataset = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    test = dataset.split().test
    answers = network.predict(np.asarray(dataset.at_side(SIDE_PX).photos[test.photo_index]), verbose=0)
    logged = answers_of(run).loc[test.file_names].to_numpy()
    for ours, calibrated in zip(answers.T, logged.T, strict=True):  # which keeps their order
        assert (np.diff(calibrated[np.argsort(ours)]) >= -1e-6).all()


def test_it_is_explained_and_clustered_at_its_side(prepared_folder: Path, tracker: MemoryTracker) -> None:
    run = tracker.runs[0]
    chosen = "steps=2 randomised_photos=1 bootstrap_resamples=100"
    explained = run_of(
        explain, "explain", prepared_folder, tracker, chosen, run_id=run.id, photos="4", methods="gradcam"
    )
    assert explained.metrics["explain/gradcam/energy"] > 0
    for number in (0, 1):
        learnt = tracker.runs[number]
        clustered = run_of(cluster, "cluster", prepared_folder, tracker, "draws=5", k="3", run_id=learnt.id)
        assert "cluster/learned/purity" in clustered.metrics


def test_models_start_from_an_encoder_at_its_side(prepared_folder: Path, tracker: MemoryTracker) -> None:
    encoder = tracker.runs[1].id
    for model in ("autoencoder", "probe"):
        run = run_of(train, "train", prepared_folder, tracker, TINY, model=model, pretrained=encoder)
        assert json.loads((run.folder / "config.json").read_text())["image_side_px"] == SIDE_PX


def test_labels_are_doubted_at_the_models_side(prepared_folder: Path) -> None:
    settings = f"train.network.widths=[4] train.fit.epochs=1 train.image_side_px={SIDE_PX}"
    run = run_of(labels, "labels", prepared_folder, MemoryTracker(), settings, model="base", shown="5")
    assert run.status == "FINISHED"


def test_a_backbone_needs_no_larger_photos_than_it_sees() -> None:
    sides = {
        (model, side): config("train", f"network.side_px={side}", model=model).seen_side_px
        for model, side in (("probe", 64), ("efficientnet_lite", 0), ("objects", 64))
    }
    assert sides == {("probe", 64): 64, ("efficientnet_lite", 0): 0, ("objects", 64): 0}
    assert config("train", model="base").seen_side_px == 128


def test_runs_compare_by_the_side_of_their_networks(prepared_folder: Path) -> None:
    tracker = MemoryTracker()
    small = "learner.epochs=1 learner.widths=[4]"
    sides = []
    for side_px in (16, SIDE_PX):
        encoder = run_of(pretrain, "pretrain", prepared_folder, tracker, f"{small} image_side_px={side_px}").id
        run = run_of(train, "train", prepared_folder, tracker, TINY, model="probe", pretrained=encoder)
        sides.append(finished_run(tracker, run.id).settings)
    as_prepared, auto = (
        run_of(train, "train", prepared_folder, tracker, f"{TINY} network.widths=[4] {more}", model="base").id
        for more in ("image_side_px=0", "")  # 128 px, but the dataset has 32
    )
    assert sides[0] != sides[1]
    assert finished_run(tracker, as_prepared).settings == finished_run(tracker, auto).settings
