"""Paired comparisons against the slow obvious answer, and the coverage of their intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.simulated_studies import MATERIALS, Regime, drawn

from wastelens.evaluation.metrics import macro_average_precision, macro_f1
from wastelens.evaluation.paired import (
    ALL_MODELS,
    COLUMNS,
    Difference,
    Pair,
    Predictions,
    compare,
    comparison_frame,
    correct_together,
    seeds_needed,
)
from wastelens.evaluation.spread import Spread, holm, student, verdict_of

SMALL = Regime("small", groups=6, folds=2, seeds=3, models=2, effect=0.3, mean_size=8)


def small_study(seed: int = 0) -> dict[str, list[Pair]]:
    return drawn(SMALL, 1, np.random.default_rng(seed)).pairs(0)


def compared(pairs: dict[str, list[Pair]], resamples: int = 60) -> list[Difference]:
    return compare(pairs, MATERIALS, np.random.default_rng(1), resamples)


def one(comparison: list[Difference], model: str, metric: str = "macro_ap") -> Difference:
    (found,) = (each for each in comparison if (each.model, each.metric) == (model, metric))
    return found


# Calibration


def covered(regime: Regime, studies: int = 1000, resamples: int = 100) -> float:
    """Share of simulated studies whose interval for macro AP holds the mean of other studies, in %."""
    truth = float(np.mean([drawn(regime, 500, np.random.default_rng([1, part])).effects().mean() for part in range(6)]))
    rng, held = np.random.default_rng(5), 0
    simulated = drawn(regime, studies, rng)
    for study in range(studies):
        found = one(compare(simulated.pairs(study), MATERIALS, rng, resamples), "model 0")
        held += found.low <= truth <= found.high
    assert truth > 0.05
    return 100 * held / studies


@pytest.mark.parametrize(
    "regime",
    [
        Regime("trainings differ", groups=20, seeds=3, effect=0.4, by_training=0.5, by_group=0.1),
        pytest.param(
            Regime("groups differ", groups=24, seeds=3, effect=0.4, by_training=0.02, by_group=0.6),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Regime("both, folds", groups=24, folds=3, seeds=3, effect=0.4, by_training=0.3, by_group=0.4),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda regime: regime.name,
)
def test_intervals_hold_the_true_effect_in_95_of_100_studies(regime):
    assert covered(regime) == pytest.approx(95, abs=2)


@pytest.mark.slow
def test_without_an_effect_at_most_one_verdict_in_twenty_is_not_undecided():
    regime = Regime("no effect", groups=20, models=2, by_training=0.3, by_group=0.3)
    rng = np.random.default_rng(3)
    studies, wrong = 1000, {"macro_ap": 0, "macro_f1": 0, "ap": 0}
    simulated = drawn(regime, studies, rng)
    for study in range(studies):
        found = compare(simulated.pairs(study), MATERIALS, rng, 60)
        for family in wrong:
            wrong[family] += any(each.verdict != "undecided" for each in found if each.metric.startswith(family))
    assert all(50 + 2 * np.sqrt(1000 * 0.05 * 0.95) >= count for count in wrong.values()), wrong


# Against the slow obvious answer


def score(run: Predictions, metric: str, rows: list[int]) -> float:
    """Macro AP or macro F1 of these rows, copies among them; NaN where it is not defined."""
    if not rows:
        return float("nan")
    if metric == "macro_f1":
        return macro_f1(run.labels[rows], run.decisions[rows])
    return float(macro_average_precision(run.labels[rows], run.probabilities[rows]))


def resampled_slowly(pairs: list[Pair], metric: str, names: list[str], counts: list[int]):
    """The study's difference in one resample, and that of each pair, photo by photo."""
    differences: dict[tuple[int, int], float] = {}
    weights: dict[int, float] = {}
    for pair in pairs:
        copies_of = [counts[names.index(group)] for group in pair.first.groups]
        rows = [row for row, copies in enumerate(copies_of) for _ in range(copies)]
        first, second = (score(run, metric, rows) for run in (pair.first, pair.second))
        differences[pair.fold, pair.seed] = second - first
        weights[pair.fold] = len(rows) / len(copies_of)
    total = above = 0.0
    for fold, weight in weights.items():
        mean = np.mean([value for (of, _), value in differences.items() if of == fold])
        if not np.isnan(mean):
            total += weight
            above += weight * mean
    return (above / total if total else float("nan")), differences


