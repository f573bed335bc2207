"""Models in MLflow's registry and store, opened by every address; the model is logged and registered for real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.factories import config, log_colour_model, photo_array
from tests.mlflow_store import mlflow_store

from wastelens.errors import RunError, StoreUnreachable
from wastelens.steps import promote
from wastelens.tracking.mlflow_tracker import MlflowTracker
from wastelens.using.chosen_model import open_model

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, of pandas and of type hints, as it logs the model


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, keras: Any) -> Iterator[tuple[MlflowTracker, str]]:
    """MLflow's default store with a model, ``litter`` version 1, alias ``champion``; and the id of its run."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_store(folder) as mlflow, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        tracker = MlflowTracker()
        run_id = log_colour_model(tracker, folder / "made")
        mlflow.register_model(f"runs:/{run_id}/model", "litter")
        mlflow.MlflowClient().set_registered_model_alias("litter", "champion", "1")
        yield tracker, run_id


def test_every_address_opens_the_logged_model(registered: tuple[MlflowTracker, str], tmp_path: Path) -> None:
    tracker, run_id = registered
    photos = photo_array(3, 32)
    folder = tracker.download_model("models:/litter/1", tmp_path)
    ways = {
        "models:/litter@champion": "models:/litter/1",
        "models:/litter/1": "models:/litter/1",
        f"runs:/{run_id}/model": f"runs:/{run_id}/model",
        run_id: f"runs:/{run_id}/model",
        str(folder): str(folder),
    }
    answers = []
    for way, address in ways.items():
        with open_model(tracker, way) as model:
            assert (model.address, model.run_id) == (address, run_id)
            answers.append(model.answers(photos).probabilities)
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models:/liter@champion", r"no registered model 'liter' in sqlite:.* Did you mean 'litter'\?"),
        ("models:/litter@challenger", "has no alias 'challenger'. It has @champion, /1."),
        ("models:/litter/7", "has no version '7'. It has @champion, /1."),
        ("0123456789abcdef0123456789abcdef", "There is no run"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(registered: tuple[MlflowTracker, str], model: str, message: str) -> None:
    with pytest.raises(RunError, match=message) as refused, open_model(registered[0], model):
        pass
    assert "\n" not in str(refused.value)


def test_a_registry_that_is_not_there_is_not_waited_for(
    registered: tuple[MlflowTracker, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    before = mlflow.get_registry_uri()
    mlflow.set_registry_uri("http://127.0.0.1:9")
    try:
        with (
            pytest.raises(StoreUnreachable, match=r"^MLflow's registry http://127.0.0.1:9 does not answer\. Start it"),
            open_model(registered[0], "models:/litter@champion"),
        ):
            pass
        with pytest.raises(StoreUnreachable, match=r"set MLFLOW_REGISTRY_URI to one that runs\.$"):
            promote.run(config("promote", run_id=registered[1], name="litter"), registered[0])
    finally:
        mlflow.set_registry_uri(before)


def test_a_registry_that_goes_away_is_named(
    registered: tuple[MlflowTracker, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    registry, before = registered[0].registry_of("litter"), mlflow.get_registry_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_registry_uri("http://127.0.0.1:9")
    try:
        with pytest.raises(StoreUnreachable, match=r"MLflow's registry http://127.0.0.1:9 does not answer"):
            registry.versions()
    finally:
        mlflow.set_registry_uri(before)


def test_a_model_whose_files_are_gone(registered: tuple[MlflowTracker, str], tmp_path: Path) -> None:
    tracker, _ = registered
    with tracker.start("train", tags={"step": "train"}) as run:
        pass
    with pytest.raises(RunError, match=r"has no files .* train the model again"), open_model(tracker, run.id):
        pass
