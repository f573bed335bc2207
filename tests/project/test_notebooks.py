"""Notebooks run from top to bottom on a filled store, from wherever they are opened; they only use."""

from __future__ import annotations

import ast
import html
import json
import math
import os
import re
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
EXPLORE_THE_DATA, COMPARE_RUNS, READ_EXPLANATIONS = (
    ROOT / "notebooks" / f"{name}.ipynb" for name in ("01_explore_the_data", "02_compare_runs", "03_read_explanations")
)


def read(notebook: Path) -> Any:
    import nbformat

    return nbformat.read(notebook, as_version=nbformat.NO_CONVERT)


def execute(notebook: Path, place: Path, **env: str) -> list[Any]:
    """The outputs of all cells, executed in a folder; the notebook's file stays as it is."""
    content = read(notebook)
    execute_cells(content, place, **env)
    outputs = outputs_of(content)
    assert [output.text for output in outputs if output.output_type == "stream"] == []  # warnings above all
    assert not any(output.output_type == "error" for output in outputs)
    return outputs


def execute_cells(content: Any, place: Path, **env: str) -> None:
    """Execute a notebook in a folder, up to the first error; the outputs go into its cells."""
    from nbclient import NotebookClient

    resources = {"metadata": {"path": str(place)}}
    client = NotebookClient(content, kernel_name="python3", timeout=300, resources=resources)
    client.execute(env=environment(MLFLOW_DISABLE_TELEMETRY="true", **env))


def outputs_of(content: Any) -> list[Any]:
    return [output for cell in content.cells for output in cell.get("outputs", [])]


def texts(outputs: list[Any], kind: str = "text/markdown") -> str:
    return "\n".join(output.data[kind] for output in outputs if kind in output.get("data", {}))