@pytest.mark.parametrize("metric", ["macro_ap", "macro_f1"])
def test_variances_equal_those_of_a_slow_bootstrap(metric):
    resamples = 40
    pairs = small_study()["model 0"]
    found = one(compare({"model 0": pairs}, MATERIALS, np.random.default_rng(1), resamples), "model 0", metric)
    names = sorted({str(group) for pair in pairs for group in pair.first.groups})
    rng, drawn_slowly = np.random.default_rng(1), []
    for _ in range(resamples):
        counts = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names)).tolist()
        drawn_slowly.append(resampled_slowly(pairs, metric, names, counts))
    whole, by_pair = resampled_slowly(pairs, metric, names, [1] * len(names))

    sizes = [len({name for p in pairs for name in np.array(p.first.file_names)[p.first.groups == g]}) for g in names]
    groups = sum(sizes) ** 2 / sum(size**2 for size in sizes)
    between, by_photos = [], []
    for fold in (0, 1):
        between.append(np.var([by_pair[fold, seed] for seed in range(3)], ddof=1))
        draws = np.array([[of[fold, seed] for seed in range(3)] for _, of in drawn_slowly])
        draws = draws[~np.isnan(draws).any(axis=1)]
        centred = draws - draws.mean(axis=0)
        by_photos.append(centred.var(axis=1, ddof=1).sum() / (len(draws) - 1) * (groups / (groups - 1)) ** 2)
    photos = np.nanvar([value for value, _ in drawn_slowly], ddof=1) * (groups / (groups - 1)) ** 2
    training = max(sum(between) - sum(by_photos), 0) / 4 / 3

    assert found.difference == pytest.approx(whole)
    assert found.spread.photos == pytest.approx(photos)
    assert found.spread.interaction == pytest.approx(sum(by_photos) / 4 / 3)
    assert found.spread.training == pytest.approx(training, abs=1e-12)
    assert found.standard_error == pytest.approx(np.sqrt(photos + training))
    assert found.spread.photo_degrees == pytest.approx(1 / (1 / (groups - 1) + 1 / (len(drawn_slowly) - 1)))
    half = stats.t.ppf(0.975, found.degrees_of_freedom) * found.standard_error
    assert (found.low, found.high) == pytest.approx((whole - half, whole + half))
    p_value = 2 * stats.t.sf(abs(whole) / found.standard_error, found.degrees_of_freedom)
    assert found.p_value == pytest.approx(p_value)
    assert (found.groups, found.photos) == (6, sum(sizes))


def test_all_models_together_are_their_mean_on_the_same_photos():
    found = compared(small_study())
    parts = [one(found, f"model {model}") for model in (0, 1)]
    together = one(found, ALL_MODELS)
    assert together.difference == pytest.approx(np.mean([part.difference for part in parts]))
    assert (together.pairs, together.seeds, together.folds) == (12, 3, 2)


def test_models_share_their_photos_but_not_their_trainings():
    pairs = small_study(1)["model 0"]
    twins = compared({"a": pairs, "b": pairs})
    alone, together = one(twins, "a"), one(twins, ALL_MODELS)
    assert together.spread.photos == pytest.approx(alone.spread.photos)
    assert alone.spread.training > 0
    seeds_alone, seeds_together = (each.spread.training + each.spread.interaction for each in (alone, together))
    assert seeds_together == pytest.approx(seeds_alone / 2)


@pytest.mark.parametrize(
    ("training", "interaction", "degrees"),
    [
        (float("nan"), 0.0, 20),  # one seed: photos alone
        (0.0, 0.0, 20),
        (1e3, 0.0, 2),
        (3.0, 1.0, 16 / (1 / 20 + 16 / 2)),
        (0.0, 1.0, 1 / (1 / 20 + 0.25 / 2)),
        (3.0, 4.0, 2),  # not fewer than the training's
    ],
)
def test_degrees_of_freedom_lie_between_those_of_photos_and_seeds(training, interaction, degrees):
    found = Spread(1.0, training, interaction, photo_degrees=20, training_degrees=2, cells=1).degrees
    assert found == pytest.approx(max(degrees, 2), rel=0.01)


# What must not matter, and what must


def shuffled(run: Predictions, rng: np.random.Generator) -> Predictions:
    return run.rows(rng.permutation(len(run.file_names)).tolist())


