"""TACO's photos, as its annotations name them, and their folder with ``download.csv``: which are there, or why not."""

from __future__ import annotations

import errno
import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd

from wastelens.data.annotations.coco import image_columns, read_coco
from wastelens.data.photos.decode import BadPhotoError
from wastelens.errors import AnnotationsError, DatasetError
from wastelens.getting.ledger import ListedFolder
from wastelens.getting.photo_check import check_photo
from wastelens.getting.shared import photos_by_licence
from wastelens.web.files import Fetched, sha256_of

COLUMNS = ("file_name", "status", "bytes", "sha256", "width", "height", "url", "licence", "reason")
DONE, DEAD, FAILED, WRONG = "done", "dead", "failed", "wrong"
NOT_STATED = "not stated"
_NAMES_OF_OTHER_FILES = re.compile(r"\..*|annotations[^/]*\.json|download\.csv[^/]*", re.IGNORECASE)
# This many photos that are one and the same file are a server's "not available" picture.
_PHOTOS_OF_A_PLACEHOLDER = 3
_REASONS_NAMED = 3
_UNUSABLE_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.ELOOP)


@dataclass(frozen=True)
class WantedPhoto:
    """A photo that the annotations name."""

    file_name: str  # its path below the dataset's folder, with forward slashes
    url: str  # where to fetch it; empty if the annotations do not say
    same_at: frozenset[str]  # URLs from which the same photo at the same size may have been fetched before
    width: float  # as annotated, in pixels; 0 where the annotations do not tell it, and may be nonsense
    height: float  # likewise
    licence: str  # as the annotations state it


def wanted_photos(
    annotations: Path, size: Literal["original", "640"], archive_url: str, *, from_archive: bool = False
) -> list[WantedPhoto]:
    """Return the photos that a COCO file with TACO's fields names, sorted by name.

    Args:
        size: which URL to use: that of the original, or that of the small copy for photos that have one.
        archive_url: of an archive of the originals.
        from_archive: use the archive for all of them.

    Raises:
        AnnotationsError: not COCO, or a file name that would replace another file of the folder.
    """
    archive = archive_url.partition("?")[0]  # a query may hold a key
    images = read_coco(annotations).images  # first, as it checks the file
    columns = {int(image["id"]): image for image in image_columns(annotations)}
    photos = []
    for image in images:
        name = PurePosixPath(image.file_name.replace("\\", "/")).as_posix()
        if _NAMES_OF_OTHER_FILES.fullmatch(name):
            raise AnnotationsError(
                f"{annotations}: image {image.id} has file_name '{image.file_name}', which is reserved. "
                "Use a name in a folder of photos, like 'batch_1/000006.jpg'."
            )
        fields = columns[image.id]
        original = _text(fields, "flickr_url")
        small = _text(fields, "flickr_640_url") if size == "640" and not from_archive else ""
        url = archive if from_archive else small or original
        same_at = frozenset({small}) if small else frozenset({original, archive, archive_url})
        licence = _text(fields, "license") or NOT_STATED
        width, height = (0 if math.isnan(side) else side for side in (image.width, image.height))
        photos.append(WantedPhoto(name, url, same_at, width, height, licence))
    return sorted(photos, key=lambda photo: photo.file_name)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return " ".join(value.split()) if isinstance(value, str) else ""


