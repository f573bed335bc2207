"""Bands reach what was wished for: against the slow answer, and by simulation on new groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wastelens.data.prepared.tables import TestTable, ValTable
from wastelens.evaluation.abstention import Wish, band_table, choose_bands, highest_no, lowest_yes, why_no_guarantee
from wastelens.evaluation.metrics import average_precision
from wastelens.system.decision_rule import NEVER, DecisionRule, sigmoid

TRIALS = 1500


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10)), min_size=1, max_size=30), st.sampled_from([0.5, 0.8]))
def test_yes_starts_at_the_lowest_threshold_that_reaches_the_precision(pairs, precision) -> None:
    shown, numbers = np.array([one for one, _ in pairs]), np.array([one for _, one in pairs]) / 10
    reached = []
    for threshold in np.unique(numbers):
        said = numbers >= threshold
        if (said & shown).sum() / (said.sum() + 1) >= precision:
            reached.append(threshold)
    found = lowest_yes(shown, numbers, precision)
    if not reached:
        assert found == NEVER
        return
    assert ((numbers >= found) == (numbers >= min(reached))).all()


def test_no_stops_where_too_many_positives_would_be_missed() -> None:
    positives, groups = np.arange(1, 11) / 20, np.arange(10)
    # 11 places for a new photo among ten: at most a fifth below, of which the photo itself takes one
    assert highest_no(positives, groups, 0.8) == (positives[1], True)
    assert highest_no(positives[:3], groups[:3], 0.8) == (0.0, False), "three photos promise at most 3 of 4"
    of_two = np.repeat([0, 1], 5)
    assert highest_no(positives, of_two, 0.8) == (positives[1], False), "two groups promise nothing: photos do"
    assert highest_no(positives[:0], groups[:0], 0.8) == (0.0, False)


@pytest.mark.parametrize(("recall", "groups"), [(0.8, 9), (0.8, 30), (0.9, 19)])
def test_the_recall_holds_for_photos_of_new_groups(recall, groups) -> None:
    rng = np.random.default_rng(0)
    kept, unadjusted = [], []
    for _ in range(TRIALS):
        sizes = rng.integers(1, 12, groups + 1)
        means = np.repeat(rng.normal(0, 2, groups + 1), sizes)  # photos of a group are alike
        numbers, member = sigmoid(means + rng.normal(0, 1, len(means))), np.repeat(np.arange(groups + 1), sizes)
        new = member == groups
        no_below, guaranteed = highest_no(numbers[~new], member[~new], recall)
        assert guaranteed
        kept.append((numbers[new] >= no_below).mean())
        unadjusted.append((numbers[new] >= np.quantile(numbers[~new], 1 - recall)).mean())
    error = np.std(kept) / np.sqrt(TRIALS)
    assert np.mean(kept) >= recall - 2 * error
    # nor is it far above: 1 / (groups + 1) is what a guarantee costs
    assert np.mean(kept) <= recall + 1 / (groups + 1) + 2 * error


def tables(n: int, kind: type, seed: int):
    rng = np.random.default_rng(seed)
    truth = rng.normal(-0.5, 2.5, (n, 2))
    frame = pd.DataFrame((rng.random((n, 2)) < sigmoid(truth)).astype(int), columns=["glass", "paper"])
    frame["group"] = [str(row) for row in range(n)]
    frame["file_name"] = frame["group"] + ".jpg"
    return kind(frame.assign(photo_index=range(n)), ("glass", "paper")), sigmoid(truth)


def test_bands_reach_both_wishes_on_new_photos() -> None:
    wish, precisions, recalls = Wish(0.8, 0.9), [], []
    for seed in range(30):
        val, of_val = tables(300, ValTable, seed)
        bands = choose_bands(val, of_val, wish)
        assert why_no_guarantee(bands, wish.recall, val_chose_weights=False) == ""
        assert "chose the epoch" in why_no_guarantee(bands, wish.recall, val_chose_weights=True)
        rule = DecisionRule(
            {"glass": 0.5, "paper": 0.5}, {}, {name: (one.no_below, one.yes_from) for name, one in bands.items()}
        )
        test, of_test = tables(300, TestTable, 1000 + seed)
        weights = np.ones((1, 300), dtype=np.int32)
        reached = (
            band_table(test.labels.astype(bool), of_test, rule, test.groups, weights).set_index("material").loc["all"]
        )
        precisions.append(reached["precision"])
        recalls.append(reached["recall"])
        assert 0.3 < reached["coverage"] <= 1
    for found, wished in ((precisions, wish.precision), (recalls, wish.recall)):
        assert np.mean(found) >= wished - 2 * np.std(found) / np.sqrt(len(found))


def test_one_threshold_remains_where_no_band_is_needed() -> None:
    val, _ = tables(400, ValTable, 0)
    sure = np.where(val.labels == 1, 0.9, 0.1)
    (band, _) = choose_bands(val, sure, Wish(0.8, 0.8)).values()
    assert band.no_below == band.yes_from


def test_nothing_is_unsure_without_a_wish_and_test_photos_choose_nothing() -> None:
    val, numbers = tables(50, ValTable, 0)
    assert choose_bands(val, numbers, Wish(0.0, 0.9)) == {}
    test, numbers = tables(50, TestTable, 0)
    with pytest.raises(TypeError, match="ValTable"):
        choose_bands(test, numbers, Wish(0.9, 0.9))


def test_too_few_groups_are_named() -> None:
    val, numbers = tables(60, ValTable, 0)
    frame = val.frame.assign(group=[str(row // 20) for row in range(60)])
    bands = choose_bands(ValTable(frame, val.materials), numbers, Wish(0.8, 0.9))
    sentence = why_no_guarantee(bands, 0.9, val_chose_weights=False)
    assert "glass, paper" in sentence
    assert "9 groups" in sentence
    assert "3 at most" in sentence


def test_what_never_happens_has_no_number() -> None:
    rule = DecisionRule({"glass": 0.5}, {}, {"glass": (0.0, NEVER)})
    found = band_table(
        np.array([[True], [False]]), np.array([[0.9], [0.1]]), rule, ["a", "b"], np.ones((3, 2), dtype=np.int32)
    )
    row = found.iloc[1]
    assert row["coverage"] == 0
    assert np.isnan(row["precision"])
    assert np.isnan(row["yes_from"])
    assert row["recall"] == row["recall_of_groups"] == 1


def test_the_recall_of_groups_counts_each_group_alike() -> None:
    labels, groups = np.ones((5, 1), dtype=np.bool_), ["large"] * 4 + ["small"]
    rule = DecisionRule({"glass": 0.5}, {}, {"glass": (0.5, 0.5)})
    numbers = np.array([[0.1], [0.9], [0.9], [0.9], [0.1]])
    row = band_table(labels, numbers, rule, groups, np.ones((3, 5), dtype=np.int32)).iloc[1]
    assert row["recall"] == pytest.approx(3 / 5)
    assert row["recall_of_groups"] == pytest.approx((3 / 4 + 0) / 2)


def test_a_val_that_chose_the_model_promises_too_much() -> None:
    rng = np.random.default_rng(0)
    missed = {"first": [], "best on val": []}
    labels, groups = np.arange(60) % 3 == 0, np.arange(60) // 6  # ten groups of six photos, two with the material
    for _ in range(300):
        numbers = sigmoid(rng.normal(0, 1, (40, 60)) + 0.5 * labels)  # of 40 models, none better than the others
        new = sigmoid(rng.normal(0, 1, (40, 20)) + 0.5)  # photos with the material
        scores = [average_precision(labels, one) for one in numbers]
        for name, chosen in (("first", 0), ("best on val", int(np.argmax(scores)))):
            no_below, guaranteed = highest_no(numbers[chosen][labels], groups[labels], 0.8)
            assert guaranteed
            missed[name].append((new[chosen] < no_below).mean())
    assert np.mean(missed["first"]) <= 0.2 + 2 * np.std(missed["first"]) / np.sqrt(300)
    assert np.mean(missed["best on val"]) > np.mean(missed["first"]) + 0.04
