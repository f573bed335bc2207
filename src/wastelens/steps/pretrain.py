"""``pretrain``: learn from photos without their labels; the encoder that comes of it is a run's artifact."""

from __future__ import annotations

from wastelens.config.pretrain import PretrainConfig
from wastelens.experiment.pretrain_one import Pretrained, pretrain_one, say_reconstruction
from wastelens.system.console import say
from wastelens.system.next_command import next_command
from wastelens.tracking.tracker import Tracker


def run(config: PretrainConfig, tracker: Tracker) -> Pretrained:
    """Learn from the training photos, log the encoder, and say what to do with it.

    Raises:
        As :func:`pretrain_one`.
    """
    pretrained = pretrain_one(config, tracker)
    _report(pretrained, tracker, config)
    return pretrained


def _report(pretrained: Pretrained, tracker: Tracker, config: PretrainConfig) -> None:
    say_reconstruction(pretrained)
    model = "dbn" if config.learner.kind in ("rbm", "dbn") else "autoencoder"
    parameters = {"dataset": config.dataset, "model": model, "pretrained": pretrained.run_id}
    say(f"Start from it: {next_command('train', parameters, config.data_folder)}")
    say(f"Run {pretrained.run_id} is complete. See it: {tracker.finished_hint()}")
