"""Go on with an interrupted run: its settings, its last checkpoint, and how the user is told of both."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TypeVar

from wastelens.config.pretrain import PretrainConfig
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError
from wastelens.experiment.finished_runs import about_run
from wastelens.system.console import say
from wastelens.system.next_command import next_command
from wastelens.tracking.tracker import Run, Tracker
from wastelens.training.checkpoint import Checkpoint, load_checkpoint

AnyConfig = TypeVar("AnyConfig", TrainConfig, PretrainConfig)


def settings_of_resumed(tracker: Tracker, config: AnyConfig, dataset: PreparedDataset, step: str) -> AnyConfig:
    """The settings that the run to resume was started with; nothing is written before they are found to fit.

    Raises:
        RunError: no such run, one of another step, a finished one, or one on another preparation of the dataset.
    """
    stored = tracker.stored(config.resume)
    about = about_run(stored)
    if about.get("step") != step:
        raise RunError(f"Run {config.resume} is no run of the step {step}, so that {step} cannot go on with it.")
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
    """The last whole checkpoint of a resumed run, if it came so far."""
    checkpoint = load_checkpoint(tracked)
    done = checkpoint.progress.epochs_done if checkpoint else 0
    say(f"Going on with run {tracked.id} after {done} finished epochs, with the settings it was started with.")
    return checkpoint


@contextlib.contextmanager
def telling_how_to_resume(run_id: str, config: TrainConfig | PretrainConfig, step: str) -> Iterator[None]:
    """Say, where the user interrupts a step, how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        command = next_command(step, {"dataset": config.dataset, "resume": run_id}, config.data_folder)
        say(f"Run {run_id} was interrupted. Go on with: {command}", "yellow")
        raise
