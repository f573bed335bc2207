"""Calibration equals trying every threshold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wastelens.data.prepared.tables import TestTable, TrainTable, ValTable
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.evaluation.verdict import StartAnswers, calibrate, calibrate_on, judge


def f1(truth, called):
    return 2 * np.sum(truth * called) / (truth.sum() + called.sum() or 1)


@settings(deadline=None, max_examples=40)  # the two cores are shared
@given(
    arrays.arrays(np.uint8, (12, 2), elements=st.integers(0, 1)),
    arrays.arrays(np.float64, (12, 2), elements=st.integers(0, 10).map(lambda tenth: tenth / 10)),
)
def test_no_threshold_is_better_and_no_equally_good_cut_is_nearer_to_half(labels, probabilities):
    for j, threshold in enumerate(calibrate(labels, probabilities)):
        truth, scores = labels[:, j], probabilities[:, j]
        if not truth.any():
            assert threshold == 0.5
            continue
        distinct = np.unique(scores)
        cuts = np.append(distinct[0] / 2, (distinct[1:] + distinct[:-1]) / 2)
        reached = {cut: f1(truth, scores >= cut) for cut in cuts}
        best = max(reached.values())
        assert f1(truth, scores >= threshold) == pytest.approx(best)
        nearest = min(abs(cut - 0.5) for cut, value in reached.items() if value > best - 1e-12)
        assert abs(threshold - 0.5) == pytest.approx(nearest)


def test_a_clean_gap_is_cut_in_the_middle():
    assert calibrate([[0], [0], [1], [1]], [[0.1], [0.2], [0.6], [0.9]]) == pytest.approx([0.4])


def test_neighbouring_floats_are_still_told_apart():
    low = 0.3
    high = np.nextafter(low, 1)
    (threshold,) = calibrate([[0], [1]], [[low], [high]])
    assert low < threshold <= high


def test_constant_probabilities_predict_everything():
    (threshold,) = calibrate([[0], [1]], [[0.3], [0.3]])
    assert threshold <= 0.3


def table(kind):
    frame = pd.DataFrame({"file_name": ["a", "b"], "plastic": [0, 1]})
    return kind(frame, ("plastic",))


def test_val_only():
    assert calibrate_on(table(ValTable), [[0.2], [0.8]]) == pytest.approx([0.5])
    for kind in (TrainTable, TestTable):
        with pytest.raises(TypeError, match=kind.__name__):
            calibrate_on(table(kind), [[0.2], [0.8]])


def test_probabilities_are_checked():
    with pytest.raises(ValueError, match="0, 1"):
        calibrate([[0], [1]], [[0.2], [1.8]])


def judged(val_shift, test_shift, probe_name="probe"):
    """Return the verdict on scores that are better (> 0) or worse than a probe's on val and test."""
    rng = np.random.default_rng(0)
    answers = {}
    for split, kind, shift in (("val", ValTable, val_shift), ("test", TestTable, test_shift)):
        labels = rng.integers(0, 2, (60, 2))
        noise = rng.random((60, 2))
        probe = np.clip(0.5 * labels * 0.5 + 0.5 * noise, 0, 1)
        network = np.clip(probe + shift * (labels - 0.5), 0, 1)
        frame = pd.DataFrame(labels, columns=["plastic", "glass"])
        frame.insert(0, "file_name", [f"{split}{row}" for row in range(60)])
        answers[split] = (kind(frame.assign(group="one"), ("plastic", "glass")), network, probe)
    names = [name for table, _, _ in answers.values() for name in table.file_names]
    controls = pd.DataFrame({"control": "colour", "file_name": names, "plastic": 0.5, "glass": 0.5})
    (val, val_network, val_probe), (test, test_network, test_probe) = answers["val"], answers["test"]
    start = StartAnswers(probe_name, val_probe, test_probe)
    options = {"controls": controls, "control_macro_ap": {"colour": 0.5}, "seed": 0, "resamples": 200}
    verdict = judge(val, val_network, test, test_network, start=start, **options)
    return verdict, macro_average_precision(test.labels, test_network), macro_average_precision(test.labels, test_probe)


@pytest.mark.parametrize(
    ("val_shift", "test_shift", "words", "worse"),
    [
        (0.3, 0.3, "Training adds +", False),
        (-0.3, -0.3, "Training made the features worse: -", True),
        (0.3, -0.3, "Training made the features worse: -", True),
        (0.3, 0.0, "Training adds nothing certain to", False),
    ],
)
def test_what_training_adds_to_its_start_is_said(val_shift, test_shift, words, worse):
    verdict, of_network, of_probe = judged(val_shift, test_shift)
    start = verdict.start
    assert start.sentence.startswith(words)
    assert start.network_is_worse is worse
    assert f"a linear probe on its own frozen features ({of_probe:.3f})" in start.sentence
    metrics = verdict.metrics()
    assert metrics["controls/probe_macro_ap"] == pytest.approx(of_probe)
    assert metrics["gain_over_probe"] == pytest.approx(of_network - of_probe)
    assert metrics["gain_over_probe_low"] <= metrics["gain_over_probe"] <= metrics["gain_over_probe_high"]
    assert verdict.tags()["worse_than_start"] is worse
    assert verdict.strongest_control == "colour", "the probe is no blind control"


def test_the_random_start_of_an_encoder_has_its_own_words():
    verdict, *_ = judged(0.3, 0.3, "random_encoder")
    assert verdict.start.sentence.startswith("Pretraining adds +")
    assert "a linear probe on the encoder's random start" in verdict.start.sentence
    assert "controls/random_encoder_macro_ap" in verdict.metrics()
