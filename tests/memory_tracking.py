"""A Tracker for tests that keeps its runs in memory and their artifacts in temporary folders."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import yaml

from wastelens.errors import EngineError, RunError, StoppedEarly, StoreUnreachable
from wastelens.system.tables import for_spreadsheets, write_csv
from wastelens.tracking.tracker import ModelVersion, PyfuncModel, Run, StoredRun, logged_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")

# Every run's artifacts; removed when the tests end.
_ARTIFACTS = tempfile.TemporaryDirectory(prefix="wastelens-runs-")


class Connection:
    """The connection between runs and their store; a test can cut it, or replace it by one that fails at will."""

    def __init__(self) -> None:
        self.up = True

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Send one request.

        Raises:
            StoreUnreachable: the connection is cut.
        """
        if not self.up:
            raise StoreUnreachable("The store in memory does not answer.")
        yield


def _asks(
    method: Callable[Concatenate[MemoryRun, Parameters], Answer],
) -> Callable[Concatenate[MemoryRun, Parameters], Answer]:
    """Make a method of a run one request to its store."""

    @functools.wraps(method)
    def asked(run: MemoryRun, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Answer:
        with run.connection.request():
            return method(run, *arguments, **named)

    return asked


@dataclass
class MemoryRun:
    """A run kept in memory, for tests; if figures are not drawn, an empty file replaces each."""

    id: str
    name: str
    status: str = "RUNNING"
    parent: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    history: dict[int, dict[str, float]] = field(default_factory=dict)
    first_values: dict[int, dict[str, float]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    datasets: list[dict[str, str]] = field(default_factory=list)
    models: dict[str, PyfuncModel] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(dir=_ARTIFACTS.name)))
    measured_ms: list[int] = field(default_factory=list)
    connection: Connection = field(default_factory=Connection)
    draws: bool = True
    resumed_by: str = ""

    @_asks
    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        self.parameters.update({key: logged_text(value) for key, value in parameters.items()})

    @_asks
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None, measured_ms: int | None = None
    ) -> None:
        self.metrics.update(metrics)
        if step is not None:
            self.history.setdefault(step, {}).update(metrics)
            for name, value in metrics.items():
                self.first_values.setdefault(step, {}).setdefault(name, value)
        self.measured_ms.append(measured_ms or _now_ms())

    @_asks
    def set_tags(self, tags: Mapping[str, object]) -> None:
        self.tags.update({key: logged_text(value) for key, value in tags.items()})

    @_asks
    def log_figure(self, figure: Figure, path: str, caption: str = "") -> None:
        target = self._target(path)
        if self.draws:
            figure.savefig(target)
        else:
            target.touch()

    @_asks
    def log_table(self, table: pd.DataFrame, path: str) -> None:
        write_csv(for_spreadsheets(table), self._target(path))

    @_asks
    def log_text(self, text: str, path: str) -> None:
        self._target(path).write_text(text, encoding="utf-8")

    @_asks
    def log_file(self, file: Path, folder: str = "") -> None:
        self._target(f"{folder}/{file.name}".lstrip("/")).write_bytes(file.read_bytes())

    @_asks
    def replace_folder(self, folder: Path, path: str) -> None:
        self._remove(path)
        shutil.copytree(folder, self._target(path))

    @_asks
    def log_dataset(self, table: pd.DataFrame, *, source: Path, name: str, digest: str, context: str) -> None:
        dataset = {"name": name, "digest": digest, "context": context, "rows": str(len(table))}
        if dataset not in self.datasets:
            self.datasets.append(dataset)

    @_asks
    def log_model(self, model: PyfuncModel, name: str) -> None:
        for file in model.files.values():
            self._target(f"{name}/artifacts/{file.name}").write_bytes(file.read_bytes())
        about = {"run_id": self.id, "metadata": dict(model.metadata)}
        self._target(f"{name}/MLmodel").write_text(yaml.safe_dump(about), encoding="utf-8")
        self.models[name] = model

    @_asks
    def metric_history(self, names: list[str]) -> list[dict[str, float]]:
        return [
            {"epoch": step, **{name: row[name] for name in names if name in row}}
            for step, row in sorted(self.first_values.items())
            if row.keys() & set(names)
        ]

    @_asks
    def download(self, path: str, into: Path) -> Path | None:
        source = self.folder / path
        if not source.is_file():
            return None
        copy = into / source.name
        copy.write_bytes(source.read_bytes())
        return copy

    @_asks
    def delete(self, path: str) -> None:
        self._remove(path)

    def _remove(self, path: str) -> None:
        shutil.rmtree(self.folder / path, ignore_errors=True)

    def _target(self, path: str) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


