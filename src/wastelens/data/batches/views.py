"""Augmented views: a fixed number of changed copies of each photo, the same ones whenever they are asked for."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from wastelens.config.augmentation import PolicyAugmentation
from wastelens.data.batches.augment import Augmenter

Indices = npt.NDArray[np.intp]


class AugmentedViews:
    """``views`` changed copies of each chosen photo, computed when asked for and never kept.

    They stand where an array of photos can: rows ``view · photos + place``, so that slices and arrays of rows give
    uint8 (n, side, side, 3) in 0–255. A row depends on (seed, view, photo) alone, not on what is asked for with it:
    each photo gets a seed of its own, which costs 0.15 ms (a photo of 160 px under the default policy takes 0.3–0.5
    ms besides; a VGG16, 50 ms and more). Not for use by two threads at once.
    """

    def __init__(
        self, photos: npt.NDArray[np.uint8], rows: Indices, policy: PolicyAugmentation, views: int, seed: int
    ) -> None:
        """Store what is asked for.

        Args:
            photos: all photos, uint8 (photos, side, side, 3).
            rows: the chosen photos' indices; order and repeats do not matter, each counts once.
            policy: of the changes; without transforms, views are the photos.
            views: how many of each photo, from 1.
            seed: another seed, other views.
        """
        if views < 1:
            raise ValueError(f"views is {views}, but there has to be one at least")
        self.photo_indices: Indices = np.unique(np.asarray(rows, dtype=np.intp))
        self.views = views
        self._photos = photos
        self._policy = policy
        self._augmenter = Augmenter(policy)
        self._seed = seed

    def __len__(self) -> int:
        return self.views * len(self.photo_indices)

    @property
    def shape(self) -> tuple[int, ...]:
        """(views · photos, side, side, 3)."""
        return (len(self), *self._photos.shape[1:])

    @property
    def key(self) -> dict[str, str | int]:
        """What tells these views from others of the same photos: for the key of a feature cache."""
        digest = blake2b(self.photo_indices.astype("<i8").tobytes(), digest_size=16)
        return {
            "policy": self._policy.model_dump_json(),
            "views": self.views,
            "view_seed": self._seed,
            "view_photos": digest.hexdigest(),
        }

    def __getitem__(self, rows: slice | Indices) -> npt.NDArray[np.uint8]:
        flat = np.arange(len(self))[rows]
        made = [self._made(int(row) // len(self.photo_indices), int(row) % len(self.photo_indices)) for row in flat]
        return np.stack(made) if made else np.empty((0, *self._photos.shape[1:]), dtype=np.uint8)

    def view(self, view: int, positions: Indices) -> npt.NDArray[np.uint8]:
        """One view of the photos at these places of ``photo_indices``: uint8 (n, side, side, 3) in 0–255."""
        return self[view * len(self.photo_indices) + np.asarray(positions, dtype=np.intp)]

    def rows_of(self, view: Indices, photo_index: Indices) -> Indices:
        """The rows of these views of these photos (both of shape (n,)).

        Raises:
            ValueError: a photo that was not chosen.
        """
        places = np.searchsorted(self.photo_indices, photo_index)
        if not np.array_equal(np.append(self.photo_indices, -1)[places], photo_index):
            raise ValueError("there are no views of some of the photos: they were made of others")
        return np.asarray(view * len(self.photo_indices) + places, dtype=np.intp)

    def _made(self, view: int, place: int) -> npt.NDArray[np.uint8]:
        photo = int(self.photo_indices[place])
        seed = int(np.random.SeedSequence([self._seed, view, photo]).generate_state(1)[0])
        changed: npt.NDArray[np.uint8] = self._augmenter(np.asarray(self._photos[photo : photo + 1]), seed)[0]
        return changed
