"""The Tracker on MLflow: opening, sharing, ending and finding runs."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from wastelens.errors import EndsLater, RunError, StoreUnreachable
from wastelens.system import borrowed
from wastelens.system.console import warn
from wastelens.tracking import mlflow_store
from wastelens.tracking.mlflow_run import MlflowRun
from wastelens.tracking.mlflow_store import outages, store_client, store_errors, store_shown, variables
from wastelens.tracking.tracker import Run, StoredRun, logged_text

CLAIMS = "wastelens claims"
_ELECTED = "wastelens.run"
# The names that MLflow makes up for runs without a name.
MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+-[0-9]+")


class MlflowTracker:
    """Runs in MLflow's store; the first is the run that ``mlflow run`` opened for this process, if any.

    A run that an exception ends is FAILED; one that Ctrl-C or SIGTERM ends is KILLED.
    """

    def __init__(self) -> None:
        self._depth = 0
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # It prints tracebacks of the errors that it raises.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

    @contextlib.contextmanager
    def start(
        self, name: str, *, resume: str = "", system_metrics: bool = False, tags: Mapping[str, object] | None = None
    ) -> Iterator[Run]:
        """Open a run (nested if one is open already), or resume the run with the id ``resume``."""
        import mlflow

        os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")
        wrapper = _leave_wrapper_for(self.stored(resume).run.id) if resume else None
        by_mlflow = "MLFLOW_RUN_ID" in os.environ
        options: dict[str, Any] = {"run_id": resume} if resume else {"run_name": name}
        # Set with the run, so that an outage or a kill right now leaves no run without tags.
        options["tags"] = {**git_commit_tag(), **{key: logged_text(value) for key, value in (tags or {}).items()}}
        with store_errors():
            opened = mlflow.start_run(nested=self._depth > 0, log_system_metrics=system_metrics, **options)
        self._depth += 1
        status = "FAILED"
        try:
            run = MlflowRun(opened.info.run_id)
            if by_mlflow and not resume and MADE_UP_NAME.fullmatch(opened.info.run_name or ""):
                run.set_tags({"mlflow.runName": name})
            yield run
            status = "FINISHED"
        except EndsLater:
            status = "RUNNING"
            raise
        except KeyboardInterrupt:
            status = "KILLED"
            # mlflow run overwrites this status with FAILED for any unsuccessful process; the tag remains.
            with contextlib.suppress(StoreUnreachable):
                run.set_tags({"interrupted": True})
            raise
        finally:
            self._depth -= 1
            _end(opened.info.run_id, status, wrapper)

    def check_reachable(self) -> None:
        """Check by a small request that the store answers.

        Raises:
            StoreUnreachable: it does not answer within seconds.
        """
        import mlflow

        if mlflow_store.is_server(mlflow.get_tracking_uri()) and not mlflow_store.answers():
            raise mlflow_store.unreachable()

    @contextlib.contextmanager
    def start_shared(self, name: str, key: str) -> Iterator[Run]:
        """Open the one run with this key in the whole store, or join it if another process opened it."""
        shared = _elected(key)
        if not shared:
            by_mlflow = "MLFLOW_RUN_ID" in os.environ
            with self.start(name) as own:
                shared = _elect(key, own.id)
                if shared == own.id:
                    yield own
                    return
            with store_errors():
                if by_mlflow:
                    store_client().set_tag(own.id, "joins_run", shared)
                else:
                    store_client().delete_run(own.id)
        with self.start(name, resume=shared) as run:
            yield run

    def ledger(self, key: str) -> Run:
        """Return the one run of this key in which processes that share work keep their bookkeeping.

        It is in a separate experiment, since a parameter for each claim would clutter the table of runs.
        """
        found = _elected(key)
        if not found:
            with store_errors():
                candidate = _new_ledger(key)
                found = _elect(key, candidate)
                if found != candidate:
                    store_client().delete_run(candidate)
        return MlflowRun(found)

    def settle(self, run_id: str, key: str, value: str) -> str:
        """Write a parameter of a run unless another process was faster; return its value, ours or theirs.

        MLflow writes a parameter only once: the store's primary key decides between two concurrent writers.
        """
        import mlflow

        client = store_client()
        with contextlib.suppress(mlflow.exceptions.MlflowException):
            client.log_param(run_id, key, value)
        with store_errors():
            written = client.get_run(run_id).data.params
        if key not in written:
            raise RunError(f"MLflow's store {store_shown()} does not accept the parameter '{key}'. Run it again.")
        return str(written[key])

    def finish(self, run_id: str, status: str, ended_ms: int | None = None) -> None:
        """Set the final status of a run that no process writes any more; ended_ms: ms since 1970, None is now."""
        with store_errors():
            store_client().set_terminated(run_id, status, ended_ms)

    def stored(self, run_id: str) -> StoredRun:
        """Return a run of the store without opening it.

        Raises:
            RunError: there is no run with this id, or it was deleted.
        """
        try:
            with store_errors():
                found = store_client().get_run(run_id)
        except StoreUnreachable:
            raise
        except RunError as error:
            raise RunError(f"There is no run '{run_id}'. Copy the run id from the MLflow UI.") from error
        if found.info.lifecycle_stage == "deleted":
            raise RunError(f"Run {run_id} was deleted. Restore it with `mlflow runs restore --run-id {run_id}`.")
        return _stored(found)

    def finished(self, tags: Mapping[str, str]) -> list[StoredRun]:
        """Return the finished runs with all these tags, newest first."""
        return _search([*_having(tags), "attributes.status = 'FINISHED'"])

    def found(self, tags: Mapping[str, str]) -> list[StoredRun]:
        """Return the runs with all these tags, whatever their status, newest first."""
        return _search(_having(tags))

    @contextlib.contextmanager
    def added_to(self, run_id: str) -> Iterator[Run]:
        """Open a finished run for additions; its status stays, even if the block fails.

        The run that ``mlflow run`` opened for this process is tagged ``adds_to_run``.
        """
        wrapper = os.environ.get("MLFLOW_RUN_ID") if self._depth == 0 else None
        if wrapper:
            with outages():
                store_client().set_tag(wrapper, "adds_to_run", run_id)
        yield MlflowRun(run_id)

    @contextlib.contextmanager
    def giving_up_soon(self) -> Iterator[None]:
        """Make MLflow give up at once on a server that refuses connections, and within a minute on one that hangs.

        This holds for this process and its children. Variables that the user has set stay.
        """
        with variables({key: value for key, value in mlflow_store.SOON.items() if key not in os.environ}):
            yield

    def finished_hint(self) -> str:
        """Return the command that opens the UI on the current store, and the address to open."""
        uri = store_shown()
        local = f"mlflow ui --backend-store-uri {uri}   then open http://127.0.0.1:5000"
        return f"Open {uri}" if mlflow_store.is_server(uri) else local


def _end(run_id: str, status: str, wrapper: str | None) -> None:
    """End MLflow's active run, and the wrapper run of ``mlflow run``, with this status.

    Raises:
        RunError: the store did not accept the end of a FINISHED run. For other runs this would hide why they end.
    """
    import mlflow

    try:
        # MLflow prints the run's address when a run ends, but this one stays open.
        silent = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"} if status == "RUNNING" else {}
        with store_errors(), variables(silent):
            mlflow.end_run(status)
            if wrapper:
                store_client().set_terminated(wrapper, status)
    except RunError as error:
        borrowed.stop_system_metrics(run_id)
        if status == "FINISHED":
            raise
        if status != "RUNNING":
            fact = error.fact if isinstance(error, StoreUnreachable) else str(error)
            warn(f"{fact} Run {run_id} has ended as {status}, but is still RUNNING there.")


def _stored(found: Any) -> StoredRun:
    """Convert MLflow's run to ours."""
    info, data = found.info, found.data
    return StoredRun(MlflowRun(info.run_id), info.run_name or "", info.status, data.tags, data.metrics, data.params)


