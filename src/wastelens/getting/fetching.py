"""Fetches photos from where the annotations say they are, in several threads."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from wastelens.getting.photo_folder import DEAD, FAILED, PhotoFile, PhotoFolder
from wastelens.getting.photo_list import WantedPhoto
from wastelens.system import interrupts
from wastelens.web.client import Web
from wastelens.web.errors import Unfetchable

# For a camera's JPEG, for a PNG, which Flickr makes of TACO's uploads, and for a small JPEG.
_BYTES_PER_PIXEL, _BYTES_PER_PIXEL_OF_PNG, _BYTES_OF_640 = 0.5, 1.5, 150_000
_LISTENING_S = 0.2

Result = TypeVar("Result")


def fetch_photos(
    photos: Sequence[WantedPhoto], folder: PhotoFolder, web: Web, workers: int, after_each: Callable[[int], None]
) -> None:
    """Fetch photos into their folder, or list why they cannot be.

    Args:
        photos: to fetch.
        folder: where they go.
        web: the client; closed if an error or an interruption ends it all.
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


def next_of(done: queue.SimpleQueue[Result]) -> Result:
    """Return the next item of a queue without delaying Ctrl-C, which an endless wait would not notice."""
    while True:
        interrupts.check()
        try:
            return done.get(timeout=_LISTENING_S)
        except queue.Empty:
            continue


def _fetch_photo(photo: WantedPhoto, folder: PhotoFolder, web: Web) -> int:
    """Fetch a photo; return how many bytes had to be fetched for it."""
    if folder.take_over(photo):
        return 0
    if not photo.url:
        folder.leave_out(photo, DEAD, "the annotations give no address")
        return 0
    draft = folder.draft(photo)
    try:
        fetched = web.fetch_file(photo.url, draft)
    except Unfetchable as error:
        folder.leave_out(photo, DEAD if error.permanent else FAILED, error.reason)
        return 0
    folder.keep(photo, PhotoFile(draft, fetched.size_bytes, fetched.sha256))
    return fetched.size_bytes


def estimated_bytes(photo: WantedPhoto, size: str) -> float:
    """Estimate the size of a photo's file from its annotated pixels, rather too large than too small."""
    if size == "640" and "flickr" in photo.url:
        return _BYTES_OF_640
    per_pixel = _BYTES_PER_PIXEL_OF_PNG if photo.url.endswith(".png") else _BYTES_PER_PIXEL
    return max(0.0, photo.width * photo.height * per_pixel)
