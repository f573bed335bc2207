"""What a download has come to: what is there by licence, and what is not by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from wastelens.errors import DatasetError
from wastelens.getting.photo_folder import DEAD, DONE, FAILED, WRONG, PhotoFolder
from wastelens.getting.photo_list import WantedPhoto

_REASONS_NAMED = 3


@dataclass(frozen=True)
class Summary:
    """What a download has come to.

    Attributes:
        photos: that the annotations name.
        of_status: how many of them are done, dead, failed and wrong.
        size_bytes: of those that are there.
        licences: licence, photos, megabytes; the commonest first.
        missing: reason → how many photos, the commonest first.
    """

    photos: int
    of_status: Counter[str]
    size_bytes: int
    licences: pd.DataFrame
    missing: Counter[str]

    def metrics(self) -> dict[str, float]:
        """As the run logs it."""
        counts = {f"photos_{status}": float(self.of_status[status]) for status in (DONE, DEAD, FAILED, WRONG)}
        return {"photos": float(self.photos), **counts, "megabytes": self.size_bytes / 1e6}

    def check_share(self, allowed: float) -> None:
        """Compare what is missing with what may be.

        Raises:
            DatasetError: it is more.
        """
        missing = self.photos - self.of_status[DONE]
        if missing <= allowed * self.photos:
            return
        named = "; ".join(f"{count:,} {reason}" for reason, count in self.missing.most_common(_REASONS_NAMED))
        raise DatasetError(
            f"{missing:,} of {self.photos:,} photos ({missing / self.photos:.1%}) are not to be had, more than "
            f"max_problem_share={allowed:g}: {named}. What was fetched stays. Call again, or raise max_problem_share."
        )


def summarise(photos: Sequence[WantedPhoto], folder: PhotoFolder) -> Summary:
    """Count what a folder has of the photos that are wanted."""
    rows = [(photo.licence, folder.row(photo)) for photo in photos]
    there = [(licence, int(row["bytes"])) for licence, row in rows if row["status"] == DONE]
    frame = pd.DataFrame(there, columns=["licence", "bytes"])
    licences = frame.groupby("licence")["bytes"].agg(["size", "sum"]).reset_index()
    licences.columns = pd.Index(["licence", "photos", "megabytes"])
    licences["megabytes"] /= 1e6
    return Summary(
        photos=len(rows),
        of_status=Counter(row["status"] for _, row in rows),
        size_bytes=sum(size_bytes for _, size_bytes in there),
        licences=licences.sort_values(["photos", "licence"], ascending=[False, True], ignore_index=True),
        missing=Counter(row["reason"] for _, row in rows if row["status"] != DONE),
    )
