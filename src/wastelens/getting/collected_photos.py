"""The folder of collected photos and its list, ``collected.csv``: what was looked at, kept or left out, and why."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

from wastelens.getting.catalogues import Candidate
from wastelens.getting.collectable import (
    LICENCES,
    MAX_BYTES,
    MAX_MEGAPIXELS,
    MIN_SIDE,
    NEAR_DUPLICATE_DISTANCE,
    CollectedPhoto,
    Reason,
    Rules,
)
from wastelens.getting.digest import sha256_of
from wastelens.getting.ledger import CsvLedger
from wastelens.getting.unfinished import Unfinished
from wastelens.web.client import Fetched

COLLECTED = "collected.csv"
KEPT, LEFT_OUT, FAILED = "kept", "left out", "failed"
REMOVED = "removed by hand"
_PHOTO = ("material", "term", "source", "id", "title", "creator", "creator_url")
_OF_CANDIDATE = (*_PHOTO, "licence", "licence_version", "licence_url", "page_url", "photo_url")
COLUMNS = ("file", *_OF_CANDIDATE, "width", "height", "bytes", "sha256", "status", "reason", "decided_by")
# The settings behind reasons, for rows of lists that do not tell.
_OLDER_REASONS = {
    "licence": LICENCES,
    "too few pixels": MIN_SIDE,
    "too many pixels": MAX_MEGAPIXELS,
    "too large": MAX_BYTES,
    "near-duplicate": NEAR_DUPLICATE_DISTANCE,
}
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_LONGEST_STEM = 60
# Openverse names a photo's page on Commons by its number alone.
_PAGE_BY_NUMBER = "commons.wikimedia.org/w/index.php?curid="

Row = dict[str, str]


class CollectedPhotos:
    """Photos in a folder a material, and a row in ``collected.csv`` for every photo that was looked at.

    A row comes before its photo: where a kill falls between the two, the photo waits in a hidden folder and gets its
    name at the next call. A photo that is listed as kept and gone was removed by hand, and is not fetched again. Only
    one thread of one process may use a folder.

    Attributes:
        folder: where all of it is.
        list_path: the path of ``collected.csv``.
    """

    def __init__(self, folder: Path, rules: Rules) -> None:
        self.folder = folder
        self.list_path = folder / COLLECTED
        self._rules = rules
        self._unfinished = Unfinished(folder)
        self._ledger = CsvLedger(self.list_path, COLUMNS, ("source", "id"))
        self._rows = self._ledger.rows()
        self._put_in_place()
        self._seen = {name for row in self._rows.values() if self._is_settled(row) for name in _names(row)}
        self._kept = Counter(row["material"] for row in self.kept_rows())
        self._file_of = {row["sha256"]: row["file"] for row in self.kept_rows()}

    def rows(self) -> list[Row]:
        """What is known of each photo, by the names in ``COLUMNS``."""
        return list(self._rows.values())

    def kept_rows(self) -> list[Row]:
        """The rows of the photos that are there."""
        return [row for row in self.rows() if row["status"] == KEPT]

    def kept(self, material: str) -> int:
        """How many photos of a material are there."""
        return self._kept[material]

    def see(self, candidate: Candidate) -> bool:
        """Whether a photo has to be looked at; from now on it has been, under all of its names."""
        names = _names(_row(candidate))
        is_new = self._seen.isdisjoint(names)
        self._seen |= names
        return is_new

    def draft(self, candidate: Candidate) -> Path:
        """Where a photo's file is to be put together."""
        return self._unfinished.path(_stem(candidate.source, candidate.id))

    def same_file(self, sha256: str) -> str:
        """The name of the photo that is this very file; empty: none is."""
        return self._file_of.get(sha256, "")

    def leave_out(self, candidate: Candidate, reason: Reason, *, passing: bool = False) -> None:
        """List why a photo is not taken, and remove its file; passing: it may be at another call."""
        self.draft(candidate).unlink(missing_ok=True)
        told = {"reason": reason.text, "decided_by": self._rules.decided_by(reason.setting)}
        self._write({**_row(candidate), **told, "status": FAILED if passing else LEFT_OUT})

    def keep(self, candidate: Candidate, fetched: Fetched, photo: CollectedPhoto) -> str:
        """Give a draft its name, which is returned: its path below the folder."""
        folder = _NOT_IN_NAMES.sub("_", candidate.material.lower())
        name = f"{folder}/{_stem(candidate.source, candidate.id)}{photo.suffix}"
        width, height = photo.size
        told = {"width": str(width), "height": str(height), "bytes": str(fetched.size_bytes), "sha256": fetched.sha256}
        self._write({**_row(candidate), **told, "status": KEPT, "file": name})
        self._kept[candidate.material] += 1
        self._file_of[fetched.sha256] = name
        self._move(self.draft(candidate), name)
        return name

    def finish(self) -> None:
        """Write the list whole and sorted; not where there is none and nothing to list."""
        if self.rows() or self.list_path.exists():
            self._ledger.finish()

    def remove_drafts(self) -> None:
        """Remove what was begun in vain; what may still come goes on at another call."""
        failed = [row for row in self.rows() if row["status"] == FAILED]
        self._unfinished.sweep(tuple(_stem(row["source"], row["id"]) for row in failed))

    def _is_settled(self, row: Row) -> bool:
        if row["status"] == LEFT_OUT:
            decided_by = row["decided_by"] or _OLDER_REASONS.get(kind_of(row["reason"]), "")
            size = _number(row["width"]), _number(row["height"])
            return self._rules.still_against(decided_by, row["licence"], size)
        return row["status"] == KEPT

    def _put_in_place(self) -> None:
        """What a kill has left between a photo's row and its name."""
        for row in self.rows():
            if row["status"] != KEPT or (self.folder / row["file"]).is_file():
                continue
            draft = self._unfinished.path(_stem(row["source"], row["id"]))
            if draft.is_file() and sha256_of(draft) == row["sha256"]:
                self._move(draft, row["file"])
            else:
                self._write({**row, "file": "", "status": LEFT_OUT, "reason": REMOVED})

    def _move(self, draft: Path, name: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, target)

    def _write(self, row: Row) -> None:
        self._ledger.append(row)
        self._rows[f"{row['source']} {row['id']}"] = row


def kind_of(reason: str) -> str:
    """A reason without its particulars."""
    return re.split(r"[:(]", reason)[0].strip()


def _row(candidate: Candidate) -> Row:
    told = {column: str(getattr(candidate, column)) for column in _OF_CANDIDATE}
    size = {"width": str(candidate.width or ""), "height": str(candidate.height or "")}
    return {**dict.fromkeys(COLUMNS, ""), **told, **size}


def _names(row: Row) -> set[str]:
    """All that one and the same photo may be called, in one catalogue or another."""
    addresses = {row[column].partition("://")[2] for column in ("photo_url", "page_url") if row[column]}
    if row["source"] == "commons":
        addresses.add(f"{_PAGE_BY_NUMBER}{row['id']}")
    return {f"{row['source']} {row['id']}", *addresses}


def _stem(source: str, identity: str) -> str:
    """A file name's beginning that no other photo has, of [a-z0-9_-] alone, whatever the catalogue calls the photo."""
    plain = _NOT_IN_NAMES.sub("_", identity.lower())[:_LONGEST_STEM]
    if plain == identity:
        return f"{source}_{plain}"
    return f"{source}_{plain}_{hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()}"


def _number(cell: str) -> int:
    return int(cell) if cell.isdecimal() else 0
