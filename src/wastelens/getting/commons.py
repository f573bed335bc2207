"""Wikimedia Commons, searched through MediaWiki's API: https://www.mediawiki.org/wiki/API:Search, …/API:Imageinfo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from wastelens.config.collect import CollectConfig
from wastelens.getting.catalogues import (
    Candidate,
    Catalogue,
    CatalogueDown,
    first_link,
    number,
    plain_text,
    web_address,
)
from wastelens.getting.licences import commons_licences, freest
from wastelens.getting.rules import Rules
from wastelens.web.client import Web
from wastelens.web.errors import Unfetchable

PHOTOS_PER_PAGE, MOST_PAGES = 50, 20
COPY_WIDTH_PX = 1280  # one of the widths that Wikimedia keeps copies of
MAX_LAG_S = 5  # of its database; above that the API asks clients to wait
_ATTEMPTS = 5
_FIXED: dict[str, str | int] = {
    "action": "query",
    "format": "json",
    "formatversion": 2,
    "maxlag": MAX_LAG_S,
    "generator": "search",
    "gsrnamespace": 6,  # files
    "gsrlimit": PHOTOS_PER_PAGE,
    "prop": "imageinfo",
    "iiprop": "url|size|mime|extmetadata",
    "iiurlwidth": COPY_WIDTH_PX,
    "iiextmetadatafilter": "ObjectName|Artist|License|LicenseShortName|LicenseUrl",
}


class Commons(Catalogue):
    """Searches the files of Wikimedia Commons, one request at a time."""

    name = "commons"

    def __init__(self, web: Web, config: CollectConfig) -> None:
        super().__init__(web, config)
        self._rules = Rules(config)

    def search(self, material: str, term: str) -> Iterator[Candidate]:
        """Yield photos page after page, each in the order of the search results."""
        parameters = {**_FIXED, "gsrsearch": f"{term} filetype:bitmap"}
        following: dict[str, str | int] = {}
        for _ in range(MOST_PAGES):
            answer = self._answer({**following, **parameters})
            for page in _pages(answer):
                candidate = self._candidate(page, material, term)
                if candidate is None:
                    self.bad_records += 1
                else:
                    yield candidate
            before, following = following, _continuation(answer)
            if not following or following == before:
                return

    def _answer(self, parameters: dict[str, str | int]) -> dict[str, Any]:
        """Return the API's answer; while its database lags it is an error, and Web waits as long as the API asks."""
        code = ""
        for _ in range(_ATTEMPTS):
            try:
                answer = self._fetch(parameters)
            except Unfetchable as error:
                raise CatalogueDown(str(error)) from None
            if not isinstance(answer, dict):
                raise CatalogueDown("its answer is not a JSON object")
            if "error" not in answer:
                return answer
            code = plain_text(answer["error"].get("code")) if isinstance(answer["error"], dict) else ""
            if code != "maxlag":
                break
        raise CatalogueDown(f"it answers with the error '{code}'")

    def _candidate(self, page: dict[str, Any], material: str, term: str) -> Candidate | None:
        info = page["imageinfo"][0]
        width, height, photo_url = number(info.get("width")), number(info.get("height")), web_address(info.get("url"))
        identity = number(page.get("pageid"))
        if not identity or not photo_url:
            return None
        mime = plain_text(info.get("mime"))
        if self._rules.is_too_large(mime, (width, height), number(info.get("size"))):  # then Commons' own smaller copy
            copy = web_address(info.get("thumburl"))
            if copy:
                photo_url, width, height = copy, number(info.get("thumbwidth")), number(info.get("thumbheight"))
        metadata = info.get("extmetadata")
        entries = metadata.items() if isinstance(metadata, dict) else ()
        told = {name: entry.get("value") for name, entry in entries if isinstance(entry, dict)}
        code = plain_text(told.get("License"))
        name = plain_text(told.get("LicenseShortName")) or code
        licences = commons_licences(name) or commons_licences(code)
        licence = freest(licences, self._config.licences) or next(iter(licences), None)
        return Candidate(
            source=self.name,
            id=str(identity),
            material=material,
            term=term,
            title=plain_text(told.get("ObjectName"))
            or PurePosixPath(plain_text(page.get("title")).removeprefix("File:")).stem,
            creator=plain_text(told.get("Artist")),
            creator_url=first_link(told.get("Artist")),
            licence=licence.code if licence else name,
            licence_version=licence.version if licence else "",
            licence_url=licence.link(web_address(told.get("LicenseUrl"))) if licence else "",
            page_url=web_address(info.get("descriptionurl")),
            photo_url=photo_url,
            width=width,
            height=height,
            mime=mime,
        )


def _pages(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the files that are described, the best first; descriptions of the others come with a later answer."""
    nothing_found = "batchcomplete" in answer or "continue" in answer
    query = answer.get("query", {"pages": []} if nothing_found else None)
    pages = query.get("pages", []) if isinstance(query, dict) else None
    if not isinstance(pages, list):
        raise CatalogueDown("its answer has no list of pages")
    described = []
    for page in pages:
        match page:
            case {"imageinfo": [{}, *_]}:
                described.append(page)
    return sorted(described, key=lambda page: number(page.get("index")))


def _continuation(answer: dict[str, Any]) -> dict[str, str | int]:
    """Return the parameters for the next answer; empty: this was the last."""
    given = answer.get("continue")
    parameters = given.items() if isinstance(given, dict) else ()
    return {str(name): value for name, value in parameters if isinstance(value, str | int)}
