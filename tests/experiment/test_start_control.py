"""Networks that start from something learned are compared with a linear probe on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.factories import config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.steps import pretrain, train

pytestmark = pytest.mark.usefixtures("no_served_models")

# Lite0 as it is installed, at the photos' own 32 px.
LITE = "network.side_px=0 fit.batch_size=16 bootstrap_resamples=100"
AS_A_PROBE = "fine_tune.epochs=0"
GAIN = ("gain_over_probe_low", "gain_over_probe", "gain_over_probe_high")


def trained(root: Path, settings: str, tracker: MemoryTracker | None = None, **parameters: str) -> MemoryRun:
    tracker = tracker or MemoryTracker()
    text = f"{settings} data_folder={root / 'data'}"
    result = train.run(config("train", text, dataset=str(root / "litter"), **parameters), tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


@pytest.fixture(scope="module")
def probe(prepared_folder: Path) -> MemoryRun:
    return trained(prepared_folder, LITE, model="probe")


def test_a_probe_has_no_such_control(probe: MemoryRun) -> None:
    assert not [name for name in probe.metrics if "probe" in name]
    assert "worse_than_start" not in probe.tags


def test_the_control_is_the_probe_and_a_solved_head_equals_it(prepared_folder: Path, probe: MemoryRun) -> None:
    features = prepared_folder / "data" / "prepared" / "litter" / "features"
    before = set(features.glob("*.npy"))
    run = trained(prepared_folder, f"{LITE} {AS_A_PROBE}", model="efficientnet_lite")
    assert set(features.glob("*.npy")) == before, "the features of the probe's run are used again"
    for split, name in (("val", "controls/probe_val_macro_ap"), ("test", "controls/probe_macro_ap")):
        assert run.metrics[name] == pytest.approx(probe.metrics[f"{split}/macro_ap"])
    ours, theirs = (pd.read_csv(one.folder / "predictions_test.csv") for one in (run, probe))
    columns = [column for column in ours if column.startswith("probability_")]
    np.testing.assert_allclose(ours[columns], theirs[columns], atol=1e-5)
    assert [run.metrics[name] for name in GAIN] == pytest.approx([0, 0, 0], abs=1e-9)
    assert "adds nothing certain to a linear probe on its own frozen features" in str(run.tags["gain_over_start"])
    assert "fine_tuning_kept" not in run.tags


def test_a_large_rate_is_seen_to_ruin_the_features(prepared_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ruin = "fit.epochs=2 schedule.kind=constant schedule.start=0.05 schedule.peak=0.05 optimizer.clip_norm=0"
    run = trained(prepared_folder, f"{LITE} {AS_A_PROBE} {ruin}", model="efficientnet_lite", freeze="0")
    low, gain, high = (run.metrics[name] for name in GAIN)
    assert low <= gain <= high < 0
    assert gain == pytest.approx(run.metrics["test/macro_ap"] - run.metrics["controls/probe_macro_ap"])
    assert run.tags["worse_than_start"] == "true"
    assert "made the features worse" in str(run.tags["gain_over_start"])
    assert "Training made the features worse" in " ".join(capsys.readouterr().out.split())


def test_ruinous_fine_tuning_is_told_and_not_kept(prepared_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ruin = "fine_tune.epochs=1 fine_tune.learning_rate=0.05 fine_tune.warmup_epochs=0 fine_tune.average=0"
    run = trained(prepared_folder, f"{LITE} {ruin} fine_tune.layer_decay=1.0", model="efficientnet_lite")
    told = " ".join(capsys.readouterr().out.split())
    assert "Fine-tuning made the features worse than the frozen ones: val macro AP" in told
    assert "fine_tune.learning_rate (now 0.05)" in told
    assert run.tags["fine_tuning_kept"] == "false"
    assert run.metrics["best_epoch"] == 1
    assert run.metrics["test/macro_ap"] == pytest.approx(run.metrics["controls/probe_macro_ap"])


@pytest.mark.parametrize("method", ["conv_autoencoder", pytest.param("dbn", marks=pytest.mark.slow)])
def test_a_probe_of_an_encoder_against_its_random_start(prepared_folder: Path, method: str) -> None:
    import keras

    shape = {"conv_autoencoder": "learner.widths=[4,8]", "dbn": "learner.side_px=8 learner.hidden_units=[12,6]"}[method]
    learner = f"learner.epochs=2 learner.batch_size=16 {shape} data_folder={prepared_folder / 'data'}"
    tracker = MemoryTracker()
    pretrain.run(config("pretrain", learner, dataset=str(prepared_folder / "litter"), method=method), tracker)
    encoder = keras.saving.load_model(tracker.runs[0].folder / "encoder" / "encoder.keras")
    run = trained(prepared_folder, "bootstrap_resamples=100", tracker, model="probe", pretrained=tracker.runs[0].id)
    network = keras.saving.load_model(run.folder / "export" / "network.keras")
    for layer in (layer for layer in encoder.layers if layer.weights):
        for ours, theirs in zip(network.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert run.tags["pretrained_run"] == tracker.runs[0].id
    assert 0 < run.metrics["controls/random_encoder_macro_ap"] < 1
    gain = run.metrics["test/macro_ap"] - run.metrics["controls/random_encoder_macro_ap"]
    assert run.metrics["gain_over_random_encoder"] == pytest.approx(gain)
    assert gain != 0
    assert "a linear probe on the encoder's random start" in str(run.tags["gain_over_start"])
