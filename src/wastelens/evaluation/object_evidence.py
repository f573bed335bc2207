"""How well a map of litter finds annotated objects, and what a model answers when it is told where to look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wastelens.data.annotations.coverage import ObjectCells
from wastelens.data.prepared.tables import LabelTable
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IndexArray

PLACES = 20
FOUND = 0.25  # of the object in the cell, or of the cell in the object: an object astride four cells can be found
# Square root of an object's area, in pixels of a photo of 512 × 512 px; the bounds are COCO's (Lin et al. 2014).
SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, np.inf)}
_SIDE_PX = 512.0


@dataclass(frozen=True)
class ObjectEvidence:
    """Where a model looks in test photos.

    Attributes:
        recall: size → the share of its objects that one of the 20 places most like litter finds.
        chance: the same of 20 places drawn at random.
        counts: size → number of objects.
        macro_ap: whose places → macro AP of the same model with them: ``own``, ``true_outlines`` (the ceiling),
            ``other_photo`` (those of another photo) and ``random_place`` (the same, moved together at random).
    """

    recall: dict[str, float]
    chance: dict[str, float]
    counts: dict[str, int]
    macro_ap: dict[str, float]

    @property
    def share_of_ceiling(self) -> float:
        """Macro AP as a share of what the true places would give."""
        return self.macro_ap["own"] / self.macro_ap["true_outlines"]

    def metrics(self) -> dict[str, float]:
        """Return all numbers by their MLflow names; sizes without objects are left out."""
        return {
            "ceiling_macro_ap": self.macro_ap["true_outlines"],
            "share_of_ceiling": self.share_of_ceiling,
            "controls/other_photo_outlines_macro_ap": self.macro_ap["other_photo"],
            "controls/random_outlines_macro_ap": self.macro_ap["random_place"],
            **{f"objects/recall_{size}": value for size, value in self.recall.items()},
            **{f"objects/recall_{size}_chance": value for size, value in self.chance.items()},
        }

    @property
    def sentence(self) -> str:
        """The finding, in one line."""
        sizes = ", ".join(f"{size} {100 * value:.0f} % ({self.counts[size]:,})" for size, value in self.recall.items())
        ap = self.macro_ap
        return (
            f"Objects found by {PLACES} places a photo: {sizes}. Macro AP {ap['own']:.3f}; told the objects' places "
            f"{ap['true_outlines']:.3f}, another photo's {ap['other_photo']:.3f}, at random places "
            f"{ap['random_place']:.3f}."
        )


def measure_evidence(
    objects: ObjectCells,
    litter: Float32Array,
    places: Float32Array,
    answers: FloatArray,
    told: Callable[[Float32Array], FloatArray],
    table: LabelTable,
    *,
    seed: int,
) -> ObjectEvidence:
    """Measure where a model looks against the objects of some photos.

    Args:
        objects: of the photos, on the cells of the map of litter.
        litter: how much each cell is like litter to the model, float32 (photos, rows, columns).
        places: that the model looks at, row and column as shares of the side, float32 (photos, places, 2).
        answers: of the model, float64 (photos, materials).
        told: places → the answers of the same model if it looks there.
        table: the photos and their labels.
        seed: of the random places.
    """
    rng = np.random.default_rng(seed)
    found = _found(objects, best_places(litter))
    by_chance = _found(objects, best_places(rng.random(litter.shape).astype(np.float32)))
    side_px = np.sqrt(objects.coverage.mean(axis=(1, 2))) * _SIDE_PX
    of_size = {size: (low <= side_px) & (side_px < high) for size, (low, high) in SIZES.items()}
    of_size = {size: chosen for size, chosen in of_size.items() if chosen.any()}
    true = places_of_objects(objects, places)
    looks = {
        "own": answers,
        "true_outlines": told(true),
        "other_photo": told(true[_others(len(true), rng)]),
        "random_place": told(np.mod(true + rng.random((len(true), 1, 2)), 1.0).astype(np.float32)),
    }
    return ObjectEvidence(
        {size: float(found[chosen].mean()) for size, chosen in of_size.items()},
        {size: float(by_chance[chosen].mean()) for size, chosen in of_size.items()},
        {size: int(chosen.sum()) for size, chosen in of_size.items()},
        {name: float(macro_average_precision(table.labels, look)) for name, look in looks.items()},
    )


def places_of_objects(objects: ObjectCells, places: Float32Array) -> Float32Array:
    """Return the middles of each photo's largest objects, then the first places of a model, (photos, places, 2).

    All photos have as many places: an object seen twice would count twice.
    """
    largest_first = np.argsort(-objects.coverage.sum(axis=(1, 2)), kind="stable")
    photo, centres = objects.photo[largest_first], objects.centres[largest_first]
    found = places.copy()
    for number in np.unique(photo):
        both = np.concatenate([centres[photo == number], places[number]])
        found[number] = both[: places.shape[1]]
    return found


def best_places(litter: Float32Array, places: int = PLACES) -> BoolArray:
    """Choose the cells most like litter, peaks among their eight neighbours first: bool (photos, rows, columns).

    Without that order, a large object would take all places.
    """
    from scipy.ndimage import maximum_filter

    peak = litter >= maximum_filter(litter, size=(1, 3, 3))
    order = np.lexsort((-litter.reshape(len(litter), -1), ~peak.reshape(len(litter), -1)))
    chosen = np.zeros(peak.reshape(len(litter), -1).shape, dtype=np.bool_)
    np.put_along_axis(chosen, order[:, :places], True, axis=1)
    return chosen.reshape(litter.shape)


def _found(objects: ObjectCells, chosen: BoolArray) -> BoolArray:
    """Return which objects one of the chosen cells finds, (objects,)."""
    return np.asarray((objects.held * chosen[objects.photo]).max(axis=(1, 2), initial=0.0) >= FOUND)


def _others(photos: int, rng: np.random.Generator) -> IndexArray:
    """Return another photo for each, (photos,); of a single photo, itself."""
    order = rng.permutation(photos)
    other = np.empty(photos, dtype=np.intp)
    other[order] = np.roll(order, 1)
    return other
