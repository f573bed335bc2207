"""TACO's annotations and photos: from where each is on the web, or all of them from one archive."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import queue
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.layout import ANNOTATIONS
from wastelens.errors import AnnotationsError, DatasetError
from wastelens.getting.photo_folder import DEAD, FAILED, WRONG, PhotoFolder, WantedPhoto
from wastelens.getting.shared import next_of
from wastelens.system.console import say, warn
from wastelens.system.text import reason_of
from wastelens.web.addresses import locate
from wastelens.web.client import Web
from wastelens.web.errors import NoNetwork, Unfetchable
from wastelens.web.files import Fetched, sha256_of, size_text

LARGEST_ANNOTATIONS = 50_000_000
LARGEST_ARCHIVE = 10_000_000_000
USUAL_BYTES = 2_600_000_000  # of Zenodo's archive, and of the photos in it
# For a camera's JPEG, for a PNG, which Flickr makes of TACO's uploads, and for a small JPEG.
_BYTES_PER_PIXEL, _BYTES_PER_PIXEL_OF_PNG, _BYTES_OF_640 = 0.5, 1.5, 150_000
_HIGHEST_RATIO = 200
_PIECE_BYTES = 1 << 16
# What zipfile raises over broken archives; RuntimeError also for encrypted ones.
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, LookupError, OverflowError)


class AnnotationsFile:
    """``annotations.json`` in a folder, and beside it older or newer versions as ``annotations.<digest>.json``.

    Attributes:
        path: the file in use.
        draft: where to put published annotations before `use_draft`.
    """

    def __init__(self, folder: Path, changed: Literal["keep", "update"]) -> None:
        self.path = folder / ANNOTATIONS
        self._update = changed == "update"
        self.draft = folder / ".annotations.draft.json"

    def fetch(self, web: Web, url: str, setting: str) -> None:
        """Fetch the published annotations, and report whether those in use differ; setting: that holds the URL.

        Raises:
            AnnotationsError: there are none here and none available, or the fetched file is not COCO.
            NoNetwork: there are none here, and no host at all can be reached.
        """
        try:
            web.fetch_file(url, self.draft, max_bytes=LARGEST_ANNOTATIONS)
        except (Unfetchable, NoNetwork) as error:  # the photos, elsewhere, may still be available
            fact = error.fact if isinstance(error, NoNetwork) else str(error)
            if self.path.exists():
                say(f"Cannot check whether the annotations have changed ({fact}); using those that are here.")
                return
            if isinstance(error, NoNetwork):
                raise
            raise AnnotationsError(
                f'The annotations are not available: {fact}. Try again later, or another URL with set="{setting}=URL".'
            ) from None
        self.use_draft(url, setting)

    def use_draft(self, url: str, setting: str) -> None:
        """Give the published annotations their name: in use if they are the first or wanted, otherwise beside.

        Raises:
            AnnotationsError: they are not COCO.
        """
        try:
            read_coco(self.draft)
        except AnnotationsError as error:
            self.draft.unlink()
            what = str(error).removeprefix(f"{self.draft}: ")
            raise AnnotationsError(
                f"The annotations from {locate(url).shown} cannot be used, and nothing here was changed: {what} "
                f'Or give another URL with set="{setting}=URL".'
            ) from None
        newest = sha256_of(self.draft)
        here = sha256_of(self.path) if self.path.exists() else newest
        fact = f"The published annotations have changed: sha256 {here} here, {newest} there."
        if here == newest:
            os.replace(self.draft, self.path)
        elif not self._update:
            os.replace(self.draft, self._beside(newest))
            warn(
                f"{fact} Those here stay in use, the new ones are saved as {self._beside(newest).name}. "
                "To use them: -P annotations=update"
            )
        else:
            self._beside(here).unlink(missing_ok=True)  # a link would lead to another file
            shutil.copyfile(self.path, self._beside(here))  # torn by a kill, it is written again
            os.replace(self.draft, self.path)
            say(f"{fact} The new ones are in use now, the old ones are saved as {self._beside(here).name}.")

    def _beside(self, sha256: str) -> Path:
        return self.path.with_name(f"annotations.{sha256[:8]}.json")


def fetch_photos(
    photos: Sequence[WantedPhoto], folder: PhotoFolder, web: Web, workers: int, after_each: Callable[[int], None]
) -> None:
    """Fetch photos into their folder, or list why they cannot be.

    Args:
        web: closed if an error or an interruption ends it all.
        workers: threads.
        after_each: called after each photo with the bytes fetched for it, by the calling thread.

    Raises:
        NoNetwork: no host at all can be reached.
        OSError: the folder cannot be written.
    """
    done: queue.SimpleQueue[Future[int]] = queue.SimpleQueue()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for photo in photos:
                pool.submit(_fetch_photo, photo, folder, web).add_done_callback(done.put)
            for _ in photos:
                after_each(next_of(done).result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            web.close()
            raise


def _fetch_photo(photo: WantedPhoto, folder: PhotoFolder, web: Web) -> int:
    """Fetch a photo; return how many bytes had to be fetched for it."""
    if folder.take_over(photo):
        return 0
    if not photo.url:
        folder.leave_out(photo, DEAD, "the annotations give no address")
        return 0
    try:
        fetched = web.fetch_file(photo.url, folder.draft(photo))
    except Unfetchable as error:
        folder.leave_out(photo, DEAD if error.permanent else FAILED, error.reason)
        return 0
    folder.keep(photo, fetched)
    return fetched.size_bytes


def estimated_bytes(photo: WantedPhoto, size: str) -> float:
    """Estimate the size of a photo's file from its annotated pixels, rather too large than too small."""
    if size == "640" and "flickr" in photo.url:
        return _BYTES_OF_640
    per_pixel = _BYTES_PER_PIXEL_OF_PNG if photo.url.endswith(".png") else _BYTES_PER_PIXEL
    return max(0.0, photo.width * photo.height * per_pixel)


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
            with _damage():
                self._zip = zipfile.ZipFile(path)
        except _Harmful as error:
            path.unlink()
            raise DatasetError(
                f"The archive is not a zip file ({error}). Correct archive_url, or run the command again."
            ) from None
        self._path, self._max_bytes = path, max_bytes
        parts_of = {name: name.split("/") for name in self._zip.namelist()}
        found = [name for name, parts in parts_of.items() if parts[-1] == ANNOTATIONS and "__MACOSX" not in parts]
        if not found:
            self.discard()
            raise DatasetError(f"The archive holds no {ANNOTATIONS}. Correct archive_url.")
        self._annotations = min(found, key=lambda name: (name.count("/"), name))
        self._root = self._annotations.removesuffix(ANNOTATIONS)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def discard(self) -> None:
        """Close and remove the file: another one has to be fetched."""
        self._zip.close()
        self._path.unlink(missing_ok=True)

    def unpack_annotations(self, target: Path) -> None:
        """Write the annotations to a file; raise DatasetError if they are damaged, or absurdly large."""
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
            unpacked = self._unpack(name, draft, self._max_bytes)
        except _Harmful as error:
            draft.unlink(missing_ok=True)
            folder.leave_out(photo, WRONG, str(error))
            return 0
        folder.keep(photo, unpacked)
        return unpacked.size_bytes

    def _unpack(self, name: str, target: Path, max_bytes: int) -> Fetched:
        info = self._zip.getinfo(name)
        if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir():
            raise _Harmful("a link or a folder in the archive, not a file")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _Harmful("packed by an uncommon method")
        if info.file_size > max_bytes:
            raise _Harmful(f"{size_text(info.file_size)} when unpacked, more than max_bytes={size_text(max_bytes)}")
        if info.file_size > _HIGHEST_RATIO * max(1, info.compress_size):
            raise _Harmful(f"unpacks to more than {_HIGHEST_RATIO} times its size")
        digest = hashlib.sha256()
        target.unlink(missing_ok=True)  # a link would lead to another file
        with target.open("wb") as file, _damage(), self._zip.open(info) as packed:
            while piece := packed.read(_PIECE_BYTES):  # zipfile stops at the size that it states
                digest.update(piece)
                file.write(piece)
        return Fetched(target.stat().st_size, digest.hexdigest())


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Raise _Harmful where zipfile finds an archive damaged."""
    try:
        yield
    except _BROKEN as error:
        raise _Harmful(f"damaged in the archive: {reason_of(error)}") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place before the file's start
            raise
        raise _Harmful("damaged in the archive: it names places that it does not have") from None
