"""Results of a study's cells: their table, their learning curves, and the differences between arms."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.errors import RunError
from wastelens.evaluation import paired
from wastelens.system.tables import from_text
from wastelens.tracking.tracker import StoredRun

FINISHED, FAILED, MISSING = "finished", "failed", "missing"
PREDICTIONS = "predictions_test.csv"
CURVES = ["loss", "val/loss", "val/macro_ap"]
_METRICS = (
    "test/macro_ap",
    "test/macro_ap_low",
    "test/macro_ap_high",
    "test/macro_f1",
    "val/macro_ap",
    "floor/macro_ap",
    "gain_over_controls",
    "gain_over_controls_low",
    "best_epoch",
    "minutes",
)
_WITHOUT = ("pairs", "difference", "low", "high")


def levels_text(levels: Mapping[str, str]) -> str:
    """Return ``augment=true labels=10``."""
    return " ".join(f"{name}={level}" for name, level in levels.items())


@dataclass(frozen=True)
class Place:
    """The place of a training in a study's grid; levels: factor → level, the compared factor first."""

    model: str
    levels: Mapping[str, str]
    seed: int
    fold: int

    @property
    def arm(self) -> str:
        """The level of the compared factor."""
        return next(iter(self.levels.values()))

    @property
    def stratum(self) -> str:
        """The levels of all other factors: ``labels=10``; empty where there are none."""
        return ", ".join(f"{name}={level}" for name, level in list(self.levels.items())[1:])

    @property
    def label(self) -> str:
        """``base augment=true seed 0 fold 1``."""
        return f"{self.model} {levels_text(self.levels)} seed {self.seed} fold {self.fold}"

    @property
    def columns(self) -> dict[str, Any]:
        """The place as columns of a table."""
        return {"model": self.model, "arm": self.arm, "stratum": self.stratum, "seed": self.seed, "fold": self.fold}


@dataclass(frozen=True)
class Result:
    """The result of one training.

    Attributes:
        place: in the study's grid.
        status: finished, failed or missing.
        run_id: its run, or "".
        metrics, tags: of that run.
        predictions: of its test photos; None where it has not finished.
        history: a row per epoch, with ``epoch`` and those of CURVES that were logged.
        pretraining_minutes: this training's share of the pretraining that it has in common with others.
        paired_seed: the seed of the first arm's run that it is paired with, where it differs; None: its own seed.
    """

    place: Place
    status: str
    run_id: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    predictions: paired.Predictions | None = None
    history: Sequence[Mapping[str, float]] = ()
    pretraining_minutes: float = 0.0
    paired_seed: int | None = None

    @property
    def collapsed(self) -> bool:
        """Whether the run gives every photo the same answer."""
        return self.tags.get("collapsed") == "true"


def read_predictions(file: Path, materials: Sequence[str], run_id: str) -> paired.Predictions:
    """Read a run's predictions_test.csv.

    Raises:
        RunError: it was written by an earlier version, or for other materials.
    """
    frame = pd.read_csv(file, dtype={"file_name": str, "group": str}, keep_default_na=False)
    columns = {kind: [f"{kind}_{material}" for material in materials] for kind in ("label", "probability", "decision")}
    lacking = {"file_name", "group", *(name for names in columns.values() for name in names)} - set(frame.columns)
    if lacking:
        raise RunError(
            f"{PREDICTIONS} of run {run_id} has no column '{min(lacking)}': it was written by an earlier version of "
            "Wastelens, or for other materials. Train it again."
        )
    return paired.Predictions(
        file_names=[from_text(name) for name in frame["file_name"]],
        groups=frame["group"].map(from_text).to_numpy(dtype=str),
        labels=frame[columns["label"]].to_numpy(dtype=bool),
        probabilities=frame[columns["probability"]].to_numpy(dtype=np.float64),
        decisions=frame[columns["decision"]].to_numpy(dtype=bool),
    )


def stored_predictions(stored: StoredRun, materials: Sequence[str]) -> paired.Predictions:
    """Read the predictions of a finished run for its test photos.

    Raises:
        RunError: they are missing, or of an earlier version.
    """
    run_id = stored.run.id
    with tempfile.TemporaryDirectory() as folder:
        file = stored.run.download(PREDICTIONS, Path(folder))
        if file is None:
            raise RunError(f"Run {run_id} has no {PREDICTIONS}: it was removed. Delete the run and train again.")
        return read_predictions(file, materials, run_id)


def result_of(stored: StoredRun, place: Place, materials: Sequence[str], pretraining_minutes: float = 0.0) -> Result:
    """Read the numbers, predictions and learning curves of a finished run.

    Raises:
        RunError: its predictions are missing, or of an earlier version.
    """
    run_id = stored.run.id
    predictions = stored_predictions(stored, materials)
    history = stored.run.metric_history(CURVES)
    return Result(place, FINISHED, run_id, stored.metrics, stored.tags, predictions, history, pretraining_minutes)


def cells_frame(results: Sequence[Result], materials: Sequence[str]) -> pd.DataFrame:
    """Return study.csv: a row per planned training; numbers are NaN where it has not finished."""
    return pd.DataFrame([_cell_row(result, materials) for result in results])


