"""Means of the maps' scores: the pairs that count, the bootstrap over photos, names of metrics, honest sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from wastelens.evaluation.bootstrap import interval, multiplicities
from wastelens.explain.page.report import notes_on
from wastelens.explain.scoring.scores import (
    COLUMNS,
    SCORES,
    PairScores,
    method_titles,
    outcome_of,
    score_frame,
    summarise,
)

MATERIALS = ("glass", "paper")
NAN = float("nan")


def pair(photo=0, material="glass", method="gradcam", **changes):
    """Return a right pair whose outlines cover a tenth of the photo."""
    right = PairScores(
        file_name=f"batch_1_{photo:06}.jpg",
        material=material,
        method=method,
        outcome="right",
        label=True,
        decision=True,
        probability=0.8,
        threshold=0.4,
        area_share=0.1,
        localised=True,
        empty=False,
        energy=2.0,
        pointing=1.0,
        pointing_chance=0.1,
        iou=0.3,
        iou_threshold=0.5,
    )
    return replace(right, **changes)


def unlocalised(photo=0, material="glass", method="gradcam", area_share=NAN, **changes):
    return pair(
        photo,
        material,
        method,
        localised=False,
        area_share=area_share,
        **dict.fromkeys(("energy", "pointing", "pointing_chance", "iou", "iou_threshold"), NAN),
        **changes,
    )


def summary(rows, methods=("gradcam",), resamples=200, seed=0):
    frame = rows if isinstance(rows, pd.DataFrame) else score_frame(rows)
    return summarise(frame, methods=methods, seed=seed, resamples=resamples)


def random_rows(photos=30, methods=("gradcam", "shap"), seed=0):
    """Draw one or two materials per photo, some not localised, with scores of both sorts missing here and there."""
    rng = np.random.default_rng(seed)
    rows = []
    for photo in range(photos):
        for material in MATERIALS[: int(rng.integers(1, 3))]:
            make = pair if rng.random() < 0.7 else unlocalised
            for method in methods:
                row = make(photo, material, method, decision=bool(rng.random() < 0.6), insertion=rng.random())
                if row.localised:
                    row = replace(row, energy=rng.gamma(2), pointing=rng.random(), iou=rng.random())
                rows.append(replace(row, randomised=NAN if rng.random() < 0.3 else rng.normal()))
    return rows


def test_the_table_has_a_row_per_pair_and_method():
    frame = score_frame([pair(probability=1 / 3, empty=True), unlocalised(1, outcome="missed", decision=False)])
    assert tuple(frame.columns) == COLUMNS
    first, second = (dict(row) for _, row in frame.iterrows())
    assert first["probability"] == 0.333333
    assert (first["label"], first["decision"], first["localised"], first["empty"]) == (1, 1, 1, 1)
    assert (second["outcome"], second["decision"], second["localised"]) == ("missed", 0, 0)
    assert np.isnan(second["energy"])
    assert np.isnan(first["insertion"])


def slow_value(row, score, rows):
    """Return a row's value of a score, or NaN where it does not count."""
    if score == "energy_over_centre":
        same = [one for one in rows if (one.file_name, one.material, one.method) == (*key(row), "centre")]
        counts = row.localised and row.method != "centre" and same
        return row.energy - same[0].energy if counts else NAN
    if score == "empty" and row.method == "centre":
        return NAN
    if score in ("energy", "pointing", "pointing_chance", "iou"):
        return getattr(row, score) if row.localised else NAN
    if score == "above_chance":
        return float(row.energy > 1) if row.localised else NAN
    if score == "right_label_wrong_place":
        return float(row.energy < 1) if row.localised and row.label and row.decision else NAN
    return float(getattr(row, score))


def key(row):
    return row.file_name, row.material


def test_means_and_intervals_are_those_of_slow_loops():
    methods = ("gradcam", "shap", "centre")
    rows, resamples, seed = random_rows(methods=methods), 60, 4
    names = sorted({row.file_name for row in rows})
    drawn = multiplicities(len(names), resamples, np.random.default_rng(seed))
    found = summary(rows, methods, resamples=resamples, seed=seed)
    assert ("gradcam", "energy_over_centre") in found.means
    for method in methods:
        for score in SCORES:
            of_photo = {name: [] for name in names}
            for row in rows:
                if row.method == method and not math.isnan(value := slow_value(row, score, rows)):
                    of_photo[row.file_name].append(value)
            values = [value for some in of_photo.values() for value in some]
            if not values:
                assert (method, score) not in found.means
                continue
            resampled = []
            for counts in drawn:
                again = [v for name, times in zip(names, counts, strict=True) for v in of_photo[name] * int(times)]
                resampled.append(np.mean(again) if again else NAN)
            mean = found.means[method, score]
            assert mean.pairs == len(values)
            assert mean.estimate == pytest.approx(np.mean(values), abs=1e-6)
            assert (mean.low, mean.high) == pytest.approx(interval(resampled), abs=1e-6)
            assert mean.low <= mean.estimate <= mean.high