def test_the_order_of_one_runs_photos_does_not_matter():
    rng, pairs = np.random.default_rng(5), small_study()
    mixed = {
        model: [Pair(pair.seed, pair.fold, pair.first, shuffled(pair.second, rng)) for pair in of_model]
        for model, of_model in pairs.items()
    }
    assert compared(mixed) == compared(pairs)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_swapping_the_arms_swaps_the_sign(seed):
    pairs = small_study(seed)["model 0"]
    swapped = [Pair(pair.seed, pair.fold, pair.second, pair.first) for pair in pairs]
    ahead, behind = (compared({"model": each}, 30) for each in (pairs, swapped))
    for there, back in zip(ahead, behind, strict=True):
        np.testing.assert_allclose(
            [back.difference, back.low, back.high, back.first_mean, back.second_mean, back.p_value],
            [-there.difference, -there.high, -there.low, there.second_mean, there.first_mean, there.p_value],
            atol=1e-12,
        )


def test_a_run_compared_with_itself_is_no_different_and_not_tested():
    found = compared({"model": [Pair(pair.seed, 0, pair.first, pair.first) for pair in small_study()["model 0"][:3]]})
    assert {(each.difference, each.standard_error) for each in found} == {(0, 0)}
    assert np.isnan([(each.low, each.high, each.p_value) for each in found]).all()
    assert {each.verdict for each in found} == {"undecided"}


def test_what_is_the_same_in_every_resample_of_a_few_photos_is_no_proof():
    labels = np.tile([[True, False], [False, True]], (3, 1))
    right, names = 0.2 + 0.6 * labels, [f"{photo}.jpg" for photo in range(6)]
    groups = np.array(["a", "a", "b", "b", "c", "c"])
    wrong, sound = (Predictions(names, groups, labels, scores, scores > 0.5) for scores in (1 - right, right))
    found = compared({"model": [Pair(seed, 0, wrong, sound) for seed in range(3)]})
    assert {each.difference > 0.4 for each in found} == {True}
    assert {each.verdict for each in found} == {"undecided"}
    assert np.isnan([(each.low, each.high, each.p_value) for each in found]).all()


def regrouped(groups_of: list[int]) -> list[Difference]:
    """A study of one fold, its photos divided into groups of these sizes (shares of all)."""
    pairs = [pair for pair in small_study()["model 0"] if pair.fold == 0]
    photos = len(pairs[0].first.file_names)
    ends = np.rint(np.cumsum(groups_of) / sum(groups_of) * photos)
    names = np.searchsorted(ends, np.arange(photos), side="right").astype(str)
    dealt = [Pair(p.seed, 0, replace(p.first, groups=names), replace(p.second, groups=names)) for p in pairs]
    return compared({"model": dealt})


@pytest.mark.parametrize("groups_of", [[1], [1, 9], [1, 1, 30], [2, 4]])
def test_fewer_than_about_two_equal_groups_of_photos_tell_nothing_of_others(groups_of):
    found = comparison_frame(regrouped(groups_of)).query("metric in ['macro_ap', 'macro_f1']")
    assert found[["low", "high", "standard_error", "p_value", "p_adjusted", "seeds_needed"]].isna().all(axis=None)
    assert set(found["verdict"]) == {"undecided"}
    assert found["difference"].notna().all()
    assert found["training_known"].all()


@pytest.mark.parametrize("groups_of", [[1, 1], [9, 10], [1, 2, 3]])
def test_two_groups_have_an_interval_and_no_difference_is_beyond_one(groups_of):
    found = one(regrouped(groups_of), "model")
    assert -1 <= found.low < found.difference < found.high <= 1
    assert 0 < found.p_value <= 1


def test_intervals_end_where_differences_do():
    wide = Spread(0.5, 0.1, 0.0, photo_degrees=2.0, training_degrees=4, cells=1)
    assert student(0.2, wide)[:2] == (-1, 1)
    assert student(-0.2, replace(wide, photos=0.01, training=0.0))[0] == pytest.approx(
        -0.2 - 0.1 * stats.t.ppf(0.975, 2)
    )


def without_metal(run: Predictions, keep: str = "") -> Predictions:
    """No photo shows metal, but for those of one group."""
    labels = run.labels.copy()
    labels[run.groups != keep, 0] = False
    return replace(run, labels=labels)


def test_a_material_without_positives_in_a_fold_is_left_out_there():
    pairs = small_study()["model 0"]
    bare = [
        pair if pair.fold else Pair(pair.seed, 0, without_metal(pair.first), without_metal(pair.second))
        for pair in pairs
    ]
    found = one(compared({"model": bare}), "model", "ap_metal")
    rest = [pair for pair in pairs if pair.fold]
    assert found.difference == pytest.approx(one(compared({"model": rest}), "model", "ap_metal").difference)
    assert (found.pairs, found.folds) == (3, 1)
    nowhere = [Pair(pair.seed, pair.fold, without_metal(pair.first), without_metal(pair.second)) for pair in pairs]
    absent = one(compared({"model": nowhere}), "model", "ap_metal")
    assert np.isnan([absent.difference, absent.low, absent.p_value, absent.standard_error]).all()
    assert (absent.pairs, absent.groups, absent.photos, absent.verdict) == (0, 0, 0, "undecided")


