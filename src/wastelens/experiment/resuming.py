"""Resuming interrupted runs: the checkpoint after each epoch, and how a run continues from it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wastelens.config.pretrain import PretrainConfig
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import DatasetError, RunError, StoreUnreachable
from wastelens.experiment.finished_runs import about_run
from wastelens.system.console import Bar, next_command, say
from wastelens.system.files import alone_in
from wastelens.tracking.tracker import Run, Tracker
from wastelens.training.checkpoint import (
    CHECKPOINT_FOLDER,
    SLOTS,
    STATE,
    Checkpoint,
    CheckpointKeeper,
    Progress,
    load_checkpoint,
)

UNLOGGED = "unlogged"
AnyConfig = TypeVar("AnyConfig", TrainConfig, PretrainConfig)


@dataclass(frozen=True)
class EpochWatcher:
    """Logs each epoch once, saves a checkpoint, and moves the progress bar.

    A kill can fall between an epoch's metrics and its checkpoint. Resumed, the epoch is then trained again, but its
    curve keeps the first value.

    Attributes:
        tracked: the run to log to.
        bar: the progress bar, which advances by one per batch.
        keeper: of checkpoints.
        summary: (epoch, metrics, progress) → the text behind the bar.
        after_epoch: is called last, with the epoch and the best value so far; an exception ends the training.
        logged_until: the last epoch that the run had before.
    """

    tracked: Run
    bar: Bar
    keeper: CheckpointKeeper
    summary: Callable[[int, dict[str, float], Progress], str]
    after_epoch: Callable[[int, float], None] = lambda epoch, best_value: None
    logged_until: int = 0

    def batch_done(self, epoch: int) -> None:
        """Move the bar."""
        self.bar.advance()

    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None:
        """Log the epoch's metrics and offer a checkpoint."""
        logged: dict[str, Any] = {"metrics": metrics, "step": epoch, "measured_ms": int(time.time() * 1000)}
        try:
            if epoch > self.logged_until:
                self.tracked.log_metrics(**logged)
            self.keeper.offer(checkpoint)
        except StoreUnreachable:
            self.keeper.put_aside(checkpoint(), logged)
            raise
        self.bar.show(self.summary(epoch, metrics, progress))
        self.after_epoch(epoch, progress.best_value)


def last_logged_epoch(tracked: Run, metric: str) -> int:
    """Return the last epoch that the run has this metric of; 0 if none."""
    return max((int(row["epoch"]) for row in tracked.metric_history([metric])), default=0)


def settings_of_resumed(tracker: Tracker, config: AnyConfig, dataset: PreparedDataset, step: str) -> AnyConfig:
    """Return the settings that the run to resume was started with; write nothing before they are found to fit.

    Raises:
        RunError: no such run, one of another step, a finished one, or one on another preparation of the dataset.
    """
    stored = tracker.stored(config.resume)
    about = about_run(stored)
    if about.get("step") != step:
        raise RunError(f"Run {config.resume} is not a {step} run, so {step} cannot resume it. Give the id of one.")
    if stored.status == "FINISHED":
        raise RunError(f"Run {config.resume} is finished; there is nothing to resume. Start a new one.")
    if about["dataset_digest"] != dataset.digest:
        raise RunError(
            f"Run {config.resume} was trained on another preparation of {dataset.name}. "
            "Prepare it as it was then, or start a new run."
        )
    try:
        here = {"resume": config.resume, "data_folder": config.data_folder, "outage_minutes": config.outage_minutes}
        return type(config).model_validate({**about["config"], **here})
    except ValueError:
        raise RunError(
            f"Run {config.resume} was started by another version of Wastelens, whose settings this one does not know. "
            "Start a new one."
        ) from None


def keeper_of(tracked: Run, data_folder: Path, checkpoint: Checkpoint | None) -> CheckpointKeeper:
    """Return the keeper of a run's checkpoints; checkpoint: that it continues from."""
    return CheckpointKeeper(tracked, checkpoint, _aside(data_folder, tracked.id))


def _aside(data_folder: Path, run_id: str) -> Path:
    """Return the folder for the epoch of a run that MLflow's server could not take."""
    return data_folder / UNLOGGED / run_id


def has_checkpoint(run: Run, data_folder: Path) -> bool:
    """Return whether an interrupted run left a checkpoint, in the store or on this machine."""
    if (_aside(data_folder, run.id) / STATE).exists():
        return True
    with tempfile.TemporaryDirectory() as folder:
        files = (run.download(f"{CHECKPOINT_FOLDER}/{slot}/{STATE}", Path(folder)) for slot in SLOTS)
        return any(files)


def checkpoint_of(tracked: Run, data_folder: Path) -> Checkpoint | None:
    """Return the last complete checkpoint of a resumed run, if there is one."""
    checkpoint = load_checkpoint(tracked, _aside(data_folder, tracked.id))
    done = checkpoint.progress.epochs_done if checkpoint else 0
    say(f"Resuming run {tracked.id} after {done} finished epochs, with the settings it was started with.")
    return checkpoint


@contextlib.contextmanager
def training_run(
    tracker: Tracker,
    name: str,
    config: TrainConfig | PretrainConfig,
    step: str,
    *,
    tags: Mapping[str, object] | None = None,
    by_user: bool = True,
) -> Iterator[Run]:
    """Open a training's run, or the one to resume, as the only process of this machine that writes it.

    Where Ctrl-C or the end of MLflow's server interrupts it, print the command that goes on.

    Args:
        tracker: to open the run with.
        name: of a new run.
        config: settings of the training.
        step: ``train`` or ``pretrain``.
        tags: of the run.
        by_user: whether the user started this very training; a study's engine lets a training run in one place at a
            time, and starts it again itself.

    Raises:
        RunError: another process is training the run to resume.
    """
    run_id = config.resume
    with contextlib.ExitStack() as held:
        if run_id:
            held.enter_context(_held(config.data_folder, run_id, refuse=by_user))
        try:
            with tracker.start(name, resume=run_id, tags=tags) as tracked:
                if not run_id:
                    run_id = tracked.id
                    held.enter_context(_held(config.data_folder, run_id, refuse=False))
                tracked.resumed_by = _resuming(step, config, run_id) if by_user else ""
                _clear_unlogged(tracker, config.data_folder)
                yield tracked
        except (KeyboardInterrupt, StoreUnreachable):
            if by_user and run_id:
                command = _resuming(step, config, run_id)
                say(f"Run {run_id} was interrupted. Resume it: {command}", "yellow")
            raise


def _resuming(step: str, config: TrainConfig | PretrainConfig, run_id: str) -> str:
    return next_command(step, {"dataset": config.dataset, "resume": run_id}, config.data_folder)


@contextlib.contextmanager
def _held(data_folder: Path, run_id: str, *, refuse: bool) -> Iterator[None]:
    """Hold the lock of a run, which ends with the process; if another process holds it, refuse or go on without."""
    folder = data_folder / "running" / run_id
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(alone_in(folder, "data_folder"))
        except DatasetError:
            if refuse:
                raise RunError(f"Another process is training run {run_id} right now. Wait for it to end.") from None
        else:
            lock.callback(_remove_empty, folder)
        yield


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _clear_unlogged(tracker: Tracker, data_folder: Path) -> None:
    """Remove the epochs that were put aside here for runs which another machine has finished since."""
    for folder in (data_folder / UNLOGGED).glob("*"):
        with contextlib.suppress(RunError):  # a run of another store
            if tracker.stored(folder.name).status == "FINISHED":
                shutil.rmtree(folder, ignore_errors=True)
