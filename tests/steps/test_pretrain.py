"""The step ``pretrain`` on small data: what it logs, that it resumes, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.factories import config, write_photo
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import DatasetError, NonFiniteLossError, RunError
from wastelens.experiment.resuming import EpochWatcher
from wastelens.steps import pretrain

METHODS = {
    "dense_autoencoder": "learner.side_px=8 learner.hidden_units=[16,6]",
    "conv_autoencoder": "learner.widths=[4,8]",
    "denoising_autoencoder": "learner.widths=[4,8]",
    "rbm": "learner.side_px=8 learner.hidden_units=12",
    "dbn": "learner.side_px=8 learner.hidden_units=[12,6]",
}
BOLTZMANN = ("rbm", "dbn")


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
def test_logs_everything_a_run_promises(prepared_folder: Path, method: str) -> None:
    run = pretrained(prepared_folder, method, tracker=MemoryTracker(draws=True))
    assert run.status == "FINISHED"
    assert run.tags["step"] == "pretrain"
    assert run.tags["method"] == method
    per_epoch = {"reconstruction_error", "val_reconstruction_error"}
    figures = {"reconstructions", "filters", "learning_curves"}
    if method in BOLTZMANN:
        per_epoch |= {"pseudo_likelihood", "val_pseudo_likelihood", "free_energy_gap"}
        figures |= {"samples"} | ({"filters_layer2"} if method == "dbn" else set())
    epochs = 4 if method == "dbn" else 2  # two layers of two epochs
    assert all(per_epoch <= set(run.history[epoch]) for epoch in range(1, epochs + 1))
    assert {path.stem for path in (run.folder / "figures").iterdir()} == figures
    assert (run.folder / "encoder" / "encoder.keras").is_file()
    assert run.metrics["val_reconstruction_error"] > 0
    assert run.metrics["floor_reconstruction_error"] > 0
    assert ("identity_reconstruction_error" in run.metrics) == (method == "denoising_autoencoder")
    assert not (run.folder / "checkpoint").exists()
    assert [one["context"] for one in run.datasets] == ["train", "val"]


@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_is_a_model_of_photos(prepared_folder: Path, method: str) -> None:
    import keras

    run = pretrained(prepared_folder, method)
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("float32")
    encoder = keras.saving.load_model(run.folder / "encoder" / "encoder.keras")
    code = np.asarray(encoder(photos))
    assert code.shape[0] == 3
    assert np.ptp(code, axis=0).max() > 0
    served = keras.saving.load_model(run.folder / "model" / "network" / "features.keras")
    example = run.models["model"].output_example
    assert np.asarray(served(photos)).shape == (3, example.shape[1])


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
    error = "val_reconstruction_error"
    assert resumed.history[last][error] == pytest.approx(whole.history[last][error], rel=1e-3)


def test_same_seed_same_start_and_another_seed_another(prepared_folder: Path) -> None:
    first, second = (pretrained(prepared_folder, "rbm").history[1]["reconstruction_error"] for _ in range(2))
    other = pretrained(prepared_folder, "rbm", seed="1").history[1]["reconstruction_error"]
    assert first == pytest.approx(second, rel=1e-4)
    assert abs(first - other) > 1e-7


def test_gaussian_visible_units(prepared_folder: Path) -> None:
    run = pretrained(prepared_folder, "dbn", "learner.visible=gaussian learner.learning_rate=0.001")
    assert run.metrics["val_reconstruction_error"] < 1
    assert np.isfinite(run.metrics["val_pseudo_likelihood"])


def test_unlabelled_photos_are_learned_from_but_never_those_of_val_and_test(
    prepared_folder: Path, tmp_path: Path
) -> None:
    own = pretrained(prepared_folder, "rbm")
    for number in range(12):
        write_photo(tmp_path / "web" / f"{number}.jpg", seed=1000 + number)
    more = pretrained(prepared_folder, "rbm", unlabelled=str(tmp_path / "web"))
    assert int(more.parameters["training_photos"]) == int(own.parameters["training_photos"]) + 12
    same = pretrained(prepared_folder, "rbm", unlabelled=str(prepared_folder / "litter"))
    rows = json.loads((prepared_folder / "data" / "prepared" / "litter" / "manifest.json").read_text())["counts"]
    assert int(same.parameters["training_photos"]) <= 2 * int(own.parameters["training_photos"])
    assert "near-duplicate" in (same.folder / "unlabelled_problems.csv").read_text()
    assert rows


def test_unlabelled_folders_that_cannot_be_used(prepared_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty"):
        pretrained(prepared_folder, unlabelled=str(tmp_path / "empty"))
    for number in range(3):
        (tmp_path / "broken").mkdir(exist_ok=True)
        (tmp_path / "broken" / f"{number}.jpg").write_bytes(b"no photo")
    with pytest.raises(DatasetError, match="broken"):
        pretrained(prepared_folder, unlabelled=str(tmp_path / "broken"))
    with pytest.raises(DatasetError, match="nowhere"):
        pretrained(prepared_folder, unlabelled=str(tmp_path / "nowhere"))


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


def test_nothing_is_left_behind(prepared_folder: Path) -> None:
    folder = prepared_folder / "data" / "prepared" / "litter"
    before = {path.name for path in folder.iterdir()}
    pretrained(prepared_folder, "dense_autoencoder")
    assert {path.name for path in folder.iterdir()} == before
    shutil.rmtree(prepared_folder / "data" / "prepared" / ".unlabelled", ignore_errors=True)
