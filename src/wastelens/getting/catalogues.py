"""Catalogues of photos: what they say of one, and how several are searched in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from wastelens.errors import InputError, WastelensError
from wastelens.web.errors import NoNetwork

_LARGEST_NUMBER = 10**12


@dataclass(frozen=True)
class Candidate:
    """A photo as a catalogue describes it: nothing of it is checked but that texts are plain single lines.

    Attributes:
        source: the catalogue's name.
        id: the catalogue's name for the photo.
        material: what was looked for.
        term: by these words.
        title: may be empty, as all that follows but ``photo_url``.
        creator: who made it.
        creator_url: their page.
        licence: one of ``licences.CODES``, or what the catalogue calls it.
        licence_version: as in ``4.0``.
        licence_url: the licence's text.
        page_url: where the catalogue found it.
        photo_url: where the file is.
        width: in pixels; 0: not told.
        height: in pixels; 0: not told.
        mime: as in ``image/jpeg``.
    """

    source: str
    id: str
    material: str
    term: str
    title: str
    creator: str
    creator_url: str
    licence: str
    licence_version: str
    licence_url: str
    page_url: str
    photo_url: str
    width: int
    height: int
    mime: str


class CatalogueDown(WastelensError):  # noqa: N818  a state of the world
    """A catalogue that cannot be asked, or whose answers make no sense; the message is the reason."""


class NoCatalogue(InputError):  # noqa: N818  as above
    """None of the catalogues can be asked."""


class BadRecord(Exception):  # noqa: N818  never leaves the catalogues
    """What a catalogue says of one photo makes no sense."""


class Catalogue(Protocol):
    """A catalogue that can be searched.

    Attributes:
        name: as in the setting ``sources``.
        bad_records: how many photos it described so far in a way that makes no sense.
    """

    name: str
    bad_records: int

    def search(self, material: str, term: str) -> Iterator[Candidate]:
        """What it finds, the best first; asks for a page when it comes to that.

        Raises:
            CatalogueDown: it cannot be used, now or at all.
        """


class Catalogues:
    """Several catalogues, searched in turn; one that cannot be used is not asked again.

    Attributes:
        down: the names of those, and why.
    """

    def __init__(self, catalogues: Sequence[Catalogue]) -> None:
        self._catalogues = catalogues
        self.down: dict[str, str] = {}
        self._unreached: list[NoNetwork] = []

    @property
    def bad_records(self) -> dict[str, int]:
        """Name → how many records made no sense, where there were any."""
        return {catalogue.name: catalogue.bad_records for catalogue in self._catalogues if catalogue.bad_records}

    def candidates(self, material: str, terms: Sequence[str]) -> Iterator[Candidate]:
        """What they find: a photo by the first term in the first catalogue, one in the second, then the next term."""
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
            except NoNetwork as error:  # which the next one may disprove
                self.down[name] = error.fact
                self._unreached.append(error)
                continue
            if candidate is not None:
                yield candidate
                searches.append((name, search))

    def check(self) -> None:
        """Raises NoCatalogue where none can be used, NoNetwork where none can even be reached."""
        if len(self._unreached) == len(self._catalogues):
            raise self._unreached[0]
        if len(self.down) == len(self._catalogues):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.down.items())
            raise NoCatalogue(f"No catalogue can be used ({reasons}). What is there stays; call again later.")


def number(value: object) -> int:
    """A whole number from 1; 0 where it is none."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 0 < value < _LARGEST_NUMBER else 0  # type: ignore[operator,return-value]
