"""A Tracker that outlives an absent server: what cannot be logged waits on disk, and is logged when it is back."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from wastelens.errors import EndsLater, StoreUnreachable
from wastelens.system import interrupts
from wastelens.system.console import say, warn
from wastelens.tracking.journal import LOCK, Journal, Operation, Store
from wastelens.tracking.tracker import PyfuncModel, Run, StoredRun, Tracker, logged_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RETRY_S = 15.0
POLL_S = 2.0
SECONDS_BETWEEN_MESSAGES = 60.0
FIGURE_DPI = 110  # as MlflowRun draws them


class PatientRun:
    """One open run, whose writes wait in a journal while its store does not answer."""

    def __init__(self, run: Run, tracker: PatientTracker, journal: Journal, history: list[dict[str, float]]) -> None:
        self.id = run.id
        self.run = run
        self.journal = journal
        self._tracker = tracker
        self._history: dict[int, dict[str, float]] = {}
        for row in history:
            self._remember({name: value for name, value in row.items() if name != "epoch"}, int(row["epoch"]))

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        self._write("log_parameters", {"parameters": _texts(parameters)})

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics, with the time of this call, whenever the store gets them."""
        values = {name: float(value) for name, value in metrics.items()}
        if step is not None:
            self._remember(values, int(step))
        self._write(
            "log_metrics", {"metrics": values, "step": step if step is None else int(step), "measured_ms": _now_ms()}
        )

    def set_tags(self, tags: Mapping[str, object]) -> None:
        self._write("set_tags", {"tags": _texts(tags)})

    def log_figure(self, figure: Figure, path: str) -> None:
        with _beside(path) as file:
            figure.savefig(file, dpi=FIGURE_DPI)
            self.log_file(file, _folder_of(path))

    def log_table(self, table: pd.DataFrame, path: str) -> None:
        self.log_text(table.to_csv(index=False), path)

    def log_text(self, text: str, path: str) -> None:
        with _beside(path) as file:
            file.write_text(text, encoding="utf-8")
            self.log_file(file, _folder_of(path))

    def log_file(self, file: Path, folder: str = "") -> None:
        self._write("log_file", {"folder": folder}, {"file": file})

    def replace_folder(self, folder: Path, path: str) -> None:
        self._write("replace_folder", {"path": path}, {"folder": folder})

    def log_dataset(self, table: pd.DataFrame, *, source: Path, name: str, digest: str, context: str) -> None:
        values = {"name": name, "digest": digest, "context": context}
        self._write("log_dataset", values, objects={"table": table, "source": source})

    def log_model(self, model: PyfuncModel, name: str) -> None:
        self._write("log_model", {"name": name}, objects={"model": model})

    def delete(self, path: str) -> None:
        self._write("delete", {"path": path})

    def finish(self, status: str) -> None:
        """Tell the run's end, after all that waits."""
        self._write("finish", {"status": status, "ended_ms": _now_ms()})

    def metric_history(self, names: list[str]) -> list[dict[str, float]]:
        """One dict a step, with those of the metrics that were logged at it, or wait; in order of steps."""
        self._tracker.try_again(self)
        if self._tracker.asks(self):
            try:
                return self.run.metric_history(names)
            except StoreUnreachable as error:
                self._tracker.note(error)
        rows = {step: {name: row[name] for name in names if name in row} for step, row in self._history.items()}
        return [{"epoch": step, **rows[step]} for step in sorted(rows) if rows[step]]

    def download(self, path: str, into: Path) -> Path | None:
        """Return an artifact file as a local path, also one that waits, or None where the run has none at this path.

        Raises:
            StoreUnreachable: it does not wait, and the store does not answer.
        """
        self._tracker.try_again(self)
        if not self._tracker.asks(self):
            with contextlib.suppress(KeyError), self._tracker.lock:
                waiting = self.journal.find(path)
                return waiting and Path(shutil.copyfile(waiting, into / waiting.name))
        return self.run.download(path, into)

    def _write(
        self,
        method: str,
        values: Mapping[str, Any],
        files: Mapping[str, Path] | None = None,
        objects: Mapping[str, Any] | None = None,
    ) -> None:
        """Log at once where the store answers and nothing waits; otherwise let it wait, and try all that waits."""
        operation = Operation(method, values, files or {}, objects or {})
        if self._tracker.asks(self):
            try:
                operation.do(self.run, self._tracker.store)
            except StoreUnreachable as error:
                self._tracker.note(error)
            else:
                return
        with self._tracker.lock:
            self.journal.add(operation)
        self._tracker.try_again(self)

    def _remember(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._history.setdefault(step, {}).setdefault(name, value)


class PatientTracker:
    """Another Tracker, with runs that go on while its store does not answer; several threads may write them.

    What is asked of the store in an outage raises StoreUnreachable until all that waits is logged, so that nobody
    reads less than was written.

    Args:
        tracker: the one that logs: MlflowTracker, or MemoryTracker.
        folder: where results wait; several processes may share it.
    """

    def __init__(self, tracker: Tracker, folder: Path) -> None:
        self.store = cast("Store", tracker)
        self.lock = threading.RLock()  # of all journals; nobody holds it while asking whether the store answers
        self._folder = folder
        self._open: list[PatientRun] = []
        self._away = False
        self._tried_at = 0.0
        self._logged = 0
        self._told: set[Path] = set()

    @contextlib.contextmanager
    def start(
        self, name: str, *, resume: str = "", system_metrics: bool = False, tags: Mapping[str, object] | None = None
    ) -> Iterator[Run]:
        """As the tracker behind does; what still waits of a run that is resumed is logged before.

        Raises:
            StoreUnreachable: a run can only be opened while the store answers; see `wait_until_reachable`.
        """
        history: list[dict[str, float]] = []
        if resume:
            with self.lock:
                self._log_left(resume)
            found = self.store.stored(resume)
            # What was logged before is needed in an outage, and cannot be read then.
            names = [name for name in found.metrics if not name.startswith("system/")]
            history = found.run.metric_history(names)
        with self._patient(
            self.store.start(name, resume=resume, system_metrics=system_metrics, tags=tags), history
        ) as run:
            yield run

    @contextlib.contextmanager
    def start_shared(self, name: str, key: str) -> Iterator[Run]:
        with self._patient(self.store.start_shared(name, key), []) as run:
            yield run

    def ledger(self, key: str) -> Run:
        return self._in_touch().ledger(key)

    def settle(self, run_id: str, key: str, value: str) -> str:
        return self._in_touch().settle(run_id, key, value)

    def stored(self, run_id: str) -> StoredRun:
        return self._in_touch().stored(run_id)

    def finished(self, tags: Mapping[str, str]) -> list[StoredRun]:
        return self._in_touch().finished(tags)

    def found(self, tags: Mapping[str, str]) -> list[StoredRun]:
        return self._in_touch().found(tags)

    def finish(self, run_id: str, status: str) -> None:
        self._in_touch().finish(run_id, status)

    def added_to(self, run_id: str) -> contextlib.AbstractContextManager[Run]:
        return self._in_touch().added_to(run_id)

    def giving_up_soon(self) -> contextlib.AbstractContextManager[None]:
        return self.store.giving_up_soon()

    def finished_hint(self) -> str:
        return self.store.finished_hint()

    def log_waiting(self) -> int:
        """Log what waits of runs that have ended or were killed, as far as the store answers and takes it.

        Returns:
            How many runs were logged to the end of what waited.
        """
        logged = 0
        with contextlib.suppress(StoreUnreachable), self.lock:
            for journal in self._left():
                logged += self._log_one(journal)
        return logged

    def wait_until_reachable(self) -> None:
        """Return as soon as the store answers and has what waited; says now and then that it does not. Ctrl-C works."""
        began = told_at = time.monotonic()
        told = False
        while (error := self._absent()) is not None:
            if not told:
                told = self._away = True
                warn(f"{error.fact} Waiting for it. Start it again, or press Ctrl-C: what is done so far is kept.")
            elif time.monotonic() - told_at >= SECONDS_BETWEEN_MESSAGES:
                told_at = time.monotonic()
                say(f"{error.fact} Waited {(told_at - began) / 60:.0f} minutes so far.")
            interrupts.check()
            time.sleep(POLL_S)

    def asks(self, run: PatientRun) -> bool:
        """Whether a run may turn to its store: nothing of it waits, and no outage is known."""
        return not self._away and not len(run.journal)

    def try_again(self, run: PatientRun) -> None:
        """Log what waits, where the last attempt is a while ago and the store answers again.

        Raises:
            Exception: the store refuses what waits of this run.
        """
        if not self.asks(run) and time.monotonic() - self._tried_at >= RETRY_S:
            self._retry(run)

    def note(self, error: StoreUnreachable) -> None:
        """Note that the store does not answer, and say so once."""
        self._tried_at = time.monotonic()
        with self.lock:
            told, self._away = self._away, True
        if not told:
            warn(f"{error.fact} Results wait in {self._folder} and are logged when it is back; training goes on.")

    @contextlib.contextmanager
    def _patient(
        self, opened: contextlib.AbstractContextManager[Run], history: list[dict[str, float]]
    ) -> Iterator[PatientRun]:
        """Yield a run of the tracker behind: opened and left there, its end told here, after all that waits."""
        inner = opened.__enter__()
        run = PatientRun(inner, self, Journal(self._folder, inner.id), history)
        with self.lock:
            self._open.append(run)
        status = "FAILED"
        try:
            if self._away:  # it has just answered
                self._log_open(run)
            yield run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            try:
                opened.__exit__(EndsLater, EndsLater(), None)
            finally:
                self._end(run, status)

    def _end(self, run: PatientRun, status: str) -> None:
        """Tell a run's status, or let it wait; an error of its own must not hide the one the run has failed by."""
        try:
            if status == "KILLED":
                run.set_tags({"interrupted": True})
            run.finish(status)
            if len(run.journal):
                self._retry(run)
        except Exception as error:
            if status == "FINISHED":
                raise
            warn(f"Run {run.id} has ended as {status}, which cannot be logged: {error}")
        finally:
            if len(run.journal):
                warn(f"The end of run {run.id} is not logged yet: it waits in {self._folder}.")
            with self.lock:
                self._open.remove(run)
                run.journal.close()

    def _in_touch(self) -> Store:
        """Return the store, with all that waited logged.

        Raises:
            StoreUnreachable: it has been away and still is.
        """
        error = self._absent() if self._away else None
        if error:
            raise error
        return self.store

    def _unreachable(self) -> StoreUnreachable | None:
        self._tried_at = time.monotonic()
        try:
            self.store.check_reachable()
        except StoreUnreachable as error:
            return error
        return None

    def _absent(self) -> StoreUnreachable | None:
        """Why the store has to be waited for; where it answers, what has waited is logged."""
        error = self._unreachable()
        return self._log_open(None) if error is None and self._away else error

    def _retry(self, run: PatientRun) -> None:
        if self._unreachable() is None:
            self._log_open(run)

    def _log_open(self, asking: PatientRun | None) -> StoreUnreachable | None:
        """Log what waits of the open runs, then of those that have ended, and say that the server is back.

        Returns:
            None, or why it was not all logged: the store is away again.

        Raises:
            Exception: the store refuses what waits of the run that asks; other runs are told when they ask.
        """
        with self.lock:
            try:
                for run in self._open:
                    self._log_run(run, heard=run is asking)
                self._log_left()
            except StoreUnreachable as error:
                self.note(error)
                return error
            if self._away or self._logged:  # no other thread has been faster
                say(f"The server is back: {_counted(self._logged)} logged." if self._logged else "The server is back.")
            self._away, self._logged = False, 0
        return None

    def _log_run(self, run: PatientRun, heard: bool) -> None:
        try:
            for _ in run.journal.log(run.run, self.store):
                self._logged += 1
        except StoreUnreachable:
            raise
        except Exception:
            if heard:
                raise

    def _left(self, run_id: str = "") -> Iterator[Journal]:
        """Yield the journals that no process writes any more, of a run or of all, the oldest first."""
        for lock in sorted(self._folder.glob(f"{run_id or '*'}-*/{LOCK}"), key=_modified_at):
            journal = Journal.left(lock.parent)
            if journal:
                yield journal

    def _log_left(self, run_id: str = "") -> None:
        """Log what waits of runs that have ended.

        Raises:
            StoreUnreachable: the store does not answer; what is left waits on.
        """
        for journal in self._left(run_id):
            self._log_one(journal)

    def _log_one(self, journal: Journal) -> bool:
        folder = cast("Path", journal.folder)
        try:
            stored = self.store.stored(journal.run_id)
            if stored.status == "FINISHED":  # by the last entry, whose answer was lost; or by another process since
                journal.drop_all()
                return True
            entries = sum(1 for _ in journal.log(stored.run, self.store))
        except StoreUnreachable:
            raise
        except Exception as error:
            if folder not in self._told:
                self._told.add(folder)
                warn(f"What waits of run {journal.run_id} cannot be logged: {error} It stays in {folder}.")
            return False
        finally:
            journal.close()
        say(f"Run {journal.run_id}: {_counted(entries)} logged.")
        return True


def _counted(entries: int) -> str:
    return "1 waiting entry was" if entries == 1 else f"{entries} waiting entries were"


def _modified_at(file: Path) -> float:
    """Seconds since 1970; 0 for a file that another process has just removed."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _now_ms() -> int:
    return int(time.time() * 1000)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: logged_text(value) for key, value in values.items()}


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


@contextlib.contextmanager
def _beside(path: str) -> Iterator[Path]:
    """Yield a file of an artifact's name, to be written and logged; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / Path(path).name
