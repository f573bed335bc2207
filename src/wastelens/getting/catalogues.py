"""Catalogues of photos: how they describe one, how several are searched in turn, and how their answers are read.

Anyone may have written anything in an answer: only harmless single lines of text, URLs and numbers are taken from it.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from wastelens.config.collect import ApiConfig, CollectConfig
from wastelens.errors import InputError, WastelensError
from wastelens.web.client import Web
from wastelens.web.errors import NoNetwork

LONGEST_TEXT = 200
_LONGEST_MARKUP = 20_000
_LONGEST_ADDRESS = 2000
_LARGEST_NUMBER = 10**12


@dataclass(frozen=True)
class Candidate:
    """A photo as a catalogue describes it; nothing is checked except that texts are plain single lines.

    Texts may be empty, except for ``photo_url`` and those before ``title``. ``collected.csv`` has the same order.
    """

    material: str  # for which it was found
    term: str  # the words it was searched by
    source: str  # the catalogue's name
    id: str  # the catalogue's name for the photo
    title: str
    creator: str
    creator_url: str  # the author's page
    licence: str  # one of ``licences.CODES``, or the catalogue's name for it
    licence_version: str  # such as ``4.0``
    licence_url: str  # of the licence's text
    page_url: str  # where the catalogue found it
    photo_url: str  # of the file
    width: int  # in pixels; 0: not stated
    height: int  # in pixels; 0: not stated
    mime: str  # such as ``image/jpeg``


class CatalogueDown(WastelensError):  # noqa: N818  a state of the world
    """A catalogue that cannot be searched, or whose answers are malformed; the message is the reason."""


class NoCatalogue(InputError):  # noqa: N818  as above
    """None of the catalogues can be searched."""


class Catalogue(ABC):
    """A catalogue that can be searched.

    Attributes:
        name: as in the setting ``sources``, and of its own settings.
        bad_records: how many of its records were malformed so far.
    """

    name: str

    def __init__(self, web: Web, config: CollectConfig) -> None:
        self._web = web
        self._config = config
        self.bad_records = 0

    @abstractmethod
    def search(self, material: str, term: str) -> Iterator[Candidate]:
        """Yield its results, the best first; a page is requested when it is needed.

        Raises:
            CatalogueDown: it cannot be used.
        """

    def _fetch(self, parameters: dict[str, str | int]) -> Any:
        api: ApiConfig = getattr(self._config, self.name)
        return self._web.fetch_json(api.url, parameters, seconds_between=api.seconds_between_requests)


class Catalogues:
    """Several catalogues, searched in turn; one that cannot be used is not searched again.

    Attributes:
        down: name → why it cannot be used.
    """

    def __init__(self, catalogues: Sequence[Catalogue]) -> None:
        self._catalogues = catalogues
        self.down: dict[str, str] = {}
        self._unreached: list[NoNetwork] = []

    @property
    def bad_records(self) -> dict[str, int]:
        """Name → how many records were malformed, if any."""
        return {catalogue.name: catalogue.bad_records for catalogue in self._catalogues if catalogue.bad_records}

    def candidates(self, material: str, terms: Sequence[str]) -> Iterator[Candidate]:
        """Yield photos in turn: the first term's from the first catalogue, from the second, then the next term's."""
        searches = deque(
            (catalogue.name, catalogue.search(material, term)) for term in terms for catalogue in self._catalogues
        )
        while searches:
            name, search = searches.popleft()
            if name in self.down:
                continue
            try:
                candidate = next(search, None)
            except CatalogueDown as error:
                self.down[name] = str(error)
                continue
            except NoNetwork as error:  # the next catalogue may be reachable
                self.down[name] = error.fact
                self._unreached.append(error)
                continue
            if candidate is not None:
                yield candidate
                searches.append((name, search))

    def check(self) -> None:
        """Raise NoCatalogue if none can be used, NoNetwork if none can even be reached."""
        if len(self._unreached) == len(self._catalogues):
            raise self._unreached[0]
        if len(self.down) == len(self._catalogues):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.down.items())
            raise NoCatalogue(
                f"No catalogue can be used ({reasons}). Run the command again later; the photos so far are kept."
            )


def number(value: object) -> int:
    """Return a positive whole number unchanged; 0 for anything else."""
    return value if type(value) is int and 0 < value < _LARGEST_NUMBER else 0


def plain_text(markup: object) -> str:
    """Return a text, or HTML, as one line of at most 200 characters without markup; empty if it is not a text.

    Control characters and those that change the writing direction are removed.
    """
    text = _VisibleText(markup).text
    kept = "".join(letter for letter in text if letter.isspace() or unicodedata.category(letter)[0] != "C")
    line = " ".join(kept.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


def first_link(markup: object) -> str:
    """Return the URL of the first link in HTML; empty if it is not a web address."""
    return web_address(_VisibleText(markup).link)


def web_address(value: object) -> str:
    """Return an http or https URL unchanged; empty for anything else. Wikimedia's may begin with ``//``."""
    if not isinstance(value, str) or len(value) > _LONGEST_ADDRESS or not value.isprintable() or " " in value:
        return ""
    address = f"https:{value}" if value.startswith("//") else value
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return address if parts.scheme in ("http", "https") and parts.hostname else ""


class _VisibleText(HTMLParser):
    """The text that a browser would show of HTML, and the URL of its first link; both empty for anything but text."""

    def __init__(self, markup: object) -> None:
        super().__init__(convert_charrefs=True)
        self.text = self.link = ""
        self._hidden = 0
        self.feed(markup[:_LONGEST_MARKUP] if isinstance(markup, str) else "")
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        if tag == "a" and not self.link:
            self.link = dict(attrs).get("href") or ""
        if tag in ("br", "p", "div", "li", "td"):
            self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in ("script", "style")))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data
