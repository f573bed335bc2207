"""Models that start from learned weights: encoders, and backbones trained on other photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config, slim_vgg, write_dataset
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import ConfigError, RunError
from wastelens.steps import prepare, pretrain, train

pytestmark = pytest.mark.usefixtures("no_served_models")

TINY = "fit.epochs=2 fit.batch_size=16 bootstrap_resamples=100"
LEARNERS = {
    "conv_autoencoder": "learner.widths=[4,8]",
    "dense_autoencoder": "learner.side_px=8 learner.hidden_units=[16,6]",
    "rbm": "learner.side_px=8 learner.hidden_units=12",
    "dbn": "learner.side_px=8 learner.hidden_units=[12,6]",
}
MODEL_OF = {"conv_autoencoder": "autoencoder", "dense_autoencoder": "autoencoder", "rbm": "dbn", "dbn": "dbn"}
SMALL_VGG = "network.hidden=[8,4]"


@pytest.fixture(autouse=True)
def _slim_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make VGG16 an eighth as wide."""
    monkeypatch.setattr("wastelens.models.backbones.vgg.Vgg16.application", slim_vgg)


@pytest.fixture(scope="module")
def encoders(prepared_folder: Path) -> tuple[MemoryTracker, dict[str, MemoryRun]]:
    """Return a tracker with a pretrain run of each method, and the runs."""
    tracker = MemoryTracker()
    runs = {}
    for method, learner in LEARNERS.items():
        settings = f"learner.epochs=2 learner.batch_size=16 {learner} data_folder={prepared_folder / 'data'}"
        pretrain.run(config("pretrain", settings, dataset=str(prepared_folder / "litter"), method=method), tracker)
        runs[method] = tracker.runs[-1]
    return tracker, runs