def _having(tags: Mapping[str, str]) -> list[str]:
    return [f"tags.`{key}` = '{value}'" for key, value in tags.items()]


def _search(conditions: list[str]) -> list[StoredRun]:
    """Search all experiments for runs that meet all conditions."""
    import mlflow

    with store_errors():
        wanted = " and ".join(conditions)
        found = mlflow.search_runs(filter_string=wanted, search_all_experiments=True, output_format="list")
    return [_stored(one) for one in found]


def _elect(key: str, candidate: str) -> str:
    """Return the run that all processes share under this key: the candidate, or one that was there first.

    An experiment's name is the only thing in a store that two processes cannot both create, so creating one elects the
    run. The experiment is deleted at once: nobody needs to see it, and its name stays taken.
    """
    import mlflow

    client = store_client()
    with store_errors():
        for number in count(1):
            name = f"wastelens {key} {number}"
            with contextlib.suppress(mlflow.exceptions.MlflowException):
                client.delete_experiment(client.create_experiment(name, tags={_ELECTED: candidate}))
                return candidate
            election = client.get_experiment_by_name(name)
            if election is None:
                raise _no_experiment()
            if _alive(election.tags[_ELECTED]):
                return str(election.tags[_ELECTED])
    raise AssertionError  # unreachable: count() never ends


def _elected(key: str) -> str:
    """Return the run that was elected under this key and still exists, or ""."""
    with store_errors():
        for number in count(1):
            election = store_client().get_experiment_by_name(f"wastelens {key} {number}")
            if election is None:
                return ""
            if _alive(election.tags[_ELECTED]):
                return str(election.tags[_ELECTED])
    raise AssertionError  # unreachable: count() never ends


def _new_ledger(key: str) -> str:
    """Create a run that may be elected as the ledger of this key."""
    import mlflow

    client = store_client()
    with contextlib.suppress(mlflow.exceptions.MlflowException):  # it exists already
        client.create_experiment(CLAIMS)
    experiment = client.get_experiment_by_name(CLAIMS)
    if experiment is None:
        raise _no_experiment()
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    ledger = str(client.create_run(experiment.experiment_id, run_name=key).info.run_id)
    client.set_terminated(ledger)
    return ledger


def _no_experiment() -> RunError:
    return RunError(f"Cannot create an experiment in MLflow's store {store_shown()}. Check its permissions.")


def _alive(run_id: str) -> bool:
    """Return whether a run exists and is not deleted."""
    import mlflow

    try:
        with outages():
            return bool(store_client().get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.exceptions.MlflowException:
        return False


def _leave_wrapper_for(resume: str) -> str | None:
    """Tag the run that ``mlflow run`` opened as a mere wrapper, so that the resumed run can continue."""
    wrapper = os.environ.pop("MLFLOW_RUN_ID", None)
    if wrapper:
        with outages():
            store_client().set_tag(wrapper, "resumes_run", resume)
    return wrapper


def git_commit_tag() -> dict[str, str]:
    """Return the checkout's commit as a tag, with ``-dirty`` if files differ; empty if the code is not a checkout."""
    this_file = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ["git", "-C", str(this_file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Code installed into an environment inside another repository is not tracked by it.
        git("ls-files", "--error-unmatch", this_file.name)
        return {"git_commit": git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")}
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout
        return {}
