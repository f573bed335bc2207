"""The kinds of learning without labels: one file each, with its settings. A new file registers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from wastelens.training.checkpoint import Checkpoint, Progress
    from wastelens.training.loop import Watcher


class Learning(Protocol):
    """Learning without labels from given photos, as the step ``pretrain`` drives it.

    Attributes:
        epochs: the most there can be, of all layers together.
        steps: how often the watcher's ``batch_done`` is called in them, for a progress bar.
    """

    epochs: int
    steps: int

    def fit(self, watcher: Watcher, resume_from: Checkpoint | None) -> Progress: ...
    def encoder(self, image_side_px: int) -> Any: ...
    def closing_metrics(self) -> dict[str, float]: ...
    def figures(self) -> dict[str, Figure]: ...
    def save(self, folder: Path) -> Path: ...
