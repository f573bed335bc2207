"""The step ``pretrain`` on small data: what it logs, the photos it learns from, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.factories import config, write_photo
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import DatasetError
from wastelens.experiment.pretrain_one import FLOORS, has_collapsed
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
    per_epoch = {"reconstruction_error", "val/reconstruction_error"}
    figures = {"reconstructions", "filters", "learning_curves"}
    if method in BOLTZMANN:
        per_epoch |= {"pseudo_likelihood", "val/pseudo_likelihood", "free_energy_gap"}
        figures |= {"samples"} | ({"filters_layer2"} if method == "dbn" else set())
    epochs = 4 if method == "dbn" else 2  # two layers of two epochs
    assert all(per_epoch <= set(run.history[epoch]) for epoch in range(1, epochs + 1))
    assert {path.stem for path in (run.folder / "figures").iterdir()} == figures
    assert (run.folder / "encoder" / "encoder.keras").is_file()
    assert run.metrics["val/reconstruction_error"] > 0
    assert all(run.metrics[floor] > 0 for floor in FLOORS)
    assert run.tags["collapsed"] == str(has_collapsed(run.metrics)).lower()
    assert ("floor/identity_reconstruction_error" in run.metrics) == (method == "denoising_autoencoder")
    assert not (run.folder / "checkpoint").exists()
    assert [one["context"] for one in run.datasets] == ["train", "val"]


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


def test_nothing_is_left_behind(prepared_folder: Path) -> None:
    folder = prepared_folder / "data" / "prepared" / "litter"
    before = {path.name for path in folder.iterdir()}
    pretrained(prepared_folder, "dense_autoencoder")
    assert {path.name for path in folder.iterdir()} == before
    shutil.rmtree(prepared_folder / "data" / "prepared" / ".unlabelled", ignore_errors=True)
