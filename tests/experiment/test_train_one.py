"""One training as a run: its batches, seeds and folds, and losses that are not finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import ConfigError, NonFiniteLossError
from wastelens.experiment import fitting
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
        train.train_one(chosen, tracker, {"cell": "a key", "study": "an id"})
    (run,) = tracker.runs
    assert (run.status, run.tags["cell"], run.tags["study"]) == ("FAILED", "a key", "an id")
    assert run.tags["mapping"] == "default"


def test_same_seed_same_curve_and_another_seed_another(prepared_folder: Path) -> None:
    first, second = (trained(prepared_folder).history[1]["loss"] for _ in range(2))
    other = trained(prepared_folder, seed="1").history[1]["loss"]
    assert first == pytest.approx(second, rel=1e-5)
    assert abs(first - other) > 1e-6


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
