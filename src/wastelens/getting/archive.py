"""All of TACO from one archive: only what its annotations name, and of that only what is harmless."""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from pathlib import Path

from wastelens.data.annotations.layout import ANNOTATIONS
from wastelens.errors import DatasetError
from wastelens.getting.annotations import MAX_BYTES as LARGEST_ANNOTATIONS
from wastelens.getting.photo_folder import DEAD, WRONG, PhotoFile, PhotoFolder
from wastelens.getting.photo_list import WantedPhoto
from wastelens.web.answers import size_text

MAX_BYTES = 10_000_000_000
USUAL_BYTES = 2_600_000_000  # of Zenodo's archive, and of the photos in it
_HIGHEST_RATIO = 200
_PIECE_BYTES = 1 << 16
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError)


class _Harmful(Exception):  # noqa: N818  its message is a photo's reason
    """A member of the archive that is not unpacked."""


class Archive:
    """A zip file that holds ``annotations.json`` at any depth, and photos in folders beside it.

    Nothing is unpacked under a name that the archive gives: photos are looked up by the names in the annotations,
    which have been checked.

    Parameters:
        path: the archive.
        max_bytes: the largest photo to unpack.

    Raises:
        DatasetError: not a zip file, or one without annotations; it is removed, as another one has to be fetched.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            path.unlink()
            raise DatasetError(
                f"The archive is not a zip file ({error}). Correct archive_url, or run the command again."
            ) from None
        self._max_bytes = max_bytes
        found = [info.filename for info in self._zip.infolist() if _is_annotations(info.filename)]
        if not found:
            self._zip.close()
            path.unlink()
            raise DatasetError(f"The archive holds no {ANNOTATIONS}. Correct archive_url.")
        self._annotations = min(found, key=lambda name: (name.count("/"), name))
        self._root = self._annotations.removesuffix(ANNOTATIONS)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def unpack_annotations(self, target: Path) -> None:
        """Write the annotations to a file.

        Raises:
            DatasetError: they are damaged, or absurdly large.
        """
        try:
            self._unpack(self._annotations, target, LARGEST_ANNOTATIONS)
        except _Harmful as error:
            raise DatasetError(f"{ANNOTATIONS} in the archive cannot be used: {error}. Correct archive_url.") from None

    def bytes_of(self, photo: WantedPhoto) -> int:
        """Return the unpacked size of a photo; 0 if there is none of that name."""
        info = self._zip.NameToInfo.get(self._root + photo.file_name)
        return 0 if info is None else info.file_size

    def unpack_photo(self, photo: WantedPhoto, folder: PhotoFolder) -> int:
        """Unpack a photo into its folder, or list why it cannot be; return its bytes."""
        if folder.take_over(photo):
            return 0
        name = self._root + photo.file_name
        if name not in self._zip.NameToInfo:
            folder.leave_out(photo, DEAD, "not in the archive")
            return 0
        draft = folder.draft(photo)
        try:
            file = self._unpack(name, draft, self._max_bytes)
        except _Harmful as error:
            draft.unlink(missing_ok=True)
            folder.leave_out(photo, WRONG, str(error))
            return 0
        folder.keep(photo, file)
        return file.size_bytes

    def _unpack(self, name: str, target: Path, max_bytes: int) -> PhotoFile:
        info = self._zip.getinfo(name)
        _refuse_harmful(info, max_bytes)
        digest = hashlib.sha256()
        try:
            with self._zip.open(info) as packed, target.open("wb") as file:
                while piece := packed.read(_PIECE_BYTES):  # zipfile stops at the size that it states
                    digest.update(piece)
                    file.write(piece)
        except _BROKEN:
            raise _Harmful("damaged in the archive") from None
        return PhotoFile(target, info.file_size, digest.hexdigest())


def _is_annotations(name: str) -> bool:
    parts = name.split("/")
    return parts[-1] == ANNOTATIONS and "__MACOSX" not in parts


def _refuse_harmful(info: zipfile.ZipInfo, max_bytes: int) -> None:
    if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir():
        raise _Harmful("a link or a folder in the archive, not a file")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Harmful("packed by an uncommon method")
    if info.file_size > max_bytes:
        raise _Harmful(f"{size_text(info.file_size)} when unpacked, more than max_bytes={size_text(max_bytes)}")
    if info.file_size > _HIGHEST_RATIO * max(1, info.compress_size):
        raise _Harmful(f"unpacks to more than {_HIGHEST_RATIO} times its size")
