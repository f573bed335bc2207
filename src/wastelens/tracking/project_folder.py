"""Where ``mlflow run PROJECT`` reads and writes: in the project's folder, wherever the command was typed."""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

from wastelens.system.console import say, warn
from wastelens.tracking.local_store import file_of
from wastelens.tracking.mlflow_store import store_shown


def say_where_things_lie(data_folder: Path, keys: Sequence[str]) -> None:
    """Say where relative paths start, if that is not where the command was typed, as far as the store's place shows.

    Warn where the project is a copy that MLflow has made for this run, from a git address, and the data would lie in
    it; ``keys`` are those of the setting that puts them elsewhere.
    """
    import mlflow

    project, data = Path.cwd(), data_folder.absolute()
    store = file_of(mlflow.get_tracking_uri())
    typed_in = store.absolute().parent if store else None
    if typed_in and typed_in.resolve() != project.resolve():
        say(f"Relative paths start in the project's folder, {project}. Data: {data}. Runs: {store_shown()}")
    copy = _temporary_copy(project)
    if copy and data.resolve().is_relative_to(copy):
        stays = json.dumps(str((typed_in or Path.home()) / "data"), ensure_ascii=False)  # it may contain spaces
        settings = " ".join(f"{key}={stays}" for key in keys)
        warn(
            f"The project is a temporary copy, {copy}, and so is its data folder: the next run does not see it. Give "
            f"one that stays: -P {shlex.quote(f'set={settings}')}"
        )


def _temporary_copy(project: Path) -> Path | None:
    """Return the folder into which MLflow has cloned a project; None for a folder of the user's."""
    temporary = Path(tempfile.gettempdir()).resolve()
    resolved = project.resolve()
    if not resolved.is_relative_to(temporary) or resolved == temporary:
        return None
    first = resolved.relative_to(temporary).parts[0]
    return temporary / first if first.startswith("tmp") else None
