"""The Tracker with MLflow behind it: the only module, but for the served models, that imports mlflow."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wastelens.console import warn
from wastelens.data.digests import file_digest
from wastelens.errors import EndsLater, RunError, StoreUnreachable
from wastelens.tracking import PyfuncModel, Run, StoredRun, as_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ELECTED = "wastelens.run"
# What MLflow calls a run that its user gave no name.
MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+-[0-9]+")


class MlflowTracker:
    """Runs in MLflow's store, or in the run that ``mlflow run`` has opened for this process.

    A run that ends by an exception is FAILED, by Ctrl-C or SIGTERM KILLED.
    """

    def __init__(self) -> None:
        self._depth = 0

    @contextlib.contextmanager
    def start(self, name: str, *, resume: str = "", system_metrics: bool = False) -> Iterator[Run]:
        """Open a run (nested if one is open already), or go on with the run that ``resume`` names."""
        import mlflow

        os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "5")
        wrapper = _leave_wrapper_for(self.stored(resume).run.id) if resume else None
        by_mlflow = "MLFLOW_RUN_ID" in os.environ
        options: dict[str, Any] = {"run_id": resume} if resume else {"run_name": name}
        with _store_errors():
            # The tags come with the run: where the server goes away now, no run is left without them.
            opened = mlflow.start_run(
                nested=self._depth > 0, log_system_metrics=system_metrics, tags=git_commit_tag(), **options
            )
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

        if _is_server(mlflow.get_tracking_uri()) and not _answers():
            raise _unreachable()

    @contextlib.contextmanager
    def start_shared(self, name: str, key: str) -> Iterator[Run]:
        """Open the one run that this key has in the whole store, or go on with it where another process opened it."""
        shared = _shared_run(key)
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

    def settle(self, run_id: str, key: str, value: str) -> str:
        """Write a parameter of a run unless another process was faster; returns what it is now, ours or theirs.

        MLflow writes a parameter once: the store's primary key decides between two that try at the same time.
        """
        import mlflow

        client = mlflow.MlflowClient()
        with contextlib.suppress(mlflow.exceptions.MlflowException):
            client.log_param(run_id, key, value)
        with _store_errors():
            written = client.get_run(run_id).data.params
        if key not in written:
            raise RunError(f"MLflow's store {mlflow.get_tracking_uri()} does not take parameter '{key}'. Run it again.")
        return str(written[key])

    def finish(self, run_id: str, status: str, ended_ms: int | None = None) -> None:
        """Give a run that no process writes any more its status; ended_ms: since 1970, now if None."""
        import mlflow

        with _store_errors():
            mlflow.MlflowClient().set_terminated(run_id, status, ended_ms)

    def stored(self, run_id: str) -> StoredRun:
        """A run of the store, without opening it.

        Raises:
            RunError: there is none of this id, or it was deleted.
        """
        import mlflow

        try:
            with _store_errors():
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
            with _outages():
                mlflow.MlflowClient().set_tag(wrapper, "adds_to_run", run_id)
        yield MlflowRun(run_id)

    @contextlib.contextmanager
    def giving_up_soon(self) -> Iterator[None]:
        """Let MLflow give up a server that refuses connections at once, and one that hangs within a minute.

        For this process and those it starts; whoever has set one of the variables keeps it.
        """
        with _variables({key: value for key, value in _SOON.items() if key not in os.environ}):
            yield

    def finished_hint(self) -> str:
        """The command that opens the UI on the store in use, and the address to open."""
        import mlflow

        uri = mlflow.get_tracking_uri()
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
        with _outages(), _variables(silent):
            mlflow.end_run(status)
            if wrapper:
                mlflow.MlflowClient().set_terminated(wrapper, status)
    except StoreUnreachable as error:
        monitor = mlflow.tracking.fluent.run_id_to_system_metrics_monitor.pop(run_id, None)
        if monitor:
            monitor.finish()
        if status == "FINISHED":
            raise
        if status != "RUNNING":
            warn(f"{error.fact} Run {run_id} has ended as {status} and still reads RUNNING there.")


def _stored(found: Any) -> StoredRun:
    """MLflow's run as ours."""
    return StoredRun(
        MlflowRun(found.info.run_id),
        found.info.run_name or "",
        found.info.status,
        found.data.tags,
        found.data.metrics,
        found.data.params,
        (found.info.end_time or 0) / 1000,
    )


