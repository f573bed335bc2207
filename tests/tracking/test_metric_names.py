"""Names of metrics: those of version 0.1 are read, and single numbers are no curves."""

from __future__ import annotations

import pytest
from tests.memory_tracking import MemoryTracker

from wastelens.tracking.metric_names import current_names, log_closing


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("val_macro_ap", "val/macro_ap"),
        ("test_ap_other_objects", "test/ap_other_objects"),
        ("floor_macro_f1", "floor/macro_f1"),
        ("control_colour_test_macro_ap", "controls/colour_macro_ap"),
        ("control_random_encoder_val_macro_ap", "controls/random_encoder_val_macro_ap"),
        ("threshold_glass", "threshold/glass"),
        ("gain_over_controls_low", "gain_over_controls_low"),
        ("explain/shap/energy", "explain/shap/energy"),
        ("loss", "loss"),
    ],
)
def test_names_of_earlier_runs(old: str, new: str) -> None:
    assert current_names({old: 0.5}) == {new: 0.5}
    assert current_names({new: 0.5}) == {new: 0.5}


def test_only_curves_get_a_step_at_the_end() -> None:
    tracker = MemoryTracker()
    with tracker.start("train") as run:
        run.log_metrics({"val/macro_ap": 0.2}, step=1)
        log_closing(run, {"val/macro_ap": 0.4, "test/macro_ap": 0.3}, ["loss", "val/macro_ap"], 2)
    (kept,) = tracker.runs
    assert kept.history[2] == {"val/macro_ap": 0.4}
    assert kept.metrics == {"val/macro_ap": 0.4, "test/macro_ap": 0.3}
