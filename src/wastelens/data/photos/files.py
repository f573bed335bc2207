"""Photos as files in folders: which files look like photos, where they lie, how large their headers say they are."""

from __future__ import annotations

import contextlib
import os
import stat
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import ExifTags, Image

_COMMON = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_RARE = {".jpe", ".jfif", ".mpo", ".apng", ".dib", ".jp2", ".avif", ".ppm", ".pgm", ".pbm", ".tga"}
PHOTO_SUFFIXES = frozenset(_COMMON | _RARE)
UNKNOWN_SIZE = (1, 1)
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_HEADERS_AT_ONCE = 8


def exists(path: Path) -> bool:
    """Whether there is such a file, also where the name is one that no file can have."""
    try:
        return path.exists()
    except OSError:  # a name too long for the file system
        return False


def find_photo(folder: Path, file_name: str) -> Path:
    """The photo's file: below the folder itself, or below photos/ or images/ (the first that has it).

    Accents may be written composed or decomposed: macOS decomposes them in file names, tables mostly compose them.
    """
    names = dict.fromkeys([file_name, *(unicodedata.normalize(form, file_name) for form in ("NFC", "NFD"))])
    places = [folder / below / name for name in names for below in ("", "photos", "images")]
    return next((place for place in places if exists(place)), places[0])


def files_called(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder, if there is such a folder, that have this suffix in any case and are not hidden."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    visible = (entry for entry in entries if entry.suffix.lower() == suffix and not entry.name.startswith("."))
    return [entry for entry in visible if entry.is_file()]


def files_below(folder: Path) -> Iterator[tuple[Path, OSError | None]]:
    """Files below a folder that are not hidden, sorted; a folder that cannot be read comes with its error.

    Linked folders are entered, each real folder once and none that holds this one, so that links in a circle end.
    """
    waiting, entered = [folder], {_identity(parent) for parent in folder.resolve().parents}
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
        # Reversed, as the last is taken first: in sorted order, whatever order the disk has them in.
        waiting.extend(child for child, enter in zip(children[::-1], is_folder[::-1], strict=True) if enter)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def upright_sizes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Each photo's (width, height) in pixels, as people see it, from its header; (1, 1) where that cannot be read.

    Why it cannot is told when the photo is decoded.
    """
    with warnings.catch_warnings(), _no_limit_of_pixels(), ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        warnings.simplefilter("ignore")  # not in the threads: they share filters
        return list(pool.map(_upright_size, paths))


@contextlib.contextmanager
def _no_limit_of_pixels() -> Iterator[None]:
    """Only headers are read, so no photo is too large; the limit holds when it is decoded."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _upright_size(path: Path) -> tuple[int, int]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            return UNKNOWN_SIZE
        with Image.open(path) as header:
            width, height = header.size
            # Not header.getexif(), which decodes a whole PNG. Pillow turns a TIFF upright by itself.
            exif = Image.Image.getexif(header) if header.format != "TIFF" else {}
            sideways = exif.get(ExifTags.Base.Orientation) in _SIDEWAYS
    except Exception:  # what decoders raise over broken files is without end
        return UNKNOWN_SIZE
    return (height, width) if sideways else (width, height)
