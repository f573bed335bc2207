"""Interrupted trainings that are resumed, in each phase and with what they started from, and runs that cannot be."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.factories import config, slim_vgg
from tests.memory_tracking import MemoryRun, MemoryTracker
from tests.project.running import ROOT, environment

from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import RunError, StoreUnreachable
from wastelens.experiment.resuming import EpochWatcher, settings_of_resumed, training_run
from wastelens.steps import train
from wastelens.training.checkpoint import CheckpointKeeper

pytestmark = pytest.mark.usefixtures("no_served_models")

TINY = "fit.epochs=2 fit.batch_size=16 bootstrap_resamples=100"
SMALL_VGG = "network.hidden=[8,4]"
SMALL = "network.widths=[4,8]"


@pytest.fixture(autouse=True)
def _slim_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make VGG16 an eighth as wide."""
    monkeypatch.setattr("wastelens.models.backbones.vgg.Vgg16.application", slim_vgg)


def trained(
    root: Path, settings: str = "", tracker: MemoryTracker | None = None, dataset: str = "litter", **parameters: str
) -> MemoryRun:
    tracker = tracker or MemoryTracker()
    text = f"{TINY} data_folder={root / 'data'} {settings}"
    result = train.run(config("train", text, dataset=str(root / dataset), **parameters), tracker)
    return next(run for run in tracker.runs if run.id == result.run_id)