def _having(tags: Mapping[str, str]) -> list[str]:
    return [f"tags.`{key}` = '{value}'" for key, value in tags.items()]


def _search(conditions: list[str]) -> list[StoredRun]:
    """The runs of all experiments that meet all conditions."""
    import mlflow

    client = mlflow.MlflowClient()
    with _store_errors():
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
    with _store_errors():
        for number in count(1):
            name = f"wastelens {key} {number}"
            with contextlib.suppress(mlflow.exceptions.MlflowException):
                client.delete_experiment(client.create_experiment(name, tags={_ELECTED: candidate}))
                return candidate
            election = client.get_experiment_by_name(name)
            if election is None:
                raise RunError(f"MLflow's store {mlflow.get_tracking_uri()} lets no experiment be created. Mend that.")
            if _alive(election.tags[_ELECTED]):
                return str(election.tags[_ELECTED])
    raise AssertionError  # counting has no end


def _shared_run(key: str) -> str:
    """The run that was elected under this key and is still there, or ""."""
    import mlflow

    with _store_errors():
        for number in count(1):
            election = mlflow.MlflowClient().get_experiment_by_name(f"wastelens {key} {number}")
            if election is None:
                return ""
            if _alive(election.tags[_ELECTED]):
                return str(election.tags[_ELECTED])
    raise AssertionError  # counting has no end