def test_the_tables_order_and_a_round_through_csv_change_nothing(tmp_path):
    frame = score_frame(random_rows())
    frame.sample(frac=1, random_state=1).to_csv(tmp_path / "scores.csv", index=False)
    again = pd.read_csv(tmp_path / "scores.csv")
    metrics = summary(frame, ("gradcam", "shap")).metrics()
    assert summary(again, ("gradcam", "shap")).metrics() == pytest.approx(metrics)
    assert metrics != pytest.approx(summary(frame, ("gradcam", "shap"), seed=1).metrics())


def test_pairs_of_a_photo_are_resampled_together():
    """Repeating a photo's pairs does not narrow the intervals."""
    once = [replace(row, material="glass") for row in random_rows(methods=("gradcam",))]
    once = list({row.file_name: row for row in once}.values())
    twice = once + [replace(row, material="paper") for row in once]
    for name, mean in summary(once).means.items():
        double = summary(twice).means[name]
        assert (double.estimate, double.low, double.high) == pytest.approx((mean.estimate, mean.low, mean.high))
        assert double.pairs == 2 * mean.pairs


def test_pairs_not_localised_count_only_for_the_other_scores():
    covered = replace(pair(1, energy=1.1, insertion=0.9), localised=False, area_share=0.7)
    found = summary([pair(0, energy=3.0, insertion=0.5), covered]).means
    assert (found["gradcam", "energy"].estimate, found["gradcam", "energy"].pairs) == (3.0, 1)
    assert (found["gradcam", "above_chance"].estimate, found["gradcam", "iou"].pairs) == (1.0, 1)
    assert (found["gradcam", "insertion"].estimate, found["gradcam", "insertion"].pairs) == (pytest.approx(0.7), 2)
    assert ("gradcam", "randomised") not in found


def test_right_label_wrong_place_is_a_share_of_the_right_ones():
    rows = [
        pair(0, energy=0.4),
        pair(1, energy=1.0, empty=True),  # chance itself is not below chance
        pair(2, energy=2.0),
        pair(3, energy=0.2, decision=False, outcome="missed"),
        unlocalised(4, label=False, outcome="false_alarm"),
    ]
    found = summary(rows).means
    assert found["gradcam", "right_label_wrong_place"].estimate == pytest.approx(1 / 3)
    assert found["gradcam", "right_label_wrong_place"].pairs == 3
    assert found["gradcam", "above_chance"].estimate == pytest.approx(1 / 4)
    assert found["gradcam", "empty"].estimate == pytest.approx(1 / 5)


def test_metrics_carry_their_names_and_are_finite():
    rows = [
        *(pair(photo, method=method) for photo in range(3) for method in ("gradcam", "centre")),
        *(unlocalised(3, "paper", method, area_share=0.6) for method in ("gradcam", "centre")),
        *(unlocalised(3, "glass", method) for method in ("gradcam", "centre")),
        *(unlocalised(4, "glass", method, label=False, outcome="false_alarm") for method in ("gradcam", "centre")),
    ]
    metrics = summary(rows, ("gradcam", "centre")).metrics()
    assert metrics["explain/photos"] == 5
    assert metrics["explain/pairs"] == 6
    assert metrics["explain/covered_too_much"] == 1
    assert metrics["explain/without_outline"] == 1
    for name in ("", "_low", "_high"):
        assert metrics[f"explain/gradcam/energy{name}"] == 2.0
    assert metrics["explain/centre/pointing_chance"] == pytest.approx(0.1)
    assert "explain/centre/pointing_chance_low" not in metrics
    assert "explain/gradcam/insertion" not in metrics
    assert all(math.isfinite(value) for value in metrics.values())


def test_boxes_among_the_outlines_are_counted_once_a_pair_and_noted():
    rows = [
        *(pair(0, method=method, outlines=3, boxes=2) for method in ("gradcam", "centre")),
        *(pair(1, method=method, outlines=1) for method in ("gradcam", "centre")),
        unlocalised(2, area_share=0.6, outlines=5, boxes=5),
    ]
    found = summary(rows, ("gradcam", "centre"))
    assert found.frame["boxes"].tolist() == [2, 2, 0, 0, 5]
    assert (found.metrics()["explain/outlines"], found.metrics()["explain/boxes"]) == (4, 2)
    assert notes_on(found, chosen=3, gone={})[1].startswith("Scored against 4 outlines, of which 2 are boxes: ")
    without = summary([pair(0, outlines=1)], ("gradcam",))
    assert not any("boxes" in note for note in notes_on(without, chosen=1, gone={}))


