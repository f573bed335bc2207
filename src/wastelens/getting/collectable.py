"""Which photos are collected: what a catalogue says of them is judged first, then the file that came."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from wastelens.data.annotations.labels import misfit
from wastelens.data.photos.decode import BadPhotoError, Photo, decode, read_photo
from wastelens.web.errors import Limit, Unfetchable

# A JPEG from some telephones and stereo cameras is an MPO: a second picture follows the photo, and nobody reads it.
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
_READERS = ("JPEG", "PNG", "WEBP", "TIFF")
KINDS = ("image/jpeg", "image/png", "image/webp", "image/tiff")
NO_PHOTO = "neither JPEG, PNG, WebP nor TIFF"
# The settings that reasons hang on: with others, a photo that was left out may be taken after all.
LICENCES, MIN_SIDE, MAX_MEGAPIXELS = "licences", "min_side_px", "max_megapixels"
MAX_WHOLE_MEGAPIXELS = "max_whole_megapixels"
MAX_BYTES, HOSTS, NEAR_DUPLICATE_DISTANCE = "web.max_bytes", "hosts", "near_duplicate_distance"
_OF_CATALOGUE = (LICENCES, MIN_SIDE, MAX_MEGAPIXELS)  # what a list knows of a photo is enough to judge again
_OF_LIMIT: dict[Limit, str] = {"": "", "hosts": HOSTS, "max_bytes": MAX_BYTES}
# Files are held in memory, and some formats are decoded whole: one at a time is enough of that. All in one thread, as
# what several have freed, the C library keeps for each of them.
_decoder = ThreadPoolExecutor(1, "decoder")


@dataclass(frozen=True)
class Reason:
    """Why a photo is left out.

    Attributes:
        text: the kind of reason first, then its particulars behind a colon or in brackets.
        setting: the name of the setting that it hangs on; empty: none.
    """

    text: str
    setting: str = ""

    @classmethod
    def of(cls, error: Unfetchable) -> Reason:
        """Why a photo could not be fetched."""
        return cls(error.reason, _OF_LIMIT[error.limit])


@dataclass(frozen=True)
class Rules:
    """What is wanted, by the names of the settings.

    Attributes:
        licences: codes of those that may be taken.
        min_side_px: of the shorter side.
        max_megapixels: of the photo.
        max_whole_megapixels: of one whose format can only be decoded whole.
        max_bytes: of its file.
        hosts: those that may be visited though they are not public.
        near_duplicate_distance: bits of the perceptual hash that may differ.
    """

    licences: tuple[str, ...]
    min_side_px: int
    max_megapixels: float
    max_whole_megapixels: float
    max_bytes: int
    hosts: tuple[str, ...]
    near_duplicate_distance: int

    def reason_against(self, licence: str, size: tuple[int, int]) -> Reason | None:
        """Why a photo is left out; None: it is not. Size: width and height in pixels, or zeros if not known."""
        if licence not in self.licences:
            return Reason(f"licence: {licence or 'not told'}, which is not among those allowed", LICENCES)
        width, height = size
        if width and height and min(size) < self.min_side_px:
            text = f"too few pixels: {width} x {height}, the shorter side must have {self.min_side_px}"
            return Reason(text, MIN_SIDE)
        if width * height > self.max_megapixels * 1e6:
            text = f"too many pixels: {width} x {height}, at most {self.max_megapixels:g} megapixels are taken"
            return Reason(text, MAX_MEGAPIXELS)
        return None

    def reason_against_whole(self, kind: str, size: tuple[int, int]) -> Reason | None:
        """The same of a photo whose format, ``PNG``, can only be decoded whole."""
        width, height = size
        if width * height <= self.max_whole_megapixels * 1e6:
            return None
        most = f"at most {self.max_whole_megapixels:g} megapixels are taken of what is decoded whole"
        return Reason(f"too many pixels: {width} x {height} as {kind}, {most}", MAX_WHOLE_MEGAPIXELS)

    def decided_by(self, setting: str) -> str:
        """A setting with its value, ``web.max_bytes=500``, which ``still_against`` understands; empty: none."""
        values = {
            LICENCES: " ".join(self.licences),
            MIN_SIDE: self.min_side_px,
            MAX_MEGAPIXELS: f"{self.max_megapixels:g}",
            MAX_WHOLE_MEGAPIXELS: f"{self.max_whole_megapixels:g}",
            MAX_BYTES: self.max_bytes,
            HOSTS: " ".join(sorted(self.hosts)),
            NEAR_DUPLICATE_DISTANCE: self.near_duplicate_distance,
        }
        return f"{setting}={values[setting]}" if setting in values else ""

    def still_against(self, decided_by: str, licence: str, size: tuple[int, int]) -> bool:
        """Whether a photo need not be looked at again that was left out by such a setting, or by none."""
        setting = decided_by.partition("=")[0]
        if setting in _OF_CATALOGUE:
            return self.reason_against(licence, size) is not None
        return decided_by == self.decided_by(setting)


class UnwantedPhotoError(BadPhotoError):
    """A photo that the rules are against; size: width and height in pixels."""

    def __init__(self, reason: Reason, size: tuple[int, int]) -> None:
        super().__init__(reason.text)
        self.reason = reason
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


def read_collected(path: Path, side_px: int, rules: Rules, licence: str, told: tuple[int, int]) -> CollectedPhoto:
    """Decode a file that was fetched.

    Args:
        path: the file.
        side_px: of the square that the pixels fill.
        rules: what is wanted.
        licence: the photo's.
        told: the width and height that a catalogue tells, of this file or of another size of it, upright or as stored;
            zeros: it does not.

    Raises:
        UnwantedPhotoError: too small or too large.
        BadPhotoError: no photo of a usable format, damaged, animated, or of another shape than was told.
    """
    outcome = _decoder.submit(_outcome, path, side_px, rules, licence, told).result()
    if isinstance(outcome, BadPhotoError):
        raise outcome
    return outcome


def _outcome(
    path: Path, side_px: int, rules: Rules, licence: str, told: tuple[int, int]
) -> CollectedPhoto | BadPhotoError:
    """The photo, or why there is none: an error that holds nothing of the file any more, as its traceback would."""
    try:
        return _decoded(read_photo(path), side_px, rules, licence, told)
    except BadPhotoError as error:
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error


def _decoded(content: bytes, side_px: int, rules: Rules, licence: str, told: tuple[int, int]) -> CollectedPhoto:
    kind, stored, frames, in_parts = _header(content)
    against = rules.reason_against(licence, stored)
    if against is None and not in_parts:
        against = rules.reason_against_whole(kind, stored)
    if against is not None:
        raise UnwantedPhotoError(against, stored)
    if frames > 1 and kind != "MPO":
        raise BadPhotoError(f"several pages: {frames}" if kind == "TIFF" else f"animated: {frames} frames")
    decoded = decode(content, side_px, rules.max_megapixels)
    upright = (decoded.width, decoded.height)
    if min(told) and misfit(told, upright) and misfit(told, stored):
        raise BadPhotoError(
            f"another picture: described as {told[0]} x {told[1]}, the file is {upright[0]} x {upright[1]}"
        )
    return CollectedPhoto(decoded.pixels_0_255, upright, SUFFIXES[kind])


def _header(content: bytes) -> tuple[str, tuple[int, int], int, bool]:
    """Format, stored width and height, number of frames or pages, and whether it can be decoded part by part."""
    Image.MAX_IMAGE_PIXELS = None  # only the header is read, and the rules know a limit; decoding sets its own
    try:
        with Image.open(io.BytesIO(content), formats=_READERS) as header:
            in_parts = header.format in ("JPEG", "MPO") and "progressive" not in header.info
            return str(header.format), header.size, int(getattr(header, "n_frames", 1)), in_parts
    except UnidentifiedImageError:
        raise BadPhotoError(NO_PHOTO) from None
    except Exception as error:  # what decoders raise over broken files is without end
        raise BadPhotoError(f"damaged image file ({' '.join(str(error).split())[:120]})") from None