def test_a_resumed_run_equals_an_uninterrupted_one(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(prepared_folder, f"{SMALL} fit.epochs=4")
    tracker = MemoryTracker()
    original = EpochWatcher.batch_done

    def interrupted(self: Any, epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt
        original(self, epoch)

    monkeypatch.setattr(EpochWatcher, "batch_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(prepared_folder, f"{SMALL} fit.epochs=4", tracker)
    said = capsys.readouterr().out
    assert f"Resume it: mlflow run . -e train --env-manager local -P dataset={prepared_folder / 'litter'}" in said
    assert f"-P resume={tracker.runs[0].id} -P 'set=data_folder=" in said
    assert tracker.runs[0].status == "KILLED"
    assert sorted(tracker.runs[0].history) == [1, 2]
    monkeypatch.setattr(EpochWatcher, "batch_done", original)
    resumed = trained(prepared_folder, f"{SMALL} fit.epochs=4", tracker, resume=tracker.runs[0].id)
    assert resumed.status == "FINISHED"
    assert len(tracker.runs) == 1
    for epoch in (3, 4):
        assert resumed.history[epoch]["loss"] == pytest.approx(whole.history[epoch]["loss"], rel=1e-3)


@pytest.mark.parametrize("request_that_fails", ["metrics", "checkpoint"])
def test_an_epoch_that_the_store_cannot_take_is_logged_when_the_run_is_resumed(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request_that_fails: str
) -> None:
    settings = f"{SMALL} fit.epochs=4"
    whole = trained(prepared_folder, settings)
    tracker = MemoryTracker()
    ended_ms = []
    last_words = {"metrics": (EpochWatcher, "epoch_done"), "checkpoint": (CheckpointKeeper, "offer")}
    owner, name = last_words[request_that_fails]
    original, calls = getattr(owner, name), []

    def cut(self: Any, *arguments: Any) -> None:
        calls.append(name)
        tracker.reachable = len(calls) != 3
        try:
            original(self, *arguments)
        finally:
            ended_ms.append(time.time() * 1000)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, cut)
        with pytest.raises(StoreUnreachable):
            trained(prepared_folder, settings, tracker)
    tracker.reachable = True
    (run,) = tracker.runs
    assert sorted(run.history) == ([1, 2] if request_that_fails == "metrics" else [1, 2, 3])
    said = capsys.readouterr().out
    assert f"Run {run.id} was interrupted. Resume it: mlflow run . -e train" in said
    aside = prepared_folder / "data" / "unlogged" / run.id
    assert aside.is_dir()
    seen = epochs_seen(monkeypatch)
    trained(prepared_folder, settings, tracker, resume=run.id)
    assert seen == {4}, "an epoch is trained again"
    assert (run.status, len(tracker.runs)) == ("FINISHED", 1)
    for epoch in (3, 4):
        assert run.history[epoch]["loss"] == pytest.approx(whole.history[epoch]["loss"], rel=1e-3)
    assert ended_ms[1] - 1 <= run.measured_ms[2] <= ended_ms[2], "the time at which it was measured"
    assert not aside.exists()


def test_an_epoch_that_is_trained_again_is_logged_once(prepared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MemoryTracker()
    settings = f"{SMALL} fit.epochs=4"

    def killed(self: Any, checkpoint: Any) -> None:
        (run,) = tracker.runs
        if 3 in run.history:  # its metrics are logged, its checkpoint is not
            raise KeyboardInterrupt
        original(self, checkpoint)

    original = CheckpointKeeper.offer
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointKeeper, "offer", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(prepared_folder, settings, tracker)
    (run,) = tracker.runs
    run.history[3]["loss"] = planted = 99.0
    seen = epochs_seen(monkeypatch)
    trained(prepared_folder, settings, tracker, resume=run.id)
    assert seen == {3, 4}
    assert sorted(run.history) == [1, 2, 3, 4]
    assert run.history[3]["loss"] == planted, "it was logged a second time"


def epochs_seen(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The epochs that are trained from now on."""
    seen = set()
    original = EpochWatcher.batch_done

    def watched(self: Any, epoch: int) -> None:
        seen.add(epoch)
        original(self, epoch)

    monkeypatch.setattr(EpochWatcher, "batch_done", watched)
    return seen


def test_a_resumed_run_waits_for_the_server_as_long_as_its_new_command_says(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = MemoryTracker()

    def dying(self: Any, epoch: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochWatcher, "batch_done", dying)
        with pytest.raises(KeyboardInterrupt):
            trained(prepared_folder, f"{SMALL} outage_minutes=1", tracker)
    (run,) = tracker.runs
    dataset = open_dataset(str(prepared_folder / "litter"), prepared_folder / "data")
    again = config("train", "outage_minutes=2 fit.epochs=9", resume=run.id)
    found = settings_of_resumed(tracker, again, dataset, "train")
    assert (found.outage_minutes, found.fit.epochs) == (2, 2)


def test_runs_that_cannot_be_resumed(prepared_folder: Path) -> None:
    with pytest.raises(RunError, match="There is no run 'nowhere'"):
        trained(prepared_folder, resume="nowhere")
    tracker = MemoryTracker()
    with tracker.start("prepare"):
        pass
    with pytest.raises(RunError, match="is not a train run, so train cannot resume it"):
        trained(prepared_folder, tracker=tracker, resume=tracker.runs[0].id)
    assert (tracker.runs[0].status, tracker.runs[0].name) == ("FINISHED", "prepare")
    finished = trained(prepared_folder, f"{SMALL} fit.epochs=1", tracker)
    with pytest.raises(RunError, match="is finished; there is nothing to resume"):
        trained(prepared_folder, tracker=tracker, resume=finished.id)
    assert finished.status == "FINISHED"
    finished.status = "KILLED"
    about = json.loads((finished.folder / "config.json").read_text())
    about["config"]["loss"]["kind"] = "a loss of the future"
    (finished.folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match="another version of Wastelens"):
        trained(prepared_folder, tracker=tracker, resume=finished.id)


HOLD = """
import sys
from pathlib import Path
from wastelens.system.files import alone_in
with alone_in(Path(sys.argv[1]), "data_folder"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_is_training_is_not_resumed(tmp_path: Path) -> None:
    tracker, before = MemoryTracker(), config("train", f"data_folder={tmp_path}")
    with tracker.start("train") as run:
        pass
    again = before.model_copy(update={"resume": run.id})
    held = [sys.executable, "-c", HOLD, str(tmp_path / "running" / run.id)]
    env = environment(PYTHONPATH=str(ROOT / "src"))
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match=f"Another process is training run {run.id} right now. Wait"),
            training_run(tracker, "train", again, "train"),
        ):
            raise AssertionError("it was opened")
        with training_run(tracker, "train", again, "train", by_user=False):  # the engine sees to it
            pass
        other.communicate()
    with training_run(tracker, "train", again, "train") as resumed:  # as advised: it has ended
        assert resumed.id == run.id
    assert list((tmp_path / "running").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreUnreachable])
def test_the_command_that_goes_on_is_printed_wherever_it_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    tracker = MemoryTracker()
    original = tracker.start

    @contextlib.contextmanager
    def ends_badly(*arguments: Any, **options: Any) -> Iterator[Any]:
        with original(*arguments, **options) as run:
            yield run
            raise error("at the very end")

    monkeypatch.setattr(tracker, "start", ends_badly)
    with (
        pytest.raises(error, match="at the very end"),
        training_run(tracker, "train", config("train", f"data_folder={tmp_path}"), "train"),
    ):
        pass
    said = " ".join(capsys.readouterr().out.split())
    assert (
        f"Resume it: mlflow run . -e train --env-manager local -P dataset=auto -P resume={tracker.runs[0].id}" in said
    )


def test_what_was_put_aside_for_runs_that_are_finished_is_removed(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    with contextlib.suppress(KeyboardInterrupt), tracker.start("train") as killed:
        raise KeyboardInterrupt
    with tracker.start("train") as finished:
        pass
    for name in (killed.id, finished.id, "of another store"):
        (tmp_path / "unlogged" / name).mkdir(parents=True)
    with training_run(tracker, "train", config("train", f"data_folder={tmp_path}"), "train"):
        pass
    assert {path.name for path in (tmp_path / "unlogged").iterdir()} == {killed.id, "of another store"}


@pytest.mark.slow
@pytest.mark.parametrize("dies_in", ["pretraining", "training"])
def test_after_an_interruption_it_reuses_its_pretraining(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch, dies_in: str
) -> None:
    learner = "network.learner.widths=[4,8] network.learner.epochs=2"
    whole = trained(prepared_folder, learner, model="autoencoder")
    tracker = MemoryTracker()
    module = "pretrain_one" if dies_in == "pretraining" else "fitting"
    original = EpochWatcher.batch_done

    def dying(self: Any, epoch: int) -> None:
        if epoch == 2 and self.summary.__module__.endswith(module):
            raise KeyboardInterrupt
        original(self, epoch)

    monkeypatch.setattr(EpochWatcher, "batch_done", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(prepared_folder, learner, tracker, model="autoencoder")
    monkeypatch.setattr(EpochWatcher, "batch_done", original)
    resumed = trained(prepared_folder, learner, tracker, model="autoencoder", resume=tracker.runs[0].id)
    assert [run.status for run in tracker.runs] == ["FINISHED", "FINISHED"]
    for epoch in (1, 2):
        assert resumed.history[epoch]["loss"] == pytest.approx(whole.history[epoch]["loss"], rel=1e-3)


@pytest.mark.parametrize("dies_in_epoch", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_in_either_phase_it_resumes_in_that_phase(
    prepared_folder: Path, monkeypatch: pytest.MonkeyPatch, dies_in_epoch: int
) -> None:
    phases = f"{SMALL_VGG} fine_tune.epochs=2 fine_tune.freeze=block5_conv2 fine_tune.learning_rate=0.001"
    phases += " fine_tune.layer_decay=0.5 fine_tune.average=0.8 fine_tune.warmup_epochs=1"
    whole = trained(prepared_folder, phases, model="vgg16", weights="none")
    tracker = MemoryTracker()
    original = EpochWatcher.batch_done

    def dying(self: Any, epoch: int) -> None:
        if epoch == dies_in_epoch:
            raise KeyboardInterrupt
        original(self, epoch)

    # Small networks too are saved after every epoch here.
    monkeypatch.setattr("wastelens.training.checkpoint.CheckpointKeeper.SHARE_OF_TIME", 1.0)
    monkeypatch.setattr(EpochWatcher, "batch_done", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(prepared_folder, phases, tracker, model="vgg16", weights="none")
    assert sorted(tracker.runs[0].history) == list(range(1, dies_in_epoch))
    monkeypatch.setattr(EpochWatcher, "batch_done", original)
    resumed = trained(prepared_folder, phases, tracker, model="vgg16", weights="none", resume=tracker.runs[0].id)
    assert sorted(resumed.history)[:4] == [1, 2, 3, 4]
    assert resumed.history[4]["loss"] == pytest.approx(whole.history[4]["loss"], rel=1e-3)
    assert resumed.metrics["val/macro_ap"] == pytest.approx(whole.metrics["val/macro_ap"], abs=1e-3)


def test_resuming_with_other_weights(prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = config("train", SMALL_VGG, model="vgg16").network
    file = tmp_path / "vgg.weights.h5"
    network.build(image_side_px=32, outputs=6, seed=1).save_weights(file)
    tracker = MemoryTracker()
    original = EpochWatcher.batch_done

    def dying(self: Any, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        original(self, epoch)

    monkeypatch.setattr(EpochWatcher, "batch_done", dying)
    with pytest.raises(KeyboardInterrupt):
        trained(prepared_folder, SMALL_VGG, tracker, model="vgg16", weights=str(file))
    monkeypatch.setattr(EpochWatcher, "batch_done", original)
    network.build(image_side_px=32, outputs=6, seed=2).save_weights(file)
    with pytest.raises(RunError, match="are not those that run"):
        trained(prepared_folder, SMALL_VGG, tracker, model="vgg16", resume=tracker.runs[0].id)
    assert tracker.runs[0].status == "KILLED"
