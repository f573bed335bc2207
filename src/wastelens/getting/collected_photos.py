"""The folder of collected photos and its list, ``collected.csv``: which were examined, kept or left out, and why."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path, PurePosixPath

from wastelens.config.collect import CollectConfig
from wastelens.errors import ConfigError, DatasetError, did_you_mean
from wastelens.getting.catalogues import Candidate
from wastelens.getting.ledger import ListedFolder
from wastelens.getting.licences import ATTRIBUTION, licence_name
from wastelens.getting.rules import CollectedPhoto, Reason, Rules
from wastelens.getting.shared import photos_by_licence, report_licences
from wastelens.system.console import say, table, warn
from wastelens.web.files import Fetched, sha256_of

KEPT, LEFT_OUT, FAILED = "kept", "left out", "failed"
# The run counts these as photos_… beside the materials.
NOT_KEPT = {LEFT_OUT: "left_out", FAILED: "failed"}
_OF_CANDIDATE = tuple(field.name for field in fields(Candidate) if field.name != "mime")
COLUMNS = ("file", *_OF_CANDIDATE, "bytes", "sha256", "status", "reason", "decided_by")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9_-]+")
_METRIC = re.compile(r"[\w/. :-]{1,200}")  # MLflow's rule for metric names, which end in a material
_LONGEST_STEM = 60
_REASONS_SHOWN = 4
# Openverse names a photo's page on Commons by its number alone.
_PAGE_BY_NUMBER = "commons.wikimedia.org/w/index.php?curid="

Row = dict[str, str]


def wanted_materials(config: CollectConfig) -> tuple[str, ...]:
    """Return the materials to collect.

    Raises:
        ConfigError: one has no terms or an unusable name, or no contact is given.
    """
    if not config.contact:
        raise ConfigError(
            "contact is empty, but Wikimedia's User-Agent policy asks for an address. Give your e-mail address or the "
            "URL of a page: -P contact=you@example.org"
        )
    for material in config.materials:
        if material not in config.terms:
            known = list(config.terms)
            raise ConfigError(
                f"materials: there are no terms for '{material}', only for {', '.join(known)}."
                f"{did_you_mean(material, known)}"
            )
    materials = tuple(dict.fromkeys(config.materials or config.terms))
    for material in materials:
        metric = f"photos/{material}"
        if not _METRIC.fullmatch(metric) or posixpath.normpath(metric) != metric or material in NOT_KEPT.values():
            raise ConfigError(
                f"terms: '{material}' cannot name a material, as a metric is named after it. Use letters, digits, "
                f"spaces, _, -, . and :, and neither {' nor '.join(NOT_KEPT.values())}."
            )
    return materials


class CollectedPhotos(ListedFolder):
    """Photos in one folder per material, and one row in ``collected.csv`` for every photo that was examined.

    Raises DatasetError where a row names a file outside of the folder.

    After a kill between the row and the photo, the photo waits among the drafts and gets its name in the next run. A
    photo that is listed as kept but gone was removed by hand, and is not fetched again. Only one thread of one process
    may use a folder.

    Attributes:
        rules: which photos are wanted.
    """

    def __init__(self, folder: Path, rules: Rules) -> None:
        super().__init__(folder, "collected.csv", COLUMNS, "source", "id")
        self.rules = rules
        self._check_places()
        self._finish_moves()
        self._seen = {name for row in self._rows.values() if self._is_settled(row) for name in _names(row)}
        self._kept = Counter(row["material"] for row in self.kept_rows())
        self._file_of = {row["sha256"]: row["file"] for row in self.kept_rows()}

    def rows(self) -> list[Row]:
        """Return a row per photo, by the names in ``COLUMNS``."""
        return list(self._rows.values())

    def kept_rows(self) -> list[Row]:
        """Return the rows of the photos that are there."""
        return [row for row in self.rows() if row["status"] == KEPT]

    def kept(self, material: str) -> int:
        """Return how many photos of a material are there."""
        return self._kept[material]

    def see(self, candidate: Candidate) -> bool:
        """Return whether a photo is new; from now on it is not, under any of its names."""
        names = _names(_row(candidate))
        is_new = self._seen.isdisjoint(names)
        self._seen |= names
        return is_new

    def draft(self, candidate: Candidate) -> Path:
        """Return where to put a photo's file together."""
        return self.unfinished(_stem(candidate.source, candidate.id))

    def same_file(self, sha256: str) -> str:
        """Return the name of the photo that is exactly this file; empty if there is none."""
        return self._file_of.get(sha256, "")

    def leave_out(self, candidate: Candidate, reason: Reason, *, temporary: bool = False) -> None:
        """List why a photo is not kept, and remove its file; temporary: another run should try again."""
        self.draft(candidate).unlink(missing_ok=True)
        told = {"reason": reason.text, "decided_by": self.rules.decided_by(reason.setting)}
        self._list({**_row(candidate), **told, "status": FAILED if temporary else LEFT_OUT})

    def keep(self, candidate: Candidate, fetched: Fetched, photo: CollectedPhoto) -> str:
        """Give a draft its name and return that: its path below the folder."""
        folder = _NOT_IN_NAMES.sub("_", candidate.material.lower())
        name = f"{folder}/{_stem(candidate.source, candidate.id)}{photo.suffix}"
        width, height = photo.size
        told = {"width": str(width), "height": str(height), "bytes": str(fetched.size_bytes), "sha256": fetched.sha256}
        self._list({**_row(candidate), **told, "status": KEPT, "file": name})
        self._kept[candidate.material] += 1
        self._file_of[fetched.sha256] = name
        self._move(self.draft(candidate), name)
        return name

    def finish(self) -> None:
        """Write the list sorted, unless there is none and nothing to list."""
        if self.rows() or self.list_path.exists():
            self._ledger.finish()

    def _is_settled(self, row: Row) -> bool:
        """Tell whether a photo need not be examined again: kept, or left out by settings that are still the same."""
        unchanged = row["decided_by"] == self.rules.decided_by(row["decided_by"].partition("=")[0])
        return row["status"] == KEPT or (row["status"] == LEFT_OUT and unchanged)

    def _check_places(self) -> None:
        for row in self.kept_rows():
            if not self.holds(row["file"]):
                raise DatasetError(
                    f"{self.list_path}: the photo {row['source']} {row['id']} has file '{row['file']}', which is not "
                    f"below {self.folder}. Correct that cell, or remove its row."
                )

    def _finish_moves(self) -> None:
        """Give photos their names where a kill came after the row and before the name."""
        for row in self.rows():
            if row["status"] != KEPT or (self.folder / row["file"]).is_file():
                continue
            stem = _stem(row["source"], row["id"])
            draft, is_ours = self.unfinished(stem), PurePosixPath(row["file"]).stem == stem
            if is_ours and draft.is_file() and sha256_of(draft) == row["sha256"]:
                self._move(draft, row["file"])
            else:
                self._list({**row, "file": "", "status": LEFT_OUT, "reason": "removed by hand"})


