"""Every kind of image file becomes correct RGB, or gives one reason why not."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.factories import blocks, image_bytes

from wastelens.data.photos import decode as photos
from wastelens.data.photos.cache import PhotoCache, PhotoSource
from wastelens.data.photos.decode import BadPhotoError, decode, read_photo
from wastelens.data.photos.files import UNKNOWN_SIZE, upright_sizes
from wastelens.models.requests import Request

SIDE = 16
CORNERS = ((250, 20, 20), (20, 250, 20), (20, 20, 250), (240, 240, 20))


def marked(width=64, height=48):
    """Make a picture with a colour in each quarter: upper left, upper right, lower left, lower right."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = CORNERS[:2]
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = CORNERS[2:]
    return picture


def quarters(square):
    """Return the colour at the middle of each quarter, int (4, 3)."""
    a, b = len(square) // 4, len(square) * 3 // 4
    return square[[a, a, b, b], [a, b, a, b]].astype(int)


def assert_marked(content, tolerance=8, colours=CORNERS):
    photo = decode(content, SIDE)
    assert photo.pixels_0_255.shape == (SIDE, SIDE, 3)
    assert photo.pixels_0_255.dtype == np.uint8
    assert np.abs(quarters(photo.pixels_0_255) - np.array(colours)).max() <= tolerance


def without_segment(jpeg, marker):
    """Drop a JPEG's segments of one marker, such as 0xEE, Adobe's."""
    kept, place = jpeg[:2], 2
    while jpeg[place + 1] != 0xDA:
        end = place + 2 + struct.unpack(">H", jpeg[place + 2 : place + 4])[0]
        kept += b"" if jpeg[place + 1] == marker else jpeg[place:end]
        place = end
    return kept + jpeg[place:]


