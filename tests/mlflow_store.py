"""MLflow's default store for the tests of a file, without what other tests of this process have chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OF_A_RUN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_REGISTRY_URI")


@contextmanager
def mlflow_store(folder: Path) -> Iterator[Any]:
    """Let MLflow write to a new store in this folder, experiment "Default"; then restore all that it remembers."""
    import mlflow
    from mlflow.tracking import fluent

    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_A_RUN:
            patch.setenv(name, "")  # so that what is set later is taken back, too
            patch.delenv(name)
        patch.setattr(fluent, "_active_experiment_id", None)
        patch.chdir(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield mlflow
        mlflow.set_tracking_uri(before)
