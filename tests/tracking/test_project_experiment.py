"""Runs go to the experiment ``wastelens`` unless the user has named another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.mlflow_store import mlflow_store

from wastelens.tracking.mlflow_tracker import MlflowTracker
from wastelens.tracking.project_experiment import project_experiment

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    with mlflow_store(tmp_path) as mlflow:
        yield mlflow


def experiment_of_a_run(mlflow: Any) -> str:
    with MlflowTracker().start("any") as run:
        pass
    return str(mlflow.get_experiment(mlflow.get_run(run.id).info.experiment_id).name)


def test_in_a_new_store_the_first_experiment_takes_the_name(store: Any) -> None:
    assert experiment_of_a_run(store) == "wastelens"
    assert [one.experiment_id for one in store.search_experiments()] == ["0"]
    assert experiment_of_a_run(store) == "wastelens"


def test_the_run_that_mlflow_run_has_opened_is_no_other_run(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = store.MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", opened)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")  # as `mlflow run` does
    assert experiment_of_a_run(store) == "wastelens"


def test_a_store_with_runs_keeps_its_experiments(store: Any) -> None:
    store.MlflowClient().create_run("0")
    assert experiment_of_a_run(store) == "Default"


def test_an_experiment_that_the_user_names_is_taken(store: Any) -> None:
    store.set_experiment("mine")
    assert experiment_of_a_run(store) == "mine"
    assert store.get_experiment("0").name == "Default"


def test_an_experiment_of_that_name_is_used_again(store: Any) -> None:
    store.MlflowClient().create_run("0")
    made = store.MlflowClient().create_experiment("wastelens")
    assert experiment_of_a_run(store) == "wastelens"
    assert project_experiment(store.get_tracking_uri()) == made


def test_its_table_shows_the_figures_that_decide(store: Any) -> None:
    experiment_of_a_run(store)
    shown = json.loads(store.get_experiment("0").tags["mlflow.sharedViewState.wastelens"])
    assert "metrics.`test/macro_ap`" in shown["selectedColumns"]
    assert shown["orderByKey"] == "metrics.`test/macro_ap`"


def test_on_a_server_it_is_made_beside_the_others(store: Any) -> None:
    MlflowTracker().found({})
    made = project_experiment("http://127.0.0.1:5000")
    assert store.get_experiment(made).name == "wastelens"
    assert store.get_experiment("0").name == "Default"
