"""Digests of files, and whether files still have them. A served model takes this file along."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest of a file, 128 bits in hexadecimal; the file is read in blocks of 4 MiB."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def changed_file(folder: Path, digests: Mapping[str, str]) -> str:
    """Return what is wrong with a folder's first file that is missing or has another digest; "" if there is none.

    Args:
        folder: of the files.
        digests: name → digest.
    """
    for name, digest in digests.items():
        file = folder / Path(name).name
        if not file.is_file():
            return f"{file.name} is missing"
        if file_digest(file) != digest:
            return f"{file.name} is not the file that was logged"
    return ""
