"""Choose the rows that a network learns from: a split's training rows, or a share of their labels, balanced or not."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import BalanceError
from wastelens.preparing.balance import oversample
from wastelens.system.arrays import IndexArray


def training_rows(
    dataset: PreparedDataset,
    *,
    fold: int,
    balanced: bool,
    balance_target: float | Literal["auto"],
    labels_percent: float,
    seed: int,
) -> TrainTable:
    """Return the training rows of a fold; with less than all labels, draw the share by the seed and balance it.

    Args:
        dataset: the prepared dataset.
        fold: 0 for the main split, K for the K-th split of cross-validation.
        balanced: whether to repeat the rows of rare materials.
        balance_target: share of the commonest material's count that each material must reach; auto: as prepared.
        labels_percent: share of the training photos whose labels are used, in %.
        seed: seed of the draw.

    Raises:
        BalanceError: these labels cannot be balanced to the target.
        ConfigError: the dataset was prepared without that fold.
    """
    settings = dataset.manifest["settings"]
    target = settings["balance_target"] if balance_target == "auto" else balance_target
    if balanced and labels_percent >= 100 and target == settings["balance_target"]:
        return dataset.balanced_train(fold)
    train = dataset.learning(fold).train
    share = train if labels_percent >= 100 else labelled_share(train, labels_percent, seed)
    if not balanced:
        return share
    try:
        return oversample(share, target, settings["max_copies"]).table
    except BalanceError as error:
        if share is train:
            raise
        raise BalanceError(
            f"{len(share)} photos (labels_percent={labels_percent:g}) cannot be balanced: {error} Or use more labels, "
            "or balanced=false."
        ) from None


def labelled_share(train: TrainTable, percent: float, seed: int) -> TrainTable:
    """Keep this share of the training photos, at least one; with 100 %, all of them in their order.

    The draw depends on the seed and is nested: a larger share contains every smaller one. The first photos drawn show
    every material that occurs, the rarest first, so that no share lacks a material by bad luck.

    Raises:
        ValueError: the share is not above 0 and at most 100 %.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"a share of the labels is above 0 and at most 100 %, not {percent:g}")
    count = math.ceil(len(train) * percent / 100)
    return train.take(np.sort(_drawing_order(train, np.random.default_rng([seed, 10]))[:count]))


def _drawing_order(train: TrainTable, rng: np.random.Generator) -> IndexArray:
    """Shuffle the rows, then move one row of each material to the front, the rarest material first."""
    drawn = rng.permutation(len(train))
    labels = train.labels[drawn].astype(bool)
    present = np.flatnonzero(labels.any(axis=0))
    rarest_first = present[np.argsort(labels[:, present].sum(axis=0), kind="stable")]
    first = list(dict.fromkeys(int(labels[:, material].argmax()) for material in rarest_first))
    return drawn[[*first, *np.setdiff1d(np.arange(len(drawn)), first)]]
