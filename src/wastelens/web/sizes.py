"""Sizes of files, for messages."""

from __future__ import annotations

_MB, _GB = 1e6, 1e9


def in_words(size_bytes: float) -> str:
    """``2.6 GB``, ``31.4 MB``, or ``0.01 MB``."""
    if size_bytes >= _GB:
        return f"{size_bytes / _GB:,.1f} GB"
    return f"{size_bytes / _MB:,.1f} MB" if size_bytes >= _MB else f"{size_bytes / _MB:.3g} MB"
