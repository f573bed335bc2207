"""The step ``train`` on small data: its logs, resuming, and refusals."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config, write_dataset
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import ConfigError, NonFiniteLossError, PreparedDatasetError, RunError
from wastelens.experiment import fitting
from wastelens.experiment.resuming import EpochWatcher
from wastelens.steps import train
from wastelens.training.losses import BinaryCrossEntropy
from wastelens.training.phases import Phase

TINY = "network.widths=[4,8] fit.epochs=2 fit.batch_size=16 bootstrap_resamples=100"


def trained(root: Path, settings: str = "", tracker: MemoryTracker | None = None, **parameters: str) -> MemoryRun:
    tracker = tracker or MemoryTracker()
    chosen = config(
        "train", f"{TINY} data_folder={root / 'data'} {settings}", dataset=str(root / "litter"), **parameters
    )
    result = train.run(chosen, tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


def test_logs_everything_a_run_promises(prepared_folder: Path) -> None:
    run = trained(prepared_folder, tracker=MemoryTracker(draws=True), augment="true")
    assert run.status == "FINISHED"
    per_epoch = {"loss", "val_loss", "val_macro_ap", "learning_rate"}
    assert all(per_epoch <= set(run.history[epoch]) for epoch in (1, 2))
    scores = {"macro_ap", "macro_ap_low", "macro_ap_high", "macro_f1", "macro_f1_at_half", "micro_f1"}
    scores |= {"subset_accuracy", "hamming_loss", "ap_plastic", "ap_toxic"}
    assert {f"test_{score}" for score in scores} <= set(run.metrics)
    assert {f"val_{score}" for score in scores} <= set(run.metrics)
    assert {"floor_macro_ap", "floor_macro_f1", "floor_subset_accuracy"} <= set(run.metrics)
    assert {f"control_{name}_test_macro_ap" for name in ("random", "neighbours", "size", "colour")} <= set(run.metrics)
    assert run.tags["collapsed"] in ("true", "false")
    assert run.tags["above_controls"] in ("true", "false")
    assert run.tags["augment"] == "true"
    assert run.tags["model"] == "base"
    assert {dataset["context"] for dataset in run.datasets} == {"train", "val", "test"}
    assert {path.stem for path in (run.folder / "figures").iterdir()} == {
        *("average_precision", "learning_curves", "precision_recall", "confusion", "thresholds"),
    }
    exported = {"network.keras", "architecture.json", "model.weights.h5"}
    assert {path.name for path in (run.folder / "export").iterdir()} == exported
    assert not (run.folder / "checkpoint").exists()


def test_predictions_hold_exactly_the_test_photos(prepared_folder: Path) -> None:
    run = trained(prepared_folder)
    predictions = pd.read_csv(run.folder / "predictions_test.csv")
    labels = pd.read_csv(prepared_folder / "data" / "prepared" / "litter" / "labels.csv").set_index("file_name")
    assert set(predictions["file_name"]) == set(labels.index[labels["split"] == "test"])
    for material in ("plastic", "glass"):
        assert predictions[f"label_{material}"].tolist() == labels.loc[predictions["file_name"], material].tolist()
        above = predictions[f"probability_{material}"] >= run.metrics[f"threshold_{material}"]
        sure = (predictions[f"probability_{material}"] - run.metrics[f"threshold_{material}"]).abs() > 1e-5
        assert (predictions.loc[sure, f"decision_{material}"].astype(bool) == above[sure]).all()


def test_exported_files_rebuild_the_network(prepared_folder: Path) -> None:
    import keras

    run = trained(prepared_folder)
    rebuilt = keras.models.model_from_json((run.folder / "export" / "architecture.json").read_text())
    rebuilt.load_weights(run.folder / "export" / "model.weights.h5")
    saved = keras.saving.load_model(run.folder / "model" / "network" / "network.keras")
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(rebuilt.predict_on_batch(photos), saved.predict_on_batch(photos), atol=1e-6)


def test_fixed_steps_per_epoch_with_a_share_of_the_labels(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []  # epoch, photos
    original = fitting.Fitting._fit

    def watched(self: Any, phase: Any, *arguments: Any) -> Any:
        def counting(epoch: int) -> Any:
            for photos, labels in batches(epoch):
                seen.append((epoch, len(labels)))
                yield photos, labels

        batches = phase.batches.epoch
        monkeypatch.setattr(phase.batches, "epoch", counting)
        return original(self, phase, *arguments)

    monkeypatch.setattr(fitting.Fitting, "_fit", watched)
    settings = "fit.steps_per_epoch=5 labels_percent=50"
    run = trained(prepared_folder, settings, balanced="false")
    assert [epoch for epoch, _ in seen] == [0] * 5 + [1] * 5
    labels = pd.read_csv(prepared_folder / "data" / "prepared" / "litter" / "labels.csv")
    share = math.ceil((labels["split"] == "train").sum() / 2)
    assert share < 16 * 5, "else one pass is longer than an epoch"
    passes = [photos for _, photos in seen]
    per_pass = math.ceil(share / 16)
    assert sum(passes[:per_pass]) == share
    assert run.parameters["labels_percent"] == "50.0"
    assert sorted(run.history) == [1, 2]


def test_tags_that_a_study_gives_are_on_the_run_when_it_fails_at_once(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    monkeypatch.setattr(BinaryCrossEntropy, "__call__", lambda self, labels, logits: _nan_loss(logits))
    settings = f"{TINY} data_folder={prepared_folder / 'data'}"
    chosen = config("train", settings, dataset=str(prepared_folder / "litter"))
    with pytest.raises(NonFiniteLossError):
        train.train_one(chosen, tracker, {"cell": "a key", "attempt": 2})
    (run,) = tracker.runs
    assert (run.status, run.tags["cell"], run.tags["attempt"]) == ("FAILED", "a key", "2")
    assert run.tags["mapping"] == "default"


def test_same_seed_same_curve_and_another_seed_another(prepared_folder: Path) -> None:
    first, second = (trained(prepared_folder).history[1]["loss"] for _ in range(2))
    other = trained(prepared_folder, seed="1").history[1]["loss"]
    assert first == pytest.approx(second, rel=1e-5)
    assert abs(first - other) > 1e-6


def test_a_resumed_run_equals_an_uninterrupted_one(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(prepared_folder, "fit.epochs=4")
    tracker = MemoryTracker()
    original = EpochWatcher.batch_done

    def interrupted(self: Any, epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt
        original(self, epoch)

    monkeypatch.setattr(EpochWatcher, "batch_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(prepared_folder, "fit.epochs=4", tracker)
    said = capsys.readouterr().out
    assert f"Resume it: mlflow run . -e train --env-manager local -P dataset={prepared_folder / 'litter'}" in said
    assert f"-P resume={tracker.runs[0].id} -P 'set=data_folder=" in said
    assert tracker.runs[0].status == "KILLED"
    assert sorted(tracker.runs[0].history) == [1, 2]
    monkeypatch.setattr(EpochWatcher, "batch_done", original)
    resumed = trained(prepared_folder, "fit.epochs=4", tracker, resume=tracker.runs[0].id)
    assert resumed.status == "FINISHED"
    assert len(tracker.runs) == 1
    for epoch in (3, 4):
        assert resumed.history[epoch]["loss"] == pytest.approx(whole.history[epoch]["loss"], rel=1e-3)


def test_a_loss_that_is_not_finite_fails_the_run_and_names_the_step(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    monkeypatch.setattr(BinaryCrossEntropy, "__call__", lambda self, labels, logits: _nan_loss(logits))
    with pytest.raises(NonFiniteLossError, match="epoch 1, step 1 of"):
        trained(prepared_folder, tracker=tracker)
    assert tracker.runs[0].status == "FAILED"


def test_a_network_that_diverges_in_the_last_step_fails_the_run_too(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()
    monkeypatch.setattr(Phase, "predict", lambda self, table: np.full(table.labels.shape, np.nan))
    with pytest.raises(NonFiniteLossError, match="answer is not finite after epoch 1, step 1 of 1 "):
        trained(prepared_folder, "fit.batch_size=512", tracker)
    assert tracker.runs[0].status == "FAILED"


def _nan_loss(logits: Any) -> Any:
    from keras import ops

    return ops.mean(logits) * float("nan")


def test_folds_use_their_own_photos(prepared_folder: Path) -> None:
    runs = [trained(prepared_folder, "fit.epochs=1", fold=str(fold)) for fold in (1, 2)]
    tested = [set(pd.read_csv(run.folder / "predictions_test.csv")["file_name"]) for run in runs]
    assert not tested[0] & tested[1]
    with pytest.raises(ConfigError, match="fold=9, but the dataset was prepared with folds=3"):
        trained(prepared_folder, fold="9")


def test_training_before_prepare(tmp_path: Path) -> None:
    write_dataset(tmp_path / "litter")
    with pytest.raises(PreparedDatasetError, match=r"no prepared dataset in .*litter.*Run `mlflow run \. -e prepare`"):
        trained(tmp_path)


def test_a_dataset_of_the_same_name_from_elsewhere_is_refused(prepared_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared_folder / "data", tmp_path / "data")
    write_dataset(tmp_path / "litter")
    with pytest.raises(PreparedDatasetError, match="was prepared from"):
        trained(tmp_path)


def test_runs_that_cannot_be_resumed(prepared_folder: Path) -> None:
    with pytest.raises(RunError, match="There is no run 'nowhere'"):
        trained(prepared_folder, resume="nowhere")
    tracker = MemoryTracker()
    with tracker.start("prepare"):
        pass
    with pytest.raises(RunError, match="is not a train run, so train cannot resume it"):
        trained(prepared_folder, tracker=tracker, resume=tracker.runs[0].id)
    assert (tracker.runs[0].status, tracker.runs[0].name) == ("FINISHED", "prepare")
    finished = trained(prepared_folder, "fit.epochs=1", tracker)
    with pytest.raises(RunError, match="is finished; there is nothing to resume"):
        trained(prepared_folder, tracker=tracker, resume=finished.id)
    assert finished.status == "FINISHED"
    finished.status = "KILLED"
    about = json.loads((finished.folder / "config.json").read_text())
    about["config"]["loss"]["kind"] = "a loss of the future"
    (finished.folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match="another version of Wastelens"):
        trained(prepared_folder, tracker=tracker, resume=finished.id)
