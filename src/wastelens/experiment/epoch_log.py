"""What a step does after every epoch of a training: log, keep a checkpoint, move the bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wastelens.system.console import Bar
from wastelens.tracking.tracker import Run
from wastelens.training.checkpoint import Checkpoint, CheckpointKeeper, Progress


@dataclass
class EpochWatcher:
    """Logs each epoch, keeps a checkpoint of it where it has a keeper, and moves the bar; a step says what it shows."""

    tracked: Run
    bar: Bar
    keeper: CheckpointKeeper | None

    def batch_done(self, epoch: int) -> None:
        """Move the bar."""
        self.bar.advance()

    def epoch_done(
        self, epoch: int, metrics: dict[str, float], progress: Progress, checkpoint: Callable[[], Checkpoint]
    ) -> None:
        """Log the epoch's metrics; after this a kill loses nothing of it."""
        self.tracked.log_metrics(metrics, step=epoch)
        if self.keeper:
            self.keeper.offer(checkpoint)
        self.bar.show(self.figures(epoch, metrics, progress))

    def figures(self, epoch: int, metrics: dict[str, float], progress: Progress) -> str:
        """The line behind the bar."""
        raise NotImplementedError
