"""Figures of a model run, also for few photos and absent materials."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from wastelens.evaluation import metrics
from wastelens.evaluation.evaluate import evaluate
from wastelens.evaluation.metrics import floors
from wastelens.figures import verdict as figures

MATERIALS = ("plastic", "glass", "other_objects", "toxic")


@pytest.fixture(params=["sound", "constant and one absent", "two photos"])
def case(request):
    rng = np.random.default_rng(0)
    n = 2 if request.param == "two photos" else 60
    labels = rng.integers(0, 2, (n, 4))
    scores = np.clip(labels * 0.3 + rng.random((n, 4)) * 0.7, 0, 1)
    if request.param == "constant and one absent":
        labels[:, 1] = 0
        scores[:] = 0.3
    return labels, scores, np.full(4, 0.5)


def drawn(figure) -> list[str]:
    """Draw a figure, check that it is 300 to 1,200 px wide, and return all its text."""
    figure.savefig(io.BytesIO(), format="png")
    assert 300 <= figure.get_figwidth() * figure.dpi <= 1200
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_panels_name_every_material(case):
    labels, scores, thresholds = case
    for figure in (
        figures.precision_recall(labels, scores, MATERIALS, thresholds),
        figures.threshold_curves(labels, scores, MATERIALS, thresholds),
        figures.confusion_per_material(labels, scores >= thresholds, MATERIALS),
    ):
        texts = " ".join(drawn(figure))
        assert len(figure.axes) == 4
        assert all(material.replace("_", " ") in texts for material in MATERIALS)


def test_bars_carry_the_verdict_and_the_control(case):
    labels, scores, thresholds = case
    evaluation = evaluate(labels, scores, thresholds, MATERIALS, np.random.default_rng(0), 50)
    verdict = SimpleNamespace(
        test=evaluation,
        floors=floors(labels),
        sentence="It saw nothing.",
        strongest_control="colour",
        strongest_control_macro_ap=0.3,
        strongest_control_ap=np.array([0.2, np.nan, 0.3, 0.4]),
        start=None,
    )
    texts = drawn(figures.average_precision_bars(verdict))
    assert "It saw nothing." in texts
    words = "a linear probe on its own frozen features"
    assert words not in " ".join(texts)
    ap = verdict.strongest_control_ap
    verdict.start = SimpleNamespace(sentence="It adds much.", words=words, test_macro_ap=0.35, test_ap=ap)
    with_start = " ".join(drawn(figures.average_precision_bars(verdict)))
    assert words in with_start
    assert "It saw nothing. It adds much." in " ".join(with_start.split())
    assert "strongest control: colour" in texts
    low, high = evaluation.macro_ap_interval
    assert f"{evaluation.macro_ap:.2f} [{low:.2f}, {high:.2f}]" in texts


def test_precision_recall_area_is_average_precision():
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, (40, 1)), rng.integers(0, 9, (40, 1)) / 10
    figure = figures.precision_recall(labels, scores, ["glass"], [0.5])
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "model"]
    recall, precision = line.get_data()
    area = float((np.diff(recall) * precision[1:]).sum())
    assert area == pytest.approx(float(metrics.average_precision(labels[:, 0], scores[:, 0])))


def test_threshold_curve_passes_through_its_point():
    rng = np.random.default_rng(2)
    labels, scores = rng.integers(0, 2, (40, 1)), rng.random((40, 1))
    figure = figures.threshold_curves(labels, scores, ["glass"], [0.37])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    (at,), (reached,) = lines["calibrated on val"].get_data()
    cuts, f1 = lines["model"].get_data()
    assert reached == pytest.approx(f1[np.searchsorted(cuts, at)])
    assert reached == pytest.approx(metrics.macro_f1(labels, scores >= 0.37))


@pytest.mark.parametrize("epochs", [0, 1, 12])
def test_learning_curves(epochs):
    history = [
        {"epoch": e, "loss": 0.7 / (e + 1), "val/macro_ap": 0.3 + 0.01 * e, "learning_rate": 1e-3, "val/loss": np.nan}
        for e in range(epochs)
    ]
    texts = drawn(figures.learning_curves(history, 0.27, 0))
    assert {"loss", "macro AP on val", "learning rate", "kept: epoch 0"} <= set(texts)


def test_pyplot_is_left_alone():
    before = "matplotlib.pyplot" in sys.modules
    drawn(figures.precision_recall([[1], [0]], [[0.7], [0.2]], ["glass"], [0.5]))
    assert ("matplotlib.pyplot" in sys.modules) == before
