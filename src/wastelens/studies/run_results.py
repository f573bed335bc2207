"""What finished trainings have come to, read from the store for a comparison."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from wastelens.errors import RunError
from wastelens.studies.places import Place
from wastelens.studies.results import CURVES, FINISHED, PREDICTIONS, Result, read_predictions
from wastelens.tracking.tracker import StoredRun


def result_of(stored: StoredRun, place: Place, materials: Sequence[str], pretraining_minutes: float = 0.0) -> Result:
    """A finished run's numbers, predictions and learning curves.

    Raises:
        RunError: its predictions are not there, or of an earlier version.
    """
    run_id = stored.run.id
    with tempfile.TemporaryDirectory() as folder:
        file = stored.run.download(PREDICTIONS, Path(folder))
        if file is None:
            raise RunError(f"Run {run_id} has no {PREDICTIONS}: it was removed. Delete the run, and train again.")
        predictions = read_predictions(file, materials, run_id)
    return Result(
        place,
        FINISHED,
        run_id,
        stored.metrics,
        stored.tags,
        predictions,
        stored.run.metric_history(CURVES),
        pretraining_minutes,
    )