@dataclass(frozen=True)
class MemoryRegistry:
    """The versions of a model that a test has put into a tracker."""

    name: str
    tracker: MemoryTracker

    def find(self, alias: str, version: str) -> ModelVersion:
        with self.tracker.connection.request():
            found = self.tracker.registry.get((self.name, alias or version))
        if found is None:
            raise RunError(f"There is no registered model '{self.name}' ({alias or version}).")
        return found


class MemoryTracker:
    """Keeps its runs in ``runs``, in the order they were started.

    Parameters:
        draws: whether to draw figures, which takes longer than everything else that a run of a few photos logs.
    """

    def __init__(self, *, draws: bool = False) -> None:
        self.draws = draws
        self.runs: list[MemoryRun] = []
        self._open: list[MemoryRun] = []
        self.connection = Connection()
        self.registry: dict[tuple[str, str], ModelVersion] = {}  # (name, alias or version) → model

    @contextlib.contextmanager
    def start(self, name: str, *, resume: str = "", tags: Mapping[str, object] | None = None) -> Iterator[Run]:
        run = self._resumed(resume) if resume else self._new(name)
        run.parent = self._open[-1].id if self._open else ""
        self._open.append(run)
        run.status = "RUNNING"
        run.tags.update({key: logged_text(value) for key, value in (tags or {}).items()})
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (StoppedEarly, StoreUnreachable, KeyboardInterrupt):
            status = "KILLED"
            raise
        finally:
            self._open.pop()
            run.status = status

    def _new(self, name: str) -> MemoryRun:
        with self.connection.request():
            run = MemoryRun(id=f"run-{len(self.runs)}", name=name, connection=self.connection, draws=self.draws)
            self.runs.append(run)
        return run

    @property
    def reachable(self) -> bool:
        """Whether the store answers; set it to False for an outage, in which every request fails."""
        return self.connection.up

    @reachable.setter
    def reachable(self, up: bool) -> None:
        self.connection.up = up

    def check_reachable(self) -> None:
        with self.connection.request():
            pass

    def _resumed(self, run_id: str) -> MemoryRun:
        with self.connection.request():
            return self._named(run_id)

    def _named(self, run_id: str) -> MemoryRun:
        found = [run for run in self.runs if run.id == run_id]
        if not found:
            raise RunError(f"There is no run '{run_id}'. Copy the run id from the MLflow UI.")
        return found[0]

    def below(self, run_id: str) -> MemoryTracker:
        return self

    def finish(self, run_id: str, status: str) -> None:
        with self.connection.request():
            self._named(run_id).status = status

    def stored(self, run_id: str) -> StoredRun:
        return _stored(self._resumed(run_id))

    def finished(self, tags: Mapping[str, str]) -> list[StoredRun]:
        wanted = tags.items()
        with self.connection.request():
            finished = [run for run in reversed(self.runs) if run.status == "FINISHED"]
        return [_stored(run) for run in finished if wanted <= run.tags.items()]

    def found(self, tags: Mapping[str, str]) -> list[StoredRun]:
        with self.connection.request():
            return [_stored(run) for run in reversed(self.runs) if tags.items() <= run.tags.items()]

    @contextlib.contextmanager
    def added_to(self, run_id: str) -> Iterator[Run]:
        yield self._resumed(run_id)

    def download_model(self, address: str, into: Path) -> Path:
        registered = {f"models:/{name}/{one.number}": one.run_id for (name, _), one in self.registry.items()}
        run_id = registered.get(address) or address.removeprefix("runs:/").removesuffix("/model")
        return Path(shutil.copytree(self._resumed(run_id).folder / "model", into / "model"))

    def check_shared(self, engine: str) -> None:
        raise EngineError("Workers on other machines cannot reach the store in memory.")

    def registry_of(self, name: str) -> MemoryRegistry:
        return MemoryRegistry(name, self)

    def address(self, run_id: str = "", artifact: str = "") -> str:
        return f"memory:{run_id}/{artifact}"

    def finished_hint(self, run_id: str = "", artifact: str = "") -> str:
        return f"{artifact} of run {run_id}" if artifact else "(runs are kept in memory)"


def _stored(run: MemoryRun) -> StoredRun:
    return StoredRun(run, run.name, run.status, dict(run.tags), dict(run.metrics), dict(run.parameters))


def _now_ms() -> int:
    return int(time.time() * 1000)
