"""The step ``train`` on small data: its logs, its files, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.factories import config, write_dataset
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import PreparedDatasetError
from wastelens.steps import train
from wastelens.system.decision_rule import read_rule

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
    per_epoch = {"loss", "val/loss", "val/macro_ap", "learning_rate"}
    assert all(per_epoch <= set(run.history[epoch]) for epoch in (1, 2))
    scores = {"macro_ap", "macro_ap_low", "macro_ap_high", "macro_f1", "macro_f1_at_half", "micro_f1"}
    scores |= {"subset_accuracy", "hamming_loss", "ap_plastic", "ap_toxic"}
    assert {f"test/{score}" for score in scores} <= set(run.metrics)
    assert {f"val/{score}" for score in scores} <= set(run.metrics)
    assert {"floor/macro_ap", "floor/macro_f1", "floor/subset_accuracy"} <= set(run.metrics)
    assert {f"controls/{name}_macro_ap" for name in ("random", "neighbours", "size", "colour")} <= set(run.metrics)
    assert run.tags["collapsed"] in ("true", "false")
    assert run.tags["above_controls"] in ("true", "false")
    assert run.tags["augment"] == "true"
    assert run.tags["model"] == "base"
    assert {dataset["context"] for dataset in run.datasets} == {"train", "val", "test"}
    assert {path.stem for path in (run.folder / "figures").iterdir()} == {
        *("average_precision", "learning_curves", "precision_recall", "confusion", "thresholds"),
        *("reliability", "risk_coverage"),
    }
    exported = {"network.keras", "architecture.json", "model.weights.h5", "decision_rule.json"}
    assert {path.name for path in (run.folder / "export").iterdir()} == exported
    assert not (run.folder / "checkpoint").exists()
    assert not (run.folder / "bands.csv").exists()
    rows = pd.read_csv(run.folder / "calibration.csv").set_index(["probabilities", "material"])
    assert rows.loc[("after", "all (macro)"), "brier"] == pytest.approx(run.metrics["test/brier"])
    assert rows.loc[("before", "all (macro)"), "ece"] == pytest.approx(run.metrics["calibration/ece_before"])
    assert run.tags["calibration_answer"] in run.tags["mlflow.note.content"]


def test_what_is_judged_is_what_the_logged_model_answers(prepared_folder: Path) -> None:
    import keras

    run = trained(prepared_folder, precision="0.5", recall="0.7")
    artifacts = run.folder / "model" / "artifacts"
    network, rule = keras.saving.load_model(artifacts / "network.keras"), read_rule(artifacts / "decision_rule.json")
    assert (artifacts / "decision_rule.json").read_bytes() == (run.folder / "export/decision_rule.json").read_bytes()
    dataset = open_dataset("litter", prepared_folder / "data")
    test = dataset.split(0).test
    answers = rule.calibrated(network.predict_on_batch(dataset.photos[test.photo_index].astype("float32")))
    judged = pd.read_csv(run.folder / "predictions_test.csv").set_index("file_name").loc[test.file_names]
    expected = judged[[f"probability_{material}" for material in test.materials]].to_numpy()
    np.testing.assert_allclose(answers, expected, atol=2e-6)
    bands = pd.read_csv(run.folder / "bands.csv").set_index("material")
    said = rule.answers(answers)
    assert bands.loc["all", "coverage"] == pytest.approx((said != -1).mean())
    assert run.metrics["abstention/coverage"] == pytest.approx((said != -1).mean())
    assert set(bands.index) == {"all", *rule.bands} == {"all", *test.materials}


def test_predictions_hold_exactly_the_test_photos(prepared_folder: Path) -> None:
    run = trained(prepared_folder)
    predictions = pd.read_csv(run.folder / "predictions_test.csv")
    labels = pd.read_csv(prepared_folder / "data" / "prepared" / "litter" / "labels.csv").set_index("file_name")
    assert set(predictions["file_name"]) == set(labels.index[labels["split"] == "test"])
    for material in ("plastic", "glass"):
        assert predictions[f"label_{material}"].tolist() == labels.loc[predictions["file_name"], material].tolist()
        above = predictions[f"probability_{material}"] >= run.metrics[f"threshold/{material}"]
        sure = (predictions[f"probability_{material}"] - run.metrics[f"threshold/{material}"]).abs() > 1e-5
        assert (predictions.loc[sure, f"decision_{material}"].astype(bool) == above[sure]).all()


def test_exported_files_rebuild_the_network(prepared_folder: Path) -> None:
    import keras

    run = trained(prepared_folder)
    rebuilt = keras.models.model_from_json((run.folder / "export" / "architecture.json").read_text())
    rebuilt.load_weights(run.folder / "export" / "model.weights.h5")
    saved = keras.saving.load_model(run.folder / "model" / "artifacts" / "network.keras")
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(rebuilt.predict_on_batch(photos), saved.predict_on_batch(photos), atol=1e-6)


def test_training_before_prepare(tmp_path: Path) -> None:
    write_dataset(tmp_path / "litter")
    with pytest.raises(
        PreparedDatasetError,
        match=r"no prepared dataset in .*litter.*\(mlflow run \. -e prepare --env-manager local\)\.$",
    ):
        trained(tmp_path)


def test_a_dataset_of_the_same_name_from_elsewhere_is_refused(prepared_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared_folder / "data", tmp_path / "data")
    write_dataset(tmp_path / "litter")
    with pytest.raises(PreparedDatasetError, match="was prepared from"):
        trained(tmp_path)
