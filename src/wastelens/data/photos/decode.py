"""Decode any image file to upright RGB at training size, or say why it is not a usable photo.

This file is exported with served models, so it imports nothing else from the package but what is exported beside it.
"""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from wastelens.data.photos import deep
from wastelens.data.photos.jpeg import MAGIC as JPEG_MAGIC
from wastelens.data.photos.jpeg import decode_jpeg, with_start

Photo = npt.NDArray[np.uint8]

MAX_FILE_BYTES = 512_000_000
MAX_DECODING_BYTES = 1_500_000_000
USUAL_PIXEL_BYTES = 7  # that decoding takes, of formats other than JPEG
_LARGE_BYTES = 256_000_000  # photos that take more are decoded one at a time, whatever the number of threads
_one_large_photo = threading.Lock()

READ_HEIC = "install pillow-heif (pip install 'wastelens[heif]') or convert to JPEG"
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
# What photos come in. Not everything that Pillow can open: some formats are programs, some are read by other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "JPEG2000", "PPM", "TGA")
_ORIENTATION = ExifTags.Base.Orientation
_SAMPLE_BITS, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 258, 278, 322, 323  # tags of TIFF 6.0
_SMALLEST_PHOTO_PX = 8
_DIM = 64  # the upper 8 of 16 bits stay below it in photos of 14 bits or fewer
_STRIP_BYTES = 8 << 20  # converted at a time
# Bytes a pixel beside Pillow's own copy and ours, measured: what the libraries hold of a photo while they decode it.
_LIBRARY_BYTES = {"WEBP": 12, "AVIF": 8, "HEIF": 8, "JPEG2000": 14, "GIF": 1}
_PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # of others: 4
# Decoders of different formats raise these over broken files.
_STRANGE_ERRORS = (SyntaxError, LookupError, ArithmeticError, RuntimeError, TypeError, struct.error, zlib.error)
_DECODER_ERRORS = (OSError, ValueError, EOFError, MemoryError, AttributeError, cv2.error, *_STRANGE_ERRORS)


class BadPhotoError(Exception):
    """A file that cannot be used as a photo; the message is the reason. Callers list it and go on."""


