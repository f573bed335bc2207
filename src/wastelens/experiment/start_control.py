"""The control of networks that start from something learned before: a linear probe on what they start from."""

from __future__ import annotations

from collections.abc import Callable

from wastelens.config.augmentation import NoAugmentation
from wastelens.config.networks import EncoderNetworkConfig
from wastelens.config.train import TrainConfig
from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.evaluation.verdict import StartAnswers
from wastelens.models.backend import precision
from wastelens.preparing.balance import training_rows
from wastelens.system.console import say
from wastelens.training.checkpoint import Checkpoint, Progress
from wastelens.training.phases import first_phase


class Unwatched:
    """Hears of an epoch and does nothing."""

    def batch_done(self, epoch: int) -> None:
        """Ignore it."""

    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None:
        """Ignore it."""


def start_answers(config: TrainConfig, dataset: PreparedDataset) -> StartAnswers | None:
    """Fit a probe on what a network started from, and return its answers for val and test.

    That is the pretrained backbone as it came; for the probe of a pretrained encoder, the encoder's random start. The
    same labels teach it, each photo once and unchanged, and features that another run has computed are used again.

    Returns:
        None where the network started from random weights, or is itself the probe of a backbone.
    """
    network = config.network.probe_of_start()
    if network is None or (config.weights, config.pretrained) == ("none", "none"):
        return None
    with precision(config.mixed_precision):
        model = network.build(image_side_px=dataset.side_px, outputs=len(dataset.materials), seed=config.seed)
    if network.takes_weights:
        network.load_weights(model, config.weights)
    elif isinstance(network, EncoderNetworkConfig):
        photos = PhotoRows([(dataset.photos, dataset.learning(config.fold).train.photo_index)])
        network.learner.standardise(model, photos, dataset.folder)
    changes = {"network": network, "augmentation": NoAugmentation(kind="none"), "freeze": 1.0}
    probing = config.model_copy(update=changes)
    start = "the frozen backbone" if network.takes_weights else "the encoder's random start"
    say(f"As a control, a linear probe on {start}:")
    rows = training_rows(
        dataset,
        fold=config.fold,
        balanced=False,
        balance_target="auto",
        labels_percent=config.labels_percent,
        seed=config.seed,
    )
    phase = first_phase(model, probing, dataset, rows)
    tables = dataset.split(config.fold)
    phase.fit(tables.val, probing, Unwatched())
    name = "probe" if network.takes_weights else "random_encoder"
    return StartAnswers(name, phase.predict(tables.val), phase.predict(tables.test))