def test_only_the_given_methods_are_summarised():
    metrics = summary(random_rows(), ("shap",)).metrics()
    assert any(name.startswith("explain/shap/energy") for name in metrics)
    assert not any("gradcam" in name for name in metrics)


def spread_rows(centre, method, spread=0.5, photos=40):
    values = np.random.default_rng(0).normal(0, spread, photos)
    return [pair(n, method=method, energy=float(centre + value)) for n, value in enumerate(values - values.mean())]


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        (1.8, "more than chance"),
        (1.02, "which chance may explain"),
        (0.98, "which chance may explain"),
        (0.5, "less than chance"),
    ],
)
def test_sentences_say_what_the_interval_allows(energy, words):
    rows = spread_rows(energy, "gradcam") + spread_rows(2.1, "centre", spread=0.2)
    control, method = reversed(summary(rows, ("centre", "gradcam")).sentences())
    assert method.startswith(f"Grad-CAM: {energy:.2f} [")
    assert f"times the energy that chance would put on the litter, {words}, " in method
    assert method.endswith("points at it in 100 % of 40 cases (chance 10 %).")
    assert control.startswith("Centre of the photo (control): 2.10 [")
    assert "ignores its content" not in control


@pytest.mark.parametrize(
    ("energy", "words"),
    [(2.5, "more than"), (2.02, "not distinguishable from"), (1.5, "less than")],
)
def test_sentences_compare_maps_with_the_centre(energy, words):
    rows = spread_rows(energy, "gradcam", spread=0.4) + spread_rows(2.0, "centre", spread=0.1)
    method, _ = summary(rows, ("gradcam", "centre")).sentences()
    assert (
        f", {words} a blob in the middle of the photo that ignores its content (2.00; difference {energy - 2:+.2f} ["
        in method
    )


def test_sentences_without_the_control_or_of_one_case():
    (sentence,) = summary([pair(pointing=0.25)], ("gradcam", "shap")).sentences()
    assert "on the litter, from too few photos to tell (1); points at it in 25 % of 1 case (chance 10 %)." in sentence


@pytest.mark.parametrize(("photos", "told"), [(9, False), (10, True)])
def test_few_photos_allow_no_finding(photos, told):
    rows = spread_rows(3.0, "gradcam", spread=0.1, photos=photos) + spread_rows(2.0, "centre", 0.1, photos)
    sentence = summary(rows, ("gradcam", "centre")).sentences()[0]
    assert ("more than chance, more than a blob in the middle" in sentence) == told
    assert (f"from too few photos to tell ({photos})" in sentence) != told
    assert summary(rows, ("gradcam",)).means["gradcam", "energy"].photos == photos


def test_sentences_say_why_nothing_is_localised():
    assert summary([unlocalised()]).sentences() == ["No outlines of litter here: localisation scores are left out."]
    (covered,) = summary([unlocalised(area_share=0.8)]).sentences()
    assert covered == "No outlines that leave half of their photo free: localisation scores are left out."


def test_without_outlines_the_control_has_no_scores():
    found = summary([unlocalised(method=method) for method in ("shap", "centre")], ("shap", "centre"))
    assert found.scored_methods == ("shap",)
    found = summary([pair(method=method) for method in ("shap", "centre")], ("shap", "centre"))
    assert found.scored_methods == ("shap", "centre")


def test_no_pairs_at_all_are_counted_as_none():
    found = summary([])
    assert found.means == {}
    assert found.metrics()["explain/pairs"] == 0
    assert found.sentences() == ["No outlines of litter here: localisation scores are left out."]


def test_every_method_has_a_title():
    assert set(method_titles()) == {
        "centre",
        "evidence_map",
        "gradcam",
        "gradcam_plus_plus",
        "scorecam",
        "shap",
        "shap_partition",
    }
    for method in method_titles():
        (sentence,) = summary([pair(method=method)], (method,)).sentences()
        assert sentence.lower().startswith(method_titles()[method].lower())


def test_outcomes_follow_from_label_and_decision() -> None:
    assert outcome_of(label=True, decision=True) == "right"
    assert outcome_of(label=True, decision=False) == "missed"
    assert outcome_of(label=False, decision=True) == "false_alarm"
    with pytest.raises(ValueError, match="neither annotated nor predicted"):
        outcome_of(label=False, decision=False)
