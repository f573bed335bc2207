"""The names of metrics in MLflow: those of an epoch and those of the whole run, and the names that version 0.1 used."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from wastelens.tracking.tracker import Run

_OF_0_1 = {
    r"control_(\w+)_test_macro_ap": r"controls/\1_macro_ap",
    r"control_(\w+)_val_macro_ap": r"controls/\1_val_macro_ap",
    r"(val|test|floor|threshold)_(\w+)": r"\1/\2",
}


def current_names(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a stored run by today's names: runs of version 0.1 can be compared and explained."""
    return {_current(name): value for name, value in metrics.items()}


def _current(name: str) -> str:
    for old, new in _OF_0_1.items():
        if re.fullmatch(old, name):
            return re.sub(old, new, name)
    return name


def log_closing(run: Run, metrics: Mapping[str, float], curves: Collection[str], step: int) -> None:
    """Log the metrics of a whole run.

    Those that also have a value per epoch end their curve at this step, the last one, with the value of the weights
    that were kept. The others are logged without a step: MLflow draws these as bars, not as curves of one point.
    """
    run.log_metrics({name: value for name, value in metrics.items() if name in curves}, step=step)
    run.log_metrics({name: value for name, value in metrics.items() if name not in curves})
