"""Decode JPEGs whose pixels are all there, whatever bytes stray between them (ITU-T T.81).

This file is exported with served models, so it imports nothing else from the package.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

MAGIC = b"\xff\xd8\xff"
_END, _SCAN, _RESTART_INTERVAL = 0xD9, 0xDA, 0xDD
_FRAMES = {0xC0, 0xC1, 0xC2}  # sequential, extended sequential, progressive: what libjpeg decodes
_SEGMENT = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")  # neither stuffed or filling bytes nor markers without a length
_MOST_STRAY_BYTES = 1 << 16
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
# What file systems and downloads leave where data is missing; compressed photos have no such runs.
_RUN = re.compile(rb"(.)\1{63,}", re.DOTALL)
_RUN_AT_END = re.compile(rb"([^\xff])\1{63,}\Z", re.DOTALL)
_OTHER_BYTES = bytes(range(0xB5, 0x35, -3))  # no flat grey, and not the zeros that libjpeg supposes


def with_start(content: bytes) -> bytes:
    """Return a JPEG without stray bytes before its first segment; other files as they are.

    Raises:
        ValueError: it has no scan, or so much strays between segments that others would search it for minutes.
    """
    if not content.startswith(MAGIC[:2]):
        return content
    segments = _segments(content)
    first = next(segments, (_END, 2, 2))
    if not any(marker in (_SCAN, _END) for marker, _, _ in itertools.chain([first], segments)):
        raise ValueError("it ends within its header")
    return content if content.startswith(MAGIC) else content[:2] + content[first[1] :]


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment's marker, start and end, up to the end marker if there is one; the last may be too short.

    Raises:
        ValueError: it ends within a segment.
    """
    place, most = 2, _MOST_STRAY_BYTES
    while found := _SEGMENT.search(content, place, min(place + most, len(content))):
        marker, start = found[0][1], found.start()
        end = start + 2 if marker == _END else start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        yield marker, start, end
        if end > len(content) or (marker != _END and end < start + 4):
            raise ValueError("it ends within its header")
        if marker == _END:
            return
        place, most = end, len(content) if marker == _SCAN else _MOST_STRAY_BYTES


def decode_jpeg(content: bytes, side_px: int, colours: str = "RGB") -> Pixels:
    """Decode at the smallest scale (1/8 … 1/1) that is not below ``side_px``; returns uint8 (height, width, channels).

    Args:
        colours: ``RGB``, or ``CMYK`` for JPEGs that have these.

    Raises:
        ValueError: damaged, or pixels are missing.
    """
    try:
        # strict=True makes missing data an error; libjpeg would only warn and fill the rest with grey.
        return _decoded(content, side_px, side_px, colours, strict=True)
    except ValueError:
        # Stray bytes stop it as well, and of several reasons it tells only the first.
        tidy = _Jpeg.read(content)
    if _depends_on_missing_bytes(tidy, colours):
        raise ValueError("its data ends before its pixels do")
    return _decoded(tidy.with_data_ended_by(b""), side_px, side_px, colours, strict=False)


def _decoded(content: bytes, width: int, height: int, colours: str, *, strict: bool) -> Pixels:
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(content, colours, min_width=width, min_height=height, strict=strict)
    return cast(Pixels, pixels)


def _depends_on_missing_bytes(jpeg: _Jpeg, colours: str) -> bool:
    """Tell whether a pixel depends on bytes that follow the compressed data: whether other bytes there change any.

    Where data ends early, libjpeg reads on. At half the size, which takes a quarter of the memory.
    """
    width, height = (math.ceil(side / 2) for side in jpeg.size)
    one, other = (
        _decoded(jpeg.with_data_ended_by(end), width, height, colours, strict=False) for end in (b"", _OTHER_BYTES)
    )
    return not np.array_equal(one, other)


