"""One pretraining as a run: its encoder, seeds and resuming, and learning that diverges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.factories import config, write_photo
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import NonFiniteLossError, RunError, StoreUnreachable
from wastelens.experiment.resuming import EpochWatcher
from wastelens.steps import pretrain

METHODS = {
    "dense_autoencoder": "learner.side_px=8 learner.hidden_units=[16,6]",
    "conv_autoencoder": "learner.widths=[4,8]",
    "denoising_autoencoder": "learner.widths=[4,8]",
    "rbm": "learner.side_px=8 learner.hidden_units=12",
    "dbn": "learner.side_px=8 learner.hidden_units=[12,6]",
}


def pretrained(
    root: Path, method: str = "dbn", settings: str = "", tracker: MemoryTracker | None = None, **parameters: str
) -> MemoryRun:
    tracker = tracker or MemoryTracker()
    chosen = config(
        "pretrain",
        f"learner.epochs=2 learner.batch_size=16 {METHODS[method]} data_folder={root / 'data'} {settings}",
        dataset=str(root / "litter"),
        method=method,
        **parameters,
    )
    result = pretrain.run(chosen, tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_is_a_model_of_photos(prepared_folder: Path, method: str) -> None:
    import keras

    run = pretrained(prepared_folder, method)
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    encoder = keras.saving.load_model(run.folder / "encoder" / "encoder.keras")
    code = np.asarray(encoder(photos))
    assert code.shape[0] == 3
    assert np.ptp(code, axis=0).max() > 0
    served = keras.saving.load_model(run.folder / "model" / "artifacts" / "features.keras")
    example = run.models["model"].output_example
    assert np.asarray(served(photos)).shape == (3, len(example["features"][0]))


def interrupted_in(monkeypatch: pytest.MonkeyPatch, epoch_to_die_in: int) -> Any:
    original = EpochWatcher.batch_done

    def dying(self: Any, epoch: int) -> None:
        if epoch == epoch_to_die_in:
            raise KeyboardInterrupt
        original(self, epoch)

    monkeypatch.setattr(EpochWatcher, "batch_done", dying)
    return lambda: monkeypatch.setattr(EpochWatcher, "batch_done", original)


@pytest.mark.parametrize("method", ["conv_autoencoder", "dbn"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    whole = pretrained(prepared_folder, method)
    tracker = MemoryTracker()
    last = 4 if method == "dbn" else 2
    repair = interrupted_in(monkeypatch, last)
    with pytest.raises(KeyboardInterrupt):
        pretrained(prepared_folder, method, tracker=tracker)
    assert tracker.runs[0].status == "KILLED"
    assert sorted(tracker.runs[0].history) == list(range(1, last))
    repair()
    resumed = pretrained(prepared_folder, method, tracker=tracker, resume=tracker.runs[0].id)
    assert resumed.status == "FINISHED"
    assert len(tracker.runs) == 1
    error = "val/reconstruction_error"
    assert resumed.history[last][error] == pytest.approx(whole.history[last][error], rel=1e-3)


@pytest.mark.parametrize("method", ["conv_autoencoder", "dbn"])
def test_an_epoch_that_the_store_cannot_take_is_logged_when_the_run_is_resumed(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    whole = pretrained(prepared_folder, method)
    tracker = MemoryTracker()
    original = EpochWatcher.epoch_done

    def cut(self: Any, epoch: int, *arguments: Any) -> None:
        tracker.reachable = epoch != 2
        original(self, epoch, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EpochWatcher, "epoch_done", cut)
        with pytest.raises(StoreUnreachable):
            pretrained(prepared_folder, method, tracker=tracker)
    tracker.reachable = True
    (run,) = tracker.runs
    assert sorted(run.history) == [1]
    pretrained(prepared_folder, method, tracker=tracker, resume=run.id)
    assert (run.status, len(tracker.runs), run.history.keys()) == ("FINISHED", 1, whole.history.keys())
    for epoch, values in whole.history.items():
        error = "val/reconstruction_error"
        assert run.history[epoch][error] == pytest.approx(values[error], rel=1e-3)


def test_same_seed_same_start_and_another_seed_another(prepared_folder: Path) -> None:
    first, second = (pretrained(prepared_folder, "rbm").history[1]["reconstruction_error"] for _ in range(2))
    other = pretrained(prepared_folder, "rbm", seed="1").history[1]["reconstruction_error"]
    assert first == pytest.approx(second, rel=1e-4)
    assert abs(first - other) > 1e-7


def test_gaussian_visible_units(prepared_folder: Path) -> None:
    run = pretrained(prepared_folder, "dbn", "learner.visible=gaussian learner.learning_rate=0.001")
    assert run.metrics["val/reconstruction_error"] < 1
    assert np.isfinite(run.metrics["val/pseudo_likelihood"])


@pytest.mark.parametrize("rate", ["1", "1e9"])
def test_learning_that_diverges_fails_the_run(prepared_folder: Path, rate: str) -> None:
    tracker = MemoryTracker()
    settings = f"learner.visible=gaussian learner.learning_rate={rate} learner.epochs=9"
    with pytest.raises(NonFiniteLossError, match=r"learner\.learning_rate"):
        pretrained(prepared_folder, "rbm", settings, tracker)
    assert tracker.runs[0].status == "FAILED"


def test_runs_that_cannot_be_resumed(prepared_folder: Path) -> None:
    tracker = MemoryTracker()
    finished = pretrained(prepared_folder, "rbm", tracker=tracker)
    with pytest.raises(RunError, match="is finished; there is nothing to resume"):
        pretrained(prepared_folder, "rbm", tracker=tracker, resume=finished.id)
    with tracker.start("else"):
        pass
    with pytest.raises(RunError, match="not a pretrain run, so pretrain cannot resume it"):
        pretrained(prepared_folder, "rbm", tracker=tracker, resume=tracker.runs[-1].id)


def test_resuming_with_other_unlabelled_photos(
    prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        write_photo(tmp_path / "web" / f"{number}.jpg", seed=2000 + number)
    tracker = MemoryTracker()
    repair = interrupted_in(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        pretrained(prepared_folder, "rbm", tracker=tracker, unlabelled=str(tmp_path / "web"))
    repair()
    write_photo(tmp_path / "web" / "new.jpg", seed=3000)
    with pytest.raises(RunError, match="are not those that run"):
        pretrained(prepared_folder, "rbm", tracker=tracker, resume=tracker.runs[0].id)
    (tmp_path / "web" / "new.jpg").unlink()
    assert pretrained(prepared_folder, "rbm", tracker=tracker, resume=tracker.runs[0].id).status == "FINISHED"
