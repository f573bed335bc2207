"""``mlflow run`` on a fresh copy of the project, as people use it; one run a command, and the parameters arrive."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from tests.factories import write_dataset
from tests.project.running import ROOT, copy_of_the_project, ok, run, start, wait_for
from tests.web_server import Content, Json, Status, WebServer, photo

# MLflow 3.17 on SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

# The packages that conda.yaml pins for every platform and Python.
CONDA = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
UNMARKED_PINS = dict(pin.split("==") for pin in CONDA["dependencies"][2]["pip"] if ";" not in pin)
TINY_CELLS = "train.fit.epochs=1 train.network.widths=[4,8] train.bootstrap_resamples=100 bootstrap_resamples=100"
STUDY = ("-e", "study", "-P", "dataset=my litter", "-P", "models=base", "-P", f"set={TINY_CELLS}")
Answer = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Project:
    """A copy of the project, with a small dataset in ``my litter``; its runs are in its mlflow.db."""

    folder: Path

    @property
    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def run_ids(self) -> set[str]:
        if not (self.folder / "mlflow.db").exists():
            return set()
        return {one.info.run_id for one in self.client.search_runs(["0"])}

    def mlflow_run(self, *arguments: str, env_manager: str = "local", **env: str) -> tuple[Answer, list[Any]]:
        """``mlflow run . ARGUMENTS`` and the runs that it started."""
        before = self.run_ids()
        command = ("mlflow", "run", ".", "--env-manager", env_manager, *arguments)
        answer = run(*command, cwd=self.folder, env=env)
        return answer, [self.client.get_run(one) for one in self.run_ids() - before]


def only(started: tuple[Answer, list[Any]]) -> Any:
    """The one run of a command that has to succeed."""
    answer, runs = started
    ok(answer)
    assert len(runs) == 1
    assert runs[0].info.status == "FINISHED"
    return runs[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = copy_of_the_project(tmp_path_factory.mktemp("project"))
    write_dataset(folder / "my litter")
    return Project(folder)


@pytest.fixture(scope="module")
def prepared(project: Project) -> Any:
    return only(project.mlflow_run("-e", "prepare", "-P", "dataset=my litter", "-P", "image_side_px=32"))


@pytest.fixture(scope="module")
def trained(project: Project, prepared: Any) -> Any:
    settings = "set=model=base fit.epochs=2 network.widths=[4,8] bootstrap_resamples=100"
    parameters = ("dataset=my litter", "augment=true", "seed=3", settings)
    return only(project.mlflow_run("-e", "train", *(word for one in parameters for word in ("-P", one))))


def test_prepare(project: Project, prepared: Any) -> None:
    logged = (prepared.data.params["dataset"], prepared.data.params["image_side_px"])
    assert logged == ("'my litter'", "32")  # MLflow logs the value as it quotes it for the shell
    assert prepared.data.tags["mlflow.project.entryPoint"] == "prepare"
    assert prepared.data.metrics["photos"] == 60
    labels = pd.read_csv(project.folder / "data" / "prepared" / "my litter" / "labels.csv")
    assert len(labels) == 60


def test_train(trained: Any) -> None:
    params = trained.data.params
    assert (params["augment"], params["seed"]) == ("true", "3")
    assert params["fit.epochs"] == "2"
    assert params["network.widths"] == "[4, 8]"
    # MLflow logged what was used, but for what is left to the model's file.
    assert {name for name in trained.data.tags if name.startswith("used.")} == {
        *("used.pretrained", "used.weights", "used.freeze", "used.model", "used.balanced")
    }
    assert (trained.data.tags["augment"], trained.data.tags["seed"]) == ("true", "3")
    assert trained.data.tags["mlflow.project.entryPoint"] == "train"
    assert {"test/macro_ap", "loss"} <= set(trained.data.metrics)
    assert len(trained.outputs.model_outputs) == 1


@pytest.fixture(scope="module")
def studied(project: Project, prepared: Any) -> list[Any]:
    """A study, and the runs that it started: MLflow's own first."""
    answer, runs = project.mlflow_run(*STUDY, "-P", "seeds=1")
    ok(answer)
    return sorted(runs, key=lambda one: one.info.start_time)


