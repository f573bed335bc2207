"""A folder of photos and its list, ``download.csv``: what is there, what is not to be had, and why."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wastelens.getting.digest import sha256_of
from wastelens.getting.ledger import CsvLedger
from wastelens.getting.photo_check import WrongPhotoError, check_photo
from wastelens.getting.photo_list import WantedPhoto
from wastelens.getting.unfinished import Unfinished

DOWNLOADS = "download.csv"
COLUMNS = ("file_name", "status", "bytes", "sha256", "width", "height", "url", "licence", "reason")
DONE, DEAD, FAILED, WRONG = "done", "dead", "failed", "wrong"
# So many photos that are one and the same file are a server's picture of "not available".
_PHOTOS_OF_A_PLACEHOLDER = 3


@dataclass(frozen=True)
class PhotoFile:
    """A file that may become a photo: its size in bytes and its SHA-256 in hexadecimal."""

    path: Path
    size_bytes: int
    sha256: str


class PhotoFolder:
    """Photos under their names, each checked before it gets there, and a row a photo in ``download.csv``.

    A row comes before its photo: where a kill falls between the two, the photo is fetched again, and none stands
    there unchecked. Threads may work on different photos; only one process at a time may use a folder.

    Attributes:
        folder: where the photos are.
        list_path: the path of ``download.csv``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.list_path = folder / DOWNLOADS
        self._unfinished = Unfinished(folder)
        self._ledger = CsvLedger(self.list_path, COLUMNS, "file_name")
        self._rows = self._ledger.rows()

    def row(self, photo: WantedPhoto) -> dict[str, str]:
        """What is known of a photo, by the names in ``COLUMNS``; empty if nothing is."""
        return self._rows.get(photo.file_name, {})

    def path(self, photo: WantedPhoto) -> Path:
        """Where a photo is, or would be."""
        return self.folder / photo.file_name

    def is_settled(self, photo: WantedPhoto, *, retry_dead: bool = False) -> bool:
        """Whether there is nothing to do: the photo is there, or asking for it again would be of no use."""
        row, size_bytes = self.row(photo), _size(self.path(photo))
        if size_bytes is not None:
            return row.get("status") == DONE and row["url"] in photo.same_at and row["bytes"] == str(size_bytes)
        return row.get("status") in (DEAD, WRONG) and row["url"] == photo.url and not retry_dead

    def draft(self, photo: WantedPhoto) -> Path:
        """Where a photo's file is to be put together."""
        return self.unfinished(hashlib.blake2b(photo.file_name.encode(), digest_size=16).hexdigest())

    def unfinished(self, name: str) -> Path:
        """A path for something that has no place in the folder yet; it is removed by :meth:`finish`."""
        return self._unfinished.path(name)

    def bytes_there(self, photo: WantedPhoto) -> int:
        """How large the file under a photo's name is, of whatever kind; 0 where there is none."""
        return _size(self.path(photo)) or 0

    def has_to_come(self, photo: WantedPhoto) -> bool:
        """Whether no file is there that might do: none at all, or only a copy of another size."""
        row = self.row(photo)
        of_other_size = row.get("status") == DONE and row["url"] not in photo.same_at
        return of_other_size or _size(self.path(photo)) is None

    def take_over(self, photo: WantedPhoto) -> bool:
        """Whether the file that is there already will do; one that is not the photo is removed."""
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
        """Give a draft the photo's name if it is that photo; otherwise remove it, and list why."""
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
        """List why a photo is not to be had; a copy of another size that is here already is better than none."""
        if _size(self.path(photo)) is None:
            self._write(photo, status, file=file, reason=reason)
        elif status != FAILED:
            row = self.row(photo)
            self._append({**row, "url": photo.url, "reason": f"kept as fetched from {row['url']}: {reason}"})

    def remove_placeholders(self, photos: Iterable[WantedPhoto]) -> None:
        """Photos of which three or more are the same file are no photos, also where some of them went before."""
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

    def finish(self, photos: Iterable[WantedPhoto]) -> None:
        """Write the list whole and sorted, and remove what was begun in vain; what may still come goes on later."""
        self._unfinished.sweep(tuple(self.draft(one).name for one in photos if self.row(one).get("status") == FAILED))
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
        width, height = size or ("", "")
        self._append(
            {
                "file_name": photo.file_name,
                "status": status,
                "bytes": str(file.size_bytes) if file else "",
                "sha256": file.sha256 if file else "",
                "width": str(width),
                "height": str(height),
                "url": photo.url,
                "licence": photo.licence,
                "reason": reason,
            }
        )

    def _append(self, row: dict[str, str]) -> None:
        self._ledger.append(row)
        self._rows[row["file_name"]] = row


def _size(path: Path) -> int | None:
    """A file's size in bytes, or None where there is no such file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:  # a name too long for the file system
        return None
