"""Whatever the bytes of a file are, the decoder returns a photo or one line that says why not."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image
from tests.data.photos.test_deep import encoded
from tests.data.photos.test_heif import heic
from tests.factories import image_bytes

from wastelens.data.photos.decode import BadPhotoError, decode

SIDE = 16
PIXELS = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)
FILES = {
    "JPEG": lambda: image_bytes(IMAGE),
    "progressive JPEG": lambda: image_bytes(IMAGE, progressive=True),
    "JPEG with restarts": lambda: image_bytes(IMAGE, restart_marker_blocks=1),
    "CMYK JPEG": lambda: image_bytes(IMAGE.convert("CMYK")),
    "MPO": lambda: image_bytes(IMAGE, "MPO", save_all=True, append_images=[IMAGE]),
    "PNG": lambda: image_bytes(IMAGE, "PNG"),
    "PNG of 16 bits": lambda: encoded(PIXELS.astype(np.uint16)),
    "PNG with a palette": lambda: image_bytes(IMAGE.quantize(8), "PNG", transparency=1),
    "GIF": lambda: image_bytes(IMAGE, "GIF"),
    "WEBP": lambda: image_bytes(IMAGE, "WEBP"),
    "AVIF": lambda: image_bytes(IMAGE, "AVIF"),
    "BMP": lambda: image_bytes(IMAGE, "BMP"),
    "TIFF": lambda: image_bytes(IMAGE, "TIFF"),
    "compressed TIFF": lambda: image_bytes(IMAGE, "TIFF", compression="tiff_lzw"),
    "floating-point TIFF": lambda: encoded(PIXELS.astype(np.float32), ".tiff"),
    "JPEG 2000": lambda: image_bytes(IMAGE, "JPEG2000"),
    "PPM": lambda: image_bytes(IMAGE, "PPM"),
    "TGA": lambda: image_bytes(IMAGE, "TGA"),
    "HEIC": heic,
}


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, cut, double, insert or fill some bytes, mostly near the start, where the header is."""
    where = int(rng.integers(0, min(len(content), 400) if rng.random() < 0.7 else len(content)))
    length = int(rng.integers(1, 9))
    random = rng.bytes(length)
    return [
        content[:where] + random + content[where + length :],
        content[:where] + bytes([content[where] ^ 1 << int(rng.integers(8))]) + content[where + 1 :],
        content[:where],
        content[:where] + content[where + length :],
        content[:where] + random + content[where:],
        content[:where] + content[where : where + 64] * 2 + content[where + 64 :],
        content[:where] + b"\xff" * length + content[where + length :],
        content[:where] + bytes(length) + content[where + length :],
    ][int(rng.integers(8))]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of broken files
@pytest.mark.parametrize("kind", FILES)
def test_a_photo_or_one_line(kind, capfd):
    if kind == "HEIC" and not importlib.util.find_spec("pillow_heif"):
        pytest.skip("needs pillow-heif")
    content, rng = FILES[kind](), np.random.default_rng(len(kind))
    assert decode(content, SIDE, 5).width == (64 if kind == "HEIC" else 32)
    for _ in range(800):
        changed = content
        for _ in range(int(rng.integers(1, 4))):
            changed = mutated(changed, rng) or b"\0"
        try:
            photo = decode(changed, SIDE, 5)
        except BadPhotoError as reason:
            assert "\n" not in str(reason)
            continue
        assert photo.pixels_0_255.shape == (SIDE, SIDE, 3)
        assert photo.pixels_0_255.dtype == np.uint8
