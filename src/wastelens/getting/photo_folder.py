"""A folder of photos and its list, ``download.csv``: which photos are there, which are not, and why."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wastelens.errors import DatasetError
from wastelens.getting.ledger import CsvLedger, Drafts
from wastelens.getting.photo_check import WrongPhotoError, check_photo
from wastelens.getting.photo_list import WantedPhoto
from wastelens.web.files import sha256_of

DOWNLOADS = "download.csv"
COLUMNS = ("file_name", "status", "bytes", "sha256", "width", "height", "url", "licence", "reason")
DONE, DEAD, FAILED, WRONG = "done", "dead", "failed", "wrong"
# This many photos that are one and the same file are a server's "not available" picture.
_PHOTOS_OF_A_PLACEHOLDER = 3
_REASONS_NAMED = 3


@dataclass(frozen=True)
class PhotoFile:
    """A file that may become a photo: its size in bytes and its SHA-256 in hexadecimal."""

    path: Path
    size_bytes: int
    sha256: str


class PhotoFolder:
    """Photos under their names, each checked before it gets there, and one row per photo in ``download.csv``.

    The row is written before the photo: after a kill between the two, the photo is fetched again, and none is there
    unchecked. Threads may work on different photos; only one process at a time may use a folder.

    Attributes:
        folder: where the photos are.
        list_path: the path of ``download.csv``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.list_path = folder / DOWNLOADS
        self._drafts = Drafts(folder)
        self._ledger = CsvLedger(self.list_path, COLUMNS, "file_name")
        self._rows = self._ledger.rows()

    def row(self, photo: WantedPhoto) -> dict[str, str]:
        """Return what is known of a photo, by the names in ``COLUMNS``; empty if nothing is."""
        return self._rows.get(photo.file_name, {})

    def path(self, photo: WantedPhoto) -> Path:
        """Return where a photo is, or would be."""
        return self.folder / photo.file_name

    def is_settled(self, photo: WantedPhoto, *, retry_dead: bool = False) -> bool:
        """Tell whether there is nothing to do: the photo is there, or asking for it again would be useless."""
        row, size_bytes = self.row(photo), _size(self.path(photo))
        if size_bytes is not None:
            return row.get("status") == DONE and row["url"] in photo.same_at and row["bytes"] == str(size_bytes)
        return row.get("status") in (DEAD, WRONG) and row["url"] == photo.url and not retry_dead

    def draft(self, photo: WantedPhoto) -> Path:
        """Return where to put a photo's file together."""
        return self.unfinished(hashlib.blake2b(photo.file_name.encode(), digest_size=16).hexdigest())

    def unfinished(self, name: str) -> Path:
        """Return a path for something that has no place in the folder yet; :meth:`finish` removes it."""
        return self._drafts.path(name)

    def bytes_there(self, photo: WantedPhoto) -> int:
        """Return the size of the file under a photo's name, whatever it is; 0 if there is none."""
        return _size(self.path(photo)) or 0

    def has_to_come(self, photo: WantedPhoto) -> bool:
        """Tell whether no usable file can be there: none at all, or only a copy of another size."""
        row = self.row(photo)
        of_other_size = row.get("status") == DONE and row["url"] not in photo.same_at
        return of_other_size or _size(self.path(photo)) is None

    def take_over(self, photo: WantedPhoto) -> bool:
        """Use the file that is there already, if it is the photo; otherwise remove it. Return whether it is used."""
        if self.has_to_come(photo):
            return False
        path = self.path(photo)
        try:
            size = check_photo(path, (photo.width, photo.height))
        except WrongPhotoError:
            path.unlink()
            return False
        self._write(photo, DONE, file=PhotoFile(path, path.stat().st_size, sha256_of(path)), size=size)
        return True

    def keep(self, photo: WantedPhoto, file: PhotoFile) -> None:
        """Give a draft the photo's name if it is that photo; otherwise remove it and list why."""
        try:
            size = check_photo(file.path, (photo.width, photo.height))
        except WrongPhotoError as error:
            file.path.unlink()
            self.leave_out(photo, WRONG, str(error), file)
            return
        self._write(photo, DONE, file=file, size=size)
        target = self.path(photo)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file.path, target)

    def leave_out(self, photo: WantedPhoto, status: str, reason: str, file: PhotoFile | None = None) -> None:
        """List why a photo is not available; a copy of another size that is here already is kept."""
        if _size(self.path(photo)) is None:
            self._write(photo, status, file=file, reason=reason)
        elif status != FAILED:
            row = self.row(photo)
            self._append({**row, "url": photo.url, "reason": f"kept as fetched from {row['url']}: {reason}"})

    def remove_placeholders(self, photos: Iterable[WantedPhoto]) -> None:
        """Remove photos of which three or more are the same file, counting those that were removed before."""
        of_digest = defaultdict(list)
        for photo in photos:
            row = self.row(photo)
            if row and row["sha256"]:
                of_digest[row["sha256"]].append(photo)
        for alike in of_digest.values():
            if len(alike) < _PHOTOS_OF_A_PLACEHOLDER:
                continue
            for photo in alike:
                row = self.row(photo)
                if row["status"] == DONE:
                    reason = f"the same picture as {len(alike) - 1} other photos: a placeholder"
                    self._append({**row, "status": WRONG, "reason": reason})
                    self.path(photo).unlink(missing_ok=True)

    def finish(self) -> None:
        """Write the list sorted, and remove drafts."""
        self._drafts.remove()
        self._ledger.finish()

    def _write(
        self,
        photo: WantedPhoto,
        status: str,
        *,
        file: PhotoFile | None = None,
        size: tuple[int, int] | None = None,
        reason: str = "",
    ) -> None:
        row = {"file_name": photo.file_name, "status": status, "reason": reason}
        of_file = {"bytes": str(file.size_bytes), "sha256": file.sha256} if file else {}
        of_size = {"width": str(size[0]), "height": str(size[1])} if size else {}
        of_photo = {"url": photo.url, "licence": photo.licence}
        self._append({**dict.fromkeys(COLUMNS, ""), **row, **of_file, **of_size, **of_photo})

    def _append(self, row: dict[str, str]) -> None:
        self._ledger.append(row)
        self._rows[row["file_name"]] = row


