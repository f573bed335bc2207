"""Who made the collected photos, and under which licences: title, author, source, licence and changes, as is asked for.

https://wiki.creativecommons.org/wiki/Recommended_practices_for_attribution
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from wastelens.errors import DatasetError
from wastelens.getting.licences import CODES, Licence

ATTRIBUTION = "ATTRIBUTION.md"
_TITLE = "# Where these photos are from"
_HEAD = f"""{_TITLE}

Each was found through Openverse or Wikimedia Commons, and its file is as it came. Where it says so, that is a reduced
copy of the photo, made by the site that has it. `collected.csv` has the same as a table.
"""
# https://www.flickr.com/services/api/misc.urls.html: all but those with an "o" are copies of a certain size.
_ORIGINAL_ON_FLICKR = re.compile(r"_o\.[a-z]+$")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
# All that begins something in Markdown (CommonMark 0.31, GitHub's tables and links) within a line.
_MARKUP = re.compile(r"[\\`*_{}\[\]()|~$:@^=!#]|(?<=www)\.", re.IGNORECASE)
_OF_ADDRESSES = "%/:?&=#+,;@!*~$"


def check_attribution(folder: Path) -> None:
    """See that the file may be written.

    Raises:
        DatasetError: there is one already that is somebody else's.
    """
    path = folder / ATTRIBUTION
    ours = path.is_file() and path.read_bytes().removeprefix(b"\xef\xbb\xbf").startswith(_TITLE.encode())
    if path.exists() and not ours:
        raise DatasetError(
            f"{path} does not begin with '{_TITLE}': it is not collect's, which would write over it. "
            "Rename it, or choose another folder."
        )


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
    changed = ", a reduced copy" if is_reduced_copy(row["source"], row["photo_url"]) else ""
    return f"- {_escaped(row['file'])}: {title} by {creator}, {_link(licence_name(row), row['licence_url'])}{changed}"


def is_reduced_copy(source: str, photo_url: str) -> bool:
    """Whether an address is that of a smaller copy, as Commons and Flickr keep them of what they have."""
    try:
        address = urlsplit(photo_url)
    except ValueError:  # edited by hand
        return False
    host = address.hostname or ""
    if source == "commons" or host == "upload.wikimedia.org":
        return "/thumb/" in address.path
    return host.endswith("staticflickr.com") and not _ORIGINAL_ON_FLICKR.search(address.path)


def _link(text: str, address: str) -> str:
    return f"[{_escaped(text)}](<{quote(address, safe=_OF_ADDRESSES)}>)" if address else _escaped(text)


def _escaped(text: str) -> str:
    """Text that stays what it is, in Markdown and in the HTML made of it."""
    marked = _MARKUP.sub(r"\\\g<0>", text)
    return re.sub('[&<>"]', lambda letter: _ENTITIES[letter[0]], marked)
