"""The model that a setting ``model=`` means: every way to name it, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.factories import config, photo_array
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.errors import RunError
from wastelens.models.card import CARD
from wastelens.steps import train
from wastelens.tracking.tracker import ModelVersion
from wastelens.using.chosen_model import BATCH_SIZE, open_model

TINY = "network.widths=[4,8] fit.epochs=1 fit.batch_size=16 bootstrap_resamples=100"


@pytest.fixture(scope="module")
def tracker(prepared_folder: Path) -> MemoryTracker:
    """A tracker with one trained model, registered as ``litter``."""
    tracker = MemoryTracker()
    settings = f"{TINY} data_folder={prepared_folder / 'data'}"
    trained = train.run(config("train", settings, dataset=str(prepared_folder / "litter")), tracker)
    version = ModelVersion(3, trained.run_id, {})
    tracker.registry.update({("litter", "champion"): version, ("litter", "3"): version})
    return tracker


def run_of(tracker: MemoryTracker) -> MemoryRun:
    return next(run for run in tracker.runs if run.tags.get("step") == "train")


@pytest.fixture
def copied(tracker: MemoryTracker, tmp_path: Path) -> Path:
    """A copy of the logged model, to be damaged."""
    return Path(shutil.copytree(run_of(tracker).folder / "model", tmp_path / "model"))


def test_every_way_to_name_a_model_opens_the_same(tracker: MemoryTracker, copied: Path) -> None:
    run_id = run_of(tracker).id
    photos = photo_array(BATCH_SIZE + 3, 32)
    ways = {
        "models:/litter@champion": ("models:/litter/3", "litter version 3 (champion)"),
        "models:/litter/3": ("models:/litter/3", "litter version 3"),
        f"runs:/{run_id}/model": (f"runs:/{run_id}/model", f"run {run_id}"),
        run_id: (f"runs:/{run_id}/model", f"run {run_id}"),
        str(copied): (str(copied), f"the model in {copied}"),
        str(copied.parent): (str(copied), f"the model in {copied}"),
    }
    answers, digests = [], set()
    for way, (address, title) in ways.items():
        with open_model(tracker, way) as model:
            assert (model.address, model.title, model.run_id) == (address, title, run_id)
            answers.append(model.answers(photos).probabilities)
            digests.add(model.digest)
    expected = model.network.predict(photos, verbose=0)
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert answers[0].dtype == np.float32
    assert np.allclose(answers[0], expected, atol=1e-6)
    assert len(digests) == 1


def test_answers_do_not_depend_on_the_photos_beside_one(tracker: MemoryTracker) -> None:
    photos = photo_array(5, 32)
    with open_model(tracker, run_of(tracker).id) as model:
        one_by_one = np.concatenate([model.answers(photos[row : row + 1]).probabilities for row in range(5)])
        assert np.array_equal(model.answers(photos).probabilities, one_by_one)
        assert model.answers(photos[:0]).probabilities.shape == (0, 6)


def test_a_model_knows_its_verdict_and_its_answers_on_test(tracker: MemoryTracker) -> None:
    run = run_of(tracker)
    with open_model(tracker, run.id) as model:
        tags = {"collapsed": model.card.collapsed, "above_controls": model.card.above_controls}
        assert {name: str(value).lower() for name, value in tags.items()} == {name: run.tags[name] for name in tags}
        assert model.card.verdict == run.tags["verdict"]
        assert model.card.metrics["test/macro_ap"] == pytest.approx(run.metrics["test/macro_ap"], abs=1e-6)
        assert model.thresholds.tolist() == [run.metrics[f"threshold/{name}"] for name in model.materials]
        test = model.test_predictions()
        assert test.labels.shape == test.probabilities.shape == test.decisions.shape == (len(test.groups), 6)
        near = np.abs(test.probabilities - model.thresholds) < 1e-6  # rounded
        assert np.array_equal(test.decisions | near, (test.probabilities >= model.thresholds) | near)
        assert model.is_proven == (run.tags["above_controls"] == "true")


def change_metadata(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def changed(folder: Path) -> None:
        about = yaml.safe_load((folder / "MLmodel").read_text())
        change(about["metadata"][CARD])
        (folder / "MLmodel").write_text(yaml.safe_dump(about))

    return changed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "artifacts/network.keras").write_bytes(b"x"), "network.keras is not the file that was logged"),
        (lambda f: (f / "artifacts/predictions_test.csv").unlink(), "predictions_test.csv is missing"),
        (lambda f: (f / "artifacts/decision_rule.json").write_text(json.dumps({})), "decision_rule.json is not the"),
        (lambda f: (f / "MLmodel").write_text("a: [", "utf-8"), "MLmodel cannot be read"),
        (lambda f: (f / "MLmodel").write_text("a: 1", "utf-8"), "made by another version"),
        (change_metadata(lambda card: card.update(form=2)), "made by another version"),
        (change_metadata(lambda card: card["thresholds"].pop("paper")), "lacks the threshold"),
        (change_metadata(lambda card: card["files"].pop("network.keras")), "no network.keras"),
        (change_metadata(lambda card: card.update(image_side_px=64)), "its network maps"),
        (change_metadata(lambda card: [card.pop(name) for name in list(card) if name != "files"]), "is an encoder"),
    ],
)
def test_a_damaged_model_is_refused(
    tracker: MemoryTracker, copied: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copied)
    with pytest.raises(RunError, match=message) as refused, open_model(tracker, str(copied)):
        pass
    assert "\n" not in str(refused.value)


def test_what_is_no_model_is_refused(tracker: MemoryTracker, tmp_path: Path) -> None:
    with tracker.start("prepare", tags={"step": "prepare"}) as other:
        pass
    with tracker.start("main", tags={"step": "main", "best_run": "run-0"}) as main:
        pass
    with tracker.start("train", tags={"step": "train"}) as begun:
        pass
    tracker.finish(begun.id, "KILLED")
    cases = {
        "models:/other@champion": "no registered model 'other'",
        "models:/litter": "names no version",
        other.id: "is of prepare",
        f"runs:/{other.id}/model": "is of prepare",
        main.id: "Give its best: run-0",
        begun.id: "not finished .its status is KILLED",
        "run-99": "There is no run 'run-99'",
        str(tmp_path): "has no file MLmodel",
        "./no/such folder": "is no folder, run id or address",
    }
    for model, message in cases.items():
        with pytest.raises(RunError, match=message), open_model(tracker, model):
            pass
