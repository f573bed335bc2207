"""Openverse's and Commons' answers, read with care, and both searched in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.factories import config
from tests.web_server import Answer, Json, Page, Status, WebServer

from wastelens.getting.catalogues import (
    Candidate,
    CatalogueDown,
    Catalogues,
    NoCatalogue,
    first_link,
    plain_text,
    web_address,
)
from wastelens.getting.commons import Commons
from wastelens.getting.openverse import Openverse
from wastelens.web.client import Web

FAST = "web.backoff_s=0.001 web.attempts=2 web.requests_per_second=10000 web.connect_timeout_s=2 web.read_timeout_s=2"
NO_PAUSES = "openverse.seconds_between_requests=0 commons.seconds_between_requests=0"
OPENVERSE, COMMONS = "/v1/images/", "/w/api.php"
Make = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as running:
        yield running


@pytest.fixture
def web(server: WebServer) -> Iterator[Web]:
    settings = config("collect", FAST)
    with Web(settings.web, hosts=(server.host,), contact="me@example.org") as opened:
        yield opened


@pytest.fixture
def openverse(server: WebServer, web: Web) -> Make:
    def make(*answers: Answer) -> Openverse:
        address = server.serve(OPENVERSE, *answers)
        return Openverse(web, config("collect", f"{NO_PAUSES} openverse.url={address}"))

    return make


@pytest.fixture
def commons(server: WebServer, web: Web) -> Make:
    def make(*answers: Answer) -> Commons:
        address = server.serve(COMMONS, *answers)
        return Commons(web, config("collect", f"{NO_PAUSES} commons.url={address} web.max_bytes=100000000"))

    return make


def record(number: int = 0, **other: Any) -> dict[str, Any]:
    """Return a result as https://api.openverse.org/v1/#operation/images_search describes it."""
    return {
        "id": f"7c829a03-fb24-4b57-9b03-65f43ed1{number:04}",
        "title": "Bottle on a beach",
        "indexed_on": "2019-01-01T00:00:00Z",
        "foreign_landing_url": f"https://www.flickr.com/photos/someone/{number}",
        "url": f"https://live.staticflickr.com/1/{number}_b.jpg",
        "creator": "Someone",
        "creator_url": "https://www.flickr.com/photos/someone",
        "license": "by-sa",
        "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by-sa/2.0/",
        "provider": "flickr",
        "source": "flickr",
        "category": None,
        "filesize": None,
        "filetype": None,
        "tags": [{"name": "litter", "accuracy": None}],
        "attribution": '"Bottle on a beach" by Someone is licensed under CC BY-SA 2.0.',
        "mature": False,
        "height": 768,
        "width": 1024,
        **other,
    }


def results(*records: Any, pages: int = 1) -> Json:
    return Json({"result_count": len(records), "page_count": pages, "page_size": 20, "page": 1, "results": records})


def file_page(number: int = 1, index: int = 1, info: dict[str, Any] | None = None, **told: Any) -> dict[str, Any]:
    """Return a page as MediaWiki's API describes it with ``formatversion=2``; told: of ``extmetadata``."""
    name = f"Litter_{number}.jpg"
    metadata = {
        "ObjectName": f"Litter {number}",
        "Artist": '<a href="//commons.wikimedia.org/wiki/User:Someone" title="User:Someone">Someone</a>',
        "License": "cc-by-sa-4.0",
        "LicenseShortName": "CC BY-SA 4.0",
        "LicenseUrl": "https://creativecommons.org/licenses/by-sa/4.0",
        **told,
    }
    described = {
        "size": 250_000,
        "width": 1600,
        "height": 1200,
        "thumburl": f"https://upload.wikimedia.org/wikipedia/commons/thumb/a/ab/{name}/1280px-{name}",
        "thumbwidth": 1280,
        "thumbheight": 960,
        "url": f"https://upload.wikimedia.org/wikipedia/commons/a/ab/{name}",
        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:{name}",
        "descriptionshorturl": f"https://commons.wikimedia.org/w/index.php?curid={number}",
        "mime": "image/jpeg",
        "extmetadata": {key: {"value": value, "source": "commons-desc-page"} for key, value in metadata.items()},
        **(info or {}),
    }
    title = f"File:Litter {number}.jpg"
    page = {"pageid": number, "ns": 6, "title": title, "index": index, "imagerepository": "local"}
    return {**page, "imageinfo": [described]}