class PhotoFolder(ListedFolder):
    """Photos under their names, each checked before it gets there, and one row per photo in ``download.csv``.

    After a kill between the row and the photo, the photo is fetched again, and none is there unchecked. Threads may
    work on different photos; only one process at a time may use a folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "download.csv", COLUMNS, "file_name")

    def row(self, photo: WantedPhoto) -> dict[str, str]:
        """Return a photo's row, by the names in ``COLUMNS``; empty if there is none."""
        return self._rows.get(photo.file_name, {})

    def path(self, photo: WantedPhoto) -> Path:
        """Return where a photo is, or would be."""
        return self.folder / photo.file_name

    def is_settled(self, photo: WantedPhoto, *, retry_dead: bool = False) -> bool:
        """Tell whether there is nothing to do: the photo is there, or asking for it again would be useless."""
        row, size_bytes = self.row(photo), self._size(photo)
        if size_bytes is not None:
            return row.get("status") == DONE and row["url"] in photo.same_at and row["bytes"] == str(size_bytes)
        return row.get("status") in (DEAD, WRONG) and row["url"] == photo.url and not retry_dead

    def draft(self, photo: WantedPhoto) -> Path:
        """Return where to put a photo's file together."""
        return self.unfinished(hashlib.blake2b(photo.file_name.encode(), digest_size=16).hexdigest())

    def bytes_there(self, photo: WantedPhoto) -> int:
        """Return the size of the file under a photo's name, whatever it is; 0 if there is none."""
        return self._size(photo) or 0

    def has_to_come(self, photo: WantedPhoto) -> bool:
        """Tell whether no usable file can be there: none at all, or only a copy of another size."""
        row = self.row(photo)
        of_other_size = row.get("status") == DONE and row["url"] not in photo.same_at
        return of_other_size or self._size(photo) is None

    def take_over(self, photo: WantedPhoto) -> bool:
        """Use the file that is there already, if it is the photo; otherwise remove it. Return whether it is used."""
        if self.has_to_come(photo):
            return False
        path = self.path(photo)
        try:
            size = check_photo(path, (photo.width, photo.height))
        except BadPhotoError:
            path.unlink()
            return False
        self._write(photo, DONE, Fetched(path.stat().st_size, sha256_of(path)), size)
        return True

    def keep(self, photo: WantedPhoto, fetched: Fetched) -> None:
        """Give a draft the photo's name if it is that photo; otherwise remove it and list why."""
        draft = self.draft(photo)
        try:
            self._check_place(photo)
            size = check_photo(draft, (photo.width, photo.height))
        except BadPhotoError as error:
            draft.unlink()
            self.leave_out(photo, WRONG, str(error), fetched)
        else:
            self._write(photo, DONE, fetched, size)
            self._move(draft, photo.file_name)

    def leave_out(self, photo: WantedPhoto, status: str, reason: str, fetched: Fetched | None = None) -> None:
        """List why a photo is not available; a copy of another size that is here already is kept."""
        if self._size(photo) is None:
            self._write(photo, status, fetched, reason=reason)
        elif status != FAILED:
            row = self.row(photo)
            self._list({**row, "url": photo.url, "reason": f"kept as fetched from {row['url']}: {reason}"})

    def remove_placeholders(self, photos: Iterable[WantedPhoto]) -> None:
        """Remove photos of which three or more are the same file, counting those that were removed before."""
        of_digest = defaultdict(list)
        for photo in photos:
            if digest := self.row(photo).get("sha256"):
                of_digest[digest].append(photo)
        for alike in of_digest.values():
            reason = f"the same picture as {len(alike) - 1} other photos: a placeholder"
            for photo in alike if len(alike) >= _PHOTOS_OF_A_PLACEHOLDER else ():
                row = self.row(photo)
                if row["status"] == DONE and self.holds(photo.file_name):
                    self._list({**row, "status": WRONG, "reason": reason})
                    self.path(photo).unlink(missing_ok=True)

    def finish(self) -> None:
        """Write the list sorted, and remove drafts."""
        self.remove_unfinished()
        self._ledger.finish()

    def _size(self, photo: WantedPhoto) -> int | None:
        """Return the size in bytes of the file under a photo's name, or None if there is none below the folder."""
        path = self.path(photo)
        try:
            return path.stat().st_size if self.holds(photo.file_name) and path.is_file() else None
        except (OSError, ValueError):  # a name that no file can have
            return None

    def _check_place(self, photo: WantedPhoto) -> None:
        """Create a photo's folder; raise BadPhotoError if no file of that name can be there."""
        path = self.path(photo)
        try:
            if not self.holds(photo.file_name):
                raise BadPhotoError("its folder is a link that leads out of the dataset's")
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                raise BadPhotoError("its name is a folder's")
            path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in _UNUSABLE_NAMES:
                raise
            raise BadPhotoError(f"no file can have its name ({error.strerror})") from None

    def _write(
        self,
        photo: WantedPhoto,
        status: str,
        fetched: Fetched | None,
        size: tuple[int, int] | tuple[str, str] = ("", ""),
        reason: str = "",
    ) -> None:
        of_file = (str(fetched.size_bytes), fetched.sha256) if fetched else ("", "")
        cells = (photo.file_name, status, *of_file, *map(str, size), photo.url, photo.licence, reason)
        self._list(dict(zip(COLUMNS, cells, strict=True)))


@dataclass(frozen=True)
class Summary:
    """The result of a download."""

    of_status: Counter[str]  # how many of the wanted photos are done, dead, failed and wrong
    size_bytes: int  # of those that are there
    licences: pd.DataFrame  # licence, photos, megabytes; the most frequent first
    missing: Counter[str]  # reason → number of photos

    @property
    def photos(self) -> int:
        """How many photos the annotations name."""
        return self.of_status.total()

    def metrics(self) -> dict[str, float]:
        """Return the metrics that the run logs."""
        counts = {f"photos/{status}": float(self.of_status[status]) for status in (DONE, DEAD, FAILED, WRONG)}
        return {"photos": float(self.photos), **counts, "megabytes": self.size_bytes / 1e6}

    def check_share(self, allowed: float) -> None:
        """Raise DatasetError if a larger share of the photos is missing than allowed."""
        missing = self.photos - self.of_status[DONE]
        if missing > allowed * self.photos:
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
    return Summary(
        of_status=Counter(row["status"] for _, row in rows),
        size_bytes=sum(size_bytes for _, size_bytes in there),
        licences=photos_by_licence(there),
        missing=Counter(row["reason"] for _, row in rows if row["status"] != DONE),
    )
