"""Losses against their plain formulas in float64, and their gradients where logits are extreme."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tests.factories import config

from wastelens.training.losses import AsymmetricLoss, BinaryCrossEntropy, FocalLoss


@pytest.fixture(scope="module")
def tf():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import tensorflow

    return tensorflow


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (32, 6)).astype(np.float32)
LABELS = (RNG.random((32, 6)) < 0.3).astype(np.float32)
EXTREME = np.array([[-100, -30, -1e-3, 0, 1e-3, 30, 100]] * 2, dtype=np.float32)
BOTH = np.array([[0] * 7, [1] * 7], dtype=np.float32)


def plain_cross_entropy(labels, logits):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return -labels * np.log(p) - (1 - labels) * np.log(1 - p)


def plain_focal(labels, logits, gamma):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    truth = np.where(labels == 1, p, 1 - p)
    return (1 - truth) ** gamma * -np.log(truth)


def plain_asymmetric(labels, logits, gamma_positive, gamma_negative, clip):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    shifted = np.maximum(p - clip, 0)
    positive = labels * (1 - p) ** gamma_positive * np.log(p)
    return -positive - (1 - labels) * shifted**gamma_negative * np.log(1 - shifted)


def gradient(tf, loss, labels, logits):
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        value = loss(tf.constant(labels), variable)
    return float(value), tape.gradient(value, variable).numpy()


def asymmetric(gamma_positive, gamma_negative, clip):
    return AsymmetricLoss(kind="asymmetric", gamma_positive=gamma_positive, gamma_negative=gamma_negative, clip=clip)


BCE = BinaryCrossEntropy(kind="bce")
ALL = {
    "bce": BCE,
    **{f"focal {g}": FocalLoss(kind="focal", gamma=g) for g in (0, 0.5, 2, 5)},
    **{f"asymmetric {a}": asymmetric(*a) for a in ((0, 0, 0), (0, 4, 0.05), (1, 4, 0.05), (0.5, 0.5, 0), (1, 2, 0.9))},
}


def test_binary_cross_entropy(tf):
    expected = plain_cross_entropy(LABELS, LOGITS).mean()
    assert float(BCE(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
def test_focal(tf, gamma):
    expected = plain_focal(LABELS, LOGITS, gamma).mean()
    assert float(FocalLoss(kind="focal", gamma=gamma)(LABELS, LOGITS)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("gamma_positive", "gamma_negative"), [(0, 0), (0, 4), (1, 4), (2, 0.5)])
@pytest.mark.parametrize("clip", [0, 0.05, 0.5])
def test_asymmetric(tf, gamma_positive, gamma_negative, clip):
    expected = plain_asymmetric(LABELS, LOGITS, gamma_positive, gamma_negative, clip).mean()
    found = asymmetric(gamma_positive, gamma_negative, clip)(LABELS, LOGITS)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["focal 0", "asymmetric (0, 0, 0)"])
def test_special_cases_are_binary_cross_entropy_even_at_extremes(tf, name):
    for labels, logits in ((LABELS, LOGITS), (BOTH, EXTREME)):
        value, slope = gradient(tf, ALL[name], labels, logits)
        expected, expected_slope = gradient(tf, BCE, labels, logits)
        assert value == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-5, atol=1e-9)


def test_gradient_of_binary_cross_entropy_is_probability_less_label(tf):
    _, slope = gradient(tf, BCE, BOTH, EXTREME)
    probability = 1 / (1 + np.exp(-EXTREME.astype(np.float64)))
    np.testing.assert_allclose(slope * EXTREME.size, probability - BOTH, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_value_and_gradient_are_finite_at_extreme_logits(tf, name):
    value, slope = gradient(tf, ALL[name], BOTH, EXTREME)
    assert np.isfinite(value)
    assert value >= 0
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", ALL)
def test_certain_mistakes_about_positives_still_pull(tf, name):
    _, slope = gradient(tf, ALL[name], BOTH, EXTREME)
    assert slope[1, 0] < -0.01  # a material that is there, with a logit of -100
    assert slope[1, 0] * EXTREME.size == pytest.approx(-1, rel=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_gradient_against_finite_differences(tf, name):
    _, slope = gradient(tf, ALL[name], LABELS[:2], LOGITS[:2])
    step = 1e-2
    for row, column in np.ndindex(2, 6):
        high, low = LOGITS[:2].copy(), LOGITS[:2].copy()
        high[row, column] += step
        low[row, column] -= step
        rise = float(ALL[name](LABELS[:2], high)) - float(ALL[name](LABELS[:2], low))
        assert slope[row, column] == pytest.approx(rise / (2 * step), abs=3e-3)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("loss.kind=bce", "bce"),
        ("loss.kind=focal loss.gamma=5", "focal 5"),
        (
            "loss.kind=asymmetric loss.gamma_positive=1 loss.gamma_negative=4 loss.clip=0.05",
            "asymmetric (1, 4, 0.05)",
        ),
    ],
)
def test_config_builds_the_loss_it_names(tf, settings, name):
    built = config("train", settings).loss
    assert float(built(LABELS, LOGITS)) == pytest.approx(float(ALL[name](LABELS, LOGITS)))