@dataclass(frozen=True)
class Summary:
    """The result of a download.

    Attributes:
        photos: how many the annotations name.
        of_status: how many of them are done, dead, failed and wrong.
        size_bytes: of those that are there.
        licences: licence, photos, megabytes; the most frequent first.
        missing: reason → number of photos.
    """

    photos: int
    of_status: Counter[str]
    size_bytes: int
    licences: pd.DataFrame
    missing: Counter[str]

    def metrics(self) -> dict[str, float]:
        """Return the metrics that the run logs."""
        counts = {f"photos_{status}": float(self.of_status[status]) for status in (DONE, DEAD, FAILED, WRONG)}
        return {"photos": float(self.photos), **counts, "megabytes": self.size_bytes / 1e6}

    def check_share(self, allowed: float) -> None:
        """Check that no larger share of the photos is missing than allowed.

        Raises:
            DatasetError: it is larger.
        """
        missing = self.photos - self.of_status[DONE]
        if missing <= allowed * self.photos:
            return
        named = "; ".join(f"{count:,} {reason}" for reason, count in self.missing.most_common(_REASONS_NAMED))
        raise DatasetError(
            f"{missing:,} of {self.photos:,} photos ({missing / self.photos:.1%}) are not available, more than "
            f"max_problem_share={allowed:g}: {named}. What was fetched is kept. Run the command again, or raise "
            "max_problem_share."
        )


def summarise(photos: Sequence[WantedPhoto], folder: PhotoFolder) -> Summary:
    """Count which of the wanted photos a folder has."""
    rows = [(photo.licence, folder.row(photo)) for photo in photos]
    there = [(licence, int(row["bytes"])) for licence, row in rows if row["status"] == DONE]
    by_licence = pd.DataFrame(there, columns=["licence", "bytes"]).groupby("licence")["bytes"]
    licences = by_licence.agg(photos="size", megabytes="sum").reset_index()
    licences["megabytes"] /= 1e6
    return Summary(
        photos=len(rows),
        of_status=Counter(row["status"] for _, row in rows),
        size_bytes=sum(size_bytes for _, size_bytes in there),
        licences=licences.sort_values(["photos", "licence"], ascending=[False, True], ignore_index=True),
        missing=Counter(row["reason"] for _, row in rows if row["status"] != DONE),
    )


def _size(path: Path) -> int | None:
    """Return a file's size in bytes, or None if there is no such file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:  # a name too long for the file system
        return None