def pages(*listed: Any, following: dict[str, Any] | None = None) -> Json:
    ended = {"continue": following} if following else {"batchcomplete": True}
    return Json({**ended, "query": {"pages": listed}})


def found(catalogue: Any, term: str = "litter") -> list[Candidate]:
    return list(catalogue.search("glass", term))


def asked(server: WebServer, path: str) -> list[dict[str, str]]:
    queries = [parse_qs(urlsplit(request.path).query) for request in server.asked(path)]
    return [{name: values[0] for name, values in query.items()} for query in queries]


def test_a_photo_on_openverse(openverse: Make, server: WebServer) -> None:
    assert found(openverse(results(record(7, filetype="jpg", license_version="2.0")))) == [
        Candidate(
            source="openverse",
            id="7c829a03-fb24-4b57-9b03-65f43ed10007",
            material="glass",
            term="litter",
            title="Bottle on a beach",
            creator="Someone",
            creator_url="https://www.flickr.com/photos/someone",
            licence="by-sa",
            licence_version="2.0",
            licence_url="https://creativecommons.org/licenses/by-sa/2.0/",
            page_url="https://www.flickr.com/photos/someone/7",
            photo_url="https://live.staticflickr.com/1/7_b.jpg",
            width=1024,
            height=768,
            mime="image/jpeg",
        )
    ]
    assert asked(server, OPENVERSE) == [{"q": "litter", "license": "cc0,pdm,by,by-sa", "page": "1", "page_size": "20"}]
    assert "me@example.org" in server.requests[0].headers["user-agent"]


def test_openverse_page_after_page_to_its_last(openverse: Make, server: WebServer) -> None:
    catalogue = openverse(*(results(record(number), pages=3) for number in range(3)))
    assert [candidate.photo_url[-7:] for candidate in found(catalogue)] == ["0_b.jpg", "1_b.jpg", "2_b.jpg"]
    assert [query["page"] for query in asked(server, OPENVERSE)] == ["1", "2", "3"]


def test_openverse_stops_at_the_limit_without_an_account(openverse: Make, server: WebServer) -> None:
    found(openverse(results(pages=9999)))
    assert len(server.requests) == 20


@pytest.mark.parametrize("code", [400, 401, 403, 404])
def test_openverse_ends_early_where_it_asks_for_an_account(openverse: Make, code: int) -> None:
    assert len(found(openverse(results(record(), pages=9), Status(code)))) == 1


@pytest.mark.parametrize("code", [410, 451, 501, 520])
def test_trouble_on_a_further_page_is_no_end_of_what_there_is(openverse: Make, code: int) -> None:
    with pytest.raises(CatalogueDown, match=str(code)):
        found(openverse(results(record(), pages=9), Status(code)))


def test_trouble_that_passes_does_not_end_a_search(openverse: Make) -> None:
    assert len(found(openverse(results(record(1), pages=2), Status(520), results(record(2), pages=2)))) == 2


def test_a_page_is_requested_when_it_is_needed(openverse: Make, server: WebServer) -> None:
    search = openverse(results(record(0), record(1), pages=5)).search("glass", "litter")
    assert not server.requests
    next(search)
    next(search)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "bad",
    [7, None, [], {}, record(id=None), record(url=None), record(url="../etc/passwd"), record(url="ftp://a.b/c.jpg")],
)
def test_a_bad_record_on_openverse_is_counted_and_skipped(openverse: Make, bad: Any) -> None:
    catalogue = openverse(results(bad, record(1)))
    assert [candidate.photo_url for candidate in found(catalogue)] == ["https://live.staticflickr.com/1/1_b.jpg"]
    assert catalogue.bad_records == 1


def test_openverse_with_hardly_a_field(openverse: Make) -> None:
    (candidate,) = found(openverse(results({"id": "a", "url": "https://a.example/b.jpg"})))
    assert (candidate.title, candidate.licence, candidate.width, candidate.mime) == ("", "", 0, "")


