"""Training on a part of the labels: which photos keep theirs."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from wastelens.data.prepared.tables import TrainTable


def labelled_share(train: TrainTable, percent: float, seed: int) -> TrainTable:
    """The rows of so many % of the training photos, at least one; all of them, in their order, where it is 100.

    Drawn by the seed, and nested: the photos of a smaller share are among those of a larger one. The first of them
    show every material that occurs, the rarest first, so that no share lacks a material for want of luck.

    Raises:
        ValueError: no share between 0 and 100 %.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"a share of the labels is above 0 and at most 100 %, not {percent:g}")
    count = math.ceil(len(train) * percent / 100)
    return train.take(np.sort(_drawing_order(train, np.random.default_rng([seed, 10]))[:count]))


def _drawing_order(train: TrainTable, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """All rows at random, but first one of each material, the rarest first."""
    drawn = rng.permutation(len(train))
    labels = train.labels[drawn].astype(bool)
    present = np.flatnonzero(labels.any(axis=0))
    rarest_first = present[np.argsort(labels[:, present].sum(axis=0), kind="stable")]
    first = list(dict.fromkeys(int(labels[:, material].argmax()) for material in rarest_first))
    return drawn[[*first, *np.setdiff1d(np.arange(len(drawn)), first)]]
