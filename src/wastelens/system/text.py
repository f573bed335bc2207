"""Text helpers."""

from __future__ import annotations

import re


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a sort key that reads numbers as numbers: batch_2 before batch_10."""
    parts = re.split(r"(\d+)", name)
    return (*(int(part) if i % 2 else part.lower() for i, part in enumerate(parts)), name)


def one_line(text: str, most: int = 400) -> str:
    """Return text that others wrote as part of a message: in one line, escaped where unprintable, and not too long."""
    shorter = text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 4 :]}"
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shorter)


def reason_of(error: Exception, most: int = 200) -> str:
    """Return an exception's message in one line of at most this length; its type's name if it has none."""
    return " ".join(str(error).split())[:most].rstrip(".") or type(error).__name__
