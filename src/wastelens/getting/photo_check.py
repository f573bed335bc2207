"""Checks by its header and its end, without decoding it, whether a file is the photo that the annotations describe."""

from __future__ import annotations

import contextlib
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from wastelens.data.annotations.labels import misfit

SMALLEST_SIDE_PX = 64
LARGEST_MEGAPIXELS = 500
_PIECE = 1 << 16
_JPEG_END = b"\xff\xd9"
# Pillow holds whole chunks of a PNG in memory, and a whole WebP; no camera writes larger ones than these.
_LARGEST_CHUNK_BESIDE_PIXELS = 1 << 23
_LARGEST_WEBP = 1 << 25
_EXIF_ORIENTATION = 0x0112
_TURNED_BY_90_DEGREES = (5, 6, 7, 8)
# Pillow raises any of these for broken headers.
_BROKEN = (
    *(SyntaxError, OSError, ValueError, LookupError, ArithmeticError, RuntimeError, TypeError, EOFError, MemoryError),
    *(struct.error, zlib.error),
)
# Not Image.open, which warns of photos above 89 megapixels and searches a JPEG for further frames.
_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
}
# A header may be large, so only one is held in memory at a time.
_one_header = threading.Lock()


class WrongPhotoError(Exception):
    """A file that is not the photo it should be; the message is the reason, for ``download.csv``."""


def check_photo(path: Path, annotated: tuple[float, float]) -> tuple[int, int]:
    """Return the upright (width, height) of a photo in pixels, using little memory however large it is.

    Args:
        path: a JPEG, PNG or WebP file of any name.
        annotated: its (width, height) in the annotations, in either orientation; if they are impossible, any shape is
            accepted.

    Raises:
        WrongPhotoError: another file, damaged, cut off, absurdly large or small, or of another shape than annotated.
    """
    with path.open("rb") as file:
        reader = _reader(file.read(512))
        if reader is PngImageFile:
            _check_png(file)
        elif reader is WebPImageFile:
            _check_webp(file)
        width, height = _upright_size(file, reader)
        if reader is JpegImageFile:
            _check_jpeg_end(file)
    if width * height > LARGEST_MEGAPIXELS * 1e6:
        raise WrongPhotoError(f"absurdly large: {width} x {height} pixels")
    if min(width, height) < SMALLEST_SIDE_PX:
        raise WrongPhotoError(f"too small: {width} x {height} pixels")
    told = (int(annotated[0]), int(annotated[1]))
    if min(told) >= 1 and misfit(told, (width, height)) and misfit(told[::-1], (width, height)):
        raise WrongPhotoError(f"annotated as {told[0]} x {told[1]}, the file is {width} x {height}")
    return width, height


def _reader(start: bytes) -> type[ImageFile.ImageFile]:
    if not start:
        raise WrongPhotoError("an empty file")
    for magic, reader in _READERS.items():
        if start.startswith(magic) and (magic != b"RIFF" or start[8:12] == b"WEBP"):
            return reader
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise WrongPhotoError("a web page, not a photo")
    if not set(start) & set(range(9)):
        raise WrongPhotoError("text, not a photo")
    raise WrongPhotoError("neither JPEG, PNG nor WebP")


def _check_png(file: BinaryIO) -> None:
    """Check every chunk's checksum up to the last one (PNG specification, third edition, §5.3)."""
    file.seek(8)
    kind = b""
    while kind != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise WrongPhotoError("cut off")
        left, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind != b"IDAT" and left > _LARGEST_CHUNK_BESIDE_PIXELS:
            raise WrongPhotoError(f"a PNG with {left / 1e6:,.0f} MB beside its pixels")
        checksum = zlib.crc32(kind)
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise WrongPhotoError("cut off")
            checksum = zlib.crc32(piece, checksum)
            left -= len(piece)
        if file.read(4) != checksum.to_bytes(4, "big"):
            raise WrongPhotoError("damaged: a checksum is wrong")


def _check_webp(file: BinaryIO) -> None:
    """Check its length (RFC 9649, §2.4); the reader checks the rest."""
    file.seek(4)
    promised = int.from_bytes(file.read(4), "little") + 8
    if promised > _LARGEST_WEBP:
        raise WrongPhotoError(f"a WebP of {promised / 1e6:,.0f} MB")
    if file.seek(0, 2) < promised:
        raise WrongPhotoError("cut off")


def _upright_size(file: BinaryIO, reader: type[ImageFile.ImageFile]) -> tuple[int, int]:
    """Return the upright (width, height); a JPEG's file is left where its first scan begins."""
    file.seek(0)
    with _one_header, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about broken EXIF data, which does not matter
        try:
            header = reader(file)
        except Image.DecompressionBombError:  # of a WebP, before anything is decoded
            raise WrongPhotoError("absurdly large") from None
        except _BROKEN as error:
            raise WrongPhotoError(f"damaged image file ({' '.join(str(error).split())[:100]})") from None
        width, height = header.size
        return (height, width) if _is_turned(header) else (width, height)


def _is_turned(header: ImageFile.ImageFile) -> bool:
    with contextlib.suppress(*_BROKEN):  # either orientation is accepted
        if "exif" in header.info:  # otherwise getexif would decode a whole PNG to search for it after the pixels
            return int(header.getexif().get(_EXIF_ORIENTATION, 1)) in _TURNED_BY_90_DEGREES
    return False


def _check_jpeg_end(file: BinaryIO) -> None:
    """Check that an end marker follows the scans; cameras may write more after it."""
    before = b""
    while piece := file.read(_PIECE):
        if _JPEG_END in before + piece:
            return
        before = piece[-1:]
    raise WrongPhotoError("cut off")
