"""Attribution of the collected photos: title, author, source, licence and changes, as Creative Commons recommends.

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

Each was found through Openverse or Wikimedia Commons, and its file is exactly as downloaded. Where noted, it is
a reduced copy of the photo, made by the site that hosts it. `collected.csv` has the same as a table.
"""
# https://www.flickr.com/services/api/misc.urls.html: all names without an "o" are resized copies.
_ORIGINAL_ON_FLICKR = re.compile(r"_o\.[a-z]+$")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}
# Everything that starts markup within a line of Markdown (CommonMark 0.31, GitHub's tables and links).
_MARKUP = re.compile(r"[\\`*_{}\[\]()|~$:@^=!#]|(?<=www)\.", re.IGNORECASE)
_URL_CHARACTERS = "%/:?&=#+,;@!*~$"


def check_attribution(folder: Path) -> None:
    """Check that ``ATTRIBUTION.md`` may be written.

    Raises:
        DatasetError: there is one that collect did not write.
    """
    path = folder / ATTRIBUTION
    ours = path.is_file() and path.read_bytes().removeprefix(b"\xef\xbb\xbf").startswith(_TITLE.encode())
    if path.exists() and not ours:
        raise DatasetError(
            f"{path} does not begin with '{_TITLE}', so collect did not write it and will not overwrite it. "
            "Rename it, or choose another folder."
        )


def write_attribution(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write ``ATTRIBUTION.md`` for these rows of ``collected.csv``, in one step; return its path."""
    lines = sorted(_line(row) for row in rows)
    path = folder / ATTRIBUTION
    aside = path.with_name(f"{ATTRIBUTION}.part")
    aside.write_text("\n".join([_HEAD, *lines, ""]), encoding="utf-8")
    os.replace(aside, path)
    return path


def licence_name(row: Mapping[str, str]) -> str:
    """Return the usual name of a row's licence."""
    code = row["licence"]
    return Licence(code, row["licence_version"]).name if code in CODES else code


def _line(row: Mapping[str, str]) -> str:
    title = _link(row["title"] or "Untitled", row["page_url"] or row["photo_url"])
    creator = _link(row["creator"] or "an unnamed author", row["creator_url"])
    changed = ", a reduced copy" if is_reduced_copy(row["source"], row["photo_url"]) else ""
    return f"- {_escaped(row['file'])}: {title} by {creator}, {_link(licence_name(row), row['licence_url'])}{changed}"


def is_reduced_copy(source: str, photo_url: str) -> bool:
    """Tell whether a URL is that of a reduced copy, which Commons and Flickr keep of their photos."""
    try:
        address = urlsplit(photo_url)
    except ValueError:  # edited by hand
        return False
    host = address.hostname or ""
    if source == "commons" or host == "upload.wikimedia.org":
        return "/thumb/" in address.path
    return host.endswith("staticflickr.com") and not _ORIGINAL_ON_FLICKR.search(address.path)


def _link(text: str, address: str) -> str:
    return f"[{_escaped(text)}](<{quote(address, safe=_URL_CHARACTERS)}>)" if address else _escaped(text)


def _escaped(text: str) -> str:
    """Return text that is shown literally, in Markdown and in HTML made from it."""
    marked = _MARKUP.sub(r"\\\g<0>", text)
    return re.sub('[&<>"]', lambda letter: _ENTITIES[letter[0]], marked)
