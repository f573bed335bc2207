"""Find the labels that look wrong, by answers of models that have not seen the photo: confident learning.

Northcutt, Jiang & Chuang 2021, "Confident Learning", JAIR 70; for several labels per photo, Thyagarajan et al. 2023,
"Identifying Incorrect Annotations in Multi-Label Classification Data", arXiv:2211.13895. cleanlab has both.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.prepared.tables import LabelMatrix
from wastelens.system.arrays import BoolArray, FloatArray, IntArray

MISSING, SUPERFLUOUS = "missing", "superfluous"


def label_quality(labels: LabelMatrix, probabilities: FloatArray) -> FloatArray:
    """Return how likely each label is right, 0 to 1, (photos, materials).

    By self-confidence, that is the probability of the label that was given: p for a 1, and 1 - p for a 0. cleanlab's
    other scores give the same order where a label is yes or no.

    Args:
        labels: 0 and 1, (photos, materials).
        probabilities: out of fold, (photos, materials).
    """
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    return np.asarray(get_label_quality_scores_per_class(_listed(labels), probabilities))


def estimated_errors(labels: LabelMatrix, probabilities: FloatArray) -> BoolArray:
    """Return which labels confident learning takes for wrong, (photos, materials).

    It estimates for each material how many labels of either kind are wrong, and takes that many of the least likely.
    Where all labels of a material are the same, nothing can be estimated.
    """
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    wrong, both = np.zeros(labels.shape, np.bool_), np.ptp(labels, axis=0) > 0
    if both.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a kind with too few labels to take any for wrong
            given = _listed(labels[:, both])
            wrong[:, both] = find_multilabel_issues_per_class(given, probabilities[:, both], n_jobs=1)
    return wrong


def _listed(labels: LabelMatrix) -> list[list[int]]:
    """Return the materials that each photo shows, as cleanlab takes them."""
    return [np.flatnonzero(row).tolist() for row in labels]


def ranked_doubts(labels: LabelMatrix, probabilities: FloatArray) -> pd.DataFrame:
    """Return a row per label, the most doubtful first.

    Its columns: ``row`` and ``place``, of photo and material; ``label``; ``kind``: missing for a 0 that looks like a 1,
    superfluous for a 1 that looks like a 0; ``quality``; ``estimated_error``; ``probability``.
    """
    rows, places = (index.ravel() for index in np.indices(labels.shape))
    given = labels.ravel()
    frame = pd.DataFrame(
        {
            "row": rows,
            "place": places,
            "label": given,
            "kind": np.where(given == 1, SUPERFLUOUS, MISSING),
            "quality": label_quality(labels, probabilities).ravel(),
            "estimated_error": estimated_errors(labels, probabilities).ravel(),
            "probability": probabilities.ravel(),
        }
    )
    return frame.sort_values(["quality", "row", "place"], ignore_index=True)


def times_chance(quality: FloatArray, wrong: BoolArray, share: float) -> float:
    """Return how many times as many wrong labels as in random order are among the least likely ``share`` of all.

    Args:
        quality: of each label, any shape.
        wrong: which of them are wrong, the same shape.
        share: of the list that is looked through, 0 to 1.
    """
    looked_at = np.argsort(quality, axis=None, kind="stable")[: round(share * quality.size)]
    return float(wrong.ravel()[looked_at].sum() / wrong.sum() / share)


@dataclass(frozen=True)
class CategoryDoubt:
    """How often models contradict the material that a category is mapped to.

    Attributes:
        category, material: a row of the mapping.
        photos: that show this category, and no other of the material.
        contradicted: those of them where the material is less likely than in a photo drawn at random.
        expected: the number that would be contradicted at the rate of the material's other photos; NaN without others.
        instead: the material that the contradicted photos speak for most, over its own share of all photos.
        chance: the probability of at least this many by chance (Fisher's exact test, photos taken as independent).
    """

    category: str
    material: str
    photos: int
    contradicted: int
    expected: float
    instead: str
    chance: float


def category_doubts(
    objects: pd.DataFrame, file_names: Sequence[str], materials: Sequence[str], probabilities: FloatArray
) -> list[CategoryDoubt]:
    """Return each category of the mapping that some photo shows alone of its material, the most doubtful first.

    Args:
        objects: ``file_name``, ``category`` and ``material`` of each object.
        file_names: of the photos, in the order of the probabilities.
        materials: in the order of the probabilities.
        probabilities: out of fold, (photos, materials).
    """
    from scipy.stats import hypergeom

    row_of = {name: row for row, name in enumerate(file_names)}
    place_of = {name: place for place, name in enumerate(materials)}
    shown = objects.assign(row=objects["file_name"].map(row_of)).dropna(subset="row")
    kinds = shown.drop_duplicates(["row", "category", "material"])
    alone = kinds[~kinds.duplicated(["row", "material"], keep=False)]
    found = []
    for (category, material), of_category in alone.groupby(["category", "material"]):
        place = place_of[str(material)]
        rows = of_category["row"].to_numpy(dtype=np.intp)
        labelled = kinds.loc[kinds["material"] == material, "row"].unique().astype(np.intp)
        share = len(labelled) / len(file_names)
        against = probabilities[:, place] < share
        count, total = int(against[rows].sum()), int(against[labelled].sum())
        others = len(labelled) - len(rows)
        rate = (total - count) / others if others else float("nan")
        chance = float(hypergeom.sf(count - 1, len(labelled), total, len(rows)))
        instead = _spoken_for(probabilities, rows[against[rows]], place, materials)
        found.append(CategoryDoubt(str(category), str(material), len(rows), count, rate * len(rows), instead, chance))
    return sorted(found, key=lambda one: (one.chance, one.category))


def _spoken_for(probabilities: FloatArray, rows: npt.NDArray[np.intp], own: int, materials: Sequence[str]) -> str:
    """Return the material, other than their own, that photos speak for most; "" without photos."""
    if not len(rows):
        return ""
    surplus = probabilities[rows].mean(axis=0) - probabilities.mean(axis=0)
    surplus[own] = -np.inf
    return materials[int(surplus.argmax())]


def differing_pairs(pairs: IntArray, labels: LabelMatrix) -> IntArray:
    """Return the pairs of photos, int64 (pairs, 2), that have different labels."""
    differ = (labels[pairs[:, 0]] != labels[pairs[:, 1]]).any(axis=1)
    return np.asarray(pairs[differ], dtype=np.int64)
