"""Adjusted counts: against the slow obvious answer, and against photos whose shares are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wastelens.evaluation.bootstrap import sampling_units
from wastelens.evaluation.prevalence import adjusted_shares


def obvious(labels: list[int], decisions: list[int], share_of_yes: float) -> float:
    """Forman's formula for one material, counted by hand."""
    of_positives = [said for true, said in zip(labels, decisions, strict=True) if true]
    of_negatives = [said for true, said in zip(labels, decisions, strict=True) if not true]
    tpr, fpr = sum(of_positives) / len(of_positives), sum(of_negatives) / len(of_negatives)
    return min(max((share_of_yes - fpr) / (tpr - fpr), 0), 1)


def test_the_estimate_is_formans() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (80, 3))
    decisions = np.where(rng.random((80, 3)) < 0.25, 1 - labels, labels)
    counted = [60, 100, 130]
    found = adjusted_shares(labels, decisions, np.arange(80), counted, 200, rng, 100)
    for column, share in enumerate(found):
        wanted = obvious(labels[:, column].tolist(), decisions[:, column].tolist(), counted[column] / 200)
        assert share.estimate == pytest.approx(wanted)
        assert 0 <= share.low <= share.estimate <= share.high <= 1


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Scenes of three alike photos in the test, and new photos with another share of the material."""
    rng = np.random.default_rng(2)
    tpr, fpr, share, inside = 0.7, 0.2, 0.15, 0
    for _ in range(200):
        labels = np.repeat(rng.random(60) < 0.4, 3)
        decisions = np.repeat(rng.random(60) < np.where(labels[::3], tpr, fpr), 3)
        shown = rng.random(300) < share
        counted = int((rng.random(300) < np.where(shown, tpr, fpr)).sum())
        (found,) = adjusted_shares(
            labels[:, None], decisions[:, None], np.repeat(np.arange(60), 3), [counted], 300, rng, 200
        )
        inside += found.low <= shown.mean() <= found.high
    assert 180 <= inside <= 200


def test_two_groups_of_test_photos_are_taken_photo_by_photo() -> None:
    """Drawing two groups again gives few different resamples: such intervals hold the truth in three of four cases."""
    rng, groups = np.random.default_rng(4), ["monday", "tuesday"] * 60
    units, notes = sampling_units(groups, "the test")
    assert notes == [
        "There are only 2 groups of photos in the test, too few to stand for others: its photos are taken one by one, "
        "so intervals come out too narrow."
    ]
    tpr, fpr, share, inside = 0.7, 0.2, 0.3, np.zeros(2)
    for _ in range(200):
        labels = rng.random((120, 1)) < 0.4
        decisions = rng.random((120, 1)) < np.where(labels, tpr, fpr)
        shown = rng.random(2000) < share
        counted = [int((rng.random(2000) < np.where(shown, tpr, fpr)).sum())]
        found = [adjusted_shares(labels, decisions, one, counted, 2000, rng, 200)[0] for one in (units, groups)]
        inside += [one.low <= shown.mean() <= one.high for one in found]
    assert inside[0] >= 180
    assert inside[1] < 165


def test_eight_groups_are_taken_as_groups() -> None:
    groups = list("abcdefghabcdefgh")
    assert sampling_units(groups, "the test") == (groups, [])


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(rng.random(40) < 0.5, 5)[:, None]
    decisions = np.repeat(np.where(rng.random(40) < 0.2, ~labels[::5, 0], labels[::5, 0]), 5)[:, None]

    def width(groups: np.ndarray) -> float:
        (found,) = adjusted_shares(labels, decisions, groups, [500], 1000, np.random.default_rng(0), 500)
        return found.high - found.low

    assert width(np.repeat(np.arange(40), 5)) > 1.5 * width(np.arange(200))


@pytest.mark.parametrize(
    ("labels", "decisions"),
    [
        ([0, 0, 1, 1], [1, 1, 0, 0]),  # the opposite of the truth
        ([0, 1, 0, 1], [1, 1, 1, 1]),  # always yes
        ([0, 0, 0, 0], [0, 1, 0, 1]),  # no photo shows the material
        ([1, 1, 1, 1], [0, 1, 0, 1]),  # all do
    ],
)
def test_a_model_that_cannot_tell_gives_no_number(labels: list[int], decisions: list[int]) -> None:
    one_column = (np.array(labels)[:, None], np.array(decisions)[:, None])
    (found,) = adjusted_shares(*one_column, np.arange(4), [50], 100, np.random.default_rng(0), 100)
    assert math.isnan(found.estimate)
    assert (found.low, found.high, found.contradicted) == (0, 1, False)


def test_no_yes_among_few_photos_leaves_room() -> None:
    """Even of a model without an error on its test: 0 of 5 is no proof (Jeffreys' interval: up to 38 %)."""
    labels = np.repeat([0, 1], 50)[:, None]
    for photos, most in ((5, 0.38), (500, 0.005)):
        (found,) = adjusted_shares(labels, labels, np.arange(100), [0], photos, np.random.default_rng(0), 4000)
        assert (found.estimate, found.low) == (0, pytest.approx(0, abs=0.001))
        assert found.high == pytest.approx(most, rel=0.1)


@pytest.mark.parametrize(("counted", "known"), [(100, False), (300, True), (700, True), (900, False)])
def test_photos_that_contradict_the_test_give_no_number(counted: int, known: bool) -> None:
    """With 20 % false alarms and 80 % found, 10 % or 90 % of yes cannot come from photos like the test's."""
    labels = np.repeat([0, 1], 500)[:, None]
    decisions = np.concatenate([np.arange(500) % 5 == 0, np.arange(500) % 5 != 0])[:, None]
    (found,) = adjusted_shares(labels, decisions, np.arange(1000), [counted], 1000, np.random.default_rng(0), 200)
    assert (math.isfinite(found.estimate), found.contradicted) == (known, not known)
    assert known or (found.low, found.high) == (0, 1)


def test_no_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="no photos"):
        adjusted_shares([[1]], [[1]], [0], [0], 0, np.random.default_rng(0))
