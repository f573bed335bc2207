"""Tables of labelled photos, with a type per split, so that leakage is a type error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

LabelMatrix = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelTable:
    """Photos and the materials that they show."""

    frame: pd.DataFrame  # a row per photo (or copy of one) with the columns of labels.csv; never changed in place
    materials: tuple[str, ...]  # the label columns (0/1), in the order of every label array

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def labels(self) -> LabelMatrix:
        """Labels, uint8 of 0 and 1, shape (photos, materials)."""
        return self.frame[list(self.materials)].to_numpy(dtype=np.uint8)

    @property
    def photo_index(self) -> npt.NDArray[np.intp]:
        """The place of each row's photo in the photo cache."""
        return self.frame["photo_index"].to_numpy(dtype=np.intp)

    @property
    def file_names(self) -> list[str]:
        """Flat file names, one per row."""
        return [str(name) for name in self.frame["file_name"]]

    @property
    def groups(self) -> list[str]:
        """Each row's group of photos that belong together, such as a batch or a scene."""
        return [str(name) for name in self.frame["group"]]

    def take(self, rows: npt.NDArray[np.intp]) -> Self:
        """Return the rows at these positions (repeats allowed), as a table of the same type."""
        return type(self)(self.frame.iloc[rows].reset_index(drop=True), self.materials)


class TrainTable(LabelTable):
    """Rows of the training split, the only ones to oversample or fit on."""


class ValTable(LabelTable):
    """Rows of the validation split, for choosing epochs, thresholds and settings."""


class TestTable(LabelTable):
    """Rows of the test split, reported once and never used to choose."""

    __test__ = False  # tells pytest that this is not a test case
