"""The Tracker with MLflow behind it: how runs are opened, shared, ended and found again."""

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
from wastelens.system.console import warn
from wastelens.tracking.mlflow_run import MlflowRun
from wastelens.tracking.mlflow_store import (
    SOON,
    answers,
    is_server,
    outages,
    store_errors,
    store_shown,
    unreachable,
    variables,
)
from wastelens.tracking.tracker import Run, StoredRun, as_text

CLAIMS = "wastelens claims"
_ELECTED = "wastelens.run"
# What MLflow calls a run that its user gave no name.
MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+-[0-9]+")


class MlflowTracker:
    """Runs in MLflow's store, or in the run that ``mlflow run`` has opened for this process.

    A run that ends by an exception is FAILED, by Ctrl-C or SIGTERM KILLED.
    """

    def __init__(self) -> None:
        self._depth = 0
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it writes tracebacks of what it raises

    @contextlib.contextmanager
    def start(
        self, name: str, *, resume: str = "", system_metrics: bool = False, tags: Mapping[str, object] | None = None
    ) -> Iterator[Run]:
        """Open a run (nested if one is open already), or go on with the run that ``resume`` names."""
        import mlflow

        os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")
        wrapper = _leave_wrapper_for(self.stored(resume).run.id) if resume else None
        by_mlflow = "MLFLOW_RUN_ID" in os.environ
        options: dict[str, Any] = {"run_id": resume} if resume else {"run_name": name}
        # The tags come with the run: where the server or this process goes away now, no run is left without them.
        options["tags"] = {**git_commit_tag(), **{key: as_text(value) for key, value in (tags or {}).items()}}
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
            # mlflow run reports any unsuccessful process as FAILED, over the status set here; the tag remains.
            with contextlib.suppress(StoreUnreachable):
                run.set_tags({"interrupted": True})
            raise
        finally:
            self._depth -= 1
            _end(opened.info.run_id, status, wrapper)

    def check_reachable(self) -> None:
        """Ask the store for next to nothing.

        Raises:
            StoreUnreachable: it does not answer within seconds.
        """
        import mlflow

        if is_server(mlflow.get_tracking_uri()) and not answers():
            raise unreachable()

    @contextlib.contextmanager
    def start_shared(self, name: str, key: str) -> Iterator[Run]:
        """Open the one run that this key has in the whole store, or go on with it where another process opened it."""
        shared = _elected(key)
        if not shared:
            by_mlflow = "MLFLOW_RUN_ID" in os.environ
            with self.start(name) as own:
                shared = _elect(key, own.id)
                if shared == own.id:
                    yield own
                    return
            _step_aside(own.id, shared, by_mlflow)
        with self.start(name, resume=shared) as run:
            yield run

    def ledger(self, key: str) -> Run:
        """The one run of this key in which processes that share work write what concerns them alone.

        It lies in an experiment of its own: a parameter for each claim would fill everybody's runs table.
        """
        import mlflow

        found = _elected(key)
        if not found:
            with store_errors():
                candidate = _new_ledger(key)
                found = _elect(key, candidate)
                if found != candidate:
                    mlflow.MlflowClient().delete_run(candidate)
        return MlflowRun(found)

    def settle(self, run_id: str, key: str, value: str) -> str:
        """Write a parameter of a run unless another process was faster; returns what it is now, ours or theirs.

        MLflow writes a parameter once: the store's primary key decides between two that try at the same time.
        """
        import mlflow

        client = mlflow.MlflowClient()
        with contextlib.suppress(mlflow.exceptions.MlflowException):
            client.log_param(run_id, key, value)
        with store_errors():
            written = client.get_run(run_id).data.params
        if key not in written:
            raise RunError(f"MLflow's store {store_shown()} does not take parameter '{key}'. Run it again.")
        return str(written[key])

    def finish(self, run_id: str, status: str, ended_ms: int | None = None) -> None:
        """Give a run that no process writes any more its status; ended_ms: since 1970, now if None."""
        import mlflow

        with store_errors():
            mlflow.MlflowClient().set_terminated(run_id, status, ended_ms)

    def stored(self, run_id: str) -> StoredRun:
        """A run of the store, without opening it.

        Raises:
            RunError: there is none of this id, or it was deleted.
        """
        import mlflow

        try:
            with store_errors():
                found = mlflow.MlflowClient().get_run(run_id)
        except StoreUnreachable:
            raise
        except RunError as error:
            raise RunError(f"There is no run '{run_id}'. Copy the run id from the MLflow UI.") from error
        if found.info.lifecycle_stage == "deleted":
            raise RunError(f"Run {run_id} was deleted. Restore it with `mlflow runs restore --run-id {run_id}`.")
        return _stored(found)

    def finished(self, tags: Mapping[str, str]) -> list[StoredRun]:
        """The finished runs of the store that have all these tags, the newest first."""
        return _search([*_having(tags), "attributes.status = 'FINISHED'"])

    def found(self, tags: Mapping[str, str]) -> list[StoredRun]:
        """The runs of the store that have all these tags, whatever their status, the newest first."""
        return _search(_having(tags))

    @contextlib.contextmanager
    def added_to(self, run_id: str) -> Iterator[Run]:
        """A finished run, to add to: its status stays, also where what is added fails.

        The run that ``mlflow run`` has opened for this process is tagged ``adds_to_run``.
        """
        import mlflow

        wrapper = os.environ.get("MLFLOW_RUN_ID") if self._depth == 0 else None
        if wrapper:
            with outages():
                mlflow.MlflowClient().set_tag(wrapper, "adds_to_run", run_id)
        yield MlflowRun(run_id)

    @contextlib.contextmanager
    def giving_up_soon(self) -> Iterator[None]:
        """Let MLflow give up a server that refuses connections at once, and one that hangs within a minute.

        For this process and those it starts; whoever has set one of the variables keeps it.
        """
        with variables({key: value for key, value in SOON.items() if key not in os.environ}):
            yield

    def finished_hint(self) -> str:
        """The command that opens the UI on the store in use, and the address to open."""
        uri = store_shown()
        if uri.startswith(("http://", "https://")):
            return f"Open {uri}"
        return f"mlflow ui --backend-store-uri {uri}   then open http://127.0.0.1:5000"


