"""No photo file takes more memory than the limit: it is refused before it is decoded."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

DECODING = """
import sys
from pathlib import Path
from wastelens.data.photos.decode import BadPhotoError, decode, read_photo
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
try:
    print(decode(read_photo(Path(sys.argv[1])), 64).width, peak())
except BadPhotoError as reason:
    print(reason, peak(), sep="\\n")
"""


def png(path: Path, width: int, height: int, bits: int, colour: int) -> None:
    """Write a PNG of zeros: a few hundred kilobytes."""
    compressor, row = zlib.compressobj(1), bytes(1 + width * bits * {0: 1, 2: 3, 6: 4}[colour] // 8)
    pixels = b"".join([*(compressor.compress(row) for _ in range(height)), compressor.flush()])
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0), b"IDAT" + pixels, b"IEND"]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("bits", "colour", "width", "height", "read"),
    [(16, 0, 9_000, 9_000, True), (16, 2, 14_000, 14_000, False)],
)
def test_peak_memory_of_small_files_with_many_pixels(
    tmp_path: Path, bits: int, colour: int, width: int, height: int, read: bool
) -> None:
    png(tmp_path / "photo.png", width, height, bits, colour)
    command = [sys.executable, "-c", DECODING, str(tmp_path / "photo.png")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(str(width) if read else "too large for memory")
    assert int(said.split()[-1]) < (1_000_000_000 if read else 400_000_000)
