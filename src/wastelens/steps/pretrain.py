"""``pretrain``: learn an encoder from photos without labels, and keep it as a run's artifact."""

from __future__ import annotations

from wastelens.config.pretrain import PretrainConfig
from wastelens.experiment.pretrain_one import Pretrained, pretrain_one, say_reconstruction
from wastelens.system.console import next_command, say
from wastelens.tracking.tracker import Tracker


def run(config: PretrainConfig, tracker: Tracker) -> Pretrained:
    """Learn from the training photos, log the encoder, and print what to do with it.

    Raises:
        As :func:`pretrain_one`.
    """
    pretrained = pretrain_one(config, tracker)
    say_reconstruction(pretrained)
    parameters = {"dataset": config.dataset, "model": config.learner.network_kind, "pretrained": pretrained.run_id}
    say(f"Start from it: {next_command('train', parameters, config.data_folder)}")
    say(f"Run {pretrained.run_id} is complete. See it: {tracker.finished_hint(pretrained.run_id)}")
    return pretrained
