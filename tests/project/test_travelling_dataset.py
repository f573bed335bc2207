"""A prepared dataset travels: moved to another place, without its photos and annotations, every step runs from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import config, write_dataset
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.data.prepared.opening import open_dataset
from wastelens.getting.known_photos import judged_photos
from wastelens.steps import cluster, explain, prepare, pretrain, study, train, tune

pytestmark = pytest.mark.usefixtures("no_served_models")

NETWORK = "network.widths=[4]"
TINY = "fit.epochs=1 fit.batch_size=16 bootstrap_resamples=100"
OF_TRAIN = f"train.{NETWORK} train.fit.epochs=1 train.fit.batch_size=16 train.bootstrap_resamples=100"
ONLY_LEARNING_RATE = " ".join(
    f"space.{key}=null"
    for key in (
        *("optimizer", "fit", "loss", "balanced", "balance_target", "augmentation"),
        *("freeze", "network"),
    )
)
EXPLAINED = "shap.samples=2 shap.background_photos=2 steps=2 randomised_photos=1 batch_size=4 bootstrap_resamples=100"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset where it was prepared."""
    root = tmp_path_factory.mktemp("home")
    write_dataset(root / "litter", side=(48, 48))
    settings = f"image_side_px=32 data_folder={root / 'data'}"
    prepare.run(config("prepare", settings, dataset=str(root / "litter")), MemoryTracker())
    return root


@pytest.fixture(scope="module")
def at_home(home: Path) -> tuple[MemoryTracker, MemoryRun, pd.DataFrame, str]:
    """A model that was trained and explained before the dataset moved, with the scores and the page of then."""
    tracker = MemoryTracker()
    where = {"dataset": str(home / "data" / "prepared" / "litter")}
    trained = train.run(config("train", f"{NETWORK} {TINY}", **where), tracker)
    explain.run(config("explain", EXPLAINED, run_id=trained.run_id, photos="4", **where), tracker)
    (run,) = tracker.runs
    explained = run.folder / "explanations"
    return tracker, run, pd.read_csv(explained / "scores.csv"), (explained / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def moved(home: Path, at_home: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder in another place and under another name, when all that it was made from is gone."""
    place = tmp_path_factory.mktemp("elsewhere") / "travelled"
    shutil.move(home / "data" / "prepared" / "litter", place)
    shutil.rmtree(home)
    return place


def asked(step: str, dataset: Path, settings: str, **parameters: str) -> Any:
    return config(step, f"data_folder={dataset.parent / 'data'} {settings}", dataset=str(dataset), **parameters)


def test_train_and_explain(moved: Path, at_home: tuple[MemoryTracker, MemoryRun, pd.DataFrame, str]) -> None:
    tracker = MemoryTracker()
    trained = train.run(asked("train", moved, f"{NETWORK} {TINY}"), tracker)
    found = explain.run(asked("explain", moved, EXPLAINED, run_id=trained.run_id, photos="4"), tracker)
    (run,) = tracker.runs
    _, before, scores_before, page_before = at_home
    assert run.tags["dataset_digest"] == before.tags["dataset_digest"]
    scores = pd.read_csv(run.folder / "explanations" / "scores.csv")
    pd.testing.assert_frame_equal(scores, scores_before, check_exact=True)
    assert found.summary.frame["localised"].any()
    page = (run.folder / "explanations" / "index.html").read_text(encoding="utf-8")
    assert "Photo files missing or changed since prepare: 4" in page
    assert "missing or changed since prepare" not in page_before


def test_a_model_from_before_the_move_is_explained(
    moved: Path, at_home: tuple[MemoryTracker, MemoryRun, pd.DataFrame, str]
) -> None:
    tracker, run, *_ = at_home
    assert explain.run(asked("explain", moved, EXPLAINED, photos="2"), tracker).run_id == run.id


def test_pretrain_and_cluster(moved: Path) -> None:
    tracker = MemoryTracker()
    learner = "learner.epochs=1 learner.side_px=8 learner.hidden_units=[12,6]"
    pretrained = pretrain.run(asked("pretrain", moved, learner, method="dbn"), tracker)
    found = cluster.run(asked("cluster", moved, "draws=5", k="3", run_id=pretrained.run_id), tracker)
    assert found.sentence


def test_tune(moved: Path) -> None:
    tracker = MemoryTracker()
    storage = f"storage=sqlite:///{moved.parent / 'trials.db'}"
    settings = f"{OF_TRAIN} {ONLY_LEARNING_RATE} {storage} pruner_first_epoch=1"
    parameters = {"study": "away", "trials": "2", "pruner": "none", "retrain": "false"}
    tune.run(asked("tune", moved, settings, **parameters), tracker)
    assert [run.tags["state"] for run in tracker.runs if run.tags["step"] == "trial"] == ["COMPLETE"] * 2


def test_study_of_mappings(moved: Path) -> None:
    tracker = MemoryTracker()
    settings = f"{OF_TRAIN} bootstrap_resamples=100"
    parameters = {"factors": "mapping=default|predecessor", "seeds": "1", "models": "base", "folds": "0"}
    found = study.run(asked("study", moved, settings, **parameters), tracker)
    assert found.contents.cells["test_macro_ap"].notna().tolist() == [True, True]
    relabelled = moved.parent / "data" / "mappings" / "predecessor" / "prepared" / "litter"
    assert (relabelled / "outlines.json").samefile(moved / "outlines.json")


def test_photos_that_collect_must_not_repeat(moved: Path) -> None:
    dataset = open_dataset(str(moved), moved.parent / "data")
    judged = judged_photos(dataset)
    assert len(judged) == (dataset.frame["split"] != "train").sum()
    assert np.asarray(judged[np.arange(2)]).shape == (2, 32, 32, 3)
