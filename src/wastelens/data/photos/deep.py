"""Photos with samples of more than 8 bits: what stands for white, and the kinds that Pillow reduces or refuses.

This file is exported with served models, so it imports nothing else from the package.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import TiffImagePlugin

Samples = npt.NDArray[Any]

TIFF_MAGIC = (b"II*\0", b"MM\0*")
_BITS = (8, 10, 12, 14, 16, 24, 32)
_ENOUGH = 0.99  # of the samples: a few highlights may exceed the white of photos in 0–1 or 0–255
_WIDTH, _HEIGHT, _SAMPLE_BITS, _ORIENTATION = 256, 257, 258, 274  # tags of TIFF 6.0


def white_level(samples: Samples) -> float:
    """Return the value that stands for white: 1 or 255, or all ones in as many bits as the largest sample needs.

    Sensors of 10, 12 and 14 bits are stored in samples of 16, mostly without a word of it, and floating-point photos
    in 0–1, 0–255 or a sensor's range.
    """
    if samples.dtype.kind == "f":
        for white in (1.0, 255.0):
            if np.count_nonzero(samples <= white) >= _ENOUGH * samples.size:
                return white
    largest = float(samples.max(initial=0, where=np.isfinite(samples)))
    return next((2.0**bits - 1 for bits in _BITS if largest < 2**bits), largest)


def shrink_samples(samples: Samples, side_px: int, resize: Any) -> npt.NDArray[np.uint8]:
    """Return deep samples (height, width[, 3 or 4]) as uint8 RGB of side × side, by their own range, on white.

    Args:
        samples: native uint16, float32 or float64, blue first; overwritten.
        resize: fills a square of a side with an array's pixels.
    """
    if samples.dtype.kind == "f":
        np.copyto(samples, 0, where=np.isnan(samples))
    colours = samples[..., :3] if samples.ndim == 3 else samples
    white = white_level(colours)
    np.clip(colours, 0, white, out=colours, casting="unsafe")
    if samples.ndim == 3 and samples.shape[2] == 4:
        opaque = white_level(samples[..., 3])
        for row in samples:  # a row at a time, not a second photo
            shown = np.clip(row[:, 3:].astype(np.float32) / opaque, 0, 1)
            row[:, :3] = white - (white - row[:, :3].astype(np.float32)) * shown
    square = resize(samples, side_px)[..., 2::-1] if samples.ndim == 3 else resize(samples, side_px)[..., None]
    grey_or_colour = np.rint(np.clip(square.astype(np.float64) * (255 / white), 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(grey_or_colour, (side_px, side_px, 3)))


def read_samples(content: bytes) -> Samples:
    """Read a PNG as stored or a TIFF upright: native samples (height, width[, 3 or 4]), blue first.

    Raises:
        ValueError: it cannot be decoded.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the reason is reported anyway
    samples: Samples | None = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None:
        raise ValueError("its pixels cannot be decoded")
    return samples if samples.dtype.kind == "f" or samples.dtype == np.uint16 else samples.astype(np.float32)


def tiff_header(content: bytes) -> tuple[tuple[int, int], int]:
    """Return a TIFF's upright (width, height) and the bytes of its samples, from its first page.

    Raises:
        ValueError, TypeError, SyntaxError, struct.error and others: it has none of these.
    """
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[:8])
    file = io.BytesIO(content)
    file.seek(tags.next)
    tags.load(file)
    width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
    sample_bytes = sum(int(bits) for bits in tags.get(_SAMPLE_BITS, (1,))) / 8
    upright = (height, width) if int(tags.get(_ORIENTATION, 1)) in (5, 6, 7, 8) else (width, height)
    return upright, round(width * height * sample_bytes)
