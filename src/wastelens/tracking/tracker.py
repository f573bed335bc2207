"""The Tracker: the interface by which steps write their runs and query the store.

``mlflow_tracker`` implements it with MLflow, the tests' ``memory_tracking`` in memory.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PyfuncModel:
    """A model to be logged as an MLflow pyfunc, as code plus files.

    Attributes:
        code: the Python file that defines and sets the model (models-from-code).
        files: artifact name → file, passed to the model's ``load_context``.
        settings: defaults that a caller can override with ``model_config``.
        input_example: a frame that the model accepts.
        output_example: the model's answer to it.
        packages: folder of the Python package that ``code`` imports; it is stored with the model.
        requirements: pinned pip requirements.
        metadata: is stored with the model, in its file ``MLmodel``.
    """

    code: Path
    files: Mapping[str, Path]
    settings: Mapping[str, object]
    input_example: pd.DataFrame
    output_example: pd.DataFrame
    packages: Path
    requirements: list[str]
    metadata: Mapping[str, object] = field(default_factory=dict)


class Run(Protocol):
    """A run that is being written.

    Attributes:
        resumed_by: the command that goes on with it, for its description if it is interrupted.
    """

    id: str
    resumed_by: str

    def log_parameters(self, parameters: Mapping[str, object]) -> None: ...
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None, measured_ms: int | None = None
    ) -> None: ...
    def set_tags(self, tags: Mapping[str, object]) -> None: ...
    def log_figure(self, figure: Figure, path: str, caption: str = "") -> None: ...
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
    """A run in the store, with its name, status, tags, last metrics and parameters."""

    run: Run
    name: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model, and the run that made it ("": unknown)."""

    number: int
    run_id: str
    tags: Mapping[str, str]
    description: str = ""


class Registry(Protocol):
    """The versions of one registered model."""

    name: str

    def find(self, alias: str, version: str) -> ModelVersion: ...
    def versions(self) -> dict[int, ModelVersion]: ...
    def aliases(self) -> dict[str, int]: ...
    def register(self, run_id: str) -> int: ...
    def describe(self, number: int, tags: Mapping[str, object], description: str) -> None: ...
    def point(self, alias: str, number: int) -> None: ...
    def drop(self, alias: str) -> None: ...


class Tracker(Protocol):
    """Starts runs and finds them again."""

    def start(
        self, name: str, *, resume: str = "", tags: Mapping[str, object] | None = None
    ) -> contextlib.AbstractContextManager[Run]: ...
    def below(self, run_id: str) -> Tracker: ...
    def stored(self, run_id: str) -> StoredRun: ...
    def finished(self, tags: Mapping[str, str]) -> list[StoredRun]: ...
    def found(self, tags: Mapping[str, str]) -> list[StoredRun]: ...
    def finish(self, run_id: str, status: str) -> None: ...
    def added_to(self, run_id: str) -> contextlib.AbstractContextManager[Run]: ...
    def download_model(self, address: str, into: Path) -> Path: ...
    def check_shared(self, engine: str) -> None: ...
    def registry_of(self, name: str) -> Registry: ...
    def address(self, run_id: str = "", artifact: str = "") -> str: ...
    def finished_hint(self, run_id: str = "", artifact: str = "") -> str: ...


def start_or_continue(tracker: Tracker, name: str, tags: Mapping[str, str]) -> contextlib.AbstractContextManager[Run]:
    """Open the newest run with these tags again, or a new one with them."""
    before = tracker.found(tags)
    return tracker.start(name, resume=before[0].run.id if before else "", tags=tags)


NOTE = "mlflow.note.content"


def run_note(run_id: str, *paragraphs: str, command: str = "", pictures: Sequence[str] = ()) -> dict[str, str]:
    """Return the tag that MLflow shows as the description on top of a run's page, as Markdown.

    Args:
        run_id: of the run.
        paragraphs: the verdict first: MLflow shows four lines, and the rest after a click.
        command: to run next.
        pictures: paths of figures among the run's artifacts.
    """
    shown = [f"![{path}](get-artifact?path={quote(path)}&run_uuid={run_id})" for path in pictures]
    # Else MLflow takes the size or the dataset in a run's name, as in ``probe @96px``, for somebody on GitHub.
    said = [re.sub(r"(?<=\s)@(?=\w)", r"\\@", paragraph) for paragraph in paragraphs]
    following = [f"Next:\n\n```sh\n{command}\n```"] if command else []
    return {NOTE: "\n\n".join([*said, *following, *shown])}


def note_at_end(tags: Mapping[str, str], status: str, resumed_by: str = "") -> dict[str, str]:
    """Return the description of a run that has none when it ends; nothing for one that has.

    Args:
        tags: of the run.
        status: FINISHED, KILLED or FAILED.
        resumed_by: the command that goes on with a run that was stopped; "" for one that does not.
    """
    if NOTE in tags and status == "FINISHED":
        return {}
    said = {"FINISHED": tags.get("verdict", "It has finished."), "KILLED": "It was stopped before its end."}
    text = f"**{said.get(status, 'It has failed.')}** {tags.get('error', '')}".strip()
    return run_note("", text, command=resumed_by if status == "KILLED" else "")


def logged_text(value: object) -> str:
    """Return a value as MLflow shows it: booleans as true or false, floats to 6 digits, everything else as str."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def to_json(value: object) -> str:
    """Return readable JSON, for artifacts."""
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"
