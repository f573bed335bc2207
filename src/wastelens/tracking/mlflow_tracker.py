"""The Tracker on MLflow: opening, sharing, ending and finding runs."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wastelens.config.engine import is_on_this_machine
from wastelens.errors import EngineError, RunError, StoppedEarly, StoreUnreachable
from wastelens.system import borrowed
from wastelens.system.console import warn
from wastelens.system.text import reason_of
from wastelens.tracking import mlflow_store
from wastelens.tracking.local_store import file_of
from wastelens.tracking.metric_names import current_names
from wastelens.tracking.mlflow_run import MlflowRun
from wastelens.tracking.mlflow_store import create_store, outages, store_client, store_errors, store_shown
from wastelens.tracking.model_registry import MlflowRegistry
from wastelens.tracking.project_experiment import VIEW, project_experiment, share_view
from wastelens.tracking.tracker import Run, StoredRun, logged_text, note_at_end

_KIND = "?workflowType=machine_learning"  # else MLflow shows the menu of agents and prompts beside it
_BEST_FIRST = f"{_KIND}&viewStateShareKey={VIEW}"


def table_address(experiment_id: str) -> str:
    """Return the table of an experiment's runs below a server's address; MLflow itself opens on another page."""
    return f"/#/experiments/{experiment_id}/runs{_BEST_FIRST}"


class MlflowTracker:
    """Runs in MLflow's store; the first is the run that ``mlflow run`` opened for this process, if any.

    A run that an exception ends is FAILED; one that Ctrl-C, SIGTERM, :class:`StoppedEarly` or the absence of the server
    ends is KILLED.

    Args:
        outage_minutes: how long every request waits for a server that does not answer.
        parent: run below which all runs are opened, where it is not open in this process.
    """

    def __init__(self, outage_minutes: float = 0, parent: str = "") -> None:
        import mlflow

        self._depth = 0
        self._outage_minutes = outage_minutes
        self._parent = parent
        self._experiment = "0"  # of the last run
        self._store = mlflow.get_tracking_uri()
        self._set_up()

    def _set_up(self) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # It prints tracebacks of the errors that it raises.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        # Its thread warns at length of a server that does not answer, which the training says in one line.
        logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
        mlflow_store.wait_in_outages(self._outage_minutes)

    def below(self, run_id: str) -> MlflowTracker:
        """Return a tracker that opens its runs below this one, in this process or, once pickled, in another."""
        return MlflowTracker(self._outage_minutes, run_id)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        import mlflow

        self.__dict__.update(state)
        self._depth = 0
        os.environ.pop("MLFLOW_RUN_ID", None)  # of the process that started this one
        mlflow.set_tracking_uri(self._store)
        self._set_up()

    @contextlib.contextmanager
    def start(self, name: str, *, resume: str = "", tags: Mapping[str, object] | None = None) -> Iterator[Run]:
        """Open a run (nested if one is open already), or resume the run with the id ``resume``.

        System metrics, which MLflow shows above all others, are logged where MLflow's own setting asks for them.
        """
        import mlflow

        wrapper = _leave_wrapper_for(self.stored(resume).run.id) if resume else None
        options: dict[str, Any] = {"run_id": resume} if resume else {"run_name": _name_of_opened() or name}
        # Set with the run, so that an outage or a kill right now leaves no run without tags.
        options["tags"] = {**git_commit_tag(), **{key: logged_text(value) for key, value in (tags or {}).items()}}
        with store_errors():
            create_store(mlflow.get_tracking_uri())
            above = mlflow.active_run()
            below = self._depth > 0 or above is not None
            if not resume and self._parent:
                options["experiment_id"] = (above or store_client().get_run(self._parent)).info.experiment_id
                options |= {} if above else {"parent_run_id": self._parent}
            elif not resume and not below and (experiment := project_experiment(self._store)):
                options["experiment_id"] = experiment
            opened = mlflow.start_run(nested=below, **options)
        if not (below or resume):
            with contextlib.suppress(RunError), mlflow_store.without_waiting(), store_errors():
                share_view(opened.info.experiment_id)
        self._depth += 1
        self._experiment = opened.info.experiment_id
        run, status, waits, reachable = MlflowRun(opened.info.run_id), "FAILED", False, True
        run.tags |= options["tags"]
        try:
            yield run
            status, waits = "FINISHED", True
        except StoppedEarly:
            status, waits = "KILLED", True
            raise
        except StoreUnreachable:  # it may be back by now, and the run can be resumed
            status, reachable = "KILLED", False
            raise
        except KeyboardInterrupt:
            status = "KILLED"
            # mlflow run overwrites this status with FAILED for any unsuccessful process; the tag remains.
            with contextlib.suppress(StoreUnreachable), mlflow_store.without_waiting():
                run.set_tags({"interrupted": True})
            raise
        finally:
            self._depth -= 1
            # A run that fails for want of the server has waited for it already.
            with contextlib.nullcontext() if waits else mlflow_store.without_waiting():
                try:
                    if reachable:
                        _describe(run, status)
                finally:
                    _end(opened.info.run_id, status, wrapper)

    def check_reachable(self) -> None:
        """Check by a small request that the store answers; an unfinished file is made again, a missing one not yet.

        Raises:
            StoreUnreachable: it does not answer within seconds.
            RunError: it cannot be used.
        """
        import mlflow

        uri = mlflow.get_tracking_uri()
        if mlflow_store.is_server(uri):
            if not mlflow_store.answers():
                raise mlflow_store.unreachable()
        elif (file := file_of(uri)) and file.exists():
            with store_errors():
                store_client().search_experiments(max_results=1)

    def finish(self, run_id: str, status: str) -> None:
        """Set the final status of a run that no process writes any more."""
        with store_errors():
            store_client().set_terminated(run_id, status)

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
        with store_errors():
            self._experiment = store_client().get_run(run_id).info.experiment_id
        yield MlflowRun(run_id)

    def download_model(self, address: str, into: Path) -> Path:
        """Download a logged model to a new folder below ``into``; return the folder, which has a file ``MLmodel``.

        Raises:
            StoreUnreachable: the server does not answer.
            RunError: its files are not there.
        """
        import mlflow

        try:
            with outages():
                return Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(into)))
        except (OSError, mlflow.exceptions.MlflowException) as error:
            reason = reason_of(error)
        raise RunError(f"{address} has no files ({reason}). They were deleted: train the model again.")

    def check_shared(self, engine: str) -> None:
        """Check that the workers of an engine, given by its address, can reach the store.

        Raises:
            EngineError: it is a file of this machine, or an address that means another machine elsewhere.
        """
        is_file = self._store.startswith(("sqlite", "file")) or "://" not in self._store
        if is_file or (is_on_this_machine(self._store) and not is_on_this_machine(engine)):
            raise EngineError(
                f"Workers on other machines cannot reach MLflow's store {store_shown()}. Start `mlflow server`, and "
                "set MLFLOW_TRACKING_URI to its address, as others know it."
            )

    def registry_of(self, name: str) -> MlflowRegistry:
        """Return the versions of a registered model."""
        return MlflowRegistry(name)

    def address(self, run_id: str = "", artifact: str = "") -> str:
        """Return the address of the page of a run or of an artifact of it, or of the table of runs."""
        uri = store_shown()
        server = uri.rstrip("/") if mlflow_store.is_server(uri) else "http://127.0.0.1:5000"
        if not run_id:
            return f"{server}{table_address(self._experiment)}"
        shown = f"/artifacts/{artifact}" if artifact else ""
        return f"{server}/#/experiments/{self._experiment}/runs/{run_id}{shown}{_KIND}"

    def finished_hint(self, run_id: str = "", artifact: str = "") -> str:
        """Return that address, with the command that serves it."""
        page, uri = self.address(run_id, artifact), store_shown()
        return page if mlflow_store.is_server(uri) else f"{page} once this runs: mlflow ui --backend-store-uri {uri}"


def _describe(run: MlflowRun, status: str) -> None:
    """Write how a run ended on top of its page, unless it has a description."""
    with contextlib.suppress(RunError):
        run.set_tags(note_at_end(run.tags, status, run.resumed_by))


def _end(run_id: str, status: str, wrapper: str | None) -> None:
    """End MLflow's active run, and the wrapper run of ``mlflow run``, with this status.

    Raises:
        RunError: the store did not accept the end of a FINISHED run. For other runs this would hide why they end.
    """
    import mlflow

    try:
        with store_errors():
            mlflow.end_run(status)
            if wrapper:
                store_client().set_terminated(wrapper, status)
    except RunError as error:
        borrowed.stop_system_metrics(run_id)
        if status == "FINISHED":
            raise
        warn(f"{error} Run {run_id} has ended as {status}, but is still RUNNING there.")


def _stored(found: Any) -> StoredRun:
    """Convert MLflow's run to ours."""
    info, data = found.info, found.data
    metrics = current_names(data.metrics)
    return StoredRun(MlflowRun(info.run_id), info.run_name or "", info.status, data.tags, metrics, data.params)