class TooLargeForMemoryError(BadPhotoError):
    """A photo whose decoding would allocate more than the limit."""


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo at training size, with its original upright size in pixels."""

    pixels_0_255: Photo
    width: int
    height: int


def decode(
    content: bytes, side_px: int, max_megapixels: float = 200.0, max_bytes: float = MAX_DECODING_BYTES
) -> DecodedPhoto:
    """Decode a photo file's bytes to upright RGB of side × side pixels, uint8 in 0–255.

    Large JPEGs are decoded at the smallest scale (1/8 … 1/1) that is not below ``side_px``, then area-averaged:
    within 0.8 grey levels of a full decode, in a tenth of the time. The photo is stretched to fill the square, so
    two factors map any position back to the original. Samples of more than 8 bits are scaled by their own range, and
    what is transparent is white. Of an animation, the first frame is taken.

    Raises:
        TooLargeForMemoryError: decoding would allocate more than ``max_bytes``, by the header.
        BadPhotoError: not a photo, truncated, empty, or absurdly large.
    """
    return decode_at((side_px,), content, max_megapixels, max_bytes)[0]


def decode_at(
    sides_px: Sequence[int], content: bytes, max_megapixels: float = 200.0, max_bytes: float = MAX_DECODING_BYTES
) -> tuple[DecodedPhoto, ...]:
    """Decode a photo file once, at the scale that the largest side needs; return it at each side, as :func:`decode`."""
    # Pillow's own limit is lower and would refuse photos that the config allows.
    Image.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)
    try:
        pixels, (width, height), orientation = _stored(with_start(content), max(sides_px), max_megapixels, max_bytes)
    except UnidentifiedImageError:
        raise BadPhotoError("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPhotoError(f"absurdly large: the limit is {max_megapixels:g} megapixels") from None
    except _DECODER_ERRORS as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if _is_heif(content[:256]):
            raise BadPhotoError(f"damaged HEIC file ({reason}): convert to JPEG") from None
        raise BadPhotoError(f"damaged image file ({reason})") from None
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    squares = (_upright(_fill_square(pixels, side_px), orientation) for side_px in sides_px)
    return tuple(DecodedPhoto(upright, width, height) for upright in squares)


def _stored(
    content: bytes, side_px: int, max_megapixels: float, max_bytes: float
) -> tuple[Photo, tuple[int, int], int]:
    """Return the pixels as stored, perhaps at a reduced scale, the stored width and height, and the orientation."""
    try:
        image = open_header(io.BytesIO(content))
    except UnidentifiedImageError:
        if not content.startswith(deep.TIFF_MAGIC):
            raise
        return _stored_tiff(content, side_px, max_megapixels, max_bytes)
    with image as header:
        _check_size(*header.size, max_megapixels)
        size = header.size
        with _room_for(_needed_bytes(content, header, side_px), max_bytes):
            # Pillow turns TIFFs upright itself and reports their upright size; for a PNG's EXIF data it decodes it all.
            orientation = 1 if header.format == "TIFF" else header.getexif().get(_ORIENTATION, 1)
            return _decode_stored(content, header, side_px), size, orientation


def _stored_tiff(
    content: bytes, side_px: int, max_megapixels: float, max_bytes: float
) -> tuple[Photo, tuple[int, int], int]:
    """Read a TIFF that Pillow cannot: of several floating-point samples."""
    size, sample_bytes = deep.tiff_header(content)
    _check_size(*size, max_megapixels)
    with _room_for(len(content) + 3 * sample_bytes, max_bytes):
        return deep.shrink_samples(deep.read_samples(content), side_px, _resize), size, 1


def open_header(source: Path | io.BytesIO) -> Image.Image:
    """Open a photo file and read its header; HEIC by pillow-heif, which turns photos upright itself.

    Raises:
        UnidentifiedImageError: not an image.
        BadPhotoError: HEIC, without pillow-heif.
        OSError, SyntaxError and others: damaged.
    """
    try:
        return Image.open(source, formats=_FORMATS)
    except UnidentifiedImageError:
        with source.open("rb") if isinstance(source, Path) else contextlib.nullcontext(source) as file:
            file.seek(0)
            if not _is_heif(file.read(256)):
                raise
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise BadPhotoError(f"HEIC: {READ_HEIC}") from None
    image: Image.Image = HeifImageFile(source)  # type: ignore[no-untyped-call]
    return image


def _is_heif(start: bytes) -> bool:
    """Tell HEIC by its brands (ISO/IEC 23008-12, annex B)."""
    length = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[place : place + 4] for place in range(16, length - 3, 4))}
    return start[4:8] == b"ftyp" and bool(brands & _HEIF_BRANDS)


def _check_size(width: int, height: int, max_megapixels: float) -> None:
    if width * height > max_megapixels * 1e6:
        raise BadPhotoError(f"absurdly large: {width} x {height} pixels, the limit is {max_megapixels:g} megapixels")
    if min(width, height) < _SMALLEST_PHOTO_PX:
        raise BadPhotoError(f"too small: {width} x {height} pixels")


def _needed_bytes(content: bytes, header: Image.Image, side_px: int) -> int:
    """Return about how many bytes decoding allocates at its peak, from the header alone."""
    width, height = header.size
    if content.startswith(JPEG_MAGIC):
        scale = min(1.0, max(side_px / width, side_px / height) + 0.125)
        # A progressive JPEG is held as coefficients of 2 bytes until its last scan.
        held = 2 * _coefficients_per_pixel(header) if "progressive" in header.info else 0
        return len(content) + round(width * height * (held + (3 if header.mode != "CMYK" else 12) * scale**2))
    pixel_bytes = _PILLOW_BYTES.get(header.mode, 4) + _LIBRARY_BYTES.get(str(header.format), 0)
    pixel_bytes += (2 if header.mode.startswith("I;16") else 8) if _is_deep_grey(header) else 3
    pixel_bytes += 14 if _is_deep_colour(content, header) else 0
    return int(len(content) + width * height * pixel_bytes + _tile_bytes(header))


def _coefficients_per_pixel(header: Image.Image) -> float:
    layers: list[tuple[int, int, int, int]] = getattr(header, "layer", [])
    sampling = [(across, down) for _, across, down, _ in layers] or [(1, 1)] * 3
    most = max(across for across, _ in sampling) * max(down for _, down in sampling)
    return sum(across * down for across, down in sampling) / max(most, 1)


def _tile_bytes(header: Image.Image) -> int:
    """Return the bytes of one tile or strip of a TIFF; a tile may be far larger than the photo."""
    tags = getattr(header, "tag_v2", {})
    rows = min(int(tags.get(_ROWS_PER_STRIP, header.height)), header.height) if tags else 0
    width, height = int(tags.get(_TILE_WIDTH, header.width)), int(tags.get(_TILE_HEIGHT, rows))
    return width * height * sum(int(bits) for bits in tags.get(_SAMPLE_BITS, (1,))) // 8


@contextlib.contextmanager
def _room_for(needed_bytes: int, max_bytes: float) -> Iterator[None]:
    """Refuse a photo that would take too much memory, and let large ones take theirs one after the other."""
    if needed_bytes > max_bytes:
        raise TooLargeForMemoryError(
            f"too large for memory: decoding it takes about {_megabytes(needed_bytes)}, the limit is "
            f"{_megabytes(max_bytes)}; save it with fewer pixels, or as a JPEG"
        )
    with _one_large_photo if needed_bytes > _LARGE_BYTES else contextlib.nullcontext():
        yield


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.0f} MB" if size_bytes >= 1e7 else f"{size_bytes / 1e6:.1f} MB"


def _decode_stored(content: bytes, header: Image.Image, side_px: int) -> Photo:
    """Return the pixels as stored (not yet upright), RGB uint8, possibly at a reduced scale."""
    if content.startswith(JPEG_MAGIC) and header.mode in ("RGB", "L"):
        return decode_jpeg(content, side_px)
    if content.startswith(JPEG_MAGIC) and header.mode == "CMYK":
        inks = 255 - decode_jpeg(content, side_px, "CMYK")  # Adobe's convention: stored inverted
        return np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"), dtype=np.uint8)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    header.load()
    if _is_deep_grey(header):
        samples = np.empty((header.height, header.width), np.uint16 if header.mode.startswith("I;16") else np.float32)
        for rows, strip in _strips(header):
            samples[rows] = np.asarray(strip)
        return deep.shrink_samples(samples, side_px, _resize)
    if _is_deep_colour(content, header) and _brightest(header) < _DIM:
        return deep.shrink_samples(deep.read_samples(content), side_px, _resize)
    pixels = np.empty((header.height, header.width, 3), dtype=np.uint8)
    for rows, strip in _strips(header):
        pixels[rows] = np.asarray(_to_rgb(strip))
    return pixels


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _is_deep_colour(content: bytes, header: Image.Image) -> bool:
    """Tell PNG and TIFF with colours of 16 bits, of which Pillow keeps the upper 8."""
    if header.format == "TIFF":
        return header.mode in ("RGB", "RGBA") and max(getattr(header, "tag_v2", {}).get(_SAMPLE_BITS, (8,))) == 16
    return header.format == "PNG" and header.mode in ("RGB", "RGBA", "LA") and content[24] == 16


def _brightest(image: Image.Image) -> float:
    bands = [band for band in image.getbands() if band != "A"]
    return max(float(high) for _, (_, high) in zip(bands, np.atleast_2d(image.getextrema()), strict=False))


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Yield an image in strips of whole rows, so that what is made of them is never held for all of it at once."""
    rows = max(1, _STRIP_BYTES // (4 * image.width))
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert grey, palette, CMYK and transparent images to 8-bit RGB, on a white background."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _resize(pixels: npt.NDArray[Any], side_px: int) -> npt.NDArray[Any]:
    smaller = pixels.shape[0] >= side_px and pixels.shape[1] >= side_px
    return np.asarray(
        cv2.resize(pixels, (side_px, side_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    )


def _fill_square(pixels: Photo, side_px: int) -> Photo:
    return np.asarray(_resize(pixels, side_px), dtype=np.uint8)


def square(pixels_0_255: Photo, side_px: int) -> Photo:
    """Shrink decoded pixels as :func:`decode` does, uint8 (height, width, 3) → (side, side, 3).

    Raises:
        BadPhotoError: the photo is too small.
    """
    _check_size(pixels_0_255.shape[1], pixels_0_255.shape[0], np.inf)
    return _fill_square(pixels_0_255, side_px)


def _upright(square: Photo, orientation: int) -> Photo:
    """Undo the camera's rotation (EXIF 2.32, tag Orientation), on the small square instead of the full photo."""
    if orientation not in range(2, 9):
        return square
    image = Image.fromarray(square)
    image.getexif()[_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image), dtype=np.uint8)


def read_photo(path: Path) -> bytes:
    """Read a photo file's bytes.

    Raises:
        BadPhotoError: the file is missing, a folder, a pipe or device, unreadable, empty, or over `MAX_FILE_BYTES`.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadPhotoError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
            raise BadPhotoError("a pipe or device, not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise BadPhotoError(
                f"a file of {_megabytes(status.st_size)}: the limit for a photo is {_megabytes(MAX_FILE_BYTES)}"
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadPhotoError("missing") from None
    except OSError as error:
        raise BadPhotoError(f"cannot be read ({error.strerror})") from None
    if not content:
        raise BadPhotoError("an empty file")
    return content