def test_a_material_that_one_group_shows_has_no_interval():
    pairs = small_study()["model 0"]
    group = str(pairs[0].first.groups[np.argmax(pairs[0].first.labels[:, 0])])
    rare = [Pair(p.seed, p.fold, without_metal(p.first, group), without_metal(p.second, group)) for p in pairs]
    found = one(compared({"model": rare}), "model", "ap_metal")
    assert found.groups == 1
    assert not np.isnan(found.difference)
    assert np.isnan(found.low)


def test_each_arm_is_scored_on_its_own_labels():
    pair = small_study()["model 0"][0]
    other = replace(pair.second, labels=~pair.second.labels)
    found = one(compared({"model": [Pair(0, 0, pair.first, other)]}), "model")
    assert found.second_mean == pytest.approx(float(macro_average_precision(other.labels, other.probabilities)))
    assert found.first_mean == pytest.approx(
        float(macro_average_precision(pair.first.labels, pair.first.probabilities))
    )


def test_with_one_seed_the_part_of_training_is_unknown():
    found = one(compared({"model": [pair for pair in small_study()["model 0"] if pair.seed == 0]}), "model")
    assert np.isnan(found.spread.training)
    assert not found.training_known
    assert found.verdict == "undecided"
    assert found.standard_error == pytest.approx(np.sqrt(found.spread.photos))
    assert not np.isnan(found.low)
    assert seeds_needed(found) is None


def test_a_model_with_one_seed_is_taken_to_vary_as_the_others_do():
    pairs = small_study(1)["model 0"]
    found = compared({"a": pairs, "b": [pair for pair in pairs if pair.seed == 0]})
    alone, together = one(found, "a"), one(found, ALL_MODELS)
    of_one_seed = 3 * (alone.spread.training + alone.spread.interaction)
    expected = (of_one_seed / 3 + of_one_seed) / 4
    assert together.spread.training + together.spread.interaction == pytest.approx(expected)


def test_a_photo_tested_in_two_folds_is_drawn_once():
    pairs = [pair for pair in small_study()["model 0"] if pair.fold == 0]
    twice = pairs + [Pair(pair.seed, 1, pair.first, pair.second) for pair in pairs]
    once, doubled = (one(compared({"model": each}), "model") for each in (pairs, twice))
    assert (doubled.photos, doubled.groups, doubled.folds) == (once.photos, once.groups, 2)
    assert doubled.spread.photos == pytest.approx(once.spread.photos)


# What is refused


def test_runs_on_different_photos_are_no_pair():
    pair = small_study()["model 0"][0]
    fewer = pair.second.rows(range(len(pair.second.file_names) - 1))
    with pytest.raises(ValueError, match=r"1 photos, .* were tested by only one of the two runs"):
        Pair(0, 0, pair.first, fewer)


def test_predictions_must_fit_one_another():
    run = small_study()["model 0"][0].first
    names = list(run.file_names)
    for wrong, words in (
        ({"file_names": [names[1], *names[1:]]}, "twice"),
        ({"file_names": names[1:]}, "file names"),
        ({"groups": run.groups[1:]}, "groups"),
        ({"decisions": run.decisions[:, :1]}, "decisions"),
        ({"probabilities": run.probabilities + 1}, "probabilities"),
        ({"labels": run.labels[:1]}, "labels"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(run, **wrong)


def test_comparisons_that_make_no_sense_are_refused():
    pairs = small_study()["model 0"]
    for wrong, words in (({}, "no pair"), ({"a": []}, "one pair"), ({"a": [pairs[0], pairs[0]]}, "only one")):
        with pytest.raises(ValueError, match=words):
            compared(wrong)
    with pytest.raises(ValueError, match="as many columns"):
        compare({"a": pairs}, (*MATERIALS, "glass"), np.random.default_rng(0), 10)
    narrow = replace(
        pairs[0].second,
        labels=pairs[0].second.labels[:, :1],
        probabilities=pairs[0].second.probabilities[:, :1],
        decisions=pairs[0].second.decisions[:, :1],
    )
    with pytest.raises(ValueError, match="different numbers of materials"):
        Pair(0, 0, pairs[0].first, narrow)


# Many comparisons


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=8))
def test_holm_equals_the_obvious_loop(p_values):
    made = sorted((p, at) for at, p in enumerate(p_values) if not np.isnan(p))
    expected, highest = [float("nan")] * len(p_values), 0.0
    for rank, (p, at) in enumerate(made):
        highest = max(highest, min(1.0, p * (len(made) - rank)))
        expected[at] = highest
    np.testing.assert_allclose(holm(p_values), expected)


