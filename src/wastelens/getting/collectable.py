"""Which photos are collected: what a catalogue says of them is judged first, then the file that came."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from wastelens.data.photos import BadPhotoError, Photo, decode, read_photo

# A JPEG from some telephones and stereo cameras is an MPO: a second picture follows the photo, and nobody reads it.
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
_READERS = ("JPEG", "PNG", "WEBP", "TIFF")
KINDS = ("image/jpeg", "image/png", "image/webp", "image/tiff")
NO_PHOTO = "neither JPEG, PNG, WebP nor TIFF"
# These hang on the settings: with others, a photo that was left out for them may be taken after all.
_LICENCE, _TOO_SMALL, _TOO_LARGE = "licence", "too few pixels", "too many pixels"
# Some formats are decoded whole, which takes 3 or 4 bytes a pixel: one at a time is enough of that.
_one_decoder = threading.Lock()


@dataclass(frozen=True)
class Rules:
    """What is wanted.

    Attributes:
        licences: codes of those that may be taken.
        min_side_px: of the shorter side.
        max_megapixels: of the photo.
    """

    licences: tuple[str, ...]
    min_side_px: int
    max_megapixels: float

    def reason_against(self, licence: str, size: tuple[int, int]) -> str:
        """Why a photo is left out; empty: it is not. Size: width and height in pixels, or zeros if not known."""
        if licence not in self.licences:
            return f"{_LICENCE}: {licence or 'not told'}, which is not among those allowed"
        width, height = size
        if width and height and min(size) < self.min_side_px:
            return f"{_TOO_SMALL}: {width} x {height}, the shorter side must have {self.min_side_px}"
        if width * height > self.max_megapixels * 1e6:
            return f"{_TOO_LARGE}: {width} x {height}, at most {self.max_megapixels:g} megapixels are taken"
        return ""

    def still_against(self, reason: str, licence: str, size: tuple[int, int]) -> bool:
        """Whether a photo that was left out for this reason would be again, whatever the rules were then."""
        of_rules = reason.startswith((_LICENCE, _TOO_SMALL, _TOO_LARGE))
        return not of_rules or bool(self.reason_against(licence, size))


class UnwantedPhotoError(BadPhotoError):
    """A photo that the rules are against; size: width and height in pixels."""

    def __init__(self, reason: str, size: tuple[int, int]) -> None:
        super().__init__(reason)
        self.size = size


@dataclass(frozen=True)
class CollectedPhoto:
    """A photo whose file is as wanted.

    Attributes:
        pixels_0_255: uint8 RGB (side, side, 3), upright.
        size: width and height of the file's photo, upright, in pixels.
        suffix: of its format, whatever its address ended on.
    """

    pixels_0_255: Photo
    size: tuple[int, int]
    suffix: str


def read_collected(path: Path, side_px: int, rules: Rules, licence: str) -> CollectedPhoto:
    """Decode a file that was fetched.

    Raises:
        UnwantedPhotoError: too small or too large.
        BadPhotoError: no photo of a usable format, damaged, or animated.
    """
    content = read_photo(path)
    with _one_decoder:
        kind, size, frames = _header(content)
        against = rules.reason_against(licence, size)
        if against:
            raise UnwantedPhotoError(against, size)
        if frames > 1 and kind != "MPO":
            raise BadPhotoError(f"several pages: {frames}" if kind == "TIFF" else f"animated: {frames} frames")
        decoded = decode(content, side_px, rules.max_megapixels)
    return CollectedPhoto(decoded.pixels_0_255, (decoded.width, decoded.height), SUFFIXES[kind])


def _header(content: bytes) -> tuple[str, tuple[int, int], int]:
    """Format, stored width and height, and number of frames or pages."""
    Image.MAX_IMAGE_PIXELS = None  # only the header is read, and the rules know a limit; decoding sets its own
    try:
        with Image.open(io.BytesIO(content), formats=_READERS) as header:
            return str(header.format), header.size, int(getattr(header, "n_frames", 1))
    except UnidentifiedImageError:
        raise BadPhotoError(NO_PHOTO) from None
    except Exception as error:  # what decoders raise over broken files is without end
        raise BadPhotoError(f"damaged image file ({' '.join(str(error).split())[:120]})") from None
