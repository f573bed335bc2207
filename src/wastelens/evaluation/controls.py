"""Controls: predictors that do not look at the litter, which a model has to beat before its scores count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from wastelens.data.prepared.tables import LabelTable, TrainTable
from wastelens.evaluation.control_predictors import (
    ControlInputs,
    base_rates,
    colour_scores,
    folders_are_labels,
    neighbour_scores,
    random_scores,
    size_scores,
)
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.system.arrays import FloatArray, PhotoArray

CONTROLS = ("random", "neighbours", "size", "colour")
NEIGHBOUR_MARGIN = 0.03
_NOTE_LABELS_IN_NAMES = (
    "Every folder holds one combination of materials, so file names give the labels away. The neighbours control "
    "would only read them there and is replaced by the base rates."
)


@dataclass(frozen=True)
class Controls:
    """Predictions and macro AP of the controls.

    Attributes:
        materials: their names, in the order of the scores' columns.
        scores: control → split → float64 (photos of the split, materials) in [0, 1], rows as in the split's table.
        macro_ap: control → split → macro AP; for ``random``, the mean over 200 draws, of which ``scores`` holds the
            one nearest to that mean.
        note: a caveat for the user, or "".
    """

    materials: tuple[str, ...]
    scores: Mapping[str, Mapping[str, FloatArray]]
    macro_ap: Mapping[str, Mapping[str, float]]
    note: str = ""

    def metrics(self) -> dict[str, float]:
        """Return ``control_<name>_<split>_macro_ap`` → value, for MLflow."""
        return {
            f"control_{name}_{split}_macro_ap": value
            for name, splits in self.macro_ap.items()
            for split, value in splits.items()
        }


def score_controls(
    train: TrainTable,
    others: Mapping[str, LabelTable],
    photos: PhotoArray,
    seed: int,
) -> Controls:
    """Fit the four controls on train and score the other splits; the same seed gives the same numbers.

    Args:
        train: repeated rows (an oversampled table) count once.
        others: split name → table, such as ``{"val": ValTable, "test": TestTable}``.
        photos: uint8 RGB (photos, side, side, 3), indexed by the tables' ``photo_index``.
        seed: of the random scores and the forests.

    Raises:
        TypeError: ``train`` holds another split.
        ValueError: tables and photos do not match.
    """
    inputs = _each_photo_once(ControlInputs(train, others, photos))
    labels_in_names = folders_are_labels([inputs.train, *others.values()])
    random, random_ap = random_scores(inputs, np.random.default_rng(seed))
    scores = {
        "random": random,
        "neighbours": base_rates(inputs) if labels_in_names else neighbour_scores(inputs),
        "size": size_scores(inputs, seed),
        "colour": colour_scores(inputs, seed),
    }
    # Nine digits: enough for any ranking, without the noise of summing in another order, which breaks ties.
    rounded = {name: {split: s.round(9) for split, s in splits.items()} for name, splits in scores.items()}
    macro_ap = {name: _macro_aps(inputs.others, splits) for name, splits in rounded.items()}
    return Controls(
        train.materials,
        rounded,
        macro_ap | {"random": random_ap},
        _NOTE_LABELS_IN_NAMES if labels_in_names else "",
    )


def _each_photo_once(inputs: ControlInputs) -> ControlInputs:
    first = np.sort(np.unique(np.asarray(inputs.train.file_names), return_index=True)[1])
    return replace(inputs, train=inputs.train.take(first))


def _macro_aps(tables: Mapping[str, LabelTable], scores: Mapping[str, FloatArray]) -> dict[str, float]:
    return {split: float(macro_average_precision(tables[split].labels, scores[split])) for split in scores}


def neighbour_warning(controls: Controls, advice: str) -> str | None:
    """Return one sentence if file order alone predicts the test labels, otherwise None; advice: the fix."""
    if "test" not in controls.macro_ap.get("neighbours", {}):
        return None
    neighbours, random = controls.macro_ap["neighbours"]["test"], controls.macro_ap["random"]["test"]
    if not neighbours > random + NEIGHBOUR_MARGIN:
        return None
    return (
        f"The labels of neighbouring files alone score macro AP {neighbours:.3f} on test (random scores "
        f"{random:.3f}): neighbouring photos show the same scene and are in both train and test, so this "
        f"split measures memory of scenes; {advice}."
    )


def controls_frame(controls: Controls, tables: Mapping[str, LabelTable]) -> pd.DataFrame:
    """Return one row for each control, split and photo: ``control``, ``split``, ``file_name`` and a score per material.

    Raises:
        ValueError: a split has another number of rows than scores.
    """
    parts = []
    for name, splits in controls.scores.items():
        for split, scores in splits.items():
            part = pd.DataFrame(scores, columns=list(controls.materials))
            part.insert(0, "control", name)
            part.insert(1, "split", split)
            part.insert(2, "file_name", tables[split].file_names)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def control_scores(frame: pd.DataFrame, control: str, table: LabelTable) -> FloatArray:
    """Return one control's scores from a :func:`controls_frame`, rows as in ``table``: (n, m).

    Raises:
        ValueError: a photo of the table has no scores or several, since they were computed for another split.
    """
    rows = frame[frame["control"] == control].set_index("file_name")
    wanted = table.file_names
    if missing := set(wanted) - set(rows.index):
        raise ValueError(f"{len(missing)} photos, such as '{min(missing)}', have no '{control}' scores")
    found = rows[list(table.materials)].loc[wanted]
    if len(found) != len(wanted):
        raise ValueError(f"some photos have several '{control}' scores; use those of one split")
    return found.to_numpy(dtype=np.float64)