def figures(outputs: list[Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs)


def a_place(filled_store: Path, folder: Path) -> Path:
    """A folder like the project's root: a store of its own, whose artifacts are the shared one's, and its data."""
    shutil.copy(filled_store / "mlflow.db", folder)  # the artifacts' places are absolute
    (folder / "data").symlink_to(filled_store / "data")
    return folder


def client_of(place: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{place / 'mlflow.db'}")


def the_study(place: Path) -> Any:
    (study,) = client_of(place).search_runs(["0"], "tags.step = 'study'")
    return study


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS == [EXPLORE_THE_DATA, COMPARE_RUNS, READ_EXPLANATIONS]


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


def test_explanations_are_read_of_the_best_explained_run(filled_store: Path, tmp_path: Path) -> None:
    """In its own folder; not of a better run that has not been explained. What it shows is what ``explain`` logged."""
    import mlflow

    shutil.copy(filled_store / "mlflow.db", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs(["0"], "tags.explained_by LIKE '%'")
    better = client.create_run("0", tags={"step": "train"})
    client.log_metric(better.info.run_id, "val/macro_ap", 1.0)
    (tmp_path / "notebooks").mkdir()
    outputs = execute(READ_EXPLANATIONS, tmp_path / "notebooks")
    written = texts(outputs)
    assert f"run `{run.info.run_id}`" in written
    assert figures(outputs) == 1  # the energies by material
    folder = Path(run.info.artifact_uri) / "explanations"
    assert str(folder / "index.html") in written
    scores = pd.read_csv(folder / "scores.csv")
    energies = scores[(scores["method"] == "gradcam") & (scores["localised"] == 1)]["energy"]
    for energy in (energies.min(), energies.max()):
        assert f"{energy:.2f} times the energy of chance" in written
    framed = re.findall(r'<iframe srcdoc="([^"]*)"', texts(outputs, "text/html"))
    assert len(framed) == 6
    for card in map(html.unescape, framed):
        assert "data:image/jpeg;base64," in card
        assert card.count("<img ") == 2 * card.count("<article ") > 0
    for rank in (energies.idxmin(), energies.idxmax()):
        assert any(f'title="{scores.loc[rank, "file_name"]}"' in html.unescape(one) for one in framed)
    estimate, low, high = (run.data.metrics[f"explain/shap/energy{end}"] for end in ("", "_low", "_high"))
    assert f"<td>{estimate:.2f} [{low:.2f}, {high:.2f}]</td>" in texts(outputs, "text/html")


def test_without_outlines_no_energy_is_shown(filled_store: Path, tmp_path: Path) -> None:
    """Data in a folder a class have no outlines: the scores that need none are still shown."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{shutil.copy(filled_store / 'mlflow.db', tmp_path)}")
    (run,) = client.search_runs(["0"], "tags.explained_by LIKE '%'")
    experiment = client.create_experiment("classes", artifact_location=str(tmp_path / "artifacts"))
    other = client.create_run(experiment, tags={**run.data.tags, "explanations": "No outlines."})
    needs_outlines = ("energy", "above_chance", "pointing", "iou", "right_label_wrong_place")
    for name, value in {**run.data.metrics, "val/macro_ap": 1.0}.items():
        known = not any(f"_{score}" in name for score in needs_outlines)
        client.log_metric(other.info.run_id, name, value if known else math.nan)  # as a second explain leaves it
    scores = pd.read_csv(Path(run.info.artifact_uri) / "explanations" / "scores.csv")
    scores["localised"] = 0
    folder = Path(other.info.artifact_uri) / "explanations"
    folder.mkdir(parents=True)
    scores.to_csv(folder / "scores.csv", index=False)
    shutil.copy(Path(run.info.artifact_uri) / "explanations" / "settings.json", folder)
    outputs = execute(READ_EXPLANATIONS, tmp_path)
    assert "No outlines of litter here: there is no energy to show." in texts(outputs)
    assert "<th>Insertion ↑</th>" in texts(outputs, "text/html")
    assert not any(text in texts(outputs, "text/html") for text in ("Energy on the litter", "control", "nan"))


def test_the_newest_dataset_is_sighted(filled_store: Path, tmp_path: Path) -> None:
    """In its own folder; every material has its photos, every control its score."""
    from wastelens.data.prepared.dataset import load_prepared

    prepared = tmp_path / "data" / "prepared"
    for name in ("litter", "older", ".litter.replaced"):
        shutil.copytree(filled_store / "data" / "prepared" / "litter", prepared / name)
    os.utime(prepared / "older" / "manifest.json", (1, 1))
    dataset = load_prepared(prepared / "litter")
    (tmp_path / "notebooks").mkdir()
    outputs = execute(EXPLORE_THE_DATA, tmp_path / "notebooks")
    written = texts(outputs)
    assert f"**litter** in `../data/prepared/litter`, digest `{dataset.digest[:16]}`: 96 photos" in written
    assert "Other prepared datasets here: `../data/prepared/older`." in written
    assert "No outlines" not in written
    assert [material for material in dataset.materials if f"**{material.replace('_', ' ')}**" not in written] == []
    assert figures(outputs) == 5 + len(dataset.materials)
    for score in dataset.control_macro_ap().values():
        assert f">{score:.3f}</td>" in texts(outputs, "text/html")


@pytest.mark.parametrize("outlines", [True, False])
def test_photos_are_shown_without_their_annotations(filled_store: Path, tmp_path: Path, outlines: bool) -> None:
    """Outlines come from the prepared folder; a dataset of version 0.1 has none, and the notebook says so."""
    prepared = tmp_path / "data" / "prepared" / "litter"
    shutil.copytree(filled_store / "data" / "prepared" / "litter", prepared)
    manifest = json.loads((prepared / "manifest.json").read_text())
    if not outlines:
        del manifest["files"]["outlines.json"]
    (prepared / "manifest.json").write_text(json.dumps({**manifest, "source": str(tmp_path / "gone")}))
    outputs = execute(EXPLORE_THE_DATA, tmp_path)
    assert ("was prepared by an earlier version" in texts(outputs)) != outlines
    assert figures(outputs) == 5 + len(manifest["materials"])


def test_runs_and_the_newest_study_are_compared(filled_store: Path, tmp_path: Path) -> None:
    """In its own folder: the runs in order, and of the study the numbers and sentences of its report."""
    place = a_place(filled_store, tmp_path)
    study = the_study(place)
    (place / "notebooks").mkdir()
    outputs = execute(COMPARE_RUNS, place / "notebooks")
    written, tables = texts(outputs), texts(outputs, "text/html")
    runs = client_of(place).search_runs(["0"], "tags.step = 'train'", order_by=["metrics.`test/macro_ap` DESC"])
    assert re.findall(r">([0-9a-f]{32})</td>", tables) == [run.info.run_id for run in runs]
    assert f"run `{study.info.run_id}`: 8 cells" in written
    assert "8 model runs of its own and 0 of other studies" in written
    assert f"- {study.data.tags['verdict']}" in written
    report = Path(study.info.artifact_uri)
    reported = pd.read_csv(report / "comparisons.csv")
    numbers = re.search(r"^([\d,]+) of \1 numbers", written, re.MULTILINE)
    assert numbers
    assert int(numbers[1].replace(",", "")) > 10 * len(reported)
    assert str(report / "report.html") in written
    assert figures(outputs) == 2  # the differences, and the learning curves of both models


def test_numbers_that_are_not_the_report_s_are_told(filled_store: Path, tmp_path: Path) -> None:
    """A study with a second factor, a cell that is missing and one that is another study's, and its old report."""
    place = a_place(filled_store, tmp_path)
    study, client = the_study(place), client_of(place)
    experiment = client.create_experiment("edited", artifact_location=str(tmp_path / "artifacts"))
    other = client.create_run(experiment, tags=study.data.tags)
    folder = Path(other.info.artifact_uri)
    shutil.copytree(study.info.artifact_uri, folder)
    plans = json.loads((folder / "study.json").read_text())
    plans[-1]["factors"].append("labels=50|100")
    (folder / "study.json").write_text(json.dumps(plans))
    cells = pd.read_csv(folder / "study.csv", dtype={"augment": str})
    cells.insert(cells.columns.get_loc("augment") + 1, "labels", 50)
    cells.loc[7, ["status", "run_id"]] = "missing", None
    cells.to_csv(folder / "study.csv", index=False)
    client.set_terminated(other.info.run_id)
    outputs = execute(COMPARE_RUNS, place)
    written = texts(outputs)
    assert f"run `{other.info.run_id}`: 8 cells" in written
    assert "0 model runs of its own and 7 of other studies" in written
    same, total = re.findall(r"^([\d,]+) of ([\d,]+) numbers", written, re.MULTILINE)[0]
    assert 0 < int(same) < int(total)
    assert "8 planned cells: 1 missing" in written
    assert "augment=true against false, at labels=50" in written
    assert figures(outputs) == 3  # macro AP over the labels, too


def test_without_a_study_there_are_the_runs(filled_store: Path, tmp_path: Path) -> None:
    """And how to get a study."""
    from nbclient.exceptions import CellExecutionError

    place = a_place(filled_store, tmp_path)
    client_of(place).delete_run(the_study(place).info.run_id)
    content = read(COMPARE_RUNS)
    with pytest.raises(CellExecutionError, match=r"There is no study yet\. Run `mlflow run \. -e study"):
        execute_cells(content, place)
    assert "finished model runs:" in texts(outputs_of(content))
    assert "<th" in texts(outputs_of(content), "text/html")


@pytest.mark.parametrize(
    ("notebook", "lacking"),
    [(EXPLORE_THE_DATA, "prepared dataset"), (COMPARE_RUNS, r"mlflow\.db"), (READ_EXPLANATIONS, r"mlflow\.db")],
    ids=lambda value: getattr(value, "name", ""),
)
def test_without_anything_it_says_how_to_get_it(tmp_path: Path, notebook: Path, lacking: str) -> None:
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match=rf"There is no {lacking} here\. Run `make demo`"):
        execute(notebook, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_store_of_the_environment_goes_first(filled_store: Path, tmp_path: Path) -> None:
    """And where nothing has been explained, it says how."""
    import mlflow
    from nbclient.exceptions import CellExecutionError

    shutil.copy(filled_store / "mlflow.db", tmp_path / "other.db")
    shutil.copy(filled_store / "mlflow.db", tmp_path / "mlflow.db")
    store = f"sqlite:///{tmp_path / 'other.db'}"
    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs(["0"], "tags.explained_by LIKE '%'")
    client.delete_run(run.info.run_id)
    with pytest.raises(CellExecutionError, match=r"No run has been explained yet\. Run `mlflow run \. -e explain"):
        execute(READ_EXPLANATIONS, tmp_path, MLFLOW_TRACKING_URI=store)