def trained(
    root: Path, settings: str = "", tracker: MemoryTracker | None = None, dataset: str = "litter", **parameters: str
) -> MemoryRun:
    tracker = tracker or MemoryTracker()
    text = f"{TINY} data_folder={root / 'data'} {settings}"
    result = train.run(config("train", text, dataset=str(root / dataset), **parameters), tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


def network_of(run: MemoryRun) -> Any:
    import keras

    return keras.saving.load_model(run.folder / "export" / "network.keras")


@pytest.mark.parametrize("method", LEARNERS)
def test_starts_from_the_encoder_of_a_run(
    prepared_folder: Path, encoders: tuple[MemoryTracker, dict[str, MemoryRun]], method: str
) -> None:
    import keras

    tracker, runs = encoders
    run = trained(prepared_folder, "freeze=1.0", tracker, model=MODEL_OF[method], pretrained=runs[method].id)
    assert run.tags["pretrained_run"] == runs[method].id
    assert run.tags["pretraining"] == method
    # Frozen, its layers are the encoder's to the last bit; the network has its form, not that of the shipped config.
    encoder = keras.saving.load_model(runs[method].folder / "encoder" / "encoder.keras")
    network = network_of(run)
    for layer in (layer for layer in encoder.layers if layer.weights):
        for ours, theirs in zip(network.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_pretrains_in_a_nested_run(prepared_folder: Path) -> None:
    tracker = MemoryTracker()
    learner = "network.learner.widths=[4,8] network.learner.epochs=1"
    run = trained(prepared_folder, learner, tracker, model="autoencoder")
    below = tracker.runs[1]
    assert (below.tags["step"], below.parent, below.status) == ("pretrain", run.id, "FINISHED")
    assert run.tags["pretrained_run"] == below.id
    control = trained(prepared_folder, learner, model="autoencoder", pretrained="none")
    assert control.tags["pretraining"] == "none"
    assert control.history[1]["loss"] != pytest.approx(run.history[1]["loss"], rel=1e-6)


@pytest.mark.slow
def test_encoders_that_cannot_be_used(
    prepared_folder: Path, encoders: tuple[MemoryTracker, dict[str, MemoryRun]], tmp_path: Path
) -> None:
    tracker, runs = encoders
    dbn = runs["dbn"]

    def refused(match: str, root: Path = prepared_folder, **parameters: str) -> None:
        before = len(tracker.runs)
        with pytest.raises(RunError, match=match):
            trained(root, tracker=tracker, **{"model": "dbn", "pretrained": dbn.id, **parameters})
        assert len(tracker.runs) == before

    refused("There is no run 'nowhere'", pretrained="nowhere")
    refused("method=dbn", model="autoencoder")
    refused("fold=0", fold="1")
    model_run = trained(prepared_folder, "network.widths=[4]", tracker)
    refused("no network to use here", pretrained=model_run.id)
    dbn.status = "RUNNING"
    refused("not finished")
    dbn.status = "FINISHED"
    write_dataset(tmp_path / "litter", side=(48, 48))
    for side in (16, 32):
        settings = f"image_side_px={side} data_folder={tmp_path / 'data'} seed=5"
        prepare.run(config("prepare", settings, dataset=str(tmp_path / "litter")), MemoryTracker())
        refused("another preparation", root=tmp_path)
    about = json.loads((dbn.folder / "config.json").read_text())
    (dbn.folder / "config.json").write_text(json.dumps({**about, "materials": ["wood", "stone"]}))
    refused("other materials.*wood, stone")
    (dbn.folder / "config.json").write_text(json.dumps(about))


def test_cached_features_give_the_same_results_as_the_live_path(prepared_folder: Path) -> None:
    folder = prepared_folder / "data" / "prepared" / "litter" / "features"
    still = f"{SMALL_VGG} network.dropout=0.0"
    before = set(folder.glob("*.npy"))
    cached = trained(prepared_folder, still, model="vgg16", weights="none", seed="7")
    files = set(folder.glob("*.npy"))
    assert len(files - before) == 1
    again = trained(prepared_folder, still, model="vgg16", weights="none", seed="7")
    assert set(folder.glob("*.npy")) == files
    live = trained(prepared_folder, f"{still} cache_features=false", model="vgg16", weights="none", seed="7")
    for run in (again, live):
        ours, theirs = (pd.read_csv(one.folder / "predictions_test.csv") for one in (cached, run))
        columns = [column for column in ours if column.startswith("probability_")]
        np.testing.assert_allclose(ours[columns], theirs[columns], atol=1e-4)
        assert run.history[2]["loss"] == pytest.approx(cached.history[2]["loss"], abs=1e-4)


@pytest.mark.slow
def test_cached_views_give_the_same_results_as_live_ones(prepared_folder: Path) -> None:
    still = f"{SMALL_VGG} network.dropout=0.0"
    views = {"augment": "true", "views": "2", "model": "vgg16", "weights": "none"}
    cached = trained(prepared_folder, still, **views)
    live = trained(prepared_folder, f"{still} cache_features=false", **views)
    assert live.history[2]["loss"] == pytest.approx(cached.history[2]["loss"], abs=1e-4)
    small = "network.widths=[4,8]"
    fixed = trained(prepared_folder, small, augment="true", views="1")
    fresh = trained(prepared_folder, small, augment="true")
    assert fixed.history[1]["loss"] != pytest.approx(fresh.history[1]["loss"], rel=1e-9)


@pytest.mark.slow
def test_a_stack_from_scratch_standardises_pixels_as_a_pretrained_one(
    prepared_folder: Path, encoders: tuple[MemoryTracker, dict[str, MemoryRun]]
) -> None:
    tracker, runs = encoders
    learner = "network.learner.side_px=8 network.learner.hidden_units=[12,6] fit.epochs=1"
    control = trained(prepared_folder, learner, model="dbn", pretrained="none")
    ours = trained(prepared_folder, "fit.epochs=1", tracker, model="dbn", pretrained=runs["dbn"].id)
    for one, other in zip(
        *(network_of(run).get_layer("standardise").get_weights() for run in (control, ours)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert np.ptp(network_of(control).get_layer("standardise").get_weights()[0]) > 0


def test_a_second_phase_thaws_and_has_its_own_learning_rate(prepared_folder: Path) -> None:
    phase = "fine_tune.epochs=1 fine_tune.freeze=block4 fine_tune.learning_rate=0.003"
    run = trained(prepared_folder, f"{SMALL_VGG} {phase}", model="vgg16", weights="none")
    assert sorted(run.history)[:3] == [1, 2, 3]
    assert run.history[3]["learning_rate"] == pytest.approx(0.003)
    assert run.history[1]["learning_rate"] < 0.001
    trainable = {layer.name for layer in network_of(run).layers if layer.weights and layer.trainable}
    assert trainable == {"block5_conv1", "block5_conv2", "block5_conv3", "head_dense0", "head_dense1", "logits"}
    best = max(run.history[epoch]["val/macro_ap"] for epoch in (1, 2, 3))
    assert run.metrics["val/macro_ap"] == pytest.approx(best, abs=1e-6)


@pytest.mark.slow
def test_weights_from_a_file_of_an_earlier_run(prepared_folder: Path, tmp_path: Path) -> None:
    import keras

    first = trained(prepared_folder, f"{SMALL_VGG} freeze=0 fit.epochs=1", model="vgg16", weights="none")
    learnt = network_of(first).get_layer("block1_conv1").get_weights()[0]
    for name in ("network.keras", "model.weights.h5"):
        run = trained(
            prepared_folder, f"{SMALL_VGG} fit.epochs=1", model="vgg16", weights=str(first.folder / "export" / name)
        )
        np.testing.assert_array_equal(network_of(run).get_layer("block1_conv1").get_weights()[0], learnt)
        assert run.tags["weights"] == name
    other = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(5, 3, name="block1_conv1")])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(ConfigError, match=r"other\.weights\.h5.*block1_conv1"):
        trained(prepared_folder, SMALL_VGG, model="vgg16", weights=str(tmp_path / "other.weights.h5"))
    with pytest.raises(ConfigError, match="nowhere"):
        trained(prepared_folder, SMALL_VGG, model="vgg16", weights=str(tmp_path / "nowhere.h5"))


def test_mixed_precision_trains_and_says_so(prepared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr("wastelens.models.backend.multiplies_bfloat16", lambda: True)
    run = trained(prepared_folder, "network.widths=[4,8]", mixed_precision="true")
    assert run.tags["precision"] == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    monkeypatch.setattr("wastelens.models.backend.multiplies_bfloat16", lambda: False)
    assert trained(prepared_folder, "network.widths=[4,8]", mixed_precision="true").tags["precision"] == "float32"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ("freeze=blok0", r"'blok0' to freeze.*Did you mean 'block0'"),
        ("fine_tune.epochs=1 fine_tune.freeze=1.0", "fine_tune.freeze=1.0 freezes layer"),
    ],
)
def test_impossible_freezing_is_refused(prepared_folder: Path, settings: str, match: str) -> None:
    tracker = MemoryTracker()
    with pytest.raises(ConfigError, match=match):
        trained(prepared_folder, f"network.widths=[4,8] {settings}", tracker)
    assert not tracker.runs