def _having(tags: Mapping[str, str]) -> list[str]:
    """Return the conditions of a search; MLflow knows two kinds of quotes, and cannot escape them."""
    return [f"tags.`{key}` = " + (f'"{value}"' if "'" in value else f"'{value}'") for key, value in tags.items()]


def _search(conditions: list[str]) -> list[StoredRun]:
    """Search all experiments for runs that meet all conditions."""
    import mlflow

    with store_errors():
        create_store(mlflow.get_tracking_uri())
        wanted = " and ".join(conditions)
        found = mlflow.search_runs(filter_string=wanted, search_all_experiments=True, output_format="list")
    return [_stored(one) for one in found]


def _name_of_opened() -> str:
    """Return the name that the user gave the run of ``mlflow run --run-name``; "" where there is none."""
    opened = os.environ.get("MLFLOW_RUN_ID")
    if not opened:
        return ""
    with store_errors():
        name = store_client().get_run(opened).info.run_name or ""
    return "" if borrowed.mlflow_makes_up(name) else str(name)


def name_opened_run(run_id: str, name: str) -> None:
    """Give the run that ``mlflow run`` opened a name, if it has one that MLflow made up and the store answers."""
    with contextlib.suppress(RunError), mlflow_store.without_waiting(), store_errors():
        client = store_client()
        if borrowed.mlflow_makes_up(client.get_run(run_id).info.run_name or ""):
            client.update_run(run_id, name=name)


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
        # Within a hook of another repository, git's own variables name that one.
        env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()

    try:
        # Code installed into an environment inside another repository is not tracked by it.
        git("ls-files", "--error-unmatch", this_file.name)
        return {"git_commit": git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")}
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout
        return {}