@pytest.mark.slow
def test_a_study_is_the_run_that_mlflow_opened_and_its_children(studied: list[Any]) -> None:
    parent, *children = studied
    assert parent.data.tags["mlflow.project.entryPoint"] == "study"
    assert {one.info.status for one in studied} == {"FINISHED"}
    assert {one.data.tags["mlflow.parentRunId"] for one in children} == {parent.info.run_id}
    assert {one.data.tags["study"] for one in children} == {parent.info.run_id}
    assert sorted(one.data.tags["augment"] for one in children) == ["false", "true"]
    assert parent.data.metrics["finished_cells"] == 2
    assert "augment=true against false" in parent.data.tags["verdict"]


@pytest.mark.slow
def test_a_study_that_is_extended_goes_on_in_its_run(project: Project, studied: list[Any]) -> None:
    answer, runs = project.mlflow_run(*STUDY, "-P", "seeds=2")
    ok(answer)
    (call,) = [one for one in runs if "mlflow.project.entryPoint" in one.data.tags]
    cells = [one for one in runs if "cell" in one.data.tags]
    assert call.data.tags["resumes_run"] == studied[0].info.run_id
    assert [one.data.tags["seed"] for one in cells] == ["1", "1"]
    assert {one.data.tags["mlflow.parentRunId"] for one in cells} == {studied[0].info.run_id}
    assert {one.info.status for one in runs} == {"FINISHED"}
    assert project.client.get_run(studied[0].info.run_id).data.metrics["finished_cells"] == 4


@pytest.mark.slow
def test_compare(project: Project, studied: list[Any]) -> None:
    cells = ",".join(one.info.run_id for one in studied[1:])
    compared = only(project.mlflow_run("-e", "compare", "-P", f"run_ids={cells}", "-P", "set=bootstrap_resamples=100"))
    assert compared.data.tags["compares"] == "augment"
    assert compared.data.metrics["finished_cells"] == 2


def test_the_model_names_its_own_requirements_only(project: Project, trained: Any) -> None:
    """With the project's uv.lock beside it, MLflow would build the whole project for serving, and fail."""
    model = project.client.get_logged_model(trained.outputs.model_outputs[0].model_id)
    files = {path.name for path in Path(model.artifact_location.removeprefix("file://")).iterdir()}
    assert {"MLmodel", "conda.yaml", "requirements.txt", "python_env.yaml"} <= files
    assert not files & {"uv.lock", "pyproject.toml"}


def test_the_run_tells_the_commit(project: Project, trained: Any) -> None:
    commit = ok(run("git", "rev-parse", "HEAD", cwd=project.folder)).stdout.strip()
    assert trained.data.tags["git_commit"] == commit
    assert trained.data.tags["mlflow.source.git.commit"] == commit


def test_nothing_of_a_run_lies_in_the_way_of_git(project: Project, trained: Any) -> None:
    changed = ok(run("git", "status", "--porcelain", cwd=project.folder)).stdout.splitlines()
    assert [line for line in changed if "my litter" not in line] == []


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (["-e", "train", "-P", "augment=maybe"], "must be true or false"),
        (["-e", "train", "-P", "set=fit.epoch=3"], "Did you mean 'fit.epochs'?"),
        (["-e", "prepare", "-P", "no_such=1"], "No such option"),
        (["-P", "dataset=nowhere"], "dataset='nowhere' is neither"),
        pytest.param(
            ["-e", "explain", "-P", "dataset=my litter", "-P", "run_id=nowhere"],
            "There is no run 'nowhere'",
            marks=pytest.mark.slow,
        ),
        pytest.param(["-e", "explain", "-P", "methods=shap,gradcm"], "(not 'gradcm')", marks=pytest.mark.slow),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_fails_the_command_and_its_run(
    project: Project, prepared: Any, parameters: list[str], words: str
) -> None:
    answer, runs = project.mlflow_run(*parameters)
    assert answer.returncode != 0
    assert words in re.sub(r"\s+", " ", answer.stdout + answer.stderr)
    assert [one.info.status for one in runs] == ["FAILED"]


