"""The command line from end to end, in processes of their own: endings, what a run leaves behind, kills."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.factories import MATERIALS, write_dataset
from tests.project.running import PROGRAM, ROOT, TINY, complaint, ok, run, start, wait_for, wastelens

# MLflow 3.17 on SQLAlchemy 2.1.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

EPOCHS = 20


@dataclass(frozen=True)
class Place:
    """A working directory with a small dataset, prepared through the command line; its runs are in mlflow.db."""

    folder: Path

    @property
    def dataset(self) -> Path:
        return self.folder / "litter"

    @property
    def prepared(self) -> Path:
        return self.folder / "data" / "prepared" / "litter"

    @property
    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")

    def runs(self) -> list[Any]:
        return list(self.client.search_runs(["0"], order_by=["attributes.start_time"]))

    def newest(self) -> Any:
        return self.runs()[-1]

    def artifacts(self, run_id: str) -> Path:
        return self.folder / "mlruns" / "0" / run_id / "artifacts"

    def history(self, run_id: str, metric: str) -> dict[int, float]:
        return {one.step: one.value for one in self.client.get_metric_history(run_id, metric)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("command-line")
    write_dataset(folder / "litter", side=(48, 40))
    made = Place(folder)
    answer = ok(wastelens("prepare", "--dataset", "litter", "--image_side_px", "32", cwd=folder))
    assert answer.stderr == ""
    return made


@pytest.fixture(scope="module")
def trained(place: Place) -> Any:
    """The run of one epoch through the command line."""
    settings = f"fit.epochs=1 {TINY}"
    answer = ok(wastelens("train", "--dataset", "litter", "--augment", "true", "--set", settings, cwd=place.folder))
    assert answer.stderr == ""
    found = [run for run in place.runs() if run.info.run_id in answer.stdout]
    assert len(found) == 1, answer.stdout
    return found[0]


# ── Endings ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_unknown_option(tmp_path: Path) -> None:
    answer = wastelens("train", "--augmented", "true", cwd=tmp_path)
    assert answer.returncode == 2
    lines = answer.stderr.splitlines()
    assert "No such option" in lines[-1]
    assert "--augmented" in lines[-1]
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--augment", "maybe"], ["'augment' in the command line", "must be true or false", "'maybe'"]),
        (["prepare", "--image_side_px", "big"], ["'image_side_px' in the command line", "'big'"]),
        (["train", "--set", "fit.epoch=3"], ["'fit.epoch' in the parameter 'set'", "Did you mean 'fit.epochs'?"]),
        (["main", "--set", "train.fit.epoch=3"], ["'train.fit.epoch' in the parameter 'set'"]),
        (["train", "--config", "mine.yaml"], ["'mine.yaml' cannot be read"]),
        (["explain", "--methods", "gradcm"], ["'methods' in the command line", "'gradcam'", "(not 'gradcm')"]),
        (["explain", "--photos", "0"], ["'photos' in the command line", "greater than or equal to 1"]),
        (["explain", "--set", "shap.samples=7"], ["samples=7 is no multiple of background_photos=10"]),
        (["explain", "--dataset", "nowhere"], ["dataset='nowhere' is neither"]),
        (["prepare", "--dataset", "nowhere"], ["dataset='nowhere' is neither", "nor a folder"]),
        (["prepare", "--dataset", "taco"], ["data/raw/taco/annotations.json", "dataset=sample"]),
        (["train", "--dataset", "nowhere"], ["dataset='nowhere' is neither"]),
        (["study", "--engine", "process:2"], ["'engine' in the command line", "Did you mean 'processes'?"]),
        (["tune", "--workers", "0"], ["'workers' in the command line", "greater than or equal to 1"]),
        (["tune", "--workers", "2", "--engine", "tcp://a:8786"], ["workers=2 is short for engine=processes:2"]),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("train", "prepare", "explain", "main", "study", "tune") else "",
)
def test_a_wrong_word_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    line = complaint(wastelens(*arguments, cwd=tmp_path))
    assert [word for word in words if word not in line] == []
    assert list(tmp_path.iterdir()) == []


def test_training_before_prepare(tmp_path: Path) -> None:
    write_dataset(tmp_path / "litter", batches=2)
    line = complaint(wastelens("train", "--dataset", "litter", cwd=tmp_path))
    assert "no prepared dataset in data/prepared/litter" in line
    assert "-e prepare" in line
    assert [path.name for path in tmp_path.iterdir()] == ["litter"]


@pytest.mark.parametrize("words", [("study", "--models", "base"), ("tune", "--model", "base")])
def test_workers_elsewhere_cannot_reach_what_lies_in_files(place: Place, words: tuple[str, ...]) -> None:
    before = len(place.runs())
    line = complaint(wastelens(*words, "--dataset", "litter", "--engine", "tcp://127.0.0.1:9", cwd=place.folder))
    assert "Workers on other machines cannot reach" in line
    assert "sqlite:///" in line
    assert len(place.runs()) == before


def test_annotations_cut_in_half(place: Place) -> None:
    folder = place.folder / "cut"
    folder.mkdir()
    whole = (place.dataset / "annotations.json").read_bytes()
    (folder / "annotations.json").write_bytes(whole[: len(whole) // 2])
    line = complaint(wastelens("prepare", "--dataset", "cut", cwd=place.folder))
    assert "annotations.json" in line
    assert "not complete JSON" in line
    assert not list((place.folder / "data" / "prepared").glob("*cut*"))
    assert place.newest().info.status == "FAILED"


def test_an_output_folder_that_cannot_be(place: Place) -> None:
    (place.folder / "file").write_text("in the way")
    line = complaint(wastelens("prepare", "--dataset", "litter", "--set", "data_folder=file/data", cwd=place.folder))
    assert "Not a directory" in line
    assert "data_folder" in line
    assert place.newest().info.status == "FAILED"
    assert (place.folder / "file").read_text() == "in the way"


def test_a_limit_on_file_sizes(place: Place) -> None:
    """Act as a quota: the photo cache, 60 x 224 x 224 x 3 bytes, may not grow to its size."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))

    arguments = ("--dataset", "litter", "--image_side_px", "224", "--set", "data_folder=limited")
    line = complaint(wastelens("prepare", *arguments, cwd=place.folder, preexec_fn=limit))
    assert "File too large" in line
    assert not (place.folder / "limited" / "prepared" / "litter").exists()


