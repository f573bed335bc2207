"""The rows that a network learns from: of a split, of a share of its labels, balanced or as they come."""

from __future__ import annotations

from wastelens.data.balance import oversample
from wastelens.data.labelled_share import labelled_share
from wastelens.data.prepared import PreparedDataset
from wastelens.data.tables import TrainTable
from wastelens.errors import BalanceError


def training_rows(
    dataset: PreparedDataset, *, fold: int, balanced: bool, labels_percent: float, seed: int
) -> TrainTable:
    """The training rows of a fold; of less than all labels, the share that the seed draws, balanced anew.

    Raises:
        BalanceError: so few labels cannot be balanced.
        ConfigError: the dataset was prepared without that fold.
    """
    if labels_percent >= 100:
        return dataset.balanced_train(fold) if balanced else dataset.split(fold).train
    share = labelled_share(dataset.split(fold).train, labels_percent, seed)
    if not balanced:
        return share
    settings = dataset.manifest["settings"]
    try:
        return oversample(share, settings["balance_target"], settings["max_copies"]).table
    except BalanceError as error:
        raise BalanceError(
            f"{len(share)} photos (labels_percent={labels_percent:g}) cannot be balanced: {error} Or use more labels, "
            "or balanced=false."
        ) from None