@pytest.mark.slow
def test_resume(project: Project, trained: Any) -> None:
    """A run is killed after an epoch; ``-P resume`` goes on with it, to where an undisturbed one comes."""
    before = project.run_ids()
    settings = "model=base fit.epochs=20 network.widths=[4,8] bootstrap_resamples=100 fit.patience_epochs=20"
    process = start("train", "--dataset", "my litter", "--seed", "3", "--set", settings, cwd=project.folder)
    wait_for(process, lambda: list(project.folder.glob("mlruns/0/*/artifacts/checkpoint/*/state.json")))
    process.kill()
    process.wait()
    (killed,) = project.run_ids() - before
    (project.folder / "output.txt").unlink()
    params = project.client.get_run(killed).data.params
    answer, runs = project.mlflow_run("-e", "train", "-P", "dataset=my litter", "-P", f"resume={killed}")
    ok(answer)
    assert re.search(r"after [1-9][0-9]* finished epochs", answer.stdout)
    assert [one.data.tags["resumes_run"] for one in runs] == [killed]
    assert runs[0].info.status == "FINISHED"
    assert "test/macro_ap" not in runs[0].data.metrics
    resumed = project.client.get_run(killed)
    assert resumed.info.status == "FINISHED"
    assert params.items() <= resumed.data.params.items()
    steps = {one.step for one in project.client.get_metric_history(killed, "loss")}
    assert steps == set(range(1, 21))
    assert not list((project.folder / "mlruns" / "0" / killed / "artifacts").glob("checkpoint"))


@pytest.mark.slow
def test_pretrain_train_and_cluster(project: Project, prepared: Any) -> None:
    """An encoder, a model that starts from it, and clusters of what it has learnt, each by its entry point."""
    parameters = ("-P", "dataset=my litter", "-P", "method=dbn", "-P", "seed=3")
    learner = "learner.epochs=1 learner.side_px=8 learner.hidden_units=[8,6]"
    pretrained = only(project.mlflow_run("-e", "pretrain", *parameters, "-P", f"set={learner}"))
    assert pretrained.data.params["learner.hidden_units"] == "[8, 6]"
    assert (pretrained.data.tags["method"], pretrained.data.tags["step"]) == ("dbn", "pretrain")
    assert len(pretrained.outputs.model_outputs) == 1
    encoder = ("-P", "model=dbn", "-P", f"pretrained={pretrained.info.run_id}", "-P", "freeze=1.0")
    small = ("-P", "set=fit.epochs=1 bootstrap_resamples=100", "-P", "dataset=my litter")
    model = only(project.mlflow_run("-e", "train", *encoder, *small))
    assert model.data.tags["pretrained_run"] == pretrained.info.run_id
    assert model.data.params["network.learner.hidden_units"] == "[8, 6]"
    chosen = ("-P", f"run_id={model.info.run_id}", "-P", "k=3", "-P", "photos=test", "-P", "dataset=my litter")
    clusters = only(project.mlflow_run("-e", "cluster", *chosen))
    assert clusters.data.metrics["cluster/learned/k"] == 3
    assert clusters.data.tags["clustered_run"] == model.info.run_id
    project.client.delete_run(pretrained.info.run_id)
    answer, _ = project.mlflow_run("-e", "train", *encoder, *small)
    assert answer.returncode != 0
    assert f"Run {pretrained.info.run_id} was deleted" in answer.stdout + answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_tune_and_train_with_the_best(project: Project, prepared: Any, workers: str) -> None:
    """The study is MLflow's own run, its trials lie below it, and what it found is what ``train`` takes."""
    tiny = "train.fit.epochs=2 train.network.widths=[4,8] space.network.widths=null train.bootstrap_resamples=100"
    asked = ("-P", "dataset=my litter", "-P", "trials=3", "-P", f"workers={workers}", "-P", f"study=by {workers}")
    answer, runs = project.mlflow_run("-e", "tune", *asked, "-P", "retrain=false", "-P", f"set={tiny}")
    ok(answer)
    parent, *trials = sorted(runs, key=lambda one: one.info.start_time)
    assert (parent.data.tags["mlflow.project.entryPoint"], parent.data.tags["step"]) == ("tune", "tune")
    assert parent.info.status == "FINISHED"
    assert sorted(one.data.tags["trial"] for one in trials) == ["0", "1", "2"]
    assert {one.data.tags["mlflow.parentRunId"] for one in trials} == {parent.info.run_id}
    assert {one.info.status for one in trials} <= {"FINISHED", "KILLED"}
    best = f"config=data/tuned/by-{workers}.yaml"
    model = only(project.mlflow_run("-e", "train", "-P", "dataset=my litter", "-P", best))
    assert model.data.params["network.widths"] == "[4, 8]"
    chosen = max(trials, key=lambda one: one.data.metrics["val/macro_ap"] if one.info.status == "FINISHED" else 0.0)
    sampled = {key: value for key, value in chosen.data.params.items() if key.startswith(("schedule.", "fit."))}
    assert sampled
    for key, value in sampled.items():
        trained_with = model.data.params[key]
        assert trained_with == value or float(trained_with) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.slow