def _end(run_id: str, status: str, wrapper: str | None) -> None:
    """End MLflow's active run, and the wrapper of ``mlflow run``, with this status.

    Raises:
        StoreUnreachable: it could not be told. Of a FINISHED run only: of others this would hide why they end.
    """
    import mlflow

    try:
        # MLflow tells the run's address at its end, and RUNNING is none.
        silent = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"} if status == "RUNNING" else {}
        with store_errors(), variables(silent):
            mlflow.end_run(status)
            if wrapper:
                mlflow.MlflowClient().set_terminated(wrapper, status)
    except RunError as error:
        monitor = mlflow.tracking.fluent.run_id_to_system_metrics_monitor.pop(run_id, None)
        if monitor:
            monitor.finish()
        if status == "FINISHED":
            raise
        if status != "RUNNING":
            fact = error.fact if isinstance(error, StoreUnreachable) else str(error)
            warn(f"{fact} Run {run_id} has ended as {status} and still reads RUNNING there.")


def _stored(found: Any) -> StoredRun:
    """MLflow's run as ours."""
    return StoredRun(
        MlflowRun(found.info.run_id),
        found.info.run_name or "",
        found.info.status,
        found.data.tags,
        found.data.metrics,
        found.data.params,
    )


def _having(tags: Mapping[str, str]) -> list[str]:
    return [f"tags.`{key}` = '{value}'" for key, value in tags.items()]


def _search(conditions: list[str]) -> list[StoredRun]:
    """The runs of all experiments that meet all conditions."""
    import mlflow

    client = mlflow.MlflowClient()
    with store_errors():
        experiments = [one.experiment_id for one in client.search_experiments()]
        page = client.search_runs(experiments, " and ".join(conditions))
        found = list(page)
        while page.token:
            page = client.search_runs(experiments, " and ".join(conditions), page_token=page.token)
            found += page
    return [_stored(one) for one in found]


def _elect(key: str, candidate: str) -> str:
    """The run that all processes share under this key: the candidate, or another that was there first.

    The names of experiments are the only thing in a store that two processes cannot both create, so the name of one
    elects the run. It is deleted at once: nobody needs to see it, and a deleted one keeps its name.
    """
    import mlflow

    client = mlflow.MlflowClient()
    with store_errors():
        for number in count(1):
            name = f"wastelens {key} {number}"
            with contextlib.suppress(mlflow.exceptions.MlflowException):
                client.delete_experiment(client.create_experiment(name, tags={_ELECTED: candidate}))
                return candidate
            election = client.get_experiment_by_name(name)
            if election is None:
                raise RunError(f"MLflow's store {store_shown()} lets no experiment be created. Mend that.")
            if _alive(election.tags[_ELECTED]):
                return str(election.tags[_ELECTED])
    raise AssertionError  # counting has no end


def _elected(key: str) -> str:
    """The run that was elected under this key and is still there, or ""."""
    import mlflow

    with store_errors():
        for number in count(1):
            election = mlflow.MlflowClient().get_experiment_by_name(f"wastelens {key} {number}")
            if election is None:
                return ""
            if _alive(election.tags[_ELECTED]):
                return str(election.tags[_ELECTED])
    raise AssertionError  # counting has no end


def _new_ledger(key: str) -> str:
    """A run to be elected as the ledger of this key."""
    import mlflow

    client = mlflow.MlflowClient()
    with contextlib.suppress(mlflow.exceptions.MlflowException):  # there is one already
        client.create_experiment(CLAIMS)
    experiment = client.get_experiment_by_name(CLAIMS)
    if experiment is None:
        raise RunError(f"MLflow's store {store_shown()} lets no experiment be created. Mend that.")
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    ledger = str(client.create_run(experiment.experiment_id, run_name=key).info.run_id)
    client.set_terminated(ledger)
    return ledger


def _alive(run_id: str) -> bool:
    """Whether a run is there, and not deleted."""
    import mlflow

    try:
        with outages():
            return bool(mlflow.MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.exceptions.MlflowException:
        return False


def _step_aside(run_id: str, shared: str, by_mlflow: bool) -> None:
    """What becomes of a run that was not elected: ``mlflow run`` keeps its own, with a tag; any other goes."""
    import mlflow

    with store_errors():
        if by_mlflow:
            mlflow.MlflowClient().set_tag(run_id, "joins_run", shared)
        else:
            mlflow.MlflowClient().delete_run(run_id)


def _leave_wrapper_for(resume: str) -> str | None:
    """``mlflow run`` opened a run of its own: tag it as a mere wrapper, so that the resumed run can go on."""
    import mlflow

    wrapper = os.environ.pop("MLFLOW_RUN_ID", None)
    if wrapper:
        with outages():
            mlflow.MlflowClient().set_tag(wrapper, "resumes_run", resume)
    return wrapper


def git_commit_tag() -> dict[str, str]:
    """The checkout's commit as a tag, ``-dirty`` where files differ from it; nothing where the code is no checkout."""
    this_file = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ["git", "-C", str(this_file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Installed into an environment that lies in somebody's own repository, the code is none of its files.
        git("ls-files", "--error-unmatch", this_file.name)
        return {"git_commit": git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")}
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return {}
