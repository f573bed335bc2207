"""How much a photo resembles those that a model learnt from, by the features of its last layer.

A photo's distance is that of its features, scaled to length 1, to the tenth nearest of the training photos' (Sun, Ming,
Zhu & Li 2022, *Out-of-distribution detection with deep nearest neighbors*, section 3). Its familiarity is the share of
the model's own test photos, and itself, that are at least as far: a conformal p-value (Bates, Candès, Lei, Romano &
Sesia 2023, *Testing for outliers with conformal p-values*, section 2), which photos like the test's have evenly spread
between 0 and 1.

Photos of one place or day are alike, so a test that took every photo for an independent one would see a difference
between any two batches of photos. :meth:`Familiarity.p_of` therefore asks whether a set of photos is further away than
groups of photos are from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import Float32Array, FloatArray

FILE = "familiarity.npz"
NEIGHBOUR = 10
_MOST_PHOTOS = 1000  # of training that are kept; a hundredth of them tells nearly as much (Sun et al., section 4.2)
_MOST_NUMBERS = 4_000_000  # of features that are kept, two bytes each
_DECIMALS = 4  # half a float16's precision; so rows do not depend on the order in which a processor adds


@dataclass(frozen=True)
class Familiarity:
    """The features of training photos that a model remembers, and how far photos are from them.

    Attributes:
        training: features of training photos, scaled to length 1, float16 (n, features).
        training_groups: of these photos, numbered, int32 (n,).
        training_distances: of each to the training photos of other groups, float64 (n,); NaN where there is one group.
        test_groups, test_distances: of the test photos, in the order of the model's test predictions, (test photos,).
    """

    training: npt.NDArray[np.float16]
    training_groups: npt.NDArray[np.int32]
    training_distances: FloatArray
    test_groups: npt.NDArray[np.int32]
    test_distances: FloatArray

    @classmethod
    def of(
        cls, training: Float32Array, training_groups: Sequence[str], test: Float32Array, test_groups: Sequence[str]
    ) -> Self:
        """Measure all distances; features float32 (n, features) of each, and the photos' groups."""
        units, groups = _units(training), _numbered(training_groups)
        apart = np.full(len(units), np.nan)
        for group in np.unique(groups):
            inside = groups == group
            if not inside.all():
                apart[inside] = _distances(units[inside], units[~inside])
        kept = units.astype(np.float16)
        return cls(kept, groups, apart, _numbered(test_groups), _distances(_units(test), kept))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a file that :meth:`write` wrote; a broken one raises ValueError, KeyError or OSError."""
        with np.load(file, allow_pickle=False) as arrays:
            found = cls(**{one.name: arrays[one.name] for one in fields(cls)})
        if found.training.ndim != 2 or found.training.dtype != np.float16 or not len(found.training):
            raise ValueError("its arrays have another form")
        return found

    def write(self, file: Path) -> None:
        """Write the arrays to an ``.npz`` file."""
        np.savez(file, **{one.name: getattr(self, one.name) for one in fields(self)})

    def distances(self, features: Float32Array) -> FloatArray:
        """Return the distance to the tenth nearest training photo, between 0 and 2, float64 (n,); NaN for a NaN."""
        return _distances(_units(features), self.training)

    def shares(self, distances: FloatArray) -> FloatArray:
        """Return the familiarity of photos at these distances, above 0 and at most 1, float64 (n,)."""
        ordered = np.sort(self.test_distances)
        at_least_as_far = len(ordered) - np.searchsorted(ordered, distances, side="left")
        shares = (at_least_as_far + 1) / (len(ordered) + 1)
        return np.where(np.isfinite(distances), shares, np.nan)

    def p_of(self, distances: FloatArray) -> float:
        """Return how probable a mean distance as large as that of these photos is for a group like those of the test.

        A one-sided t-test for one new group: t = (m − m̄) / √(s² (1 + 1/G) + w² / n), where m is the mean over the n
        photos, m̄ that of the G test groups' means, s the standard deviation of the training groups' means, each of
        distances to the other groups, with one degree of freedom less than there are groups, and w that of photos
        within a group. NaN where there are too few groups to tell.
        """
        from scipy.special import stdtr  # without the second that scipy.stats takes to load

        usable = distances[np.isfinite(distances)]
        means, within = _means(self.training_distances, self.training_groups)
        test_means, _ = _means(self.test_distances, self.test_groups)
        if len(means) < 2 or not len(test_means) or not len(usable):
            return float("nan")
        variance = means.var(ddof=1) * (1 + 1 / len(test_means)) + within / len(usable)
        difference = usable.mean() - test_means.mean()
        return float(stdtr(len(means) - 1, -difference / np.sqrt(max(variance, np.finfo(np.float64).tiny))))


def most_photos(features: int) -> int:
    """Return how many training photos to remember at most, by the number of their features."""
    return max(NEIGHBOUR, min(_MOST_PHOTOS, _MOST_NUMBERS // features))


def _means(distances: FloatArray, groups: npt.NDArray[np.int32]) -> tuple[FloatArray, float]:
    """Return the mean of each group, and the mean variance within groups."""
    if not np.isfinite(distances).all():
        return np.zeros(0), 0.0
    of_groups = [distances[groups == group] for group in np.unique(groups)]
    within = sum(len(one) * float(one.var()) for one in of_groups) / max(len(distances), 1)
    return np.array([one.mean() for one in of_groups]), within


def _distances(units: Float32Array, others: npt.NDArray[Any]) -> FloatArray:
    """Return the distance of vectors of length 1 to the tenth nearest of others, float64 (n,)."""
    cosines = units @ others.astype(np.float32).T
    place = max(0, cosines.shape[1] - NEIGHBOUR)
    nearest = np.partition(cosines, place, axis=1)[:, place].astype(np.float64)
    distances: FloatArray = np.sqrt(np.maximum(2 - 2 * nearest, 0.0)).round(_DECIMALS)
    return np.where(np.isfinite(units).all(axis=1), distances, np.nan)


def _numbered(groups: Sequence[str]) -> npt.NDArray[np.int32]:
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].astype(np.int32)


def _units(features: Any) -> Float32Array:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
