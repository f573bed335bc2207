"""The Tracker: what steps say about their runs, and what they may ask of the store.

``mlflow_tracking`` has the one with MLflow behind it, ``memory_tracking`` the one of tests.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PyfuncModel:
    """A model to be logged as MLflow pyfunc, written as code plus files.

    Attributes:
        code: the Python file that defines and sets the model (models-from-code).
        files: artifact name → file, handed to the model's ``load_context``.
        columns: name → MLflow type of the columns it can be called with; a row may leave some out.
        settings: what whoever loads the model may overrule by ``model_config``.
        input_example: a frame the model can be called with.
        output_example: what it then answers: a frame, or an array.
        packages: folder of the Python package that ``code`` imports; it travels with the model.
        requirements: pip requirements with pins.
    """

    code: Path
    files: Mapping[str, Path]
    columns: Mapping[str, str]
    settings: Mapping[str, object]
    input_example: pd.DataFrame
    output_example: pd.DataFrame | npt.NDArray[np.float32]
    packages: Path
    requirements: list[str]


class Run(Protocol):
    """One run that is being written."""

    id: str

    def log_parameters(self, parameters: Mapping[str, object]) -> None: ...
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None: ...
    def set_tags(self, tags: Mapping[str, object]) -> None: ...
    def log_figure(self, figure: Figure, path: str) -> None: ...
    def log_table(self, table: pd.DataFrame, path: str) -> None: ...
    def log_text(self, text: str, path: str) -> None: ...
    def log_file(self, file: Path, folder: str = "") -> None: ...
    def replace_folder(self, folder: Path, path: str) -> None: ...
    def log_dataset(self, table: pd.DataFrame, *, source: Path, name: str, digest: str, context: str) -> None: ...
    def log_model(self, model: PyfuncModel, name: str) -> None: ...
    def metric_history(self, names: list[str]) -> list[dict[str, float]]: ...
    def download(self, path: str, into: Path) -> Path | None: ...
    def delete(self, path: str) -> None: ...


@dataclass(frozen=True)
class StoredRun:
    """A run that is in the store, with its name, status, tags, last metrics and parameters there."""

    run: Run
    name: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    parameters: Mapping[str, str] = field(default_factory=dict)


class Tracker(Protocol):
    """Starts runs, and finds them again; several processes meet in ``start_shared``, ``ledger`` and ``settle``."""

    def start(
        self, name: str, *, resume: str = "", system_metrics: bool = False, tags: Mapping[str, object] | None = None
    ) -> contextlib.AbstractContextManager[Run]: ...
    def start_shared(self, name: str, key: str) -> contextlib.AbstractContextManager[Run]: ...
    def ledger(self, key: str) -> Run: ...
    def settle(self, run_id: str, key: str, value: str) -> str: ...
    def stored(self, run_id: str) -> StoredRun: ...
    def finished(self, tags: Mapping[str, str]) -> list[StoredRun]: ...
    def found(self, tags: Mapping[str, str]) -> list[StoredRun]: ...
    def finish(self, run_id: str, status: str) -> None: ...
    def added_to(self, run_id: str) -> contextlib.AbstractContextManager[Run]: ...
    def giving_up_soon(self) -> contextlib.AbstractContextManager[None]: ...
    def finished_hint(self) -> str: ...


def as_text(value: object) -> str:
    """Booleans as true/false, floats without noise, everything else as str."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def to_json(value: object) -> str:
    """Readable JSON, for artifacts."""
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"
