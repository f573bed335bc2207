"""A rule keeps the order of photos, reads back what it wrote, and says unsure inside its bands only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wastelens.system.decision_rule import NEVER, DecisionRule, RisingMap, log_odds, read_rule, sigmoid

BENT = RisingMap((-1.0, 0.0, 2.0), (-3.0, 0.5, 1.0))
RULE = DecisionRule({"glass": 0.4, "paper": 0.6}, {"glass": BENT}, {"glass": (0.2, 0.7), "paper": (0.1, NEVER)})


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=20, unique=True))
def test_a_map_is_straight_between_and_beyond_its_knots_and_rises(values: list[float]) -> None:
    numbers = np.sort(values)
    mapped = BENT(numbers)
    assert (np.diff(mapped) >= 0).all()
    for value, found in zip(numbers, mapped, strict=True):
        left = 0 if value < 0 else 1
        slope = (BENT.y[left + 1] - BENT.y[left]) / (BENT.x[left + 1] - BENT.x[left])
        assert found == pytest.approx(BENT.y[left] + slope * (value - BENT.x[left]))


def test_calibration_changes_the_mapped_materials_and_keeps_the_order() -> None:
    numbers = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    found = RULE.calibrated(numbers)
    assert found[:, 1] == pytest.approx(numbers[:, 1])
    assert (np.argsort(found[:, 0]) == np.argsort(numbers[:, 0])).all()
    assert found[:, 0] == pytest.approx(sigmoid(BENT(log_odds(numbers[:, 0]))))


def test_probabilities_that_float32_tells_apart_stay_apart() -> None:
    numbers = np.array([[1e-20, 0.5, 1 - 2**-22, 1 - 2**-24, 1.0]], dtype=np.float32).T
    found = DecisionRule({"glass": 0.5}, {"glass": RisingMap((0.0, 1.0), (0.0, 0.5))}).calibrated(numbers)
    assert (np.diff(found[:, 0]) > 0).all()


def test_zero_and_one_have_finite_log_odds() -> None:
    assert np.isfinite(log_odds([0.0, 1.0])).all()
    assert sigmoid(log_odds([1e-9, 0.3, 1 - 1e-5])) == pytest.approx([1e-9, 0.3, 1 - 1e-5])


def test_answers_are_unsure_inside_the_bands_only() -> None:
    numbers = [[0.19, 0.05], [0.2, 0.1], [0.69, 0.99], [0.7, 1.0]]
    assert RULE.answers(numbers).tolist() == [[0, 0], [-1, -1], [-1, -1], [1, -1]]
    assert DecisionRule({"glass": 0.4}).answers([[0.39], [0.4]]).tolist() == [[0], [1]]


def test_a_rule_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "decision_rule.json"
    file.write_text(json.dumps({"image_side_px": 32, **RULE.as_json()}, allow_nan=False), encoding="utf-8")
    assert read_rule(file) == RULE
    assert read_rule(file).of(["paper"]) == DecisionRule({"paper": 0.6}, {}, {"paper": (0.1, NEVER)})
