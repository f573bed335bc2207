"""HEIC photos: read with pillow-heif, upright once; without it, the reason says what to do."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys

import numpy as np
import pytest
from PIL import Image
from tests.data.photos.test_decode import assert_marked, marked, stored
from tests.factories import write_photo

from wastelens.data.annotations.layout import recognise
from wastelens.data.photos import files
from wastelens.data.photos.decode import BadPhotoError, decode

needs_pillow_heif = pytest.mark.skipif(not importlib.util.find_spec("pillow_heif"), reason="needs pillow-heif")
WITHOUT = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


def heic(orientation=1, picture=None):
    import pillow_heif

    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(stored(marked() if picture is None else picture, orientation)))
    pillow_heif.from_pillow(image).save(file, exif=exif.tobytes(), quality=95)
    return file.getvalue()


@needs_pillow_heif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_once(orientation, tmp_path):
    content = heic(orientation)
    assert_marked(content, tolerance=12)
    assert decode(content, 16).width == 64
    (tmp_path / "photo.heic").write_bytes(content)
    assert files.upright_sizes([tmp_path / "photo.heic"]) == [(64, 48)]


@needs_pillow_heif
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_off(share):
    content = heic(picture=np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    with pytest.raises(BadPhotoError, match=r"damaged HEIC file .*convert to JPEG"):
        decode(content[: int(len(content) * share)], 16)


@needs_pillow_heif
def test_folders_that_are_half_heic(tmp_path):
    for number in range(4):
        for name in ("glass", "paper"):
            folder = write_photo(tmp_path / name / f"{number}.jpg", seed=number).parent
            (folder / f"{number}h.HEIC").write_bytes(heic())
    dataset = recognise(tmp_path).read()
    assert len(dataset.images) == 16
    assert all((image.width, image.height) == (64, 48) for image in dataset.images)


def test_without_pillow_heif(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    advice = "install pillow-heif (pip install 'wastelens[heif]') or convert to JPEG"
    with pytest.raises(BadPhotoError) as reason:
        decode(WITHOUT, 16)
    assert str(reason.value) == f"HEIC: {advice}"
    (tmp_path / "photo.heic").write_bytes(WITHOUT)
    assert files.upright_sizes([tmp_path / "photo.heic"]) == [files.UNKNOWN_SIZE]
    for suffix in (".HEIC", ".heif", ".hif"):
        assert files.how_to_read(suffix) == advice


def test_suffixes_follow_what_can_be_read(monkeypatch):
    assert (".heic" in files.PHOTO_SUFFIXES) == bool(importlib.util.find_spec("pillow_heif"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    try:
        assert ".heic" not in importlib.reload(files).PHOTO_SUFFIXES
    finally:
        monkeypatch.undo()
        importlib.reload(files)


@pytest.mark.parametrize(
    ("suffix", "words"), [(".DNG", "JPEG or TIFF"), (".mov", "frames"), (".psd", "convert"), ("", "convert")]
)
def test_advice_for_other_files(suffix, words):
    assert words in files.how_to_read(suffix)
