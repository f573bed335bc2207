"""Harmless single lines of text and URLs from catalogues' answers, in which anyone may have written anything."""

from __future__ import annotations

import unicodedata
from html.parser import HTMLParser
from urllib.parse import urlsplit

LONGEST_TEXT = 200
_LONGEST_MARKUP = 20_000
_LONGEST_ADDRESS = 2000
_NOT_SHOWN = ("script", "style")


def plain_text(markup: object) -> str:
    """Return a text, or HTML, as one line of at most 200 characters without markup; empty if it is not a text.

    Control characters and those that change the writing direction are removed.
    """
    if not isinstance(markup, str):
        return ""
    return _one_line(_VisibleText.of(markup[:_LONGEST_MARKUP]).text)


def first_link(markup: object) -> str:
    """Return the URL of the first link in HTML; empty if it is not a web address."""
    if not isinstance(markup, str):
        return ""
    return web_address(_VisibleText.of(markup[:_LONGEST_MARKUP]).link)


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


def _one_line(text: str) -> str:
    kept = "".join(letter for letter in text if letter.isspace() or unicodedata.category(letter)[0] != "C")
    line = " ".join(kept.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"


class _VisibleText(HTMLParser):
    """The text that a browser would show of HTML, and the URL of its first link."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.link = ""
        self._pieces: list[str] = []
        self._hidden = 0

    @classmethod
    def of(cls, markup: str) -> _VisibleText:
        parser = cls()
        parser.feed(markup)
        parser.close()
        return parser

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _NOT_SHOWN
        if tag == "a" and not self.link:
            self.link = dict(attrs).get("href") or ""
        if tag in ("br", "p", "div", "li", "td"):
            self._pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _NOT_SHOWN))

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._pieces.append(data)
