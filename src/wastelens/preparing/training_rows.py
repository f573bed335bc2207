"""The rows that a network learns from: of a split, of a share of its labels, balanced or as they come."""

from __future__ import annotations

from typing import Literal

from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import BalanceError
from wastelens.preparing.balance import oversample
from wastelens.preparing.labelled_share import labelled_share


def training_rows(
    dataset: PreparedDataset,
    *,
    fold: int,
    balanced: bool,
    balance_target: float | Literal["auto"],
    labels_percent: float,
    seed: int,
) -> TrainTable:
    """The training rows of a fold; of less than all labels, the share that the seed draws, balanced anew.

    Args:
        dataset: with its split and its balanced rows.
        fold: 0 or the K-th split.
        balanced: whether rare materials' rows are repeated.
        balance_target: until each material has this share of the commonest's count; auto: as prepared.
        labels_percent: share of the training photos whose labels are used, in %.
        seed: of that share.

    Raises:
        BalanceError: so few labels cannot be balanced, or not so far.
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
