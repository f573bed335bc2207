"""Photo files in folders: recognise them by suffix, find them, and read their sizes from their headers."""

from __future__ import annotations

import importlib.util
import io
import os
import stat
import unicodedata
import warnings
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

from wastelens.data.photos.decode import (
    MAX_DECODING_BYTES,
    MAX_FILE_BYTES,
    READ_HEIC,
    USUAL_PIXEL_BYTES,
    BadPhotoError,
    decode,
    open_header,
    read_photo,
)
from wastelens.data.photos.jpeg import MAGIC as JPEG_MAGIC

_COMMON = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_RARE = {".jpe", ".jfif", ".mpo", ".apng", ".dib", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".tga"}
_HEIC = {".heic", ".heif", ".hif"}
_RAW = {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"}
_FILMS = {".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm"}
PHOTO_SUFFIXES = frozenset(_COMMON | _RARE | (_HEIC if importlib.util.find_spec("pillow_heif") else set()))
UNREAD_PHOTO_SUFFIXES = frozenset((_HEIC | _RAW | _FILMS | {".jxl", ".psd"}) - PHOTO_SUFFIXES)
UNKNOWN_SIZE = (1, 1)
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_HEADERS_AT_ONCE = 8
_HEADER_BYTES = 1 << 18


def how_to_read(suffix: str) -> str:
    """Return what to do so that files with this suffix, which is none of `PHOTO_SUFFIXES`, are read as photos."""
    suffix = suffix.lower()
    if suffix in _HEIC:
        return READ_HEIC
    if suffix in _RAW:
        return "develop them to JPEG or TIFF"
    if suffix in _FILMS:
        return "save their frames as JPEG"
    return "if they are photos, convert them to JPEG or PNG"


def exists(path: Path) -> bool:
    """Return whether the file exists; False for names that no file can have."""
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False


def find_photo(folder: Path, file_name: str) -> Path:
    """Return the photo's file below the folder itself, photos/ or images/, whichever has it first.

    Accents match both composed and decomposed: macOS decomposes them in file names, tables mostly compose them.
    """
    names = dict.fromkeys([file_name, *(unicodedata.normalize(form, file_name) for form in ("NFC", "NFD"))])
    places = [folder / below / name for name in names for below in ("", "photos", "images")]
    return next((place for place in places if exists(place)), places[0])


def files_called(folder: Path, suffix: str) -> list[Path]:
    """Return a folder's visible files with this suffix, in upper or lower case, sorted; none if there is no folder."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    visible = (entry for entry in entries if entry.suffix.lower() == suffix and not entry.name.startswith("."))
    return [entry for entry in visible if entry.is_file()]


def files_below(folder: Path, leave: Collection[Path] = ()) -> Iterator[tuple[Path, OSError | None]]:
    """Yield the visible files below a folder, sorted; a folder that cannot be read is yielded with its error.

    Symbolic links to folders are followed. Each real folder is entered once, and the folder's own parents and those to
    ``leave`` never, so circular links end.
    """
    outside = [*folder.resolve().parents, *(one for one in leave if one.is_dir())]
    waiting, entered = [folder], {_identity(parent) for parent in outside}
    while waiting:
        current = waiting.pop()
        try:
            if _identity(current) in entered:
                continue
            entered.add(_identity(current))
            children = sorted(child for child in current.iterdir() if not child.name.startswith("."))
        except OSError as error:
            yield current, error
            continue
        is_folder = [os.path.isdir(child) for child in children]
        yield from ((child, None) for child, leave in zip(children, is_folder, strict=True) if not leave)
        # Reversed, because the last one is taken first: this keeps the sorted order.
        waiting.extend(child for child, enter in zip(children[::-1], is_folder[::-1], strict=True) if enter)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


@dataclass(frozen=True)
class PhotoHeader:
    """The upright size of a photo in pixels, and how the stored picture has to be turned, as its header tells.

    ``orientation`` is EXIF's, 1 to 8, by which the stored picture is mirrored and turned; 1 is upright.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """The upright width and height."""
        return self.width, self.height

    @property
    def stored(self) -> tuple[int, int]:
        """The width and height as stored."""
        return (self.height, self.width) if self.orientation in SIDEWAYS else (self.width, self.height)


UNKNOWN_HEADER = PhotoHeader(*UNKNOWN_SIZE)


def photo_headers(paths: Sequence[Path]) -> list[PhotoHeader]:
    """Read each photo's header; ``UNKNOWN_HEADER`` if that fails.

    The reason is reported when the photo is decoded.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # it applies when a photo is decoded
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
            warnings.simplefilter("ignore")  # set here, as threads share the filters
            return list(pool.map(_header, paths))
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def upright_sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Read each photo's upright (width, height) in pixels from its header; (1, 1) if that fails."""
    return [header.upright for header in photo_headers(paths)]


def _header(path: Path) -> PhotoHeader:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:  # reading a pipe would block
            return UNKNOWN_HEADER
        with _opened(path) as header:
            width, height = header.size
            if header.format == "PNG" and _is_told_behind_pixels(path, width * height):
                header.load()
            # Not header.getexif(), which decodes all of a PNG.
            orientation = Image.Image.getexif(header).get(ExifTags.Base.Orientation, 1)
            is_upright = header.format == "TIFF"  # Pillow turns TIFFs itself, and reports their upright size
    except UnidentifiedImageError:
        return PhotoHeader(*_decoded_size(path))
    except Exception:  # decoders raise all kinds of errors over broken files
        return UNKNOWN_HEADER
    if orientation not in range(1, 9):
        return PhotoHeader(width, height)
    sideways = orientation in SIDEWAYS and not is_upright
    return PhotoHeader(*((height, width) if sideways else (width, height)), orientation)


def _is_told_behind_pixels(png: Path, pixels: int) -> bool:
    """Return whether a PNG that fits into memory has chunks behind its pixels that may tell its orientation."""
    return pixels * USUAL_PIXEL_BYTES <= MAX_DECODING_BYTES and _tells_more_behind_pixels(png)


def _tells_more_behind_pixels(png: Path) -> bool:
    """Return whether a PNG has chunks behind its pixels that may tell its orientation."""
    with png.open("rb") as file:
        file.seek(8)  # the signature
        behind = False
        while len(head := file.read(8)) == 8:
            behind = behind or head[4:] == b"IDAT"
            if behind and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return True
            file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)  # its content and checksum
    return False


def _opened(path: Path) -> Image.Image:
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    # Of a JPEG only the start: Pillow would look through all of a broken one for its next segment, byte by byte.
    return open_header(io.BytesIO(start) if start.startswith(JPEG_MAGIC) else path)


def _decoded_size(path: Path) -> tuple[int, int]:
    """Return the size of a photo whose header Pillow does not read."""
    try:
        photo = decode(read_photo(path), 1)
    except BadPhotoError:
        return UNKNOWN_SIZE
    return photo.width, photo.height
