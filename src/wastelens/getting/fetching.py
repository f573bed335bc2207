"""One photo after another from where the annotations say it is."""

from __future__ import annotations

from wastelens.getting.photo_folder import DEAD, FAILED, PhotoFile, PhotoFolder
from wastelens.getting.photo_list import WantedPhoto
from wastelens.web.client import Web
from wastelens.web.errors import Unfetchable

# A photo as a camera's JPEG, a photo as a PNG, which Flickr makes of TACO's uploads, and a small JPEG.
_BYTES_PER_PIXEL, _BYTES_PER_PIXEL_OF_PNG, _BYTES_OF_640 = 0.5, 1.5, 150_000


class PhotoFetcher:
    """Gets photos into their folder, or a reason why not into its list; threads may share one."""

    def __init__(self, web: Web, folder: PhotoFolder) -> None:
        self._web = web
        self._folder = folder

    def __call__(self, photo: WantedPhoto) -> int:
        """Get one photo; returns how many bytes had to be fetched for it.

        Raises:
            NoNetwork: nothing can be reached at all.
            OSError: the folder cannot be written.
        """
        if self._folder.take_over(photo):
            return 0
        if not photo.url:
            self._folder.leave_out(photo, DEAD, "the annotations give no address")
            return 0
        draft = self._folder.draft(photo)
        try:
            fetched = self._web.fetch_file(photo.url, draft)  # of whatever kind: what it is, its content tells
        except Unfetchable as error:
            self._folder.leave_out(photo, DEAD if error.lasting else FAILED, error.reason)
            return 0
        self._folder.keep(photo, PhotoFile(draft, fetched.size_bytes, fetched.sha256))
        return fetched.size_bytes


def estimated_bytes(photo: WantedPhoto, size: str) -> float:
    """About how large a photo's file is, from its annotated pixels: rather too much than too little."""
    if size == "640" and "flickr" in photo.url:
        return _BYTES_OF_640
    per_pixel = _BYTES_PER_PIXEL_OF_PNG if photo.url.endswith(".png") else _BYTES_PER_PIXEL
    return max(0.0, photo.width * photo.height * per_pixel)