def test_what_openverse_marks_as_unfit_for_minors_is_skipped(openverse: Make) -> None:
    assert found(openverse(results(record(mature=True)))) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Page(), "not JSON"),
        (Json([1]), "no list of results"),
        (Json({"detail": "x"}), "no list of results"),
        (Json({"results": {}}), "no list of results"),
        (Status(500), "500"),
        (Status(403), "403"),
        (Status(429, {"Retry-After": "86400"}), "asks clients to wait"),
    ],
)
def test_openverse_with_a_wrong_answer_or_none(openverse: Make, answer: Answer, reason: str) -> None:
    with pytest.raises(CatalogueDown, match=reason):
        found(openverse(answer))


def test_a_photo_on_commons(commons: Make, server: WebServer) -> None:
    assert found(commons(pages(file_page(7)))) == [
        Candidate(
            source="commons",
            id="7",
            material="glass",
            term="litter",
            title="Litter 7",
            creator="Someone",
            creator_url="https://commons.wikimedia.org/wiki/User:Someone",
            licence="by-sa",
            licence_version="4.0",
            licence_url="https://creativecommons.org/licenses/by-sa/4.0",
            page_url="https://commons.wikimedia.org/wiki/File:Litter_7.jpg",
            photo_url="https://upload.wikimedia.org/wikipedia/commons/a/ab/Litter_7.jpg",
            width=1600,
            height=1200,
            mime="image/jpeg",
        )
    ]
    (query,) = asked(server, COMMONS)
    expected = {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "maxlag": "5",
        "generator": "search",
        "gsrnamespace": "6",
        "gsrsearch": "litter filetype:bitmap",
        "prop": "imageinfo",
    }
    assert expected.items() <= query.items()
    assert {"url", "size", "mime", "extmetadata"} <= set(query["iiprop"].split("|"))


def test_commons_continues_with_the_parameters_it_was_given(commons: Make, server: WebServer) -> None:
    following = {"gsroffset": 50, "continue": "gsroffset||", "action": "delete"}
    catalogue = commons(pages(file_page(2, 2), file_page(1, 1), following=following), pages(file_page(3)))
    assert [candidate.id for candidate in found(catalogue)] == ["1", "2", "3"]
    _, second = asked(server, COMMONS)
    assert (second["gsroffset"], second["continue"], second["action"]) == ("50", "gsroffset||", "query")


def test_commons_that_repeats_itself_ends(commons: Make, server: WebServer) -> None:
    following = {"gsroffset": 50, "continue": "gsroffset||"}
    found(commons(pages(file_page(1), following=following)))
    assert len(server.requests) == 2


def test_commons_describes_the_rest_of_a_page_later(commons: Make) -> None:
    bare = {key: value for key, value in file_page(1).items() if key != "imageinfo"}
    catalogue = commons(pages(bare, file_page(2), following={"iistart": "x"}), pages(file_page(1)))
    assert [candidate.id for candidate in found(catalogue)] == ["2", "1"]
    assert catalogue.bad_records == 0


@pytest.mark.parametrize(
    "told",
    [
        {"width": 20_000, "height": 10_000},
        {"size": 10**9},
        {"width": 8_000, "height": 6_000, "mime": "image/png"},
    ],
)
def test_commons_own_copy_replaces_files_that_are_too_large(commons: Make, told: dict[str, Any]) -> None:
    (candidate,) = found(commons(pages(file_page(1, info=told))))
    assert candidate.photo_url.endswith("1280px-Litter_1.jpg")
    assert (candidate.width, candidate.height) == (1280, 960)


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        ({"LicenseShortName": "GFDL", "License": "gfdl"}, "GFDL"),
        ({"LicenseShortName": "Public domain", "License": "pd", "LicenseUrl": ""}, "pdm"),
        ({"LicenseShortName": "CC BY-NC 4.0", "License": "cc-by-nc-4.0"}, "by-nc"),
        ({"LicenseShortName": "CC BY-SA 4.0 or CC BY 3.0"}, "by"),
        ({"LicenseShortName": 7, "License": "cc0"}, "cc0"),
        ({"LicenseShortName": None, "License": None}, ""),
    ],
)
def test_licences_on_commons(commons: Make, told: dict[str, Any], licence: str) -> None:
    assert found(commons(pages(file_page(1, **told))))[0].licence == licence


@pytest.mark.parametrize("bad", [file_page(info={"url": "javascript:alert(1)"}), {**file_page(), "pageid": "../1"}])
def test_a_bad_record_on_commons_is_counted_and_skipped(commons: Make, bad: Any) -> None:
    catalogue = commons(pages(bad, file_page(2)))
    assert [candidate.id for candidate in found(catalogue)] == ["2"]
    assert catalogue.bad_records == 1


