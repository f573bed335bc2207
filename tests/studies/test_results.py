"""The results of a study's cells, against plain loops; the differences without collapsed cells."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from wastelens.errors import RunError
from wastelens.evaluation.paired import ALL_MODELS, Predictions
from wastelens.evaluation.spread import holm
from wastelens.studies.results import (
    FAILED,
    FINISHED,
    MISSING,
    Place,
    Result,
    cells_frame,
    comparisons_frame,
    curves_frame,
    read_predictions,
)

MATERIALS = ("glass", "paper")
ARMS = ("false", "true")
PHOTOS, GROUPS = 40, 8
Key = tuple[str, str, str, int, int]  # model, arm, stratum, seed, fold


def predictions(fold: int, seed: int, shows_paper: bool = True) -> Predictions:
    """Test photos of a fold, the same for all; probabilities that know a little, drawn by the seed."""
    of_photos = np.random.default_rng([fold, 1])
    labels = of_photos.random((PHOTOS, 2)) < (0.4, 0.3)
    labels[:2] = [[True, True], [False, False]]
    labels[:, 1] &= shows_paper
    rng = np.random.default_rng(seed)
    probabilities = np.clip(0.3 + 0.3 * labels + rng.normal(0, 0.3, labels.shape), 0, 1)
    order = rng.permutation(PHOTOS)  # no run has to keep the order of another
    names = [f"{fold}_{photo}.jpg" for photo in order]
    groups = np.array([f"{fold} {photo % GROUPS}" for photo in order])
    return Predictions(names, groups, labels[order], probabilities[order], probabilities[order] >= 0.5)


def results(
    models: Sequence[str] = ("base", "dbn"),
    labels: Sequence[str] = ("",),
    seeds: int = 2,
    folds: Sequence[int] = (1, 2),
    *,
    collapsed: Collection[tuple[str, str, int, int]] = (),
    unfinished: Mapping[tuple[str, str, int, int], str] | None = None,
    without_paper: Collection[int] = (),
) -> list[Result]:
    """Cells of a study of ``augment`` and ``labels``; model, arm, seed and fold name the collapsed ones."""
    found = []
    cells = itertools.product(range(seeds), folds, models, labels, ARMS)
    for number, (seed, fold, model, percent, arm) in enumerate(cells):
        place = Place(model, {"augment": arm, **({"labels": percent} if percent else {})}, seed, fold)
        status = (unfinished or {}).get((model, arm, seed, fold), FINISHED)
        if status != FINISHED:
            found.append(Result(place, status, "failed run" if status == FAILED else ""))
            continue
        made = predictions(fold, 100 + number, fold not in without_paper)
        tags = {
            "collapsed": str((model, arm, seed, fold) in collapsed).lower(),
            "above_controls": "true",
            "strongest_control": "colour",
            "git_commit": "abc",
        }
        metrics = {
            "test/macro_ap": macro_ap(made),
            "controls/colour_macro_ap": 0.3 + 0.5 * (number % 2),
            "test/ap_glass": 0.25,
            "minutes": 2.0,
        }
        history = [{"epoch": 1, "loss": 2.0, "val/loss": 3.0}, {"epoch": 2, "val/macro_ap": 0.5}]
        found.append(Result(place, FINISHED, f"run {number}", metrics, tags, made, history, 0.5))
    return found


def macro_ap(made: Predictions) -> float:
    scores = [
        average_precision_score(made.labels[:, column], made.probabilities[:, column])
        for column in range(len(MATERIALS))
        if made.labels[:, column].any()
    ]
    return float(np.mean(scores))


def compared(made: Sequence[Result], arms: Sequence[str] = ARMS) -> pd.DataFrame:
    return comparisons_frame(made, arms, MATERIALS, seed=3, resamples=100)


def looped(made: Sequence[Result], model: str, stratum: str = "", sound: bool = False) -> float:
    """Mean over folds of the mean over seeds of the second arm's macro AP less the first's."""
    scores = {
        (one.place.arm, one.place.seed, one.place.fold): (macro_ap(one.predictions), one.collapsed)
        for one in made
        if one.predictions and one.place.model == model and one.place.stratum == stratum
    }
    folds = []
    for fold in sorted({fold for _, _, fold in scores}):
        differences = []
        for seed in sorted({seed for _, seed, _ in scores}):
            first, second = (scores.get((arm, seed, fold)) for arm in ARMS)
            if first and second and not (sound and (first[1] or second[1])):
                differences.append(second[0] - first[0])
        if differences:
            folds.append(np.mean(differences))
    return float(np.mean(folds))


def row(frame: pd.DataFrame, model: str, stratum: str = "", metric: str = "macro_ap") -> pd.Series:
    found = frame[(frame["model"] == model) & (frame["stratum"] == stratum) & (frame["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def without(found: pd.Series) -> pd.Series:
    names = ("pairs", "difference", "low", "high")
    return pd.Series({name: found[f"without_collapsed_{name}"] for name in names}, dtype=float)


def test_differences_are_those_of_a_plain_loop() -> None:
    made = results(labels=("10", "100"))
    strata = ["labels=10", "labels=100"]
    frame = compared(made)
    assert frame["stratum"].unique().tolist() == strata
    assert set(frame["metric"]) == {"macro_ap", "macro_f1", "ap_glass", "ap_paper"}
    assert len(frame) == 2 * 3 * 4  # strata, models and all of them, metrics
    assert set(zip(frame["first"], frame["second"], strict=True)) == {ARMS}
    for stratum in strata:
        of_models = [looped(made, model, stratum) for model in ("base", "dbn")]
        for model, expected in zip(("base", "dbn", ALL_MODELS), [*of_models, np.mean(of_models)], strict=True):
            found = row(frame, model, stratum)
            assert found["difference"] == pytest.approx(expected, abs=1e-12)
            assert found["pairs"] == (8 if model == ALL_MODELS else 4)
            np.testing.assert_allclose(without(found), found[["pairs", "difference", "low", "high"]].astype(float))
    # Corrected over the whole study, not within a stratum.
    of_macro_ap = frame[frame["metric"] == "macro_ap"]
    np.testing.assert_allclose(of_macro_ap["p_adjusted"], holm(of_macro_ap["p_value"].to_numpy()))
    assert frame[frame["metric"] != "macro_ap"].filter(like="without_collapsed").isna().all(axis=None)


def test_every_other_arm_is_compared_with_the_first() -> None:
    made = [
        Result(Place("base", {"loss": arm}, seed, 0), FINISHED, predictions=predictions(0, 10 * number + seed))
        for number, arm in enumerate(("bce", "focal", "asymmetric"))
        for seed in range(2)
    ]
    frame = compared(made, ("bce", "focal", "asymmetric"))
    by_arm = {arm: [macro_ap(one.predictions) for one in made if one.place.arm == arm] for arm in ("bce", "focal")}  # type: ignore[arg-type]
    assert frame["second"].unique().tolist() == ["focal", "asymmetric"]
    assert (frame["first"] == "bce").all()
    focal = frame[(frame["second"] == "focal") & (frame["metric"] == "macro_ap")].iloc[0]
    assert focal["difference"] == pytest.approx(np.mean(by_arm["focal"]) - np.mean(by_arm["bce"]), abs=1e-12)


def test_pairs_that_are_not_whole_are_left_out() -> None:
    made = results(unfinished={("base", "true", 0, 1): FAILED, ("base", "false", 1, 2): MISSING})
    found = row(compared(made), "base")
    assert found["pairs"] == 2
    assert found["difference"] == pytest.approx(looped(made, "base"), abs=1e-12)
    nothing = results(("base",), seeds=1, folds=(1,), unfinished={("base", "true", 0, 1): MISSING})
    frame = compared(nothing)
    assert len(frame) == 0
    assert list(frame.columns) == list(compared(made).columns)


def test_without_the_pairs_of_collapsed_cells() -> None:
    made = results(collapsed=[("base", "true", 0, 1), ("base", "false", 0, 1), ("dbn", "false", 1, 2)])
    frame = compared(made)
    left = {model: looped(made, model, sound=True) for model in ("base", "dbn")}
    for model, expected in (*left.items(), (ALL_MODELS, np.mean(list(left.values())))):
        found = row(frame, model)
        assert found["pairs"] == (8 if model == ALL_MODELS else 4)
        assert without(found)["pairs"] == (6 if model == ALL_MODELS else 3)
        assert without(found)["difference"] == pytest.approx(expected, abs=1e-12)
        assert found["difference"] != pytest.approx(expected, abs=1e-6)
        assert without(found)["low"] < expected < without(found)["high"]


def test_where_one_model_is_sound_its_numbers_are_those_of_all_that_is_left() -> None:
    everywhere = [("dbn", "true", seed, fold) for seed in range(2) for fold in (1, 2)]
    made = results(collapsed=[*everywhere, ("base", "true", 0, 1)])
    frame = compared(made)
    base, all_models = (without(row(frame, model)) for model in ("base", ALL_MODELS))
    assert base["pairs"] == 3
    pd.testing.assert_series_equal(base, all_models)
    assert base["difference"] == pytest.approx(looped(made, "base", sound=True), abs=1e-12)
    gone = without(row(frame, "dbn"))
    assert gone["pairs"] == 0
    assert gone.drop("pairs").isna().all()
    # The same numbers as those of a study of the sound cells alone.
    alone = row(compared([one for one in made if one.place.model == "base" and one.place.seed == 1]), "base")
    assert alone["pairs"] == 2


def test_where_all_collapsed_nothing_is_left() -> None:
    made = results(
        collapsed=[(model, "false", seed, fold) for model in ("base", "dbn") for seed in (0, 1) for fold in (1, 2)]
    )
    frame = compared(made)
    for model in ("base", "dbn", ALL_MODELS):
        found = without(row(frame, model))
        assert found["pairs"] == 0
        assert found.drop("pairs").isna().all()
        assert np.isfinite(row(frame, model)["difference"])


def test_a_material_that_a_fold_lacks_hides_no_collapsed_pair() -> None:
    # As many pairs have a value for paper as are sound: the one number must not be taken for the other.
    made = results(
        ("base",), folds=(1, 2), without_paper=[2], collapsed=[("base", "true", 0, 1), ("base", "true", 1, 1)]
    )
    found = row(compared(made), "base")
    assert row(compared(made), "base", metric="ap_paper")["pairs"] == 2
    assert (found["pairs"], found["without_collapsed_pairs"]) == (4, 2)
    assert found["without_collapsed_difference"] == pytest.approx(looped(made, "base", sound=True), abs=1e-12)


def test_the_table_of_cells_holds_what_their_runs_say() -> None:
    made = results(labels=("10",), unfinished={("dbn", "true", 1, 2): FAILED, ("dbn", "false", 1, 2): MISSING})
    frame = cells_frame(made, MATERIALS)
    assert len(frame) == len(made) == 16
    for one, (_, cell) in zip(made, frame.iterrows(), strict=True):
        place = one.place
        assert (cell["model"], cell["arm"], cell["stratum"]) == (place.model, place.arm, place.stratum)
        assert (cell["seed"], cell["fold"], cell["status"]) == (place.seed, place.fold, one.status)
        assert (cell["augment"], cell["labels"]) == (place.levels["augment"], place.levels["labels"])
        assert cell["run_id"] == one.run_id
        if one.status == FINISHED:
            assert cell["test_macro_ap"] == one.metrics["test/macro_ap"]
            assert cell["test_ap_glass"] == 0.25
            control = one.metrics["controls/colour_macro_ap"]
            assert cell["strongest_control_macro_ap"] == control
            assert cell["below_strongest_control"] == (cell["test_macro_ap"] < control)
            assert (cell["minutes"], cell["pretraining_minutes"], cell["git_commit"]) == (2.0, 0.5, "abc")
        else:
            assert np.isnan(cell["test_macro_ap"])
            assert np.isnan(cell["minutes"])
            assert not cell["collapsed"]
            assert not cell["below_strongest_control"]
    assert frame["below_strongest_control"].nunique() == 2, "else the comparison above says nothing"


def test_curves_are_of_epochs_that_were_trained() -> None:
    made = results(("base",), seeds=1, folds=(1,), unfinished={("base", "true", 0, 1): MISSING})
    frame = curves_frame(made)
    # The second row is a closing one, without a loss.
    assert frame[["model", "arm", "seed", "fold", "epoch", "loss", "val_loss"]].to_numpy().tolist() == [
        ["base", "false", 0, 1, 1, 2.0, 3.0]
    ]
    assert frame["val_macro_ap"].isna().all()
    assert list(curves_frame([]).columns) == list(frame.columns)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = predictions(0, 1)
    columns = {"file_name": made.file_names, "group": ["NA", *made.groups[1:]]}
    for kind, values in (("label", made.labels), ("probability", made.probabilities), ("decision", made.decisions)):
        columns |= {f"{kind}_{material}": values[:, number] for number, material in enumerate(MATERIALS)}  # type: ignore[misc]
    frame = pd.DataFrame(columns)
    for column in (name for name in frame if str(name).startswith(("label_", "decision_"))):
        frame[column] = frame[column].astype(int)
    file = tmp_path / "predictions_test.csv"
    frame.to_csv(file, index=False)
    read = read_predictions(file, MATERIALS, "run-1")
    assert list(read.file_names) == list(made.file_names)
    assert read.groups.tolist() == ["NA", *made.groups[1:]]  # a group of that name is not a missing one
    np.testing.assert_array_equal(read.labels, made.labels)
    np.testing.assert_array_equal(read.decisions, made.decisions)
    np.testing.assert_allclose(read.probabilities, made.probabilities, rtol=1e-12)
    for lacking in ("group", "decision_paper"):
        frame.drop(columns=lacking).to_csv(file, index=False)
        with pytest.raises(RunError, match=rf"run-1 has no column '{lacking}'.*Train it again\.$"):
            read_predictions(file, MATERIALS, "run-1")
