"""The experiment of a project's runs: ``wastelens``, unless the user has named another; and what its table shows."""

from __future__ import annotations

import json
import os
from typing import Any

from wastelens.system import borrowed
from wastelens.tracking.local_store import file_of
from wastelens.tracking.mlflow_store import store_client

NAME = VIEW = "wastelens"
# Models, the best first, with the figure that decides and whether they may be believed; the charts of test on top.
# MLflow's own table shows no metrics, and its charts begin with those of the controls.
_SHOWN = {
    "orderByKey": "metrics.`test/macro_ap`",
    "orderByAsc": False,
    "searchFilter": "tags.step = 'train'",
    "selectedColumns": ["metrics.`test/macro_ap`", "metrics.`gain_over_controls_low`", "tags.`above_controls`"],
    "compareRunCharts": [],
    "compareRunSections": [{"uuid": "test", "name": "test", "display": True, "isReordered": False}],
    "isAccordionReordered": True,
}
_FIRST = "0"  # the id of the experiment that MLflow makes with a store, and that `mlflow run` writes to
_OF_A_USER = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")


def project_experiment(uri: str) -> str | None:
    """Return the id of the experiment for a new run; None where MLflow already knows where it goes.

    In a local store that holds nothing yet, MLflow's first experiment, Default, is renamed: that of `mlflow run`, which
    has opened its run by now, is the same as that of the command line.
    """
    opened = os.environ.get("MLFLOW_RUN_ID")
    if not opened and any(name in os.environ for name in _OF_A_USER):
        return None
    client = store_client()
    if opened and client.get_run(opened).info.experiment_id != _FIRST:
        return None
    if existing := client.get_experiment_by_name(NAME):
        return None if opened else str(existing.experiment_id)
    if file_of(uri):
        if _holds_only(client, opened):
            client.rename_experiment(_FIRST, NAME)
        return None
    return None if opened else _created(client)


def share_view(experiment_id: str) -> None:
    """Let MLflow's page of an experiment show what counts, at the address with ``viewStateShareKey=wastelens``."""
    store_client().set_experiment_tag(experiment_id, borrowed.mlflow_view_tag(VIEW), json.dumps(_SHOWN))


def _created(client: Any) -> str:
    """Create the experiment on a server; another process may be quicker."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(NAME))
    except MlflowException:
        if there := client.get_experiment_by_name(NAME):
            return str(there.experiment_id)
        raise


def _holds_only(client: Any, run_id: str | None) -> bool:
    """Return whether the first experiment has its first name, and no other run than this one."""
    first = client.get_experiment(_FIRST)
    runs = client.search_runs([_FIRST], max_results=2) if first.name == "Default" else [None]
    return all(run is not None and run.info.run_id == run_id for run in runs)
