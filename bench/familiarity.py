"""How often `predict` says that photos are unlike the model's own: false alarms, and simulated and real shifts found.

    python -m bench.familiarity DATASET OTHER_DATASET

Thirty photos of each group of DATASET (a batch of TACO) are once the new photos, with pairs of the other groups as the
model's test and the rest as its training photos. The new photos are seen as they are, for the false alarms, and
shifted, for the power. Thirty of OTHER_DATASET are a real shift. Features are those of a probe with ImageNet weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from wastelens.cli import prepare_environment
from wastelens.config.files import load_config
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.opening import open_dataset
from wastelens.models.backend import load_backend
from wastelens.models.familiarity import Familiarity
from wastelens.models.features import compiled, feature_network
from wastelens.system.arrays import Float32Array, PhotoArray

LEVELS = (0.05, 0.01)  # predict warns at the second
BATCH, SIDE_PX = 32, 256  # the side that a probe sees
NEW = 30  # photos; smaller groups are never the new ones
PAIRS = 15  # of test groups, for each group of new photos


def _multiplied(*factors: float) -> Callable[[PhotoArray], PhotoArray]:
    return lambda photo: np.clip(photo * np.float32(factors), 0, 255).round().astype(np.uint8)


def _gamma(power: float) -> Callable[[PhotoArray], PhotoArray]:
    return lambda photo: (255 * (photo / np.float32(255)) ** power).round().astype(np.uint8)


def _blurred(share: float) -> Callable[[PhotoArray], PhotoArray]:
    """Gaussian blur, with a standard deviation of this share of the photo's side."""
    return lambda photo: cv2.GaussianBlur(photo, (0, 0), share * len(photo))


SHIFTS: dict[str, Callable[[PhotoArray], PhotoArray]] = {
    "darker, gamma 2.5": _gamma(2.5),
    "brighter, gamma 0.35": _gamma(0.35),
    "blur, 1 % of the side": _blurred(0.01),
    "blur, 2 % of the side": _blurred(0.02),
    "another camera's colours, red × 1.15, blue × 0.85": _multiplied(1.15, 1.0, 0.85),
    "another camera's colours, red × 1.4, blue × 0.6": _multiplied(1.4, 1.0, 0.6),
}


def main(dataset_name: str, other_name: str) -> None:
    """Print a row for each shift: how often it is found at both levels, and the median p."""
    prepare_environment()
    dataset, other = (open_dataset(name, Path("data")).at_side(SIDE_PX) for name in (dataset_name, other_name))
    if other.side_px != dataset.side_px:
        sys.exit(f"Prepare {other_name} with image_side_px={dataset.side_px} too.")
    features_of, rng = _features(dataset.side_px), np.random.default_rng(0)
    features, groups = features_of(dataset.photos), dataset.frame["group"].to_numpy(dtype=str)
    found: dict[str, list[float]] = {}
    for new in (name for name, count in zip(*np.unique(groups, return_counts=True), strict=True) if count >= NEW):
        rows = np.sort(rng.permutation(np.flatnonzero(groups == new))[:NEW])
        elsewhere = other.photos[np.sort(rng.permutation(len(other.photos))[:NEW])]
        seen = {"none": features[rows], f"another dataset: {other.name}": features_of(elsewhere)}
        for name, shift in SHIFTS.items():
            seen[name] = features_of(np.stack([shift(np.asarray(photo)) for photo in dataset.photos[rows]]))
        for memory in _memories(features, groups, str(new), rng):
            distances = memory.distances(np.concatenate(list(seen.values()))).reshape(len(seen), NEW)
            for name, of_shift in zip(seen, distances, strict=True):
                found.setdefault(name, []).append(memory.p_of(of_shift))
        print(f"{new}: {len(found['none'])} arrangements", file=sys.stderr, flush=True)
    print("| shift | " + " | ".join(f"p < {level}" for level in LEVELS) + " | median p |\n|---|---|---|---|")
    for name, values in found.items():
        shares = [f"{np.mean(np.array(values) < level):.1%}" for level in LEVELS]
        print(f"| {name} | {shares[0]} | {shares[1]} | {np.median(values):.4f} |")


def _features(side_px: int) -> Callable[[PhotoArray], Float32Array]:
    """Return a function of photos (n, side, side, 3) to features float32 (n, features)."""
    load_backend()
    config = load_config("train", parameters={"model": "probe"})
    assert isinstance(config, TrainConfig)
    network = config.network.build(image_side_px=side_px, outputs=1, seed=0)
    config.network.load_weights(network, config.weights)
    return compiled(feature_network(network), BATCH)


def _memories(
    features: Float32Array, groups: npt.NDArray[np.str_], new: str, rng: np.random.Generator
) -> Iterator[Familiarity]:
    """Yield what models remember that have never seen the new group, for random pairs of test groups."""
    pairs = list(combinations(sorted({*groups} - {new}), 2))
    for place in rng.permutation(len(pairs))[:PAIRS]:
        test = np.isin(groups, pairs[place])
        training = ~test & (groups != new)
        yield Familiarity.of(features[training], groups[training], features[test], groups[test])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
