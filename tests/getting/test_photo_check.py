"""The check that a file is the annotated photo."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from PIL import Image
from tests.factories import image_bytes
from tests.web_server import photo

from wastelens.data.photos.decode import BadPhotoError
from wastelens.getting.photo_check import check_photo

ANNOTATED = (320, 240)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "photo.jpg"
    path.write_bytes(content)
    return path


def reason(folder: Path, content: bytes, annotated: tuple[float, float] = ANNOTATED) -> str:
    with pytest.raises(BadPhotoError) as refused:
        check_photo(written(folder, content), annotated)
    return str(refused.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_photos_of_every_form_under_any_name(tmp_path: Path, form: str) -> None:
    assert check_photo(written(tmp_path, photo(form=form)), ANNOTATED) == (320, 240)


@pytest.mark.parametrize("options", [{"progressive": True}, {"quality": 20}])
def test_jpegs_of_every_kind(tmp_path: Path, options: dict[str, int]) -> None:
    pixels = Image.effect_noise((320, 240), 50).convert("CMYK")
    assert check_photo(written(tmp_path, image_bytes(pixels, **options)), ANNOTATED) == (320, 240)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_turned_photo_is_measured_upright(tmp_path: Path, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = image_bytes(Image.effect_noise((320, 240), 50), form, exif=exif)
    assert check_photo(written(tmp_path, content), (240, 320)) == (240, 320)
    assert check_photo(written(tmp_path, content), ANNOTATED) == (240, 320)  # annotated as stored: either will do


def test_what_a_camera_writes_behind_the_photo_does_not_matter(tmp_path: Path) -> None:
    assert check_photo(written(tmp_path, photo() + b"a film" * 20_000), ANNOTATED) == (320, 240)


def test_a_broken_orientation_does_not_matter(tmp_path: Path) -> None:
    content = image_bytes(Image.effect_noise((320, 240), 50), exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff\x01\x12")
    assert check_photo(written(tmp_path, content), ANNOTATED) == (320, 240)


def test_shapes_within_five_per_cent(tmp_path: Path) -> None:
    assert check_photo(written(tmp_path, photo()), (640 * 1.04, 480)) == (320, 240)
    assert check_photo(written(tmp_path, photo()), (0, -3)) == (320, 240)  # annotated with nonsense: any shape
    assert reason(tmp_path, photo(), (640 * 1.06, 480)) == "annotated as 678 x 480, the file is 320 x 240"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_cut_off_photos(tmp_path: Path, form: str, share: float) -> None:
    content = photo(form=form)
    assert reason(tmp_path, content[: int(len(content) * share)])


def test_a_cut_jpeg_is_not_saved_by_its_thumbnail(tmp_path: Path) -> None:
    thumbnail = photo(1, 64, 64)
    whole = photo()
    content = whole[:2] + b"\xff\xe5" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[2:]
    assert check_photo(written(tmp_path, content), ANNOTATED) == (320, 240)
    assert reason(tmp_path, content[: len(content) - 100]) == "damaged image file (its data ends before its pixels do)"


def test_an_end_marker_on_the_border_of_two_pieces(tmp_path: Path) -> None:
    content = photo()
    for more in range(3):
        padded = content[:2] + b"\xff\xfe" + struct.pack(">H", 2 + more) + b"c" * more + content[2:]
        assert check_photo(written(tmp_path, padded), ANNOTATED)


def test_a_damaged_png(tmp_path: Path) -> None:
    content = bytearray(photo(form="PNG"))
    content[len(content) // 2] ^= 1
    assert reason(tmp_path, bytes(content)).startswith("damaged image file (")


def test_a_png_whose_pixels_were_changed(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.effect_noise((320, 240), 50).save(image, "PNG", compress_level=0)  # stored: any byte is a valid pixel
    content = bytearray(image.getvalue())
    content[len(content) // 2] ^= 1
    assert reason(tmp_path, bytes(content)).startswith("damaged image file (")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><title>Gone</title>", "a web page, not a photo"),
        (b"\xef\xbb\xbf\n <HTML>", "a web page, not a photo"),
        (b"This photo is no longer available.\n", "text, not a photo"),
        (b"\x00\x01\x02\x03", "neither JPEG, PNG nor WebP"),
        (b"RIFF\x10\0\0\0WAVE", "neither JPEG, PNG nor WebP"),
        (b"RIFF\xff\xff\xff\x7fWEBP", "not an image"),
        (image_bytes(Image.new("L", (320, 240)), "GIF"), "neither JPEG, PNG nor WebP"),
        (image_bytes(Image.new("L", (320, 60))), "too small: 320 x 60 pixels"),
        (png(40_000, 30_000), "absurdly large: the limit is 200 megapixels"),
        (png(15_000, 14_000), "absurdly large: 15000 x 14000 pixels, the limit is 200 megapixels"),
    ],
)
def test_what_is_no_photo(tmp_path: Path, content: bytes, expected: str) -> None:
    assert reason(tmp_path, content) == expected


def test_a_webp_that_says_it_is_huge(tmp_path: Path) -> None:
    huge = (16_382).to_bytes(3, "little")
    body = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + huge + huge + photo(form="WEBP")[12:]
    refused = reason(tmp_path, b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body)
    assert refused.startswith(("absurdly large", "damaged image file"))


@pytest.mark.parametrize("seed", range(3))
def test_no_damage_to_a_header_ends_in_another_error(tmp_path: Path, seed: int) -> None:
    import random

    rng = random.Random(seed)
    for form in ("JPEG", "PNG", "WEBP"):
        whole = photo(form=form)
        for _ in range(60):
            content = bytearray(whole)
            for _ in range(4):
                content[rng.randrange(4, 400)] = rng.randrange(256)
            try:
                check_photo(written(tmp_path, bytes(content)), ANNOTATED)
            except BadPhotoError as error:
                assert "\n" not in str(error)


@pytest.mark.filterwarnings("error")
def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    path = written(tmp_path, png(20_000, 20_000, bytes(3_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(BadPhotoError, match="absurdly large"):
            check_photo(path, (0, 0))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
