"""Licences of photos: catalogues' names for them, and Creative Commons' short codes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# The freest first: no conditions, then attribution, then the same licence, then what forbids some use.
CODES = ("cc0", "pdm", "by", "by-sa", "by-nc", "by-nc-sa", "by-nd", "by-nc-nd")
_PUBLIC_DOMAIN = {"cc0": ("CC0", "publicdomain/zero"), "pdm": ("Public Domain Mark", "publicdomain/mark")}
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


@dataclass(frozen=True)
class Licence:
    """A Creative Commons licence or mark.

    Attributes:
        code: one of ``CODES``.
        version: such as ``4.0``; empty: not stated.
    """

    code: str
    version: str = ""

    @property
    def name(self) -> str:
        """The usual name: ``CC BY-SA 4.0``."""
        name = _PUBLIC_DOMAIN[self.code][0] if self.code in _PUBLIC_DOMAIN else f"CC {self.code.upper()}"
        return f"{name} {self.version}".rstrip()

    def link(self, given: str = "") -> str:
        """Return the URL of its text: the given one if it belongs to this licence."""
        path = _PUBLIC_DOMAIN[self.code][1] if self.code in _PUBLIC_DOMAIN else f"licenses/{self.code}"
        version = self.version or ("1.0" if self.code in _PUBLIC_DOMAIN else "")
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