def _cell_row(result: Result, materials: Sequence[str]) -> dict[str, Any]:
    metrics = result.metrics if result.status == FINISHED else {}
    strongest = result.tags.get("strongest_control", "")
    control = metrics.get(f"controls/{strongest}_macro_ap", np.nan)
    scores = [*_METRICS[:4], *(f"test/ap_{material}" for material in materials), *_METRICS[4:]]
    columns = result.place.columns
    return {
        **columns,
        **{name: level for name, level in result.place.levels.items() if name not in columns},
        "status": result.status,
        "run_id": result.run_id,
        **_columns(metrics, scores),
        "strongest_control": strongest,
        "strongest_control_macro_ap": control,
        "collapsed": result.collapsed,
        "above_controls": result.tags.get("above_controls") == "true",
        "below_strongest_control": bool(metrics.get("test/macro_ap", np.nan) < control),
        "pretraining_minutes": result.pretraining_minutes,
        "git_commit": result.tags.get("git_commit", ""),
    }


def _columns(metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return metrics by the names of their columns: ``test/macro_ap`` is in ``test_macro_ap``."""
    return {name.replace("/", "_"): metrics.get(name, np.nan) for name in names}


def curves_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Return curves.csv: a row per finished training and epoch, with those of CURVES that were logged."""
    rows = [
        {**result.place.columns, "epoch": row["epoch"], **_columns(row, CURVES)}
        for result in results
        for row in result.history
        if "loss" in row
    ]
    return pd.DataFrame(rows, columns=["model", "arm", "stratum", "seed", "fold", "epoch", *_columns({}, CURVES)])


def comparisons_frame(
    results: Sequence[Result], arms: Sequence[str], materials: Sequence[str], *, seed: int, resamples: int
) -> pd.DataFrame:
    """Return comparisons.csv: each arm against the first, for every combination of the other factors.

    It has a row per combination, arm, model and metric, corrected for the number of comparisons of each metric over
    the whole study; for macro AP also the difference without the pairs in which a run collapsed.
    """
    made = []
    for stratum in dict.fromkeys(result.place.stratum for result in results):
        for second in arms[1:]:
            pairs = _pairs([result for result in results if result.place.stratum == stratum], arms[0], second)
            if pairs:
                made.append((stratum, second, pairs, _compare(pairs, materials, seed, resamples)))
    corrected = paired.correct_together([comparison for *_, comparison in made])
    frames = [
        _labelled(paired.comparison_frame(comparison), pairs, materials, seed, resamples).assign(
            stratum=stratum, first=arms[0], second=second
        )
        for (stratum, second, pairs, _), comparison in zip(made, corrected, strict=True)
    ]
    columns = ["stratum", "first", "second", *paired.COLUMNS, *(f"without_collapsed_{name}" for name in _WITHOUT)]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


RunPair = tuple[paired.Pair, bool]  # a pair, and whether neither of its runs collapsed


def _pairs(results: Sequence[Result], first: str, second: str) -> dict[str, list[RunPair]]:
    """Return each model's pairs: runs of both arms that share seed (or are paired as if they did) and fold."""
    pairs: dict[str, list[RunPair]] = {}
    seconds = {_twin(result): result for result in results if result.place.arm == second}
    for one in results:
        place, other = one.place, seconds.get(_twin(one))
        if place.arm == first and other and one.predictions and other.predictions:
            pair = paired.Pair(place.seed, place.fold, one.predictions, other.predictions)
            pairs.setdefault(place.model, []).append((pair, not (one.collapsed or other.collapsed)))
    return pairs


def _twin(result: Result) -> tuple[str, int, int]:
    """Return what two runs of a pair share: model, seed and fold."""
    place = result.place
    return place.model, place.seed if result.paired_seed is None else result.paired_seed, place.fold


def _compare(
    pairs: Mapping[str, Sequence[RunPair]], materials: Sequence[str], seed: int, resamples: int
) -> list[paired.Difference]:
    plain = {model: [pair for pair, _ in of_model] for model, of_model in pairs.items()}
    return paired.compare(plain, materials, np.random.default_rng([seed, 20]), resamples)


def _labelled(
    frame: pd.DataFrame, pairs: Mapping[str, Sequence[RunPair]], materials: Sequence[str], seed: int, resamples: int
) -> pd.DataFrame:
    """Add the differences of macro AP without collapsed pairs; the same numbers where nothing collapsed."""
    sound = {model: [one for one in of_model if one[1]] for model, of_model in pairs.items()}
    sound = {model: of_model for model, of_model in sound.items() if of_model}
    if all(is_sound for of_model in pairs.values() for _, is_sound in of_model):
        rest = frame
    else:
        rest = paired.comparison_frame(_compare(sound, materials, seed, resamples)) if sound else frame.iloc[:0]
    rest = rest[rest["metric"] == paired.MACRO_AP].set_index("model")
    if len(rest) == 1:  # of all models, only one is left
        rest = pd.concat([rest, rest.set_axis([paired.ALL_MODELS])])
    answer = frame.copy()
    wanted = answer["metric"] == paired.MACRO_AP
    for name in _WITHOUT:
        answer[f"without_collapsed_{name}"] = answer["model"].map(rest[name]).where(wanted).astype(np.float64)
    answer.loc[wanted & answer["without_collapsed_pairs"].isna(), "without_collapsed_pairs"] = 0.0
    return answer
