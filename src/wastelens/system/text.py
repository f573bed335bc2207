"""Text helpers."""

from __future__ import annotations

import re


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a sort key that reads numbers as numbers: batch_2 before batch_10."""
    parts = re.split(r"(\d+)", name)
    return (*(int(part) if i % 2 else part.lower() for i, part in enumerate(parts)), name)


def one_line(error: Exception) -> str:
    """Return an exception's message in one line of at most 200 characters; its type's name if it has none."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
