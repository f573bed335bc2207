"""Resuming interrupted runs: the checkpoint after each epoch, and how a run continues from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from wastelens.config.pretrain import PretrainConfig
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError
from wastelens.experiment.finished_runs import about_run
from wastelens.system.console import Bar, next_command, say
from wastelens.tracking.tracker import Run, Tracker
from wastelens.training.checkpoint import Checkpoint, CheckpointKeeper, Progress, load_checkpoint

AnyConfig = TypeVar("AnyConfig", TrainConfig, PretrainConfig)


@dataclass(frozen=True)
class EpochWatcher:
    """Logs each epoch, saves a checkpoint, and moves the progress bar.

    Attributes:
        tracked: the run to log to.
        bar: the progress bar, which advances by one per batch.
        keeper: of checkpoints; None: an interrupted training is lost.
        summary: (epoch, metrics, progress) → the text behind the bar.
        after_epoch: is called last, with the epoch and the best value so far; an exception ends the training.
    """

    tracked: Run
    bar: Bar
    keeper: CheckpointKeeper | None
    summary: Callable[[int, dict[str, float], Progress], str]
    after_epoch: Callable[[int, float], None] = lambda epoch, best_value: None

    def batch_done(self, epoch: int) -> None:
        """Move the bar."""
        self.bar.advance()

    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None:
        """Log the epoch's metrics and offer a checkpoint."""
        self.tracked.log_metrics(metrics, step=epoch)
        if self.keeper:
            self.keeper.offer(checkpoint)
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
        return type(config).model_validate({**about["config"], "resume": config.resume})
    except ValueError:
        raise RunError(
            f"Run {config.resume} was started by another version of Wastelens, whose settings this one does not know. "
            "Start a new one."
        ) from None


def checkpoint_of(tracked: Run) -> Checkpoint | None:
    """Return the last complete checkpoint of a resumed run, if there is one."""
    checkpoint = load_checkpoint(tracked)
    done = checkpoint.progress.epochs_done if checkpoint else 0
    say(f"Resuming run {tracked.id} after {done} finished epochs, with the settings it was started with.")
    return checkpoint


@contextlib.contextmanager
def telling_how_to_resume(run_id: str, config: TrainConfig | PretrainConfig, step: str) -> Iterator[None]:
    """Print the command that resumes the run, where the user interrupts it."""
    try:
        yield
    except KeyboardInterrupt:
        command = next_command(step, {"dataset": config.dataset, "resume": run_id}, config.data_folder)
        say(f"Run {run_id} was interrupted. Resume it: {command}", "yellow")
        raise
