"""Licences of photos: catalogues' names for them, Creative Commons' short codes, and the attribution that they ask for.

https://wiki.creativecommons.org/wiki/Recommended_practices_for_attribution
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from wastelens.errors import DatasetError

# The freest first: no conditions, then attribution, then the same licence, then what forbids some use.
CODES = ("cc0", "pdm", "by", "by-sa", "by-nc", "by-nc-sa", "by-nd", "by-nc-nd")
# Code → usual name, and path of the text.
_NAMES = {code: (f"CC {code.upper()}", f"licenses/{code}") for code in CODES}
_NAMES |= {"cc0": ("CC0", "publicdomain/zero"), "pdm": ("Public Domain Mark", "publicdomain/mark")}
_HOME = "https://creativecommons.org"
_VERSION = re.compile(r"[1-4]\.\d")
_EITHER = re.compile(r"\s*(?:,|;|\||/|\bor\b)\s*")
_CC0 = re.compile(r"cc[ -]?(?:0|zero)(?:[ -]1\.0)?")
_MARK = re.compile(r"public domain(?: mark(?: 1\.0)?)?|pdm|pd(?:[ -][a-z0-9-]+)*|cc[ -]pd(?:[ -]mark)?(?:[ -]1\.0)?")
# After the version: older versions, a jurisdiction, or its origin; never a further restriction.
_CC = re.compile(
    r"cc[ -]by(?P<terms>(?:[ -](?:nc|nd|sa))*)(?:[ -](?P<version>[1-4]\.\d))?"
    r"(?:[ -](?:[1-4]\.\d|migrated|unported|international|generic|all))*(?:[ -]\(?(?!(?:nc|nd|sa)\b)[a-z]{2,3}\)?)?"
)
ATTRIBUTION = "ATTRIBUTION.md"
_TITLE = "# Where these photos are from"
_HEAD = f"""{_TITLE}

Each was found through Openverse or Wikimedia Commons, and its file is exactly as downloaded. Where noted, it is
a reduced copy of the photo, made by the site that hosts it. `collected.csv` has the same as a table.
"""
# https://www.flickr.com/services/api/misc.urls.html: all names without an "o" are resized copies.
_ORIGINAL_ON_FLICKR = re.compile(r"_o\.[a-z]+$")
# Everything that starts markup within a line of Markdown (CommonMark 0.31, GitHub's tables and links).
_MARKUP = re.compile(r"[\\`*_{}\[\]()|~$:@^=!#]|(?<=www)\.", re.IGNORECASE)
_URL_CHARACTERS = "%/:?&=#+,;@!*~$"


@dataclass(frozen=True)
class Licence:
    """A Creative Commons licence or mark."""

    code: str  # one of ``CODES``
    version: str = ""  # such as ``4.0``; empty: not stated

    @property
    def name(self) -> str:
        """The usual name: ``CC BY-SA 4.0``."""
        return f"{_NAMES[self.code][0]} {self.version}".rstrip()

    def link(self, given: str = "") -> str:
        """Return the URL of its text: the given one if it belongs to this licence."""
        path = _NAMES[self.code][1]
        version = self.version or ("1.0" if path.startswith("publicdomain") else "")
        own = f"{_HOME}/{path}/{version}/" if version else f"{_HOME}/{path}/"
        known = re.fullmatch(rf"https?://(?:www\.)?creativecommons\.org/{path}/[a-z0-9./_-]*", given)
        return given if known else own


def openverse_licence(code: str, version: str) -> Licence | None:
    """Return the licence for Openverse's code; None: not by Creative Commons, or one of its retired ones."""
    code = code.strip().lower()
    return Licence(code, version if _VERSION.fullmatch(version) else "") if code in CODES else None


def commons_licences(name: str) -> list[Licence]:
    """Return all Creative Commons licences that a name on Commons offers.

    Names are like ``CC BY-SA 4.0``, ``cc-by-2.0-de`` and ``GFDL or …``. Those not understood to
    their last word are left out.
    """
    found = [_one_of_commons(alternative) for alternative in _EITHER.split(name.strip().lower())]
    return [licence for licence in found if licence is not None]


def _one_of_commons(name: str) -> Licence | None:
    if _CC0.fullmatch(name):
        return Licence("cc0", "1.0")
    if _MARK.fullmatch(name):
        return Licence("pdm")
    matched = _CC.fullmatch(name)
    if matched is None:
        return None
    terms = set(re.findall(r"nc|nd|sa", matched["terms"]))
    code = "-".join(["by", *sorted(terms)])  # nc before nd or sa
    return Licence(code, matched["version"] or "") if code in CODES else None


def freest(licences: Sequence[Licence], allowed: Collection[str]) -> Licence | None:
    """Return the allowed licence with the fewest conditions; None: none is allowed."""
    usable = [licence for licence in licences if licence.code in allowed]
    return min(usable, key=lambda licence: CODES.index(licence.code)) if usable else None


def check_attribution(folder: Path) -> None:
    """Raise DatasetError if there is an ``ATTRIBUTION.md`` that collect did not write."""
    path = folder / ATTRIBUTION
    ours = path.is_file() and path.read_bytes().removeprefix(b"\xef\xbb\xbf").startswith(_TITLE.encode())
    if path.exists() and not ours:
        raise DatasetError(
            f"{path} does not begin with '{_TITLE}', so collect did not write it and will not overwrite it. "
            "Rename it, or choose another folder."
        )


def write_attribution(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write ``ATTRIBUTION.md`` for these rows of ``collected.csv``, in one step."""
    aside = folder / f"{ATTRIBUTION}.part"
    aside.unlink(missing_ok=True)  # a link would lead to another file
    aside.write_text("\n".join([_HEAD, *sorted(_line(row) for row in rows), ""]), encoding="utf-8")
    os.replace(aside, folder / ATTRIBUTION)


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
    return html.escape(_MARKUP.sub(r"\\\g<0>", text), quote=False).replace('"', "&quot;")
