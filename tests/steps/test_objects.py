"""The model that learns from outlines, from ``train`` to ``explain``, on ImageNet's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.factories import config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import ConfigError
from wastelens.steps import explain, train

pytestmark = pytest.mark.usefixtures("no_served_models")


@pytest.fixture(scope="module")
def run(prepared_folder: Path) -> tuple[MemoryTracker, MemoryRun]:
    """Return a finished run, and its tracker."""
    tracker = MemoryTracker()
    small = "network.side_px=64 network.close_up_px=32 network.places=4 bootstrap_resamples=100"
    settings = f"{small} data_folder={prepared_folder / 'data'}"
    train.run(config("train", settings, dataset=str(prepared_folder / "litter"), model="objects"), tracker)
    return tracker, tracker.runs[0]


def test_the_run_tells_where_its_evidence_is(run: tuple[MemoryTracker, MemoryRun]) -> None:
    _, done = run
    assert done.status == "FINISHED"
    metrics = done.metrics
    assert metrics["share_of_ceiling"] == pytest.approx(
        metrics["test/macro_ap"] / metrics["ceiling_macro_ap"], rel=1e-4
    )
    assert {"controls/other_photo_outlines_macro_ap", "controls/random_outlines_macro_ap"} <= metrics.keys()
    assert any(name.startswith("objects/recall_") for name in metrics)
    assert (done.folder / "figures" / "objects.png").exists()
    assert "told the objects' places" in done.tags["evidence"]


def test_the_exported_network_answers_as_the_run_did(
    run: tuple[MemoryTracker, MemoryRun], prepared_folder: Path
) -> None:
    import keras
    import pandas as pd

    from wastelens.data.prepared.dataset import load_prepared
    from wastelens.system.decision_rule import read_rule

    _, done = run
    network = keras.saving.load_model(done.folder / "export" / "network.keras")
    dataset = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    test = dataset.split().test
    rule = read_rule(done.folder / "export" / "decision_rule.json")
    answers = rule.calibrated(network.predict_on_batch(dataset.photos[test.photo_index]))
    logged = pd.read_csv(done.folder / "predictions_test.csv")
    expected = logged[[f"probability_{material}" for material in dataset.materials]].to_numpy()
    np.testing.assert_allclose(answers, expected, atol=2e-4)


def test_its_own_map_is_scored_beside_others(run: tuple[MemoryTracker, MemoryRun], prepared_folder: Path) -> None:
    tracker, done = run
    settings = (
        f"photos=4 steps=2 randomised_photos=1 bootstrap_resamples=100 methods=evidence_map,gradcam "
        f"data_folder={prepared_folder / 'data'}"
    )
    found = explain.run(config("explain", settings, dataset=str(prepared_folder / "litter"), run_id=done.id), tracker)
    assert found.summary.means["evidence_map", "energy"].pairs > 0
    assert ("gradcam", "energy") in found.summary.means


def test_other_models_have_no_such_map(prepared_folder: Path) -> None:
    tracker = MemoryTracker()
    data = f"data_folder={prepared_folder / 'data'}"
    dataset = str(prepared_folder / "litter")
    settings = f"network.widths=[4,8] fit.epochs=1 bootstrap_resamples=100 {data}"
    train.run(config("train", settings, dataset=dataset), tracker)
    with pytest.raises(ConfigError, match=r"only model=objects has an evidence map.*Leave evidence_map out"):
        explain.run(config("explain", f"methods=evidence_map {data}", dataset=dataset), tracker)
