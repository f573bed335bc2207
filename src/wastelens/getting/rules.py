"""Which photos are collected: the catalogue's description of one is judged first, then the file itself."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from wastelens.config.collect import CollectConfig
from wastelens.data.annotations.labels import misfit
from wastelens.data.photos.decode import (
    USUAL_PIXEL_BYTES,
    BadPhotoError,
    DecodedPhoto,
    Photo,
    TooLargeForMemoryError,
    decode,
    read_photo,
)
from wastelens.data.photos.jpeg import with_start
from wastelens.getting.shared import decoder
from wastelens.system.text import reason_of

# Some telephones' and stereo cameras' JPEGs are MPO: a second picture follows the photo, and is never read.
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
_READERS = ("JPEG", "PNG", "WEBP", "TIFF")
TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff")
NOT_A_PHOTO = "neither JPEG, PNG, WebP nor TIFF"


@dataclass(frozen=True)
class Reason:
    """Why a photo is left out."""

    text: str  # the kind of reason, then its details after a colon or in brackets
    setting: str = ""  # on which it depends: with another value, the photo may be taken after all; empty: none


@dataclass(frozen=True)
class Rules:
    """Which photos are wanted, by the settings of ``collect``."""

    config: CollectConfig

    def reason_against(self, licence: str, size: tuple[int, int]) -> Reason | None:
        """Return why a photo is left out, or None; size: width and height in pixels, or zeros if unknown."""
        if licence not in self.config.licences:
            return Reason(f"licence: {licence or 'not stated'}, which is not allowed", "licences")
        pixels = f"{size[0]} x {size[1]}"
        if all(size) and min(size) < self.config.min_side_px:
            text = f"too few pixels: {pixels}, the shorter side needs {self.config.min_side_px}"
            return Reason(text, "min_side_px")
        if math.prod(size) > self.config.max_megapixels * 1e6:
            text = f"too many pixels: {pixels}, the limit is {self.config.max_megapixels:g} megapixels"
            return Reason(text, "max_megapixels")
        return None

    def is_too_large(self, mime: str, size: tuple[int, int], size_bytes: int) -> bool:
        """Tell whether a file that a catalogue describes exceeds a limit; formats other than JPEG are decoded whole."""
        decoding_bytes = 0 if mime == "image/jpeg" else math.prod(size) * USUAL_PIXEL_BYTES
        too_many_pixels = math.prod(size) > self.config.max_megapixels * 1e6
        return too_many_pixels or decoding_bytes > self._decoding_bytes or size_bytes > self.config.web.max_bytes

    @property
    def _decoding_bytes(self) -> float:
        return self.config.max_decoding_mb * 1e6

    def decode(self, content: bytes, side_px: int, stored: tuple[int, int]) -> DecodedPhoto:
        """Decode a photo; raise UnwantedPhotoError if that takes too much memory, BadPhotoError if it is damaged."""
        try:
            return decode(content, side_px, self.config.max_megapixels, self._decoding_bytes)
        except TooLargeForMemoryError as error:
            raise UnwantedPhotoError(Reason(str(error), "max_decoding_mb"), stored) from None

    def decided_by(self, setting: str) -> str:
        """Return a setting with its present value, ``web.max_bytes=500``; empty if there is no setting."""
        if not setting:
            return ""
        value = attrgetter(setting)(self.config)
        return f"{setting}={' '.join(sorted(value)) if isinstance(value, tuple) else format(value, '.12g')}"


class UnwantedPhotoError(BadPhotoError):
    """A photo that the rules exclude; size: width and height in pixels."""

    def __init__(self, reason: Reason, size: tuple[int, int]) -> None:
        super().__init__(reason.text)
        self.reason = reason
        self.size = size


@dataclass(frozen=True)
class CollectedPhoto:
    """A photo whose file is as wanted."""

    pixels_0_255: Photo  # uint8 RGB (side, side, 3), upright
    size: tuple[int, int]  # width and height of the file's photo, upright, in pixels
    suffix: str  # of its format, whatever its URL ends in


def read_collected(path: Path, side_px: int, rules: Rules, licence: str, told: tuple[int, int]) -> CollectedPhoto:
    """Decode a file that was fetched to pixels that fill a square of this side.

    Args:
        told: the width and height that a catalogue states, of this file or of another size of it, upright or as stored;
            zeros: it states none.

    Raises:
        UnwantedPhotoError: too small or too large.
        BadPhotoError: not a photo of a usable format, damaged, animated, or of another shape than stated.
    """
    return decoder.submit(_decoded, path, side_px, rules, licence, told).result()


def _decoded(path: Path, side_px: int, rules: Rules, licence: str, told: tuple[int, int]) -> CollectedPhoto:
    content = read_photo(path)
    kind, stored, frames = _header(content)
    against = rules.reason_against(licence, stored)
    if against is not None:
        raise UnwantedPhotoError(against, stored)
    if frames > 1 and kind != "MPO":
        raise BadPhotoError(f"several pages: {frames}" if kind == "TIFF" else f"animated: {frames} frames")
    decoded = rules.decode(content, side_px, stored)
    upright = (decoded.width, decoded.height)
    if min(told) and misfit(told, upright) and misfit(told, stored):
        raise BadPhotoError(
            f"another picture: described as {told[0]} x {told[1]}, the file is {upright[0]} x {upright[1]}"
        )
    return CollectedPhoto(decoded.pixels_0_255, upright, SUFFIXES[kind])


def _header(content: bytes) -> tuple[str, tuple[int, int], int]:
    """Return format, stored width and height, and number of frames or pages."""
    Image.MAX_IMAGE_PIXELS = None  # only the header is read, and the rules have a limit; decoding sets its own
    try:
        with Image.open(io.BytesIO(with_start(content)), formats=_READERS) as header:
            return str(header.format), header.size, int(getattr(header, "n_frames", 1))
    except UnidentifiedImageError:
        raise BadPhotoError(NOT_A_PHOTO) from None
    except Exception as error:  # decoders raise anything over broken files
        raise BadPhotoError(f"damaged image file ({reason_of(error)})") from None
