"""Resuming interrupted runs: the checkpoint after each epoch, and how a run continues from it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wastelens.config.pretrain import PretrainConfig
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError, StoreUnreachable
from wastelens.experiment.finished_runs import about_run
from wastelens.system.console import Bar, next_command, say
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

AnyConfig = TypeVar("AnyConfig", TrainConfig, PretrainConfig)


@dataclass(frozen=True)
class EpochWatcher:
    """Logs each epoch, saves a checkpoint, and moves the progress bar.

    Attributes:
        tracked: the run to log to.
        bar: the progress bar, which advances by one per batch.
        keeper: of checkpoints.
        summary: (epoch, metrics, progress) → the text behind the bar.
        after_epoch: is called last, with the epoch and the best value so far; an exception ends the training.
    """

    tracked: Run
    bar: Bar
    keeper: CheckpointKeeper
    summary: Callable[[int, dict[str, float], Progress], str]
    after_epoch: Callable[[int, float], None] = lambda epoch, best_value: None

    def batch_done(self, epoch: int) -> None:
        """Move the bar."""
        self.bar.advance()

    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None:
        """Log the epoch's metrics and offer a checkpoint."""
        logged: dict[str, Any] = {"metrics": metrics, "step": epoch, "measured_ms": int(time.time() * 1000)}
        try:
            self.tracked.log_metrics(**logged)
            self.keeper.offer(checkpoint)
        except StoreUnreachable:
            self.keeper.put_aside(checkpoint(), logged)
            raise
        self.bar.show(self.summary(epoch, metrics, progress))
        self.after_epoch(epoch, progress.best_value)


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
    return data_folder / "unlogged" / run_id


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
def telling_how_to_resume(run_id: str, config: TrainConfig | PretrainConfig, step: str) -> Iterator[None]:
    """Print the command that resumes the run, where the user or the end of MLflow's server interrupts it."""
    try:
        yield
    except (KeyboardInterrupt, StoreUnreachable):
        command = next_command(step, {"dataset": config.dataset, "resume": run_id}, config.data_folder)
        say(f"Run {run_id} was interrupted. Resume it: {command}", "yellow")
        raise
