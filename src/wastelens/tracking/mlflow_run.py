"""An MLflow run: logging into it and reading from it."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wastelens.system import borrowed
from wastelens.system.digests import file_digest
from wastelens.system.tables import csv_text, for_spreadsheets
from wastelens.tracking.mlflow_store import answers, is_server, outages, store_client, store_errors, unreachable
from wastelens.tracking.tracker import PyfuncModel, logged_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class MlflowRun:
    """An MLflow run."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.tags: dict[str, str] = {}  # those set here
        self.resumed_by = ""
        self._has_model = False

    @store_errors()
    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Log parameters; a value that differs from the one that ``mlflow run`` logged goes into a tag instead."""
        import mlflow

        known = store_client().get_run(self.id).data.params
        wanted = {key: logged_text(value) for key, value in parameters.items()}
        mlflow.log_params({key: value for key, value in wanted.items() if key not in known}, run_id=self.id)
        used = {key: value for key, value in wanted.items() if key in known}
        # mlflow run logs values quoted for the shell.
        self.set_tags({f"used.{key}": v for key, v in used.items() if known[key] not in (v, shlex.quote(v))})

    @store_errors()
    def log_metrics(
        self, metrics: Mapping[str, float], step: int | None = None, measured_ms: int | None = None
    ) -> None:
        """Log metrics; measured_ms: time of measurement, in ms since 1970; None is now.

        Of several values at a step MLflow takes the newest for the run's. So "now" is later than all that the run has,
        even where the clock was put back.
        """
        import mlflow
        from mlflow.entities import Metric

        values = {key: float(value) for key, value in metrics.items()}
        now_ms = measured_ms or self._now_ms()
        if step is None or self._has_model:
            mlflow.log_metrics(values, step=step, timestamp=now_ms, run_id=self.id)
            return
        # Metrics of an epoch, at half the cost: mlflow.log_metrics reads the whole run to look for related models.
        measured = [Metric(key, value, now_ms, step) for key, value in values.items()]
        store_client().log_batch(self.id, metrics=measured)

    def _now_ms(self) -> int:
        """Return the time in ms since 1970, or the next one after those of the run's metrics if it is not later."""
        logged = store_client().get_run(self.id).to_proto().data.metrics
        return max(int(time.time() * 1000), 1 + max((one.timestamp for one in logged), default=0))

    @store_errors()
    def set_tags(self, tags: Mapping[str, object]) -> None:
        from mlflow.entities import RunTag

        if tags:
            wanted = {key: logged_text(value) for key, value in tags.items()}
            store_client().log_batch(self.id, tags=[RunTag(key, value) for key, value in wanted.items()])
            self.tags |= wanted

    @store_errors()
    def log_figure(self, figure: Figure, path: str, caption: str = "") -> None:
        """Log a figure; above it stand the caption, on what it shows, and the run."""
        text = ", ".join([caption, f"run {self.id[:8]}"]).removeprefix(", ")
        figure.text(0.01, 1, text, va="bottom", fontsize=8, color="#595959", parse_math=False)
        store_client().log_figure(self.id, figure, path, save_kwargs={"dpi": 110, "bbox_inches": "tight"})

    def log_table(self, table: pd.DataFrame, path: str) -> None:
        """Log a table as CSV for spreadsheets."""
        self.log_text(csv_text(for_spreadsheets(table)), path)

    @store_errors()
    def log_text(self, text: str, path: str) -> None:
        import mlflow

        mlflow.log_text(text, path, run_id=self.id)

    @store_errors()
    def log_file(self, file: Path, folder: str = "") -> None:
        import mlflow

        mlflow.log_artifact(str(file), folder or None, run_id=self.id)

    @store_errors()
    def replace_folder(self, folder: Path, path: str) -> None:
        """Upload a folder to an artifact path, then delete all other files there.

        If this is interrupted, the store has the old files, the new ones, or both.
        """
        store_client().log_artifacts(self.id, str(folder), path)
        self._delete_others(folder, path)

    def _delete_others(self, folder: Path, path: str) -> None:
        """Delete the artifacts below a path that the folder does not have."""
        for one in store_client().list_artifacts(self.id, path):
            twin = folder / Path(one.path).name
            if not twin.exists():
                self.delete(one.path)
            elif one.is_dir:
                self._delete_others(twin, one.path)

    @store_errors()
    def log_dataset(self, table: pd.DataFrame, *, source: Path, name: str, digest: str, context: str) -> None:
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.entities import Dataset, DatasetInput, InputTag

        with warnings.catch_warnings():
            # Hints about integer columns, and about two equal readers for the source.
            warnings.filterwarnings("ignore", category=UserWarning, module="mlflow")
            dataset = from_pandas(table, source=str(source), name=name, digest=f"{digest[:24]}-{context}")
            logged = DatasetInput(Dataset(**dataset.to_dict()), [InputTag("mlflow.data.context", context)])
            store_client().log_inputs(self.id, datasets=[logged])

    @store_errors()
    def log_model(self, model: PyfuncModel, name: str) -> None:
        """Log a model; if the run has it already, leave it or, if it is incomplete, complete it."""
        import mlflow

        # Else MLflow stores the uv.lock of the working directory with the model, and builds the environment from that.
        os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")
        self._has_model = True
        logged = self._find_or_create(model, name)
        if logged.status == mlflow.entities.LoggedModelStatus.READY:
            return
        contents = contents_of(model)
        outputs = store_client().get_run(self.id).outputs
        if outputs and logged.model_id in [one.model_id for one in outputs.model_outputs]:
            self._complete(logged, contents)
            return
        # Not pyfunc.log_model: that logs into the active run, and there is none when delayed writes are replayed.
        mlflow.models.Model.log(
            artifact_path=None, flavor=mlflow.pyfunc, name=name, model_id=logged.model_id, run_id=self.id, **contents
        )

    def _complete(self, logged: Any, contents: Mapping[str, Any]) -> None:
        """Log the rest of a model that is among the run's outputs already, where MLflow accepts it only once."""
        import mlflow

        client = store_client()
        about = mlflow.models.Model(
            artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=self.id, model_id=logged.model_id
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = str(Path(temporary) / "model")
            mlflow.pyfunc.save_model(folder, mlflow_model=about, **contents)
            client.log_model_artifacts(logged.model_id, folder)
        mlflow.log_params(contents["model_config"], run_id=self.id)
        client.finalize_logged_model(logged.model_id, mlflow.entities.LoggedModelStatus.READY)

    def _find_or_create(self, model: PyfuncModel, name: str) -> Any:
        """Return MLflow's entry for a model: this run's entry for the same files and settings, or a new one."""
        import mlflow

        client = store_client()
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

    @store_errors()
    def metric_history(self, names: list[str]) -> list[dict[str, float]]:
        """Return one dict for each step, in order, with those of the metrics that were logged at it.

        Of several values at a step, take the first: a later one at the last step is a final metric, not that epoch's.
        """
        client = store_client()
        rows: dict[int, dict[str, float]] = {}
        for name in names:
            for metric in sorted(client.get_metric_history(self.id, name), key=lambda one: one.timestamp):
                rows.setdefault(metric.step, {}).setdefault(name, metric.value)
        return [{"epoch": step, **rows[step]} for step in sorted(rows)]

    def download(self, path: str, into: Path) -> Path | None:
        """Download an artifact file and return its local path, or None if the run has no such artifact.

        Raises:
            StoreUnreachable: the server does not answer.
        """
        import mlflow

        for _ in range(2):  # the second attempt is for a server that was briefly unreachable
            try:
                return Path(mlflow.artifacts.download_artifacts(run_id=self.id, artifact_path=path, dst_path=str(into)))
            except (OSError, mlflow.exceptions.MlflowException) as error:
                if not is_server(mlflow.get_tracking_uri()):
                    return None
                if not answers():
                    raise unreachable() from error
        return None

    @store_errors()
    def delete(self, path: str) -> None:
        """Delete an artifact file or folder, if the store allows it."""
        import mlflow

        artifacts = store_client().get_run(self.id).info.artifact_uri
        with contextlib.suppress(OSError, NotImplementedError, mlflow.exceptions.MlflowException), outages():
            borrowed.delete_artifact(artifacts, path)


def contents_of(model: PyfuncModel) -> dict[str, Any]:
    """Return a model as the arguments with which MLflow saves or logs it."""
    import mlflow

    python = ".".join(str(part) for part in sys.version_info[:3])
    return {
        "python_model": str(model.code),
        "artifacts": {key: str(file) for key, file in model.files.items()},
        "code_paths": [str(model.packages)],
        "signature": mlflow.models.infer_signature(model_output=model.output_example),
        "input_example": model.input_example,
        # Letting MLflow infer the environment takes seconds and causes a warning.
        "conda_env": {
            "name": "wastelens-model",
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": model.requirements}],
        },
        "model_config": dict(model.settings),
        "metadata": dict(model.metadata) or None,
    }


def _model_digest(model: PyfuncModel) -> str:
    """Return the digest of a model's code, files and settings, which tells the models of a run apart."""
    digest = blake2b(file_digest(model.code).encode(), digest_size=16)
    for key, file in sorted(model.files.items()):
        digest.update(f"{key} {file_digest(file)} ".encode())
    digest.update(repr(sorted(model.settings.items())).encode())
    return digest.hexdigest()
