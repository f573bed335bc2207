"""Digests of files: whether what was prepared or saved is still what it was."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path


def file_digest(path: Path) -> str:
    """BLAKE2b of a file, 128 bits, in hexadecimal; reads it in pieces."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()
