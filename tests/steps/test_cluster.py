"""The step ``cluster`` on small data: what it logs, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.factories import config
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import ConfigError, RunError
from wastelens.steps import cluster, pretrain, train

pytestmark = pytest.mark.usefixtures("no_served_models")


@pytest.fixture(scope="module")
def tracker(prepared_folder: Path) -> MemoryTracker:
    """Return a tracker with a pretrain run and a train run."""
    kept = MemoryTracker()
    where = f"data_folder={prepared_folder / 'data'}"
    dataset = str(prepared_folder / "litter")
    learner = "learner.epochs=1 learner.widths=[4,8]"
    pretrain.run(config("pretrain", f"{learner} {where}", dataset=dataset), kept)
    tiny = "network.widths=[4,8] fit.epochs=1 bootstrap_resamples=100"
    train.run(config("train", f"{tiny} {where}", dataset=dataset), kept)
    return kept


def clustered(root: Path, tracker: MemoryTracker, settings: str = "", **parameters: str) -> MemoryRun:
    chosen = config(
        "cluster",
        f"data_folder={root / 'data'} draws=5 {settings}",
        dataset=str(root / "litter"),
        **{"k": "3", **parameters},
    )
    result = cluster.run(chosen, tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


@pytest.mark.parametrize("number", [0, 1])
def test_logs_everything_a_run_promises(
    prepared_folder: Path, tracker: MemoryTracker, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt = tracker.runs[number]
    monkeypatch.setattr(tracker, "draws", True)
    run = clustered(prepared_folder, tracker, run_id=learnt.id)
    assert run.status == "FINISHED"
    assert run.tags["clustered_run"] == learnt.id
    for features in ("learned", "pixels", "colours"):
        for score in ("purity", "normalised_mutual_information", "adjusted_rand_index", "matching_accuracy"):
            name = f"cluster/{features}/{score}"
            assert {name, f"{name}_random"} <= set(run.metrics)
        assert run.metrics[f"cluster/{features}/k"] == 3
        assert {path.stem for path in (run.folder / "figures" / features).iterdir()} == {
            *("materials", "nearest_photos", "map")  # no curve over k where one k was tried
        }
    assert (run.folder / "figures" / "scores.png").is_file()
    assert run.tags["verdict"]


def test_scores_only_held_out_photos(prepared_folder: Path, tracker: MemoryTracker) -> None:
    run = clustered(prepared_folder, tracker, run_id=tracker.runs[0].id)
    labels = pd.read_csv(prepared_folder / "data" / "prepared" / "litter" / "labels.csv").set_index("file_name")
    scored = pd.read_csv(run.folder / "assignments_learned.csv")
    assert set(scored["file_name"]) == set(labels.index[labels["split"].isin(["val", "test"])])
    assert scored["cluster"].between(0, 2).all()
    only = clustered(prepared_folder, tracker, photos="test")
    assert set(pd.read_csv(only.folder / "assignments_pixels.csv")["split"]) == {"test"}


def test_without_a_run_the_controls_alone(prepared_folder: Path, tracker: MemoryTracker) -> None:
    run = clustered(prepared_folder, tracker)
    assert "cluster/colours/purity" in run.metrics
    assert "cluster/learned/purity" not in run.metrics


def test_auto_takes_the_best_silhouette(prepared_folder: Path, tracker: MemoryTracker) -> None:
    run = clustered(prepared_folder, tracker, "k_range=[2,5]", k="auto")
    assert (run.folder / "figures" / "pixels" / "k.png").is_file()
    silhouettes = {k: run.history[k]["cluster/pixels/silhouette_over_k"] for k in range(2, 6)}
    assert run.metrics["cluster/pixels/k"] == max(silhouettes, key=lambda k: silhouettes[k])
    assert run.metrics["cluster/colours/k"] == run.metrics["cluster/pixels/k"]  # scores rise with k alone


def test_same_seed_same_clusters(prepared_folder: Path, tracker: MemoryTracker) -> None:
    first, second = (clustered(prepared_folder, tracker).metrics for _ in range(2))
    assert first == second
    assert np.isfinite(list(first.values())).all()


def test_refusals(prepared_folder: Path, tracker: MemoryTracker) -> None:
    before = len(tracker.runs)
    with pytest.raises(ConfigError, match="k=5000"):
        clustered(prepared_folder, tracker, k="5000")
    assert len(tracker.runs) == before
    with pytest.raises(RunError, match="There is no run 'nowhere'"):
        clustered(prepared_folder, tracker, run_id="nowhere")
    other = clustered(prepared_folder, tracker)
    with pytest.raises(RunError, match="no network to use here"):
        clustered(prepared_folder, tracker, run_id=other.id)
    with pytest.raises(RunError, match="was trained on fold=0"):
        clustered(prepared_folder, tracker, run_id=tracker.runs[0].id, fold="1")