def test_explain(project: Project, trained: Any) -> None:
    """Its results are in the best model's own run, which stays as finished as it was; MLflow's own run is empty."""
    tiny = "shap.samples=2 shap.background_photos=2 steps=2 randomised_photos=1 bootstrap_resamples=100"
    started = only(
        project.mlflow_run("-e", "explain", "-P", "dataset=my litter", "-P", "photos=2", "-P", f"set={tiny}")
    )
    same = f"tags.step = 'train' and tags.dataset_digest = '{trained.data.tags['dataset_digest']}'"
    models = project.client.search_runs(["0"], f"{same} and attributes.status = 'FINISHED'")
    best = max(models, key=lambda run: (run.data.tags["collapsed"] == "false", run.data.metrics["val/macro_ap"]))
    assert started.data.tags["adds_to_run"] == best.info.run_id
    assert started.data.tags["mlflow.project.entryPoint"] == "explain"
    assert (started.data.metrics, project.client.list_artifacts(started.info.run_id)) == ({}, [])
    assert best.info.status == "FINISHED"
    # The best of this store is another model in another order of the tests, and a DBN has no maps of features.
    methods = ["shap"] if best.data.tags["model"] == "dbn" else ["gradcam", "shap"]
    assert best.data.tags["explained_by"] == ", ".join(methods)
    assert best.data.metrics["explain/photos"] == 2
    folder = project.folder / "mlruns" / "0" / best.info.run_id / "artifacts" / "explanations"
    written = {"index.html", "scores.csv", "settings.json"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == written
    listed = project.client.list_artifacts(best.info.run_id, "explanations")
    assert {Path(one.path).name for one in listed} == written


@pytest.mark.slow
@pytest.mark.parametrize("without", ["", "uv.lock"], ids=["from uv.lock", "from conda.yaml"])
def test_uv_builds_the_environment(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, without: str) -> None:
    """MLflow lets uv build from uv.lock where the project has one, and from conda.yaml otherwise."""
    probe = ("uv", "pip", "install", "--dry-run", "--no-cache", "--target", str(tmp_path / "probe"), "six==1.17.0")
    try:
        reached = run(*probe, cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip("uv is not installed")
    if reached.returncode:
        pytest.skip(f"uv reaches no package index: {reached.stderr.strip().splitlines()[-1]}")
    project = Project(copy_of_the_project(tmp_path_factory.mktemp("under-uv"), without))
    write_dataset(project.folder / "litter")
    environments = tmp_path / "environments"
    prepared = only(
        project.mlflow_run(
            *("-e", "prepare", "-P", "dataset=litter", "-P", "image_side_px=32"),
            env_manager="uv",
            MLFLOW_ENV_ROOT=str(environments),
            VIRTUAL_ENV="",
        )
    )
    assert prepared.data.metrics["photos"] == 60
    commit = ok(run("git", "rev-parse", "HEAD", cwd=project.folder)).stdout.strip()
    assert prepared.data.tags["git_commit"] == commit, "not the copy's own code ran"
    built = list(environments.glob("*/bin/python"))
    assert len(built) == 1
    listed = ok(run("uv", "pip", "list", "--format", "json", "--python", str(built[0]), cwd=tmp_path))
    installed = {one["name"]: one["version"] for one in json.loads(listed.stdout)}
    assert {name: installed.get(name) for name in UNMARKED_PINS} == UNMARKED_PINS
    shutil.rmtree(environments)


@pytest.mark.slow
def test_download_collect_and_prepare(tmp_path: Path) -> None:
    """TACO from a server of ours, and then photos without labels that resemble none of its."""
    folder = copy_of_the_project(tmp_path / "project")
    taco = write_dataset(tmp_path / "taco", side=(128, 96))
    own = Project(folder)
    with WebServer() as server:
        for image in taco["images"]:
            content = (tmp_path / "taco" / image["file_name"]).read_bytes()
            image["flickr_url"] = server.serve(f"/{image['file_name']}", Content(content))
        dead = taco["images"][7]
        server.serve(f"/{dead['file_name']}", Status(404))
        where = f"annotations_url={server.serve('/annotations.json', Json(taco))}"
        download = ("-e", "download", "-P", f"set={where} hosts=[{server.host}]")
        fetched = only(own.mlflow_run(*download))
        photos = len(taco["images"])
        assert (fetched.data.metrics["photos/done"], fetched.data.metrics["photos/dead"]) == (photos - 1, 1)
        assert (
            only(own.mlflow_run("-e", "prepare", "-P", "dataset=taco", "-P", "image_side_px=32")).data.metrics[
                "photos/left_out"
            ]
            == 1
        )

        found = [_found(number, server.serve(f"/found/{number}", Content(photo(number)))) for number in range(3)]
        judged = pd.read_csv(folder / "data" / "prepared" / "taco" / "labels.csv").query("split == 'test'").iloc[0]
        found.append(_found(9, f"{server.address}/{judged['source_file']}"))
        url = server.serve("/v1/images/", Json({"result_count": 4, "page_count": 1, "page": 1, "results": found}))
        settings = f"set=openverse.url={url} openverse.seconds_between_requests=0 min_side_px=64 hosts=[{server.host}]"
        asked = ("sources=openverse", "materials=glass", "contact=tests@example.org", "dataset=taco", settings)
        collected = only(own.mlflow_run("-e", "collect", *(word for one in asked for word in ("-P", one))))
        assert (collected.data.metrics["photos"], collected.data.metrics["photos/left_out"]) == (3, 1)
    table = pd.read_csv(folder / "data" / "raw" / "collected" / "collected.csv", keep_default_na=False)
    (left_out,) = table[table["status"] != "kept"]["reason"]
    assert "test" in left_out
    learnt = ("dataset=taco", "method=dense_autoencoder", "unlabelled=data/raw/collected", "set=learner.epochs=1")
    pretrained = only(own.mlflow_run("-e", "pretrain", *(word for one in learnt for word in ("-P", one))))
    assert pretrained.data.tags["step"] == "pretrain"


def _found(number: int, url: str) -> dict[str, Any]:
    """A photo as Openverse lists it."""
    return {
        "id": f"{number:08}-0000-4000-8000-000000000000",
        "title": f"Bottle {number}",
        "creator": "Somebody",
        "creator_url": "https://example.org/somebody",
        "license": "by",
        "license_version": "4.0",
        "license_url": "https://creativecommons.org/licenses/by/4.0/",
        "url": url,
        "foreign_landing_url": f"https://example.org/photos/{number}",
        "filetype": "jpg",
        "filesize": None,
        "width": 320,
        "height": 240,
        "mature": False,
    }