@pytest.mark.parametrize("wrong", [[-0.1], [1.1], [[0.5]]])
def test_holm_takes_probabilities_only(wrong):
    with pytest.raises(ValueError, match="p values"):
        holm(wrong)


@pytest.mark.parametrize(
    ("difference", "p_value", "verdict"),
    [(0.1, 0.049, "helps"), (-0.1, 0.049, "hurts"), (0.1, 0.05, "undecided"), (0.1, float("nan"), "undecided")],
)
def test_verdicts(difference, p_value, verdict):
    assert verdict_of(difference, p_value) == verdict


def test_comparisons_made_together_are_corrected_together():
    apart = [compared({"model": small_study(seed)["model 0"]}) for seed in range(3)]
    together = correct_together(apart)
    assert [[each.metric for each in comparison] for comparison in together] == [
        [each.metric for each in comparison] for comparison in apart
    ]
    for family in ("macro_ap", "macro_f1", "ap_"):
        chosen = [each for comparison in together for each in comparison if each.metric.startswith(family)]
        np.testing.assert_allclose([each.p_adjusted for each in chosen], holm([each.p_value for each in chosen]))
        assert {each.undecided for each in chosen} == {sum(each.verdict == "undecided" for each in chosen)}


# How many seeds would decide it


def undecided(difference: float = 0.03, **spread) -> Difference:
    values = {"photos": 1e-4, "training": 4e-4, "interaction": 6e-5, "photo_degrees": 20.0}
    of = Spread(**(values | spread), training_degrees=2, cells=1)
    low, high, p_value = student(difference, of)
    counts = {"undecided": 2, "pairs": 3, "seeds": 3, "folds": 1, "groups": 21, "photos": 300}
    return Difference(
        "model",
        "macro_ap",
        0.5,
        0.5 + difference,
        difference,
        low,
        high,
        p_value,
        min(1.0, 2 * p_value),
        spread=of,
        **counts,
    )


def test_seeds_needed_are_the_first_that_decide_it():
    needed = seeds_needed(undecided())
    assert needed is not None
    decided = []
    for seeds in range(3, needed + 1):
        photos, interaction, training = 4e-5, 1.8e-4 / seeds, 1.2e-3 / seeds  # of one seed, over as many
        recomputed = Spread(photos + interaction, training, interaction, 20.0, seeds - 1, 1)
        decided.append(student(0.03, recomputed)[2] * 2 < 0.05)
    assert decided == [False] * (needed - 3) + [True]
    assert 3 < needed < 30


def test_seeds_of_other_folds_are_one_a_fold():
    pairs = [pair for pair in small_study()["model 0"] if pair.seed == pair.fold]
    frame = comparison_frame(compared({"model": pairs}))
    assert (frame["seeds"] == 2).all()
    assert frame["training_known"].dtype == bool
    assert not frame["training_known"].any()
    assert frame["seeds_needed"].isna().all()
    assert set(frame["verdict"]) == {"undecided"}


def test_where_photos_are_missing_no_number_of_seeds_would_decide_it():
    assert seeds_needed(undecided(photos=1e-3)) is None
    assert seeds_needed(undecided(difference=0.0)) is None
    assert seeds_needed(undecided(difference=0.01, training=float("nan"))) is None
    assert seeds_needed(undecided(photos=float("nan"))) is None


def test_what_is_decided_needs_no_further_seeds():
    assert seeds_needed(undecided(difference=0.3)) == 3


def test_the_frame_has_a_row_for_each_model_and_metric():
    found = compared(small_study())
    frame = comparison_frame(found)
    assert tuple(frame.columns) == COLUMNS
    models, metrics = ["model 0", "model 1", ALL_MODELS], ["macro_ap", "macro_f1", "ap_metal", "ap_paper"]
    assert list(zip(frame["model"], frame["metric"], strict=True)) == [(m, k) for k in metrics for m in models]
    for row, each in zip(frame.to_dict("records"), found, strict=True):
        assert (row["verdict"], row["training_known"]) == (each.verdict, True)
        assert (row["difference"], row["standard_error"]) == (each.difference, each.standard_error)
        assert row["seeds_needed"] == pytest.approx(seeds_needed(each) or float("nan"), nan_ok=True)
