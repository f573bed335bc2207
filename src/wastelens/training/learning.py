"""The ways to learn without labels, behind one interface: what the step ``pretrain`` drives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wastelens.config.networks import DbnConfig, LearnerConfig, RbmConfig
from wastelens.training.autoencoder_learning import AutoencoderLearning
from wastelens.training.checkpoint import Checkpoint, Progress
from wastelens.training.fit import Watcher
from wastelens.training.stack_learning import StackLearning
from wastelens.training.visible_photos import VisiblePhotos

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Learning(Protocol):
    """One way to learn without labels, on given photos.

    Attributes:
        epochs: of all layers together, at most.
        steps: how often the watcher's ``batch_done`` is called in them, for a progress bar.
    """

    epochs: int
    steps: int

    def fit(self, watcher: Watcher, resume_from: Checkpoint | None) -> Progress: ...
    def encoder(self, image_side_px: int) -> Any: ...
    def closing_metrics(self) -> dict[str, float]: ...
    def figures(self) -> dict[str, Figure]: ...
    def save(self, folder: Path) -> Path: ...


def build_learning(
    config: LearnerConfig, photos: VisiblePhotos, *, seed: int, mixed_precision: bool, folder: Path
) -> Learning:
    """The way that the config describes; ``folder`` is where large intermediate results take their space."""
    if isinstance(config, RbmConfig | DbnConfig):
        return StackLearning(config, photos, seed=seed, mixed_precision=mixed_precision, folder=folder)
    return AutoencoderLearning(config, photos, seed)
