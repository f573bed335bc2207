"""Digests of files, to tell whether they have changed since they were written."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest of a file, 128 bits in hexadecimal; the file is read in blocks of 4 MiB."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
