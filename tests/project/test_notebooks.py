"""Notebooks run from top to bottom on a store with an explained run, from wherever they are opened; they only use."""

from __future__ import annotations

import ast
import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.project.running import ROOT, environment

pytestmark = [
    pytest.mark.slow,
    # MLflow 3.17 on SQLAlchemy 2.1.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
READ_EXPLANATIONS = ROOT / "notebooks" / "03_read_explanations.ipynb"


def read(notebook: Path) -> Any:
    import nbformat

    return nbformat.read(notebook, as_version=nbformat.NO_CONVERT)


def execute(notebook: Path, place: Path, **env: str) -> list[Any]:
    """The outputs of all cells, executed in a folder up to the first error; the notebook's file stays as it is."""
    from nbclient import NotebookClient

    content = read(notebook)
    resources = {"metadata": {"path": str(place)}}
    client = NotebookClient(content, kernel_name="python3", timeout=300, resources=resources)
    client.execute(env=environment(MLFLOW_DISABLE_TELEMETRY="true", **env))
    outputs = [output for cell in content.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.output_type == "stream"] == []  # warnings above all
    assert not any(output.output_type == "error" for output in outputs)
    return outputs


def texts(outputs: list[Any], kind: str = "text/markdown") -> str:
    return "\n".join(output.data[kind] for output in outputs if kind in output.get("data", {}))


def test_there_are_notebooks() -> None:
    assert READ_EXPLANATIONS in NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stripped_and_define_nothing(notebook: Path) -> None:
    content = read(notebook)
    assert content.metadata.kernelspec.name == "python3"
    imported = set()
    for cell in content.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None), cell.source
            for node in ast.walk(ast.parse(cell.source)):
                assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda), (
                    cell.source
                )
                if isinstance(node, ast.ImportFrom):
                    imported.add((node.module or "").partition(".")[0])
    assert "wastelens" in imported


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(explained_store: Path, tmp_path: Path, notebook: Path) -> None:
    """From top to bottom, in the project's root."""
    shutil.copy(explained_store / "mlflow.db", tmp_path)  # the artifacts' places are absolute
    outputs = execute(notebook, tmp_path)
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_explanations_are_read_of_the_best_explained_run(explained_store: Path, tmp_path: Path) -> None:
    """In its own folder; not of a better run that has not been explained. What it shows is what ``explain`` logged."""
    import mlflow

    shutil.copy(explained_store / "mlflow.db", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs(["0"], "tags.explained_by LIKE '%'")
    better = client.create_run("0", tags={"step": "train"})
    client.log_metric(better.info.run_id, "val_macro_ap", 1.0)
    (tmp_path / "notebooks").mkdir()
    outputs = execute(READ_EXPLANATIONS, tmp_path / "notebooks")
    written = texts(outputs)
    assert f"run `{run.info.run_id}`" in written
    folder = Path(run.info.artifact_uri) / "explanations"
    assert str(folder / "index.html") in written
    scores = pd.read_csv(folder / "scores.csv")
    energies = scores[(scores["method"] == "gradcam") & (scores["localised"] == 1)]["energy"]
    for energy in (energies.min(), energies.max()):
        assert f"{energy:.2f} times the energy of chance" in written
    estimate, low, high = (run.data.metrics[f"explain_shap_energy{end}"] for end in ("", "_low", "_high"))
    assert f"<td>{estimate:.2f} [{low:.2f}, {high:.2f}]</td>" in texts(outputs, "text/html")


def test_without_outlines_no_energy_is_shown(explained_store: Path, tmp_path: Path) -> None:
    """Data in a folder a class have no outlines: the scores that need none are still shown."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{shutil.copy(explained_store / 'mlflow.db', tmp_path)}")
    (run,) = client.search_runs(["0"], "tags.explained_by LIKE '%'")
    experiment = client.create_experiment("classes", artifact_location=str(tmp_path / "artifacts"))
    other = client.create_run(experiment, tags={**run.data.tags, "explanations": "No outlines."})
    needs_outlines = ("energy", "above_chance", "pointing", "iou", "right_label_wrong_place")
    for name, value in {**run.data.metrics, "val_macro_ap": 1.0}.items():
        known = not any(f"_{score}" in name for score in needs_outlines)
        client.log_metric(other.info.run_id, name, value if known else math.nan)  # as a second explain leaves it
    scores = pd.read_csv(Path(run.info.artifact_uri) / "explanations" / "scores.csv")
    scores["localised"] = 0
    folder = Path(other.info.artifact_uri) / "explanations"
    folder.mkdir(parents=True)
    scores.to_csv(folder / "scores.csv", index=False)
    outputs = execute(READ_EXPLANATIONS, tmp_path)
    assert "No outlines of litter here: there is no energy to show." in texts(outputs)
    assert "<th>Insertion ↑</th>" in texts(outputs, "text/html")
    assert not any(text in texts(outputs, "text/html") for text in ("Energy on the litter", "control", "nan"))


def test_without_a_store_it_says_how_to_get_one(tmp_path: Path) -> None:
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match=r"There is no mlflow\.db here\. Run `make demo`"):
        execute(READ_EXPLANATIONS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_store_of_the_environment_goes_first(explained_store: Path, tmp_path: Path) -> None:
    """And where nothing has been explained, it says how."""
    import mlflow
    from nbclient.exceptions import CellExecutionError

    shutil.copy(explained_store / "mlflow.db", tmp_path / "other.db")
    shutil.copy(explained_store / "mlflow.db", tmp_path / "mlflow.db")
    store = f"sqlite:///{tmp_path / 'other.db'}"
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs(["0"], "tags.explained_by LIKE '%'")
    client.delete_run(run.info.run_id)
    with pytest.raises(CellExecutionError, match=r"No run has been explained yet\. Run `mlflow run \. -e explain"):
        execute(READ_EXPLANATIONS, tmp_path, MLFLOW_TRACKING_URI=store)