def summary_metrics(photos: CollectedPhotos, materials: Sequence[str], bad_records: int) -> dict[str, float]:
    """Return the metrics that the run logs; bad_records: of the catalogues."""
    of_status = Counter(row["status"] for row in photos.rows())
    return {
        "photos": of_status[KEPT],
        **{f"photos/{name}": of_status[status] for status, name in NOT_KEPT.items()},
        "bad_records": bad_records,
        "megabytes": sum(_number(row["bytes"]) for row in photos.kept_rows()) / 1e6,
        **{f"photos/{material}": photos.kept(material) for material in materials},
    }


def report(photos: CollectedPhotos, materials: Sequence[str], wanted: int) -> None:
    """Print tables by reason and by licence, and the shortfall; wanted: photos per material."""
    _report_reasons(photos, materials)
    kept_photos = [(licence_name(row), _number(row["bytes"])) for row in photos.kept_rows()]
    report_licences(photos.folder, photos_by_licence(kept_photos))
    for material in materials:
        if (kept := photos.kept(material)) < wanted:
            warn(f'{material}: {kept:,} of {wanted:,} photos; more terms in set="terms.{material}=[…]" may help.')
    if total := len(photos.kept_rows()):
        there = f"{total:,} photos in {photos.folder}"
        say(f"{there}; {photos.list_path} describes each, {ATTRIBUTION} names their authors.", "green")


def _report_reasons(photos: CollectedPhotos, materials: Sequence[str]) -> None:
    """Print how many photos of each material were kept, and left out for each of the most frequent kinds of reasons."""
    left_out = [
        (row["material"], re.split(r"[:(]", row["reason"])[0].strip()) for row in photos.rows() if row["status"] != KEPT
    ]
    kinds = [kind for kind, _ in Counter(kind for _, kind in left_out).most_common()]
    shown = [*kinds[:_REASONS_SHOWN], "other"] if len(kinds) > _REASONS_SHOWN else kinds
    counts = Counter((material, kind if kind in shown else "other") for material, kind in left_out)
    rows = [
        [material, f"{photos.kept(material):,}", *(f"{counts[material, kind]:,}" for kind in shown)]
        for material in materials
    ]
    table(f"{photos.folder}: photos kept and left out", ["material", "kept", *shown], rows)


def _row(candidate: Candidate) -> Row:
    return {column: str(getattr(candidate, column, "") or "") for column in COLUMNS}


def _names(row: Row) -> set[str]:
    """Return all names of a photo, in any catalogue."""
    addresses = {row[column].partition("://")[2] for column in ("photo_url", "page_url") if row[column]}
    if row["source"] == "commons":
        addresses.add(f"{_PAGE_BY_NUMBER}{row['id']}")
    return {f"{row['source']} {row['id']}", *addresses}


def _stem(source: str, identity: str) -> str:
    """Return a unique stem of [a-z0-9_-] for a photo's file name, whatever the catalogue calls the photo."""
    plain = _NOT_IN_NAMES.sub("_", identity.lower())[:_LONGEST_STEM]
    if plain == identity:
        return f"{source}_{plain}"
    return f"{source}_{plain}_{hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()}"


def _number(cell: str) -> int:
    return int(cell) if cell.isdecimal() else 0
