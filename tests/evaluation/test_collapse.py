"""Collapse is detected in results that the predecessor reported as progress, and not in a working model."""

from __future__ import annotations

import numpy as np
import pytest

from wastelens.evaluation.collapse import Collapse, diagnose

PREVALENCE = np.array([0.77, 0.19, 0.21, 0.06, 0.24, 0.15])
MATERIALS = ("plastic", "aluminium", "paper", "glass", "other_objects", "toxic")


def labels(rng: np.random.Generator, n: int = 255) -> np.ndarray:
    return (rng.random((n, 6)) < PREVALENCE).astype(np.uint8)


def probabilities(truth: np.ndarray, rng: np.random.Generator, signal: float) -> np.ndarray:
    logits = signal * truth + rng.normal(size=truth.shape) - 1
    return 1 / (1 + np.exp(-logits))


def judged(truth, scores, threshold=0.5, shuffles: int = 200) -> Collapse:
    rng = np.random.default_rng(0)
    return diagnose(truth, scores, scores >= threshold, rng, MATERIALS, shuffles=shuffles)


def test_a_working_model_is_not_collapsed():
    rng = np.random.default_rng(1)
    truth = labels(rng)
    for signal in (1.0, 3.0):
        assert judged(truth, probabilities(truth, rng, signal)) == Collapse(())


def test_constant_outputs_are_collapsed_for_every_reason():
    rng = np.random.default_rng(2)
    truth = labels(rng)
    found = judged(truth, np.tile(PREVALENCE, (255, 1)))
    assert found.collapsed
    near_constant, same, floor = found.reasons
    assert "6 of 6 materials" in near_constant
    assert same == "255 of 255 photos get the same decision: plastic."
    assert "no better than chance" in floor


def test_every_photo_plastic_is_collapsed_though_probabilities_move():
    rng = np.random.default_rng(3)
    truth = labels(rng)
    scores = np.column_stack([rng.uniform(0.6, 0.9, 255), rng.uniform(0, 0.2, (255, 5))])
    found = judged(truth, scores, threshold=0.22)
    assert found.collapsed
    assert any("same decision: plastic" in reason for reason in found.reasons)
    assert not any("near-constant" in reason for reason in found.reasons)


def test_strays_do_not_hide_a_constant():
    rng = np.random.default_rng(4)
    truth = labels(rng)
    scores = np.tile(PREVALENCE, (255, 1)) + rng.normal(scale=1e-4, size=(255, 6))
    scores[0] = 1 - PREVALENCE
    found = judged(truth, np.clip(scores, 0, 1))
    assert "6 of 6 materials" in found.reasons[0]


def test_noise_is_not_above_the_floor():
    caught = 0
    for seed in range(20):
        rng = np.random.default_rng([5, seed])
        truth = labels(rng, 120)
        found = judged(truth, rng.random(truth.shape), shuffles=100)
        caught += any("no better than chance" in reason for reason in found.reasons)
    assert caught >= 17


def test_some_constant_materials_are_no_collapse():
    rng = np.random.default_rng(6)
    truth = labels(rng)
    scores = probabilities(truth, rng, 2.0)
    scores[:, [3, 5]] = 0.05
    assert judged(truth, scores) == Collapse(())


def test_one_decision_for_all_is_right_where_all_are_the_same():
    rng = np.random.default_rng(7)
    truth = np.tile([1, 0, 0, 0, 0, 0], (200, 1))
    scores = np.clip(truth * 0.8 + rng.random(truth.shape) * 0.15, 0, 1)
    assert not any("same decision" in reason for reason in judged(truth, scores).reasons)


def test_with_few_photos_only_constant_answers_are_a_collapse():
    rng = np.random.default_rng(6)
    truth = labels(rng, 29)
    noise = judged(truth, rng.random(truth.shape))
    assert noise == Collapse((), "There are only 29 photos; 30 or more are needed.")
    (constant,) = judged(truth, np.tile(PREVALENCE, (29, 1))).reasons
    assert "near-constant" in constant


def test_with_few_positives_of_most_materials_only_constant_answers_are_a_collapse():
    rng = np.random.default_rng(7)
    truth = np.zeros((60, 6), np.uint8)
    truth[:4, :3], truth[:5, 3:] = 1, 1
    right = np.clip(0.5 * truth + 0.4 * rng.random(truth.shape), 0, 1)
    assert judged(truth, right) == Collapse(()), "half of the materials have five"
    truth[4, 5] = 0
    few = "Fewer than 5 photos show plastic, aluminium, paper, toxic."
    assert judged(truth, right) == judged(truth, rng.random(truth.shape)) == Collapse((), few)


def test_chance_is_no_collapse_where_a_material_is_rare():
    rng = np.random.default_rng(9)
    truth = labels(rng, 200)
    truth[:, 0] = np.arange(200) < 4
    noise = rng.random(truth.shape)
    assert judged(truth, noise) == Collapse((), "Fewer than 5 photos show plastic.")
    truth[4, 0] = 1
    assert "no better than chance" in judged(truth, noise).reasons[0]


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="decisions"):
        diagnose([[0, 1]], [[0.1, 0.9]], [[1]], np.random.default_rng(0), ["glass", "paper"])
