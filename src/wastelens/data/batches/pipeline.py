"""Batches of photos for training: gathered from the cache, shuffled and changed reproducibly, prepared ahead."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from wastelens.config.augmentation import PolicyAugmentation
from wastelens.data.batches.augment import Augmenter
from wastelens.data.prepared.tables import TrainTable
from wastelens.system.prefetch import prepared_ahead

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]


class TrainingBatches:
    """The training photos in batches, another order and other changes each epoch.

    An epoch's batches depend on (seed, epoch) alone, so that a resumed run sees what an undisturbed one would have.
    """

    def __init__(
        self,
        table: TrainTable,
        photos: npt.NDArray[np.uint8],
        *,
        batch_size: int,
        policy: PolicyAugmentation | None,
        seed: int,
    ) -> None:
        if not isinstance(table, TrainTable):
            raise TypeError(f"training takes a TrainTable, not a {type(table).__name__}")
        self._rows = table.frame["photo_index"].to_numpy(dtype=np.intp)
        self._labels = table.labels.astype(np.float32)
        self._photos = photos
        self._batch_size = batch_size
        self._augmenter = Augmenter(policy) if policy is not None and policy.transforms else None
        self._seed = seed

    def __len__(self) -> int:
        return (len(self._rows) + self._batch_size - 1) // self._batch_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """This epoch's batches: photos uint8 (batch, side, side, 3) in 0–255, labels float32 (batch, materials)."""
        order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
        pieces = [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]
        return prepared_ahead(lambda number: self._batch(pieces[number], epoch, number), len(pieces))

    def _batch(self, piece: npt.NDArray[np.intp], epoch: int, number: int) -> Batch:
        photos = self._photos[self._rows[piece]]
        if self._augmenter is not None:
            seed = int(np.random.SeedSequence([self._seed, epoch, number]).generate_state(1)[0])
            photos = self._augmenter(photos, seed)
        return photos, self._labels[piece]
