"""Photos of more than 8 bits a sample are shown by their own range."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.data.photos.test_decode import CORNERS, assert_marked, marked, stored
from tests.factories import image_bytes

from wastelens.data.photos.decode import BadPhotoError, decode
from wastelens.data.photos.files import upright_sizes

WHITE = (255, 255, 255)


def encoded(samples, suffix=".png"):
    """Write samples, red first."""
    ok, content = cv2.imencode(suffix, np.ascontiguousarray(samples[..., [2, 1, 0, *range(3, samples.shape[-1])]]))
    assert ok
    return content.tobytes()


def grey():
    return np.asarray(Image.fromarray(marked()).convert("L"))


def greys():
    return [[int(grey()[row, column])] * 3 for row in (0, 47) for column in (0, 63)]


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sensors_in_samples_of_16_bits(bits, suffix):
    factor = (2**bits - 1) / 255
    assert_marked(encoded(np.rint(marked() * factor).astype(np.uint16), suffix), tolerance=1)
    ok, content = cv2.imencode(suffix, np.rint(grey() * factor).astype(np.uint16))
    assert ok
    assert_marked(content.tobytes(), tolerance=1, colours=greys())


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_photos_with_transparency(bits):
    factor = (2**bits - 1) / 255
    samples = np.dstack([np.rint(marked() * factor), np.full((48, 64), 65535)]).astype(np.uint16)
    samples[:24, :32, 3] = 0
    assert_marked(encoded(samples), tolerance=1, colours=[WHITE, *CORNERS[1:]])


@pytest.mark.parametrize("factor", [1 / 255, 1, 65535 / 255])
def test_floating_point_tiff(factor):
    assert_marked(encoded((marked() * factor).astype(np.float32), ".tiff"), tolerance=1)
    one = Image.fromarray((grey() * factor).astype(np.float32))
    assert_marked(image_bytes(one, "TIFF"), tolerance=1, colours=greys())


def test_single_highlights_and_missing_values_do_not_darken_a_photo():
    samples = (grey() / 255).astype(np.float32)
    samples[0, :4] = 30.0, np.nan, np.inf, -np.inf
    assert_marked(image_bytes(Image.fromarray(samples), "TIFF"), tolerance=1, colours=greys())


def test_whole_numbers_of_32_bits():
    assert_marked(image_bytes(Image.fromarray(grey().astype(np.int32)), "TIFF"), tolerance=1, colours=greys())
    assert_marked(image_bytes(Image.fromarray(grey().astype(np.int32) * 257), "TIFF"), 1, colours=greys())


def tiff(samples, orientation):
    """Write a TIFF of one strip with an orientation, which OpenCV cannot (TIFF 6.0)."""
    bits, sample_format = samples.dtype.itemsize * 8, 3 if samples.dtype.kind == "f" else 1
    tables = struct.pack("<6H", *[bits] * 3, *[sample_format] * 3)
    values = {256: samples.shape[1], 257: samples.shape[0], 258: 8, 259: 1, 262: 2, 273: 20, 274: orientation, 277: 3}
    values |= {278: samples.shape[0], 279: samples.nbytes, 339: 14}
    start = struct.pack("<2sHI", b"II", 42, 20 + samples.nbytes) + tables + samples.tobytes()
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items() if tag not in (258, 339)]
    entries += [struct.pack("<HHII", tag, 3, 3, values[tag]) for tag in (258, 339)]
    return start + struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda one: one[1::-1])) + bytes(4)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_turned_deep_tiff_is_upright_once(kind, orientation, tmp_path):
    samples = np.ascontiguousarray(stored(marked(), orientation)) * (4095 / 255 if kind is np.uint16 else 1 / 255)
    content = tiff(samples.astype(kind), orientation)
    assert_marked(content, tolerance=1)
    (tmp_path / "deep.tif").write_bytes(content)
    assert upright_sizes([tmp_path / "deep.tif"]) == [(64, 48)]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_cut_off(share, suffix):
    noise = np.random.default_rng(0).integers(0, 4096, (48, 64, 3))
    content = encoded(noise.astype(np.uint16 if suffix == ".png" else np.float32), suffix)
    with pytest.raises(BadPhotoError, match="damaged image file"):
        decode(content[: int(len(content) * share)], 16)
