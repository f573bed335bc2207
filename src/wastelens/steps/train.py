"""``train``: train one model on a prepared dataset and evaluate it once on test."""

from __future__ import annotations

from wastelens.config.train import TrainConfig
from wastelens.experiment.comparison import tell_of_start
from wastelens.experiment.train_one import Trained, train_one
from wastelens.system.console import next_command, say
from wastelens.tracking.tracker import Tracker


def judged(config: TrainConfig, tracker: Tracker) -> Trained:
    """Train, evaluate and log one model, and print the verdict."""
    say("Loading TensorFlow and the dataset.", "dim")
    trained = train_one(config, tracker)
    say(trained.verdict.sentence, "green" if trained.verdict.above_controls else "yellow")
    tell_of_start(trained.verdict)
    return trained


def run(config: TrainConfig, tracker: Tracker) -> Trained:
    """Train, evaluate and log one model, and print what to do next.

    Raises:
        As :func:`train_one`.
    """
    trained = judged(config, tracker)
    say(f"Run {trained.run_id} is complete. See it: {tracker.finished_hint(trained.run_id)}")
    parameters = {"dataset": config.dataset, "run_id": trained.run_id}
    say(f"Where it looks: {next_command('explain', parameters, config.data_folder)}")
    say(f"Next: {trained.use_command(config.data_folder)}")
    return trained
