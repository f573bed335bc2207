"""When and where a photo was taken."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from PIL import Image

from wastelens.data.photos.exif import Taken, when_and_where


def photo(
    kind: str = "JPEG",
    details: dict[int, Any] | None = None,
    place: dict[int, Any] | None = None,
    plain: dict[int, Any] | None = None,
) -> bytes:
    exif = Image.Exif()
    exif.update(plain or {})
    exif.get_ifd(0x8769).update(details or {})
    exif.get_ifd(0x8825).update(place or {})
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, kind, exif=exif)
    return buffer.getvalue()


NORTH_WEST = {1: "N", 2: (52.0, 30.0, 36.0), 3: "W", 4: (13.0, 24.0, 0.0)}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_time_of_exposure_and_place(kind: str) -> None:
    content = photo(kind, {0x9003: "2020:12:31 23:59:58", 0x9011: "+02:00"}, NORTH_WEST, {306: "2021:01:01 00:00:00"})
    taken = when_and_where(content)
    assert taken.time == "2020-12-31T23:59:58+02:00"
    assert (taken.latitude, taken.longitude) == (pytest.approx(52.51), pytest.approx(-13.4))


def test_the_last_change_stands_in_for_the_exposure() -> None:
    assert when_and_where(photo(plain={306: "2021:01:01 00:00:00"})).time == "2021-01-01T00:00:00"


@pytest.mark.parametrize(
    "content",
    [
        photo(),
        photo(details={0x9003: "yesterday"}, place={1: "N", 2: (52.0, 30.0, 36.0)}),  # half a place is none
        photo(place={**NORTH_WEST, 2: (95.0, 0.0, 0.0)}),
        photo(place={**NORTH_WEST, 1: "?"}),
        b"no image",
        photo()[:40],
    ],
)
def test_what_is_not_told_is_unknown(content: bytes) -> None:
    taken = when_and_where(content)
    assert taken.time == Taken().time
    assert math.isnan(taken.latitude)
    assert math.isnan(taken.longitude)
