"""Photos: decode each once, right way up, at the size training sees; keep them in one memory-mapped array."""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

Photo = npt.NDArray[np.uint8]

_EXIF_ORIENTATION = 0x0112
_SMALLEST_PHOTO_PX = 8
_JPEG_MAGIC = b"\xff\xd8\xff"
# What decoders raise over broken files, one format this, another that.
_STRANGE_ERRORS = (SyntaxError, LookupError, ArithmeticError, RuntimeError, TypeError, struct.error, zlib.error)
_DECODER_ERRORS = (OSError, ValueError, EOFError, MemoryError, *_STRANGE_ERRORS)


class BadPhotoError(Exception):
    """A file that cannot be used as a photo; the message is the reason. Its owner lists it and goes on."""


@dataclass(frozen=True)
class DecodedPhoto:
    """A photo at training size, with its real size (upright, in pixels)."""

    pixels_0_255: Photo
    width: int
    height: int


def decode(content: bytes, side_px: int, max_megapixels: float = 200.0) -> DecodedPhoto:
    """A photo file's bytes as upright RGB of side × side pixels, uint8 in 0–255.

    Large JPEGs are decoded at the smallest scale (1/8 … 1/1) that is not below ``side_px``, then averaged by area:
    0.8 grey levels from a full decode, in a tenth of the time. The square is filled by stretching, so that a place
    in the photo is found by two factors alone.

    Raises:
        BadPhotoError: not a photo, truncated, empty, or absurdly large.
    """
    # Pillow's own limit would come before ours, and refuse what the config allows.
    Image.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)
    try:
        with Image.open(io.BytesIO(content)) as header:
            _check_header(header, max_megapixels)
            width, height = header.size
            # Pillow turns a TIFF upright by itself, and gives its upright size.
            orientation = 1 if header.format == "TIFF" else header.getexif().get(_EXIF_ORIENTATION, 1)
            pixels = _decode_stored(content, header, side_px)
    except UnidentifiedImageError:
        raise BadPhotoError("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPhotoError(f"absurdly large: the limit is {max_megapixels:g} megapixels") from None
    except _DECODER_ERRORS as error:
        raise BadPhotoError(f"damaged image file ({_one_line(error)})") from None
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    upright = _upright(_fill_square(pixels, side_px), orientation)
    return DecodedPhoto(upright, width, height)


def _check_header(header: Image.Image, max_megapixels: float) -> None:
    width, height = header.size
    if header.format == "EPS":  # a program: Pillow would let Ghostscript run it
        raise BadPhotoError("not an image")
    if width * height > max_megapixels * 1e6:
        raise BadPhotoError(f"absurdly large: {width} x {height} pixels, the limit is {max_megapixels:g} megapixels")
    if min(width, height) < _SMALLEST_PHOTO_PX:
        raise BadPhotoError(f"too small: {width} x {height} pixels")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _decode_stored(content: bytes, header: Image.Image, side_px: int) -> Photo:
    """Pixels as stored (not yet upright), RGB uint8, perhaps at a reduced scale."""
    if content.startswith(_JPEG_MAGIC) and header.mode in ("RGB", "L"):
        import simplejpeg

        # strict=True turns libjpeg's warnings about missing data into errors: a grey lower half is no photo.
        return simplejpeg.decode_jpeg(content, "RGB", min_height=side_px, min_width=side_px, strict=True)  # type: ignore[no-any-return]
    return np.asarray(_to_rgb(header), dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Grey, palette, CMYK, 16-bit and transparent images as 8-bit RGB; transparency lies on white."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    image.load()
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        scale = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray(np.clip(values * (255.0 / scale), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _fill_square(pixels: Photo, side_px: int) -> Photo:
    smaller = pixels.shape[0] >= side_px and pixels.shape[1] >= side_px
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (side_px, side_px), interpolation=interpolation), dtype=np.uint8)


def _upright(square: Photo, orientation: int) -> Photo:
    """Undo the camera's rotation (EXIF 2.32, tag Orientation); turning the small square equals turning the photo."""
    if orientation not in range(2, 9):
        return square
    image = Image.fromarray(square)
    image.getexif()[_EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image), dtype=np.uint8)


@dataclass(frozen=True)
class PhotoSource:
    """Where a photo's file lies, and its name in the dataset."""

    file_name: str
    path: Path


@dataclass(frozen=True)
class CacheEntry:
    """What the cache knows of one photo: its row, its real upright size, or the problem that left it out."""

    width: int
    height: int
    problem: str = ""


class PhotoCache:
    """All photos of a dataset in one uint8 array (photos, side, side, 3), filled in parallel, resumable.

    While it is being filled, ``photos.partial.npy`` holds the pixels and ``photos.journal.jsonl`` gets a line after
    each photo's pixels are in place; a line's key is the photo's file, its size and its time of change, so a killed
    run loses only photos in flight, and photos that did not change are taken over from an earlier cache.
    """

    def __init__(self, folder: Path, side_px: int, max_megapixels: float) -> None:
        self.folder = folder
        self.side_px = side_px
        self.max_megapixels = max_megapixels

    @property
    def array_path(self) -> Path:
        """The finished array."""
        return self.folder / f"photos_{self.side_px}px.npy"

    @property
    def _partial_path(self) -> Path:
        return self.folder / "photos.partial.npy"

    @property
    def journal_path(self) -> Path:
        """One json line a photo: key, row, size or problem."""
        return self.folder / f"photos_{self.side_px}px.jsonl"

    def fill(
        self,
        sources: Sequence[PhotoSource],
        *,
        workers: int,
        earlier: Path | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[CacheEntry]:
        """Decode what is not there yet; returns one entry a source, in their order.

        Args:
            sources: the photos; row i of the array is source i (rows of left-out photos stay black).
            workers: threads; the decoders release Python's lock.
            earlier: the folder of an earlier cache to take unchanged photos from.
            progress: called with the number of photos newly in place.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        pixels = self._open_partial(len(sources))
        entries = self._resumed(sources) | self._taken_over(sources, pixels, earlier)
        progress(len(entries))
        missing = [row for row in range(len(sources)) if row not in entries]
        with self.journal_path.open("a", encoding="utf-8") as journal, warnings.catch_warnings():
            # A broken file makes Pillow warn; its reason is reported instead. Not in the threads: they share filters.
            warnings.simplefilter("ignore")
            for row, entry in self._decoded(sources, missing, pixels, workers):
                entries[row] = entry
                journal.write(self._journal_line(sources[row], row, entry))
                journal.flush()
                progress(1)
        pixels.flush()
        return [entries[row] for row in range(len(sources))]

    def finish(self, keep_rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """Keep these rows, in this order, under the final name; returns them memory-mapped."""
        pixels = np.load(self._partial_path, mmap_mode="r+")
        journal = _read_journal(self.journal_path)
        if not np.array_equal(keep_rows, np.arange(len(pixels))):
            pixels = self._compacted(pixels, keep_rows)
        kept = [{**journal[int(old)], "row": new} for new, old in enumerate(keep_rows)]
        _write_aside(self.journal_path, "".join(json.dumps(entry) + "\n" for entry in kept))
        del pixels
        os.replace(self._partial_path, self.array_path)
        return load_photos(self.array_path)

    def _compacted(self, pixels: npt.NDArray[np.uint8], keep_rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        aside = self.folder / "photos.compact.npy"
        shape = (len(keep_rows), *pixels.shape[1:])
        compact = _mapped(aside, shape)
        for new, old in enumerate(keep_rows):
            compact[new] = pixels[old]
        compact.flush()
        os.replace(aside, self._partial_path)
        return compact

    def _open_partial(self, photos: int) -> np.memmap[Any, np.dtype[np.uint8]]:
        shape = (photos, self.side_px, self.side_px, 3)
        if self._partial_path.exists():
            try:
                pixels = np.load(self._partial_path, mmap_mode="r+")
            except (ValueError, OSError, EOFError):
                pixels = None
            if isinstance(pixels, np.memmap) and (pixels.shape, pixels.dtype) == (shape, np.uint8):
                _reserve(self._partial_path)
                return pixels
        self.journal_path.unlink(missing_ok=True)
        return _mapped(self._partial_path, shape)

    def _resumed(self, sources: Sequence[PhotoSource]) -> dict[int, CacheEntry]:
        """Rows that an interrupted run has put in place, where the same file still belongs at the same row."""
        known = _read_journal(self.journal_path)
        # Without a line that a kill has cut: the next one would be glued to it.
        _write_aside(self.journal_path, "".join(json.dumps(line) + "\n" for line in known.values()))
        entries = {}
        for row, source in enumerate(sources):
            found = known.get(row)
            if found and found["key"] == self._key(source):
                entries[row] = CacheEntry(found["width"], found["height"], found["problem"])
        return entries

    def _taken_over(
        self, sources: Sequence[PhotoSource], pixels: npt.NDArray[np.uint8], earlier: Path | None
    ) -> dict[int, CacheEntry]:
        """Rows copied from a finished cache of the same side, for files that did not change."""
        finished = PhotoCache(earlier, self.side_px, self.max_megapixels) if earlier else None
        if finished is None or len(_read_journal(self.journal_path)):
            return {}
        known = {line["key"]: line for line in _read_journal(finished.journal_path).values()}
        try:
            old = load_photos(finished.array_path)
        except (OSError, ValueError, EOFError):  # there is none, or it is broken: decode everything again
            return {}
        entries = {}
        with self.journal_path.open("a", encoding="utf-8") as journal:
            for row, source in enumerate(sources):
                found = known.get(self._key(source))
                if found and not found["problem"] and found["row"] < len(old):
                    pixels[row] = old[found["row"]]
                    entries[row] = CacheEntry(found["width"], found["height"])
                    journal.write(self._journal_line(source, row, entries[row]))
        return entries

    def _decoded(
        self, sources: Sequence[PhotoSource], rows: list[int], pixels: npt.NDArray[np.uint8], workers: int
    ) -> Iterator[tuple[int, CacheEntry]]:
        def put_in_place(row: int) -> tuple[int, CacheEntry]:
            try:
                photo = decode(read_photo(sources[row].path), self.side_px, self.max_megapixels)
            except BadPhotoError as error:
                return row, CacheEntry(0, 0, str(error))
            pixels[row] = photo.pixels_0_255
            return row, CacheEntry(photo.width, photo.height)

        if not rows:
            return
        cv2.setNumThreads(1)  # the photos are the parallel part; threads inside each only get in the way
        pool = ThreadPoolExecutor(workers)
        try:
            yield from pool.map(put_in_place, rows)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _key(self, source: PhotoSource) -> str:
        """What must be the same for a decoded photo to be taken over: the file, and how it is read."""
        try:
            status = source.path.stat()
        except OSError:
            return f"{source.file_name}|missing"
        # The time of the last change of its permissions too: an unreadable photo may have been mended.
        file = f"{source.path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"
        return f"{source.file_name}|{file}|{self.side_px}px|{self.max_megapixels:g}MP"

    def _journal_line(self, source: PhotoSource, row: int, entry: CacheEntry) -> str:
        return json.dumps({"key": self._key(source), "row": row, **entry.__dict__}) + "\n"


def _mapped(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new uint8 array in a file, its space taken at once."""
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    _reserve(path)
    return pixels


def _reserve(path: Path) -> None:
    """Take a file's space on the disk: a mapped file that grows onto a full disk kills the process (SIGBUS).

    Raises:
        OSError: the disk is too full.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def read_photo(path: Path) -> bytes:
    """A photo file's bytes.

    Raises:
        BadPhotoError: missing, a folder, a pipe or device, unreadable, or empty.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise BadPhotoError("a folder stands where the photo should be")
        if not stat.S_ISREG(mode):  # reading a pipe would wait for ever
            raise BadPhotoError("not a file but a pipe or device")
        content = path.read_bytes()
    except FileNotFoundError:
        raise BadPhotoError("missing") from None
    except OSError as error:
        raise BadPhotoError(f"cannot be read ({error.strerror})") from None
    if not content:
        raise BadPhotoError("an empty file")
    return content


def load_photos(path: Path) -> npt.NDArray[np.uint8]:
    """A finished cache, memory-mapped: uint8 (photos, side, side, 3)."""
    return np.asanyarray(np.load(path, mmap_mode="r"))


def file_digest(path: Path) -> str:
    """BLAKE2b of a file, 128 bits, in hexadecimal; reads it in pieces."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def _read_journal(path: Path) -> dict[int, dict[str, Any]]:
    """Row → its newest line; a last line cut off by a kill is ignored."""
    known = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            known[entry["row"]] = entry
    return known


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