@dataclass
class _Jpeg:
    """A JPEG's segments without the bytes between them."""

    segments: list[bytes]  # a scan's header is followed by its compressed data
    scans: list[int] = field(default_factory=list)  # places of the compressed data among the segments
    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # component → across, down
    untold: set[tuple[int, int]] = field(default_factory=set)  # component and coefficient, until a scan completes it
    restart_interval: int = 0

    @classmethod
    def read(cls, content: bytes) -> _Jpeg:
        """Read segments until all pixels are told, or to the end marker.

        Raises:
            ValueError: it ends before its last scan or within a segment, or it lacks a colour or an interval.
        """
        jpeg, data_start = cls([content[:2]]), 0
        for marker, start, end in _segments(content):
            if data_start:
                jpeg._add_data(content[data_start:start])
            if marker == _END or (jpeg.scans and not jpeg.untold):
                break
            jpeg._add_segment(marker, content[start:end])
            data_start = end if marker == _SCAN else 0
        else:
            if data_start:
                jpeg._add_data(content[data_start:])
            if jpeg.untold:
                raise ValueError("it ends before its pixels do")
        if not jpeg.scans or any(coefficient == 0 for _, coefficient in jpeg.untold):
            raise ValueError("it lacks a colour")
        return jpeg

    def _add_segment(self, marker: int, segment: bytes) -> None:
        self.segments.append(segment)
        if marker in _FRAMES:
            self.size = (int.from_bytes(segment[7:9], "big"), int.from_bytes(segment[5:7], "big"))
            self.sampling = {
                name: (both >> 4, both & 15) for name, both in zip(segment[10::3], segment[11::3], strict=False)
            }
            self.untold = {(name, coefficient) for name in self.sampling for coefficient in range(64)}
        if marker == _RESTART_INTERVAL:
            self.restart_interval = int.from_bytes(segment[4:6], "big")

    def _add_data(self, data: bytes) -> None:
        header = self.segments[-1]
        names = header[5 : 5 + 2 * header[4] : 2]
        first, last, bits = header[5 + 2 * header[4] :][:3]
        if not bits & 0x0F:  # else lower bits are still to come
            self.untold -= {(name, coefficient) for name in names for coefficient in range(first, last + 1)}
        self._check_restarts(data, names)
        intervals = [_RUN_AT_END.sub(b"", interval) for interval in _RESTART.split(data)]
        if any(_RUN.search(interval) for interval in intervals):
            raise ValueError("a block of one byte, repeated, where pixels should be")
        markers = [b"", *(b"\xff" + found[-1:] for found in _RESTART.findall(data))]
        self.scans.append(len(self.segments))
        self.segments.append(b"".join(part for pair in zip(markers, intervals, strict=True) for part in pair))

    def _check_restarts(self, data: bytes, names: bytes) -> None:
        """Check that a scan has all its restart intervals, in order; libjpeg would fill others with grey."""
        numbers = [found[-1] & 7 for found in _RESTART.findall(data)]
        in_order = numbers == [number % 8 for number in range(len(numbers))]
        needed = math.ceil(self._units(names) / self.restart_interval) - 1 if self.restart_interval else 0
        if not in_order or len(numbers) < needed:
            raise ValueError("a part of its data is missing, or in the wrong place")

    def _units(self, names: bytes) -> int:
        """Return the number of a scan's minimum coded units (A.2)."""
        across, down = (max(sampling[axis] for sampling in self.sampling.values()) for axis in (0, 1))
        if len(names) > 1:
            return math.ceil(self.size[0] / (8 * across)) * math.ceil(self.size[1] / (8 * down))
        own_across, own_down = self.sampling[names[0]]
        width, height = math.ceil(self.size[0] * own_across / across), math.ceil(self.size[1] * own_down / down)
        return math.ceil(width / 8) * math.ceil(height / 8)

    def with_data_ended_by(self, end: bytes) -> bytes:
        """Return the JPEG with these bytes after each stretch of compressed data."""
        parts = list(self.segments)
        for place in self.scans if end else []:
            # A last 0xFF is data only with the zero after it.
            whole = re.sub(rb"\xff(?=\xff|\Z)", b"\xff\0", parts[place])
            parts[place] = _RESTART.sub(lambda found: end + found[0], whole) + end
        return b"".join([*parts, bytes([0xFF, _END])])
