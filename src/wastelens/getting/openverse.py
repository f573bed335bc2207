"""Openverse's catalogue of openly licensed images: https://api.openverse.org/v1/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wastelens.getting.catalogues import Candidate, Catalogue, CatalogueDown, number, plain_text, web_address
from wastelens.getting.licences import openverse_licence
from wastelens.web.errors import Unfetchable

# The limits without an account; at present it also ends after 240 photos, which ``page_count`` says.
PHOTOS_PER_PAGE, MOST_PAGES = 20, 20
# Answers to a further page that mean that results end here without an account.
_NO_DEEPER = (400, 401, 403, 404)
_KINDS = {"jpg": "jpeg", "tif": "tiff", "svg": "svg+xml"}


class Openverse(Catalogue):
    """Searches Openverse without an account, and skips photos that it considers unfit for minors."""

    name = "openverse"

    def search(self, material: str, term: str) -> Iterator[Candidate]:
        """Yield photos page after page; only those under allowed licences are requested."""
        for page in range(1, MOST_PAGES + 1):
            answer = self._page(term, page)
            for record in answer["results"]:
                candidate = _candidate(record, material, term)
                if candidate is None:
                    self.bad_records += 1
                elif record.get("mature") is not True:
                    yield candidate
            if page >= number(answer.get("page_count")):
                return

    def _page(self, term: str, page: int) -> dict[str, Any]:
        parameters: dict[str, str | int] = {"q": term, "license": ",".join(self._config.licences)}
        parameters |= {"page": page, "page_size": PHOTOS_PER_PAGE}
        try:
            answer = self._fetch(parameters)
        except Unfetchable as error:
            if page > 1 and error.status in _NO_DEEPER:
                return {"results": []}
            raise CatalogueDown(str(error)) from None
        if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
            raise CatalogueDown("its answer has no list of results")
        return answer


def _candidate(record: Any, material: str, term: str) -> Candidate | None:
    if not isinstance(record, dict):
        return None
    identity, photo_url = plain_text(record.get("id")), web_address(record.get("url"))
    if not identity or not photo_url:
        return None
    code, version = plain_text(record.get("license")), plain_text(record.get("license_version"))
    licence = openverse_licence(code, version)
    kind = plain_text(record.get("filetype")).lower()
    return Candidate(
        source=Openverse.name,
        id=identity,
        material=material,
        term=term,
        title=plain_text(record.get("title")),
        creator=plain_text(record.get("creator")),
        creator_url=web_address(record.get("creator_url")),
        licence=licence.code if licence else code,
        licence_version=licence.version if licence else version,
        licence_url=licence.link(web_address(record.get("license_url"))) if licence else "",
        page_url=web_address(record.get("foreign_landing_url")),
        photo_url=photo_url,
        width=number(record.get("width")),
        height=number(record.get("height")),
        mime=f"image/{_KINDS.get(kind, kind)}" if kind else "",
    )
