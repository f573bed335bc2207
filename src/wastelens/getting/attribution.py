"""Who made the collected photos, and under which licences: title, author, source and licence, as is asked for.

https://wiki.creativecommons.org/wiki/Recommended_practices_for_attribution
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from wastelens.getting.licences import CODES, Licence

ATTRIBUTION = "ATTRIBUTION.md"
_HEAD = """# Where these photos are from

Each was found through Openverse or Wikimedia Commons and is unchanged. `collected.csv` has the same as a table.
"""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
# All that begins something in Markdown (CommonMark 0.31, GitHub's tables and links) within a line.
_MARKUP = re.compile(r"[\\`*_{}\[\]()|~$:@^=!#]|(?<=www)\.", re.IGNORECASE)
_OF_ADDRESSES = "%/:?&=#+,;@!*~$"


def write_attribution(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write ``ATTRIBUTION.md`` for these rows of ``collected.csv``, in one step; returns its path."""
    lines = sorted(_line(row) for row in rows)
    path = folder / ATTRIBUTION
    aside = path.with_name(f"{ATTRIBUTION}.part")
    aside.write_text("\n".join([_HEAD, *lines, ""]), encoding="utf-8")
    os.replace(aside, path)
    return path


def licence_name(row: Mapping[str, str]) -> str:
    """The licence of a row as people write it."""
    code = row["licence"]
    return Licence(code, row["licence_version"]).name if code in CODES else code


def _line(row: Mapping[str, str]) -> str:
    title = _link(row["title"] or "Untitled", row["page_url"] or row["photo_url"])
    creator = _link(row["creator"] or "an unnamed author", row["creator_url"])
    return f"- {_escaped(row['file'])}: {title} by {creator}, {_link(licence_name(row), row['licence_url'])}"


def _link(text: str, address: str) -> str:
    return f"[{_escaped(text)}](<{quote(address, safe=_OF_ADDRESSES)}>)" if address else _escaped(text)


def _escaped(text: str) -> str:
    """Text that stays what it is, in Markdown and in the HTML made of it."""
    marked = _MARKUP.sub(r"\\\g<0>", text)
    return re.sub('[&<>"]', lambda letter: _ENTITIES[letter[0]], marked)
