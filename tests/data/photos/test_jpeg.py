"""JPEGs are read where all pixels are there, whatever strays between them; where data is missing, they are refused."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from PIL import Image
from tests.factories import image_bytes

from wastelens.data.photos.decode import BadPhotoError, decode

SIDE = 64
KINDS = {
    "sequential": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 7},
    "rows": {"restart_marker_rows": 1},
    "whole colours": {"subsampling": 0},
    "grey": {},
    "inks": {},
}
STRAYS = [b"\0\0", b"\x12\x34", bytes(57), b"\x12\x34\x56" * 30, b"\xff\xff", bytes(range(1, 200))]
FILLINGS = [b"", b"\xff\xd9", bytes(4000), bytes(4000) + b"\xff\xd9", bytes(50_000), b"\xff" * 300, b"U" * 3000]


@pytest.fixture(params=KINDS)
def jpeg(request):
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((192, 128), Image.Resampling.BICUBIC)
    mode = {"grey": "L", "inks": "CMYK"}.get(request.param, "RGB")
    return image_bytes(image.convert(mode), quality=85, **KINDS[request.param])


def markers(jpeg):
    """Return the places of all markers after the first."""
    places, place = [], 2
    while jpeg[place + 1] != 0xD9:
        places.append(place)
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        while jpeg[place + 1] == 0xDA and (found := re.compile(rb"\xff[^\0\xff]").search(jpeg, end)):
            end = found.start()
            if jpeg[end + 1] not in range(0xD0, 0xD8):
                break
            places.append(end)
            end += 2
        place = end
    return [*places, place]


def pixels(content):
    return decode(content, SIDE).pixels_0_255.astype(int)


@pytest.mark.parametrize("stray", STRAYS)
def test_stray_bytes_before_any_marker(jpeg, stray):
    clean, places = pixels(jpeg), markers(jpeg)
    for place in places[:: max(1, len(places) // 12)] + places[-1:]:
        np.testing.assert_array_equal(pixels(jpeg[:place] + stray + jpeg[place:]), clean, f"{place}")


def test_stray_bytes_before_every_marker(jpeg):
    starts = [0, *markers(jpeg)]
    parts = [jpeg[start:end] for start, end in zip(starts, [*starts[1:], len(jpeg)], strict=True)]
    np.testing.assert_array_equal(pixels(b"\x01\x02".join(parts)), pixels(jpeg))


@pytest.mark.parametrize("end", [b"", bytes(500), b"a trailer" * 20, b"SEFH\xff\xaa\x11\x22\xff\xc4\x00\x01end"])
def test_without_an_end_marker(jpeg, end):
    np.testing.assert_array_equal(pixels(jpeg[:-2] + end), pixels(jpeg))
    np.testing.assert_array_equal(pixels(jpeg + end), pixels(jpeg))


def test_a_second_start_marker(jpeg):
    np.testing.assert_array_equal(pixels(jpeg[:2] + jpeg), pixels(jpeg))


@pytest.mark.parametrize("filling", FILLINGS)
def test_data_that_ends_early(jpeg, filling):
    """However the file goes on; a cut that only takes bits that fill the last byte takes no pixel."""
    data_start = next(place for place in markers(jpeg) if jpeg[place + 1] == 0xDA)
    for cut in range(len(jpeg) - 8, data_start, -(len(jpeg) - data_start) // 12):
        with pytest.raises(BadPhotoError, match="damaged image file"):
            decode(jpeg[:cut] + filling, SIDE)


def test_every_cut_near_the_end_is_refused_or_harmless(jpeg):
    clean = pixels(jpeg)
    for cut in range(len(jpeg) - 40, len(jpeg)):
        try:
            cut_off = pixels(jpeg[:cut])
        except BadPhotoError:
            continue
        assert np.abs(cut_off - clean).max() <= 2, cut


def test_a_lost_interval_is_missed():
    image = Image.effect_noise((192, 128), 60)
    jpeg = image_bytes(image, restart_marker_rows=1)
    starts = [place for place in markers(jpeg) if jpeg[place + 1] in range(0xD0, 0xD8)]
    for first, second in itertools.pairwise(starts):
        with pytest.raises(BadPhotoError, match="damaged image file"):
            decode(jpeg[:first] + jpeg[second:] + bytes(3), SIDE)
    with pytest.raises(BadPhotoError, match="damaged image file"):
        decode(jpeg[: starts[-1]] + b"\0\0\xff\xd9", SIDE)


def test_a_progressive_photo_that_ends_between_two_scans():
    jpeg = image_bytes(Image.effect_noise((192, 128), 60), progressive=True)
    scans = [place for place in markers(jpeg) if jpeg[place + 1] == 0xDA]
    for start in scans:
        with pytest.raises(BadPhotoError, match="damaged image file"):
            decode(jpeg[:start], SIDE)
