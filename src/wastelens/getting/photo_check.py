"""Checks, by decoding it, whether a file is the photo that the annotations describe."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from wastelens.data.annotations.labels import misfit
from wastelens.data.photos.decode import BadPhotoError, decode, read_photo
from wastelens.getting.shared import decoder

SMALLEST_SIDE_PX = 64
_FORMATS = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP", re.DOTALL)


def check_photo(path: Path, annotated: tuple[float, float]) -> tuple[int, int]:
    """Return the upright (width, height) of a photo in pixels.

    Args:
        path: a JPEG, PNG or WebP file of any name.
        annotated: its (width, height) in the annotations, in either orientation; if they are impossible, any shape is
            accepted.

    Raises:
        BadPhotoError: another file, damaged, cut off, absurdly large or small, or of another shape than annotated.
    """
    return decoder.submit(_checked, path, annotated).result()


def _checked(path: Path, annotated: tuple[float, float]) -> tuple[int, int]:
    content = read_photo(path)
    if not _FORMATS.match(content):
        raise BadPhotoError(_kind_of_other(content[:512]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about broken EXIF data, which does not matter
        decoded = decode(content, SMALLEST_SIDE_PX)
    width, height = decoded.width, decoded.height
    if min(width, height) < SMALLEST_SIDE_PX:
        raise BadPhotoError(f"too small: {width} x {height} pixels")
    told = (int(annotated[0]), int(annotated[1]))
    if min(told) >= 1 and misfit(told, (width, height)) and misfit(told[::-1], (width, height)):
        raise BadPhotoError(f"annotated as {told[0]} x {told[1]}, the file is {width} x {height}")
    return width, height


def _kind_of_other(start: bytes) -> str:
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "a web page, not a photo"
    return "neither JPEG, PNG nor WebP" if set(start) & set(range(9)) else "text, not a photo"