def test_a_full_disk(place: Place) -> None:
    """A data folder of 4 MiB, in a mount namespace of the command's own, for a photo cache of 9 MB."""
    namespace = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--mount")
    possible = shutil.which("unshare") and run(*namespace, "mount", "-t", "tmpfs", "x", "/mnt", cwd=Path("/"))
    if not possible or possible.returncode:
        pytest.skip("a small file system cannot be mounted here")
    (place.folder / "small").mkdir()
    script = 'mount -t tmpfs -o size=4m x small && "$@"; status=$?; ls -A small/prepared > listing; exit $status'
    arguments = ("prepare", "--dataset", "litter", "--image_side_px", "224", "--set", "data_folder=small")
    line = complaint(run(*namespace, "sh", "-c", script, "sh", *PROGRAM, *arguments, cwd=place.folder))
    assert "No space left on device" in line
    assert "litter" not in (place.folder / "listing").read_text().split()
    assert place.newest().info.status == "FAILED"


# ── What the runs hold ───────────────────────────────────────────────────────────────────────────────────────────


def test_prepare_leaves_a_finished_run(place: Place) -> None:
    run = place.runs()[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["step"] == "prepare"
    assert run.data.params["image_side_px"] == "32"
    manifest = json.loads((place.prepared / "manifest.json").read_text())
    assert run.data.tags["dataset_digest"] == manifest["digest"]
    assert [one.dataset.name for one in run.inputs.dataset_inputs] == ["litter"]
    logged = {path.name for path in place.artifacts(run.info.run_id).iterdir()}
    assert {"manifest.json", "labels.csv", "train_balanced.csv", "problems.csv", "materials.csv", "sight"} <= logged
    assert {"photos", "split/groups", "photos/plastic", "controls/neighbours_macro_ap"} <= set(run.data.metrics)


def test_train_leaves_a_finished_run_with_its_settings(place: Place, trained: Any) -> None:
    assert trained.info.status == "FINISHED"
    params = trained.data.params
    assert (params["augment"], params["fit.epochs"], params["network.widths"]) == ("true", "1", "[4, 8]")
    tags = trained.data.tags
    assert (tags["step"], tags["dataset"], tags["augment"], tags["model"]) == ("train", "litter", "true", "base")
    assert tags["collapsed"] in ("true", "false")
    assert tags["above_controls"] in ("true", "false")
    assert tags["dataset_digest"] == json.loads((place.prepared / "manifest.json").read_text())["digest"]
    contexts = [tag.value for one in trained.inputs.dataset_inputs for tag in one.tags if tag.key.endswith("context")]
    assert sorted(contexts) == ["test", "train", "val"]


def test_train_logs_the_metrics_of_the_contract(place: Place, trained: Any) -> None:
    each = ("macro_ap", "macro_f1", "macro_f1_at_half", "micro_f1", "subset_accuracy", "hamming_loss")
    wanted = {"loss", "val/loss", "val/macro_ap", "learning_rate", "test/macro_ap_low", "test/macro_ap_high"}
    wanted |= {f"{split}/{name}" for split in ("val", "test") for name in each}
    wanted |= {f"{split}/ap_{material}" for split in ("val", "test") for material in MATERIALS}
    wanted |= {"floor/macro_ap", "floor/macro_f1", "floor/subset_accuracy"}
    wanted |= {f"controls/{name}_macro_ap" for name in ("random", "neighbours", "size", "colour")}
    assert wanted - set(trained.data.metrics) == set()
    assert all(np.isfinite(value) for value in trained.data.metrics.values())
    for name in ("loss", "val/loss", "val/macro_ap", "learning_rate"):
        assert set(place.history(trained.info.run_id, name)) == {1}


def test_train_logs_the_artifacts_of_the_contract(place: Place, trained: Any) -> None:
    folder = place.artifacts(trained.info.run_id)
    for name in ("export/architecture.json", "export/model.weights.h5", "predictions_test.csv", "config.json"):
        assert (folder / name).stat().st_size > 0, name
    assert len(list((folder / "figures").glob("*.png"))) >= 4
    models = [one.model_id for one in trained.outputs.model_outputs]
    assert len(models) == 1
    model = place.client.get_logged_model(models[0])
    assert (model.name, model.source_run_id) == ("model", trained.info.run_id)


@pytest.mark.slow
def test_explain_adds_to_the_run_and_nothing_else(place: Place, trained: Any) -> None:
    model = trained.info.run_id
    before = {run.info.run_id for run in place.runs()}
    left_there = {path.name for path in place.folder.iterdir()}
    explain = ("explain", "--dataset", "litter", "--run_id", model, "--photos", "2", "--methods", "gradcam")
    refused = complaint(wastelens(*explain, "--layer", "nowhere", cwd=place.folder))
    assert "has no layer 'nowhere'" in refused
    assert not (place.artifacts(model) / "explanations").exists()
    answer = ok(wastelens(*explain, "--set", "shap.background_photos=2 steps=2", cwd=place.folder))
    assert answer.stderr == ""
    assert f"Explaining run {model}, {trained.info.run_name}." in answer.stdout
    assert {run.info.run_id for run in place.runs()} == before
    run = place.client.get_run(model)
    assert (run.info.status, run.info.end_time) == ("FINISHED", trained.info.end_time)
    assert trained.data.metrics.items() <= run.data.metrics.items()
    assert run.data.metrics["explain/photos"] == 2
    assert (place.artifacts(model) / "explanations" / "index.html").is_file()
    assert {path.name for path in place.folder.iterdir()} == left_there


ASK = """
import json, sys
from pathlib import Path
import mlflow, pandas as pd
store, uri, images = sys.argv[1:]
mlflow.set_tracking_uri(store)
paths = json.loads(Path(images).read_text())
by_bytes = pd.DataFrame({"image": [Path(path).read_bytes() for path in paths]})
by_path = pd.DataFrame({"path": paths})

def ask(model, photos):
    try:
        return model.predict(photos).to_dict(orient="list")
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}

plain = mlflow.pyfunc.load_model(uri)
import wastelens
open_to_paths = mlflow.pyfunc.load_model(uri, model_config={"allow_paths": True})
answers = {"bytes": ask(plain, by_bytes), "refused": ask(plain, by_path), "paths": ask(open_to_paths, by_path)}
columns = plain.metadata.signature.outputs.input_names()
print(json.dumps({"code": wastelens.__file__, "columns": columns, **answers}))
"""


@pytest.fixture(scope="module")
def predictions(place: Place, trained: Any) -> pd.DataFrame:
    return pd.read_csv(place.artifacts(trained.info.run_id) / "predictions_test.csv")


@pytest.fixture(scope="module")
def answers(
    place: Place, trained: Any, predictions: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The logged model on the test photos' own files, asked in a process that knows the store and the run's id."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    labels = pd.read_csv(place.prepared / "labels.csv").set_index("file_name")
    files = [str(place.dataset / name) for name in labels.loc[predictions["file_name"], "source_file"]]
    (elsewhere / "images.json").write_text(json.dumps(files))
    store, model = f"sqlite:///{place.folder / 'mlflow.db'}", f"runs:/{trained.info.run_id}/model"
    said = ok(run(sys.executable, "-c", ASK, store, model, "images.json", cwd=elsewhere))
    return dict(json.loads(said.stdout.splitlines()[-1]))


def assert_same(answer: dict[str, list[Any]], predictions: pd.DataFrame, thresholds: dict[str, float]) -> None:
    assert "error" not in answer, answer["error"]
    answered = pd.DataFrame(answer)
    for material in MATERIALS:
        reported = predictions[f"probability_{material}"]
        np.testing.assert_allclose(answered[f"probability_{material}"], reported, atol=2e-5)
        sure = (reported - thresholds[f"threshold/{material}"]).abs() > 1e-4
        assert (answered[f"decision_{material}"][sure] == predictions[f"decision_{material}"][sure].astype(bool)).all()


def test_the_logged_model_answers_what_the_run_reported(
    answers: dict[str, Any], trained: Any, predictions: pd.DataFrame
) -> None:
    assert not Path(answers["code"]).is_relative_to(ROOT), "the model needs Wastelens installed"
    said = {f"{what}_{one}" for what in ("probability", "decision") for one in MATERIALS}
    assert set(answers["columns"]) == said | {"problem"}
    assert_same(answers["bytes"], predictions, trained.data.metrics)


def test_the_logged_model_opens_no_files(answers: dict[str, Any]) -> None:
    assert all("path" in problem for problem in answers["refused"]["problem"])
    assert set(answers["refused"][f"probability_{MATERIALS[0]}"]) == {None}


def test_the_logged_model_opens_files_where_that_is_allowed(
    answers: dict[str, Any], trained: Any, predictions: pd.DataFrame
) -> None:
    assert_same(answers["paths"], predictions, trained.data.metrics)


# ── Interruptions ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Interrupted:
    """Observations of a run that was interrupted, killed and resumed."""

    run_id: str
    after_ctrl_c: tuple[int, str, int]  # exit status, the run's status, epochs done
    after_kill: tuple[int, str, int]
    ctrl_c_output: str
    end: subprocess.CompletedProcess[str]
    runs_before: int


@pytest.fixture(scope="module")
def interrupted(place: Place) -> Interrupted:
    """Ctrl-C in mid-training, a resume that is killed outright, and a resume that comes to the end."""
    before = {path.name for path in (place.folder / "mlruns" / "0").iterdir()}
    runs_before = len(place.runs())
    settings = f"fit.epochs={EPOCHS} fit.patience_epochs=100 {TINY}"
    arguments = ("train", "--dataset", "litter", "--set", settings)
    process = start(*arguments, cwd=place.folder)
    with stopped_at_the_end(process):
        wait_for(process, lambda: epochs_done(place, before) >= 3)
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=60)
    run_id = next(path for path in (place.folder / "mlruns" / "0").iterdir() if path.name not in before).name
    ctrl_c = (status, place.client.get_run(run_id).info.status, epochs_done(place, before))
    output = (place.folder / "output.txt").read_text()
    process = start("train", "--dataset", "litter", "--resume", run_id, cwd=place.folder)
    with stopped_at_the_end(process):
        wait_for(process, lambda: epochs_done(place, before) >= ctrl_c[2] + 2)
        process.kill()
        status = process.wait(timeout=60)
    kill = (status, place.client.get_run(run_id).info.status, epochs_done(place, before))
    end = ok(wastelens("train", "--dataset", "litter", "--resume", run_id, cwd=place.folder))
    return Interrupted(run_id, ctrl_c, kill, output, end, runs_before)


@contextlib.contextmanager
def stopped_at_the_end(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.kill()
        process.wait()


def epochs_done(place: Place, other_runs: set[str]) -> int:
    """Finished epochs by the newest whole checkpoint of the run that is not among the others."""
    done = 0
    for path in (place.folder / "mlruns" / "0").glob("*/artifacts/checkpoint/*/state.json"):
        if path.parents[3].name not in other_runs:
            with contextlib.suppress(ValueError):  # it is being written
                done = max(done, json.loads(path.read_text())["epochs_done"])
    return done


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_a_killed_run(interrupted: Interrupted) -> None:
    status, run_status, done = interrupted.after_ctrl_c
    assert (status, run_status) == (130, "KILLED")
    assert 3 <= done < EPOCHS
    lines = interrupted.ctrl_c_output.splitlines()
    assert "Traceback" not in interrupted.ctrl_c_output
    assert lines[-1].startswith("wastelens: Interrupted.")


@pytest.mark.slow
def test_a_kill_loses_one_epoch_at_most(place: Place, interrupted: Interrupted) -> None:
    status, _, done = interrupted.after_kill
    assert status == -signal.SIGKILL
    assert interrupted.after_ctrl_c[2] < done < EPOCHS
    said = next(line for line in interrupted.end.stdout.splitlines() if line.startswith("Resuming run"))
    went_on_after = int(said.split(" after ")[1].split()[0])
    assert went_on_after >= done - 1
    steps = [one.step for one in place.client.get_metric_history(interrupted.run_id, "loss")]
    assert sorted(set(steps)) == list(range(1, EPOCHS + 1))
    assert len(steps) <= EPOCHS + 2  # an epoch for each interruption


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run_and_finishes(place: Place, interrupted: Interrupted) -> None:
    run = place.client.get_run(interrupted.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["fit.epochs"] == str(EPOCHS)
    assert "test/macro_ap" in run.data.metrics
    assert len(run.outputs.model_outputs) == 1
    losses = place.history(interrupted.run_id, "loss")
    assert losses[EPOCHS] < losses[1]
    assert interrupted.end.stderr == ""
    assert interrupted.run_id in interrupted.end.stdout


def test_resuming_a_run_that_is_not_there(place: Place) -> None:
    line = complaint(wastelens("train", "--dataset", "litter", "--resume", "nowhere", cwd=place.folder))
    assert "There is no run 'nowhere'" in line


@pytest.mark.slow
def test_a_killed_prepare_leaves_no_dataset_and_goes_on(place: Place) -> None:
    """A pipe stands where the 31st photo should be: decoding blocks there, in the middle, until the kill."""
    folder = place.folder / "killed"
    shutil.copytree(place.dataset, folder)
    names = [image["file_name"] for image in json.loads((folder / "annotations.json").read_text())["images"]]
    photo = folder / names[30]
    content = photo.read_bytes()
    photo.unlink()
    os.mkfifo(photo)
    prepared = place.folder / "data" / "prepared" / "killed"
    journal = prepared.with_name(".killed.unfinished") / "photos_32px.jsonl"
    arguments = ("prepare", "--dataset", "killed", "--image_side_px", "32", "--set", "workers=1")
    process = start(*arguments, cwd=place.folder)
    with stopped_at_the_end(process):
        wait_for(process, lambda: journal.exists() and len(journal.read_text().splitlines()) >= 20)
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert not prepared.exists()
    refused = complaint(wastelens("train", "--dataset", "killed", cwd=place.folder))
    assert "no prepared dataset" in refused
    photo.unlink()
    photo.write_bytes(content)
    ok(wastelens(*arguments, cwd=place.folder))
    labels = pd.read_csv(prepared / "labels.csv")
    pd.testing.assert_frame_equal(labels, pd.read_csv(place.prepared / "labels.csv"))
    assert np.array_equal(np.load(prepared / "photos_32px.npy"), np.load(place.prepared / "photos_32px.npy"))
    assert not list(prepared.parent.glob(".killed*"))
