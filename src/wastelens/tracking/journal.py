"""Journals of what waits to be logged: the writes of a run that its store could not take, on disk.

What waits of a run lies in a folder ``<run id>-<letters>`` with one numbered folder an operation: what is called in
``operation.json``, beside it copies of its files. Operations are logged in their order, and each once more where the
server has taken it but its answer was lost; that changes nothing:

- parameters: those that are there already are compared, not written;
- metrics: a value of the same step and millisecond is there once, so each keeps the time at which it was measured;
- tags, the status, files and folders: overwritten by the same;
- datasets: the same dataset is an input of a run once;
- models: one of the same files and settings is completed, or left where it is whole.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol, cast

from wastelens.system.console import warn
from wastelens.tracking.tracker import PyfuncModel, Run, Tracker

try:
    import fcntl
except ImportError:  # Windows, where one process at a time may use a journal's folder
    fcntl = None  # type: ignore[assignment]

DESCRIPTION, OBJECTS, LOCK = "operation.json", "objects.pickle", "lock"


class Store(Tracker, Protocol):
    """A Tracker that can be asked whether it answers, and takes the time at which a run has ended."""

    def check_reachable(self) -> None: ...
    def finish(self, run_id: str, status: str, ended_ms: int | None = None) -> None: ...


@dataclass(frozen=True)
class Operation:
    """One write: a method of Run, or ``finish`` of Tracker, with its arguments.

    Attributes:
        method: its name.
        values: arguments that JSON can hold.
        files: argument → file or folder, which is copied where the operation has to wait.
        objects: argument → what is pickled where the operation has to wait.
    """

    method: str
    values: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    objects: Mapping[str, Any] = field(default_factory=dict)

    def do(self, run: Run, store: Store) -> None:
        """Call the method.

        Raises:
            StoreUnreachable: the store does not answer; it may have got the operation or not.
        """
        arguments = {**self.values, **self.files, **self.objects}
        if self.method == "finish":
            store.finish(run.id, **arguments)
        else:
            getattr(run, self.method)(**arguments)

    def artifact(self) -> str | None:
        """Return the path of the artifact file or folder that this writes or deletes, if it does."""
        if self.method == "log_file":
            return f"{self.values['folder']}/{self.files['file'].name}".lstrip("/")
        return str(self.values["path"]) if self.method in ("replace_folder", "delete") else None

    def replaces(self, older: Operation) -> bool:
        """Whether nothing remains of an older operation after this one."""
        if self.method == older.method == "set_tags":
            return set(older.values["tags"]) <= set(self.values["tags"])
        ours, theirs = self.artifact(), older.artifact()
        if ours is None or theirs is None or older.method == "delete":
            return False
        if self.method == "log_file":
            return older.method == "log_file" and ours == theirs
        return _lies_in(theirs, ours)

    def save(self, folder: Path) -> None:
        """Write all that is needed to call the method later into an empty folder."""

        def copied(name: str, path: Path) -> Path:
            (folder / name).mkdir(parents=True)
            target = folder / name / path.name
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(path, target)
            return target.relative_to(folder)

        files = {name: copied(name, path).as_posix() for name, path in self.files.items()}
        if self.objects:
            objects = {name: _with_paths(value, copied) for name, value in self.objects.items()}
            (folder / OBJECTS).write_bytes(pickle.dumps(objects))
        description = {"method": self.method, "values": self.values, "files": files}
        (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")

    @classmethod
    def described(cls, folder: Path) -> Operation:
        """Return what was saved into this folder, without its objects.

        Raises:
            OSError: the description is missing.
            ValueError: it is not whole.
        """
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        files = {name: folder / path for name, path in found["files"].items()}
        return cls(found["method"], found["values"], files)

    @classmethod
    def load(cls, folder: Path) -> Operation:
        """Return what was saved into this folder, all of it; errors as of `described`."""
        pickled = folder / OBJECTS
        objects = pickle.loads(pickled.read_bytes()) if pickled.exists() else {}
        placed = {name: _with_paths(value, lambda _, path: folder / path) for name, value in objects.items()}
        return replace(cls.described(folder), objects=placed)


def _with_paths(value: Any, place: Callable[[str, Path], Path]) -> Any:
    """Return a model with each of its files somewhere else; any other object as it is."""
    if not isinstance(value, PyfuncModel):
        return value
    files = {key: place(f"file{number}", file) for number, (key, file) in enumerate(value.files.items())}
    return replace(
        value,
        code=place("code", value.code),
        packages=place("packages", value.packages),
        files=files,
        columns=dict(value.columns),
        settings=dict(value.settings),
    )


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


class Journal:
    """The operations of one run that wait, in their order; none waits and no folder is there until the first does.

    Each is written beside and renamed, so that a process that is killed leaves whole ones only. As long as the
    process lives that writes into a journal, its lock keeps others from logging it.
    """

    def __init__(self, root: Path, run_id: str) -> None:
        self.run_id = run_id
        self.folder: Path | None = None
        self._root = root
        self._lock: IO[bytes] | None = None
        self._waiting: dict[int, Operation] = {}  # without their objects
        self._next = 0

    @classmethod
    def left(cls, folder: Path) -> Journal | None:
        """Return the journal in this folder, or None where it is another one's, or gone."""
        journal = cls(folder.parent, folder.name.rpartition("-")[0])
        if not journal._took(folder):
            return None
        for path in sorted(path for path in folder.iterdir() if path.name.isdigit()):
            try:
                journal._waiting[int(path.name)] = Operation.described(path)
            except (OSError, ValueError) as error:
                warn(f"{path} is not whole and is not logged: {error}")
        return journal

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, operation: Operation) -> None:
        """Let an operation wait, and drop those of which it leaves nothing: neither checkpoints nor the signs of life
        of a study may fill the disk."""
        folder = self.folder or self._opened()
        draft = folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        operation.save(draft)
        number, self._next = self._next, self._next + 1
        described = Operation.described(draft.rename(self._entry(number)))
        for other in [other for other, older in self._waiting.items() if operation.replaces(older)]:
            self._drop(other)
        self._waiting[number] = described

    def log(self, run: Run, store: Store) -> Iterator[None]:
        """Log what waits, in order; yields after each operation.

        Raises:
            StoreUnreachable: the store does not answer (any more); what is left waits on.
        """
        for number in list(self._waiting):
            Operation.load(self._entry(number)).do(run, store)
            self._drop(number)
            yield

    def drop_all(self) -> None:
        """Let go of what waits: it is logged already, or overtaken."""
        for number in list(self._waiting):
            self._drop(number)

    def find(self, path: str) -> Path | None:
        """Return the file that waits to become the artifact of this path.

        Returns:
            None where the path is deleted by what waits.

        Raises:
            KeyError: nothing that waits has to do with it.
        """
        for operation in reversed(self._waiting.values()):
            artifact = operation.artifact()
            if artifact is None or not _lies_in(path, artifact):
                continue
            if operation.method == "log_file":
                return operation.files["file"]
            if operation.method == "delete":
                return None
            file = operation.files["folder"] / path[len(artifact) :].lstrip("/")
            return file if file.is_file() else None
        raise KeyError(path)

    def close(self) -> None:
        """Leave what waits to whoever comes next; a journal in which nothing waits goes."""
        if self.folder and not self._waiting:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock:
            self._lock.close()
        self.folder = self._lock = None

    def _opened(self) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{self.run_id}-", dir=self._root))
        (folder / LOCK).touch()
        self._took(folder)
        return folder

    def _took(self, folder: Path) -> bool:
        """Whether the lock was free; the system frees it when a process ends, however that happens."""
        with contextlib.ExitStack() as on_failure:
            try:
                lock = on_failure.enter_context((folder / LOCK).open("rb"))
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            if not (folder / LOCK).exists():  # logged and removed since
                return False
            on_failure.pop_all()
        self.folder, self._lock = folder, lock
        return True

    def _entry(self, number: int) -> Path:
        return cast("Path", self.folder) / f"{number:08d}"

    def _drop(self, number: int) -> None:
        del self._waiting[number]
        entry = self._entry(number)
        # Renamed first: of what is removed piece by piece, a kill could leave half.
        shutil.rmtree(entry.rename(entry.with_name(f"gone{number}")))