def png_header(width, height, bits=8, colour=2):
    """Make a PNG that ends where its pixels should begin."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("PNG", {"interlace": True}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("MPO", {"quality": 95}),
    ],
)
def test_colours_of_each_format(kind, options):
    assert_marked(image_bytes(marked(), kind, **options))


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg(adobe):
    content = image_bytes(Image.fromarray(marked()).convert("CMYK"), quality=95)
    assert b"Adobe" in content
    assert_marked(content if adobe else without_segment(content, 0xEE), tolerance=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_grey(kind):
    grey = Image.fromarray(marked()).convert("L")
    colours = [[value] * 3 for value in quarters(np.asarray(grey.resize((SIDE, SIDE))))]
    assert_marked(image_bytes(grey, kind), tolerance=4, colours=colours)


def test_palette():
    assert_marked(image_bytes(Image.fromarray(marked()).quantize(16), "PNG"), tolerance=2)
    assert_marked(image_bytes(Image.fromarray(marked()).quantize(16), "GIF"), tolerance=2)


def test_palette_with_a_transparent_colour_gets_a_white_background():
    image = Image.fromarray(marked()).quantize(4)
    clear = image.getpixel((0, 0))
    assert_marked(image_bytes(image, "PNG", transparency=clear), 2, [(255, 255, 255), *CORNERS[1:]])
    each = bytes(0 if index == clear else 255 for index in range(4))
    assert_marked(image_bytes(image, "PNG", transparency=each), 2, [(255, 255, 255), *CORNERS[1:]])


def test_transparency_gets_a_white_background():
    rgba = np.dstack([marked(), np.full((48, 64), 255, np.uint8)])
    rgba[:24, :32, 3], rgba[24:, 32:, 3] = 0, 128
    half = tuple((np.array(CORNERS[3]) + 255) // 2)
    assert_marked(image_bytes(rgba, "PNG"), 2, [(255, 255, 255), CORNERS[1], CORNERS[2], half])
    grey = np.zeros((48, 64, 2), dtype=np.uint8)
    grey[:24, :, 1] = 255
    black, white = (0, 0, 0), (255, 255, 255)
    assert_marked(image_bytes(Image.fromarray(grey, "LA"), "PNG"), 1, [black, black, white, white])


def test_one_bit():
    image = Image.fromarray(np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(48, 0)).convert("1")
    assert_marked(image_bytes(image, "PNG"), 0, [(0, 0, 0), (255, 255, 255)] * 2)


def stored(picture, orientation):
    """Turn an upright picture as a camera stores it under an EXIF orientation (TIFF 6.0, tag 274)."""
    return {
        1: lambda: picture,
        2: lambda: picture[:, ::-1],
        3: lambda: picture[::-1, ::-1],
        4: lambda: picture[::-1],
        5: lambda: picture.transpose(1, 0, 2),
        6: lambda: np.rot90(picture, 1),
        7: lambda: picture[::-1, ::-1].transpose(1, 0, 2),
        8: lambda: np.rot90(picture, -1),
    }[orientation]()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_photos_are_upright_with_their_original_size(kind, orientation):
    content = _oriented(kind, orientation)
    assert_marked(content, tolerance=16)
    photo = decode(content, SIDE)
    assert (photo.width, photo.height) == (64, 48)


def _oriented(kind, orientation):
    image = Image.fromarray(np.ascontiguousarray(stored(marked(), orientation)))
    if kind == "TIFF":
        return image_bytes(image, kind, tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    return image_bytes(image, kind, exif=exif, quality=95)


def test_several_sides_of_one_decode():
    content = image_bytes(marked(640, 480), quality=95)
    small, large = photos.decode_at((SIDE, 100), content)
    assert (small.width, small.height) == (large.width, large.height) == (640, 480)
    assert np.array_equal(large.pixels_0_255, decode(content, 100).pixels_0_255)
    difference = small.pixels_0_255.astype(int) - decode(content, SIDE).pixels_0_255
    assert np.abs(difference).mean() < 0.8


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_invalid_orientations_are_ignored(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    assert_marked(image_bytes(marked(), "PNG", exif=exif), 0)


@pytest.fixture(scope="module")
def textured():
    """Make a large JPEG with detail at every scale, as in photos: stronger at coarser scales, colours coarse."""
    rng = np.random.default_rng(0)

    def noise(size, strength, channels):
        grid = rng.normal(0, strength, (1350 // size, 1800 // size, channels))
        return cv2.resize(grid, (1800, 1350), interpolation=cv2.INTER_CUBIC).reshape(1350, 1800, channels)

    light = sum(noise(size, strength, 1) for size, strength in ((1, 3), (3, 5), (10, 8), (30, 16), (100, 32)))
    return image_bytes(np.clip(128 + light + noise(100, 20, 3), 0, 255).astype(np.uint8), quality=90)


@pytest.mark.parametrize("side", [96, 160, 299])
def test_scaled_decode_is_near_a_full_decode_averaged_by_area(textured, side):
    full = Image.open(io.BytesIO(textured)).convert("RGB").resize((side, side), Image.Resampling.BOX)
    difference = decode(textured, side).pixels_0_255.astype(float) - np.asarray(full, dtype=float)
    assert np.abs(difference).mean() < 2
    assert abs(difference.mean()) < 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(20, 15), (200, 15), (15, 200)])
def test_photos_smaller_than_the_side_are_enlarged(kind, size):
    photo = decode(image_bytes(marked(*size), kind, quality=95), 64)
    assert (photo.width, photo.height) == size
    assert np.abs(quarters(photo.pixels_0_255) - np.array(CORNERS)).max() <= 16


def reason(content, **limits):
    with pytest.raises(BadPhotoError) as caught:
        decode(content, SIDE, **limits)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"just text, whatever the name says", "not an image"),
        (b"", "not an image"),
        (b"\xff\xd8\xff", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n", "not an image"),
        (png_header(50_000, 50_000), "absurdly large: the limit is 200 megapixels"),
        (png_header(15_000, 15_000), "absurdly large"),
        (png_header(64, 48), "damaged image file ("),
        (image_bytes(marked(7, 48)), "too small: 7 x 48 pixels"),
    ],
)
def test_files_that_are_not_photos(content, words):
    assert words in reason(content)


def test_message_names_sizes_and_the_limit_is_not_pillows(monkeypatch):
    content = png_header(100, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reason(content, max_megapixels=0.005) == (
            "absurdly large: 100 x 60 pixels, the limit is 0.005 megapixels"
        )
    monkeypatch.setattr(photos, "_decode_stored", lambda content, header, side_px: marked())
    assert decode(b"P6 15000 13000 255\n", SIDE).width == 15_000  # Pillow's own limit is 179 megapixels


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(marked()), Image.fromarray(255 - marked())]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        assert_marked(image_bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options), tolerance=2)


def test_other_colours():
    image = Image.fromarray(marked())
    assert_marked(image_bytes(image.convert("CMYK"), "TIFF"), tolerance=2)
    assert_marked(image_bytes(image.convert("LAB"), "TIFF"), tolerance=12)
    assert_marked(image_bytes(image, "TIFF", compression="jpeg", quality=95), tolerance=12)
    assert_marked(image_bytes(image, "JPEG2000"), tolerance=2)
    assert_marked(image_bytes(image, "AVIF", quality=100), tolerance=8)


def test_large_photos_are_converted_in_strips(monkeypatch):
    monkeypatch.setattr(photos, "_STRIP_BYTES", 4 * 64 * 5)
    test_palette_with_a_transparent_colour_gets_a_white_background()
    test_transparency_gets_a_white_background()


def test_the_limit_is_on_memory_and_on_the_file(tmp_path):
    assert "damaged" in reason(png_header(14_000, 14_000, bits=16, colour=0))  # 0.8 GB are granted
    assert reason(png_header(40_000, 40_000, bits=16, colour=0), max_megapixels=2000) == (
        "too large for memory: decoding it takes about 6,400 MB, the limit is 1,500 MB; save it with fewer pixels, or "
        "as a JPEG"
    )
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.write(b"\xff\xd8\xff\xe0\0\4")
        file.truncate(30_000_000_000)
    with pytest.raises(BadPhotoError, match="a file of 30,000 MB: the limit for a photo is 512 MB"):
        read_photo(tmp_path / "sparse.jpg")
    assert upright_sizes([tmp_path / "sparse.jpg"]) == [UNKNOWN_SIZE]


def test_a_header_without_end_is_not_searched_byte_by_byte(tmp_path):
    content = image_bytes(marked())[:20] + bytes(50_000_000)
    assert "it ends within its header" in reason(content)
    (tmp_path / "zeros.jpg").write_bytes(content)
    assert upright_sizes([tmp_path / "zeros.jpg"]) == [UNKNOWN_SIZE]


def test_one_decoder_for_all(tmp_path):
    """Caches, pages of explanations and served models show the same pixels of an odd photo."""
    samples = marked().astype(np.uint16) * 16
    content = cv2.imencode(".png", samples[..., ::-1])[1].tobytes()
    (tmp_path / "deep.png").write_bytes(content)
    cache = PhotoCache(tmp_path, SIDE, 200)
    cache.fill([PhotoSource("deep.png", tmp_path / "deep.png")], workers=1)
    cached = cache.finish(np.arange(1))[0]
    (served,), _ = Request([content], SIDE).photos()
    np.testing.assert_array_equal(cached, served)
    np.testing.assert_array_equal(cached, decode(read_photo(tmp_path / "deep.png"), SIDE).pixels_0_255)
    assert upright_sizes([tmp_path / "deep.png"]) == [(64, 48)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_files_cut_in_half(kind, share):
    content = image_bytes(blocks(np.random.default_rng(0), (320, 240)), kind)
    assert reason(content[: int(len(content) * share)])


def test_progressive_jpeg_cut_in_half():
    content = image_bytes(blocks(np.random.default_rng(0), (320, 240)), progressive=True)
    assert "damaged image file (" in reason(content[: len(content) // 2])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_bytes_give_a_photo_or_a_reason(kind, capfd):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(image_bytes(marked(), kind), dtype=np.uint8)
    for _ in range(150):
        content = whole.copy()
        places = rng.integers(0, len(whole) if rng.random() < 0.5 else 150, rng.integers(1, 6))
        content[places % len(whole)] = rng.integers(0, 256, len(places))
        try:
            assert decode(content.tobytes(), SIDE, 5).pixels_0_255.shape == (SIDE, SIDE, 3)
        except BadPhotoError:
            continue


def test_read_photo_reasons(tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, words in [
        ("pipe.jpg", "a pipe or device, not a file"),
        ("none.jpg", "missing"),
        ("empty.jpg", "an empty file"),
        ("folder.jpg", "a folder, not a file"),
        ("empty.jpg/below.jpg", "cannot be read (Not a directory)"),
    ]:
        with pytest.raises(BadPhotoError) as caught:
            read_photo(tmp_path / name)
        assert str(caught.value) == words