@pytest.mark.parametrize("odd", [7, None, {}, {"pageid": 1, "imageinfo": []}, {"pageid": 1, "imageinfo": [3]}])
def test_what_commons_does_not_describe_is_skipped(commons: Make, odd: Any) -> None:
    assert [candidate.id for candidate in found(commons(pages(odd, file_page(2))))] == ["2"]


def test_commons_without_a_hit(commons: Make) -> None:
    assert found(commons(Json({"batchcomplete": True}))) == []


LAG = Json({"error": {"code": "maxlag", "info": "Waiting for 10.0.0.1: 6 seconds lagged.", "lag": 6}})


def test_commons_that_lags_is_asked_again(commons: Make, server: WebServer) -> None:
    assert len(found(commons(LAG, LAG, pages(file_page(1))))) == 1
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (LAG, "maxlag"),
        (Json({"error": {"code": "badvalue"}}), "badvalue"),
        (Json({"error": "?"}), "error"),
        (Page(), "not JSON"),
        (Json(3), "not a JSON object"),
        (Json({}), "no list of pages"),
        (Json({"query": []}), "no list of pages"),
        (Json({"query": {"pages": {"1": {}}}}), "no list of pages"),
        (Status(503), "503"),
    ],
)
def test_commons_with_a_wrong_answer_or_none(commons: Make, answer: Answer, reason: str) -> None:
    with pytest.raises(CatalogueDown, match=reason):
        found(commons(answer))


def test_no_term_and_no_catalogue_fills_all(openverse: Make, commons: Make) -> None:
    first = openverse(results(*(record(number) for number in range(3))))
    second = commons(pages(*(file_page(number, number) for number in range(1, 4))))
    both = Catalogues([first, second])
    order = [(candidate.term, candidate.source) for candidate in both.candidates("glass", ["a", "b"])]
    assert order == [("a", "openverse"), ("a", "commons"), ("b", "openverse"), ("b", "commons")] * 3


def test_a_catalogue_that_is_down_is_not_asked_again(openverse: Make, commons: Make, server: WebServer) -> None:
    both = Catalogues([openverse(Status(403)), commons(pages(file_page(1)))])
    for _ in range(2):
        assert [candidate.source for candidate in both.candidates("glass", ["a", "b"])] == ["commons", "commons"]
    assert len(server.asked(OPENVERSE)) == 1
    assert list(both.down) == ["openverse"]
    both.check()


def test_no_catalogue_at_all(openverse: Make, commons: Make) -> None:
    both = Catalogues([openverse(Status(403)), commons(Page())])
    assert list(both.candidates("glass", ["a"])) == []
    with pytest.raises(NoCatalogue, match=r"openverse: .*403.*commons: .*not JSON") as error:
        both.check()
    assert "\n" not in str(error.value)
    assert "?" not in str(error.value)  # no query, which may hold a key


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("plain", "plain"),
        ("a < b & c > d", "a < b & c > d"),
        ("<b>Bold</b>&nbsp;&amp; <i>more</i>", "Bold & more"),
        ("one<br>two\r\nthree\tfour", "one two three four"),
        ("<script>alert(1)</script>x<style>y</style>", "x"),
        ("&lt;script&gt;", "<script>"),
        ("a\u202eb\u200bc\x00d", "abcd"),
        ("\ud800x", "x"),
        ("<a href='", "<a href='"),
        ("x" * 201, "x" * 199 + "…"),
        ("<p>" * 6000, ""),
        (None, ""),
        (7, ""),
    ],
)
def test_texts_become_plain_lines(markup: object, text: str) -> None:
    assert plain_text(markup) == text


def test_links_and_addresses() -> None:
    assert first_link('<p><a href="#x">1</a> <a href="https://a.example/">2</a>') == ""
    assert first_link('<a href="//a.example/b">1</a>') == "https://a.example/b"
    assert first_link("Someone") == first_link(None) == ""
    for bad in ("javascript:alert(1)", "http://", "https://a b", "https://a.example/\n", "http://[", "x", "", None, 3):
        assert web_address(bad) == ""
    assert web_address("https://a.example/" + "x" * 3000) == ""
