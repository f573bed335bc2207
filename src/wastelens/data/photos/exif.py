"""When and where a photo was taken, as its EXIF data tell (EXIF 2.32, CIPA DC-008)."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import ExifTags, Image

from wastelens.data.photos.decode import open_header

_TIME = re.compile(r"(\d{4}):(\d\d):(\d\d) (\d\d):(\d\d):(\d\d)")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


class Taken(NamedTuple):
    """Time as ISO 8601, "" if unknown; latitude and longitude in degrees (WGS 84), NaN if unknown."""

    time: str = ""
    latitude: float = math.nan
    longitude: float = math.nan


def when_and_where(content: bytes) -> Taken:
    """Read a photo file's time and place; unknown where it has no EXIF data, or broken ones."""
    try:
        with warnings.catch_warnings(), open_header(io.BytesIO(content)) as header:
            warnings.simplefilter("ignore")
            exif = Image.Image.getexif(header)  # not header.getexif(), which decodes all of a PNG
            details, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
            return Taken(_time(details, exif), *_position(place))
    except Exception:  # decoders raise all kinds of errors over broken files; the photo itself may be fine
        return Taken()


def _time(details: Mapping[int, Any], exif: Mapping[int, Any]) -> str:
    """Return the time of exposure or, without it, that of the last change; with the zone, if it is told."""
    tags = ExifTags.Base
    for place, tag, zone in (
        (details, tags.DateTimeOriginal, tags.OffsetTimeOriginal),
        (exif, tags.DateTime, tags.OffsetTime),
    ):
        if found := _TIME.fullmatch(str(place.get(tag, "")).strip("\0 ")):
            year, month, day, hour, minute, second = found.groups()
            offset = str(details.get(zone, "")).strip("\0 ")
            told = offset if _OFFSET.fullmatch(offset) else ""
            return f"{year}-{month}-{day}T{hour}:{minute}:{second}{told}"
    return ""


def _position(place: Mapping[int, Any]) -> tuple[float, float]:
    """Return latitude and longitude in degrees, south and west negative."""
    tags = ExifTags.GPS
    latitude = _degrees(place.get(tags.GPSLatitude), place.get(tags.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(place.get(tags.GPSLongitude), place.get(tags.GPSLongitudeRef), "EW", 180)
    return (latitude, longitude) if math.isfinite(latitude + longitude) else (math.nan, math.nan)


def _degrees(parts: Any, reference: Any, letters: str, most: float) -> float:
    """Return degrees from degrees, minutes and seconds; NaN for none, or impossible ones."""
    letter = str(reference or "").strip("\0 ").upper()
    if parts is None or letter not in tuple(letters):
        return math.nan
    degrees = sum(float(part) / 60**power for power, part in enumerate(parts))
    return math.copysign(degrees, 1 if letter == letters[0] else -1) if 0 <= degrees <= most else math.nan