def _alive(run_id: str) -> bool:
    """Whether a run is there, and not deleted."""
    import mlflow

    try:
        with _outages():
            return bool(mlflow.MlflowClient().get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.exceptions.MlflowException:
        return False


def _step_aside(run_id: str, shared: str, by_mlflow: bool) -> None:
    """What becomes of a run that was not elected: ``mlflow run`` keeps its own, with a tag; any other goes."""
    import mlflow

    with _store_errors():
        if by_mlflow:
            mlflow.MlflowClient().set_tag(run_id, "joins_run", shared)
        else:
            mlflow.MlflowClient().delete_run(run_id)


def _leave_wrapper_for(resume: str) -> str | None:
    """``mlflow run`` opened a run of its own: tag it as a mere wrapper, so that the resumed run can go on."""
    import mlflow

    wrapper = os.environ.pop("MLFLOW_RUN_ID", None)
    if wrapper:
        with _outages():
            mlflow.MlflowClient().set_tag(wrapper, "resumes_run", resume)
    return wrapper


_SOON = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # Large artifacts, too, have to be answered within it.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables, set for a while."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _outages() -> Iterator[None]:
    """MLflow's errors for want of a server as StoreUnreachable; all others as they are."""
    import mlflow
    import requests

    try:
        yield
    except (mlflow.exceptions.MlflowException, requests.RequestException, ConnectionError) as error:
        if _is_outage(error):
            raise _unreachable() from error
        raise


def _is_outage(error: BaseException) -> bool:
    """Whether the server could not be reached: the error says so, or the server now leaves a small question open."""
    import mlflow

    if not _is_server(mlflow.get_tracking_uri()) or isinstance(error, mlflow.exceptions.RestException):
        return False
    return _without_answer(error) or not _answers()


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _answers() -> bool:
    """Whether the server answers within seconds, if only with a refusal."""
    import mlflow
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        # Not by MlflowClient: how long that waits is in the environment, and other threads are in their requests.
        answer = http_request(
            get_default_host_creds(mlflow.get_tracking_uri()),
            "/api/2.0/mlflow/experiments/search",
            "POST",
            json={"max_results": 1},
            max_retries=0,
            timeout=5,
            raise_on_status=False,
        )
    except mlflow.exceptions.MlflowException:
        return False
    # What a proxy says of a server that is not there, and a server of a database that is not.
    return answer.status_code not in (500, 502, 503, 504)


def _without_answer(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised in handling of, is that of a connection."""
    import requests

    kinds = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, ConnectionError)
    while error is not None and not isinstance(error, StoreUnreachable):  # that one is of an earlier request
        if isinstance(error, kinds):
            return True
        error = error.__context__
    return False


def _unreachable() -> StoreUnreachable:
    import mlflow

    return StoreUnreachable(f"MLflow's server {mlflow.get_tracking_uri()}")


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """MLflow's and its database's errors as one line."""
    import mlflow
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _outages():
            yield
    except (mlflow.exceptions.MlflowException, SQLAlchemyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"MLflow's store {mlflow.get_tracking_uri()} cannot be used: {reason}") from error


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


class MlflowRun:
    """One open MLflow run."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id

    @_outages()
    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Log what can be logged; a value that differs from one ``mlflow run`` logged goes into a tag instead."""
        import mlflow

        client = mlflow.MlflowClient()
        known = client.get_run(self.id).data.params
        wanted = {key: as_text(value) for key, value in parameters.items()}
        fresh = {key: value for key, value in wanted.items() if key not in known}
        used = {key: value for key, value in wanted.items() if key in known}
        # mlflow run logs values as it quotes them for the shell.
        differing = {
            f"used.{key}": value for key, value in used.items() if known[key] not in (value, shlex.quote(value))
        }
        mlflow.log_params(fresh, run_id=self.id)
        self.set_tags(differing)

    @_outages()
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None, measured_ms: int | None = None
    ) -> None:
        """Log metrics; measured_ms: when they were measured, since 1970; now if None."""
        import mlflow

        values = {key: float(value) for key, value in metrics.items()}
        mlflow.log_metrics(values, step=step, timestamp=measured_ms, run_id=self.id)

    @_outages()
    def set_tags(self, tags: Mapping[str, object]) -> None:
        import mlflow
        from mlflow.entities import RunTag

        if tags:
            wanted = [RunTag(key, as_text(value)) for key, value in tags.items()]
            mlflow.MlflowClient().log_batch(self.id, tags=wanted)

    @_outages()
    def log_figure(self, figure: Figure, path: str) -> None:
        import mlflow

        mlflow.MlflowClient().log_figure(self.id, figure, path, save_kwargs={"dpi": 110})

    def log_table(self, table: pd.DataFrame, path: str) -> None:
        self.log_text(table.to_csv(index=False), path)

    @_outages()
    def log_text(self, text: str, path: str) -> None:
        import mlflow

        mlflow.log_text(text, path, run_id=self.id)

    @_outages()
    def log_file(self, file: Path, folder: str = "") -> None:
        import mlflow

        mlflow.log_artifact(str(file), folder or None, run_id=self.id)

    @_outages()
    def replace_folder(self, folder: Path, path: str) -> None:
        """All files of a folder, and of those below it, under this path; then what else lay there goes.

        Whenever this is interrupted, the store has the old files, the new ones, or both.
        """
        import mlflow

        mlflow.MlflowClient().log_artifacts(self.id, str(folder), path)
        self._delete_others(folder, path)

    def _delete_others(self, folder: Path, path: str) -> None:
        """Remove the artifact files and folders below a path that a folder has not."""
        import mlflow

        for one in mlflow.MlflowClient().list_artifacts(self.id, path):
            twin = folder / Path(one.path).name
            if not twin.exists():
                self.delete(one.path)
            elif one.is_dir:
                self._delete_others(twin, one.path)

    @_outages()
    def log_dataset(self, table: pd.DataFrame, *, source: Path, name: str, digest: str, context: str) -> None:
        import mlflow
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import DatasetInput, InputTag

        with warnings.catch_warnings():
            # Hints about integer columns and about which of two equal readers will be used for the source.
            warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")
            dataset = from_pandas(table, source=str(source), name=name, digest=f"{digest[:24]}-{context}")
            logged = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
            mlflow.MlflowClient().log_inputs(self.id, datasets=[logged])

    @_outages()
    def log_model(self, model: PyfuncModel, name: str) -> None:
        """Log a model; one that is there already, whole or half, is left or completed, not logged beside itself."""
        import mlflow

        logged = self._new_or_half(model, name)
        if logged.status == mlflow.entities.LoggedModelStatus.READY:
            return
        inferred = mlflow.models.infer_signature(model.input_example, model.output_example)
        columns = [mlflow.types.ColSpec(kind, name, required=False) for name, kind in model.columns.items()]
        signature = mlflow.models.ModelSignature(mlflow.types.Schema(columns), inferred.outputs)
        contents = {
            "python_model": str(model.code),
            "artifacts": {key: str(file) for key, file in model.files.items()},
            "code_paths": [str(model.packages)],
            "signature": signature,
            "input_example": model.input_example,
            "conda_env": _environment(model.requirements),
            "model_config": dict(model.settings),
        }
        outputs = mlflow.MlflowClient().get_run(self.id).outputs
        if outputs and logged.model_id in [one.model_id for one in outputs.model_outputs]:
            self._complete(logged, contents)
            return
        # Not pyfunc.log_model: that logs into the active run, and what has waited for the server is logged without.
        mlflow.models.Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            name=name,
            model_id=logged.model_id,
            run_id=self.id,
            **contents,
        )

    def _complete(self, logged: Any, contents: Mapping[str, Any]) -> None:
        """Log the rest of a model that the run has among its outputs: there, MLflow takes none a second time."""
        import mlflow

        client = mlflow.MlflowClient()
        about = mlflow.models.Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            run_id=self.id,
            model_id=logged.model_id,
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = str(Path(temporary) / "model")
            mlflow.pyfunc.save_model(folder, mlflow_model=about, **contents)
            client.log_model_artifacts(logged.model_id, folder)
        mlflow.log_params(contents["model_config"], run_id=self.id)
        client.finalize_logged_model(logged.model_id, mlflow.entities.LoggedModelStatus.READY)

    def _new_or_half(self, model: PyfuncModel, name: str) -> Any:
        """MLflow's entry for a model: the one this run has for the same files and settings, otherwise a new one."""
        import mlflow

        client = mlflow.MlflowClient()
        run = client.get_run(self.id)
        digest = _model_digest(model)
        for found in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{self.id}'"):
            if (found.name, found.tags.get("wastelens.digest")) == (name, digest):
                return found
        return mlflow.initialize_logged_model(
            name=name,
            source_run_id=self.id,
            tags={"wastelens.digest": digest},
            params=run.data.params,
            experiment_id=run.info.experiment_id,
        )

    @_outages()
    def metric_history(self, names: list[str]) -> list[dict[str, float]]:
        """One dict a step, with those of the metrics that were logged at it, in order of steps."""
        import mlflow

        client = mlflow.MlflowClient()
        rows: dict[int, dict[str, float]] = {}
        for name in names:
            for metric in client.get_metric_history(self.id, name):
                rows.setdefault(metric.step, {})[name] = metric.value
        return [{"epoch": step, **rows[step]} for step in sorted(rows)]

    def download(self, path: str, into: Path) -> Path | None:
        """An artifact file as a local path, or None where the run has none at this path.

        Raises:
            StoreUnreachable: the server does not answer, so that nobody knows.
        """
        import mlflow

        for _ in range(2):  # the second time for a server that was away the first time and answers now
            try:
                return Path(mlflow.artifacts.download_artifacts(run_id=self.id, artifact_path=path, dst_path=str(into)))
            except (OSError, mlflow.exceptions.MlflowException) as error:
                if not _is_server(mlflow.get_tracking_uri()):
                    return None
                if not _answers():
                    raise _unreachable() from error
        return None

    @_outages()
    def delete(self, path: str) -> None:
        """Remove an artifact file or folder, where the store lets it be removed."""
        import mlflow
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        artifacts = mlflow.MlflowClient().get_run(self.id).info.artifact_uri
        with contextlib.suppress(OSError, NotImplementedError, mlflow.exceptions.MlflowException), _outages():
            get_artifact_repository(artifacts).delete_artifacts(path)


def _model_digest(model: PyfuncModel) -> str:
    """What tells a model from another one of its run: its files, its code and its settings."""
    digest = blake2b(file_digest(model.code).encode(), digest_size=16)
    for key, file in sorted(model.files.items()):
        digest.update(f"{key} {file_digest(file)} ".encode())
    digest.update(repr(sorted(model.settings.items())).encode())
    return digest.hexdigest()


def _environment(requirements: list[str]) -> dict[str, Any]:
    """A conda environment with these pins, given whole: inferring one costs MLflow seconds and a warning."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "name": "wastelens-model",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
