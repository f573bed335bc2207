"""Names of licences on Openverse and Commons."""

from __future__ import annotations

import pytest

from wastelens.getting.licences import CODES, Licence, commons_licences, freest, openverse_licence

FREE = ("cc0", "pdm", "by", "by-sa")


@pytest.mark.parametrize(
    ("name", "code", "version"),
    [
        ("CC BY-SA 4.0", "by-sa", "4.0"),
        ("cc-by-sa-4.0", "by-sa", "4.0"),
        ("CC BY 2.0", "by", "2.0"),
        ("CC BY-SA 3.0 de", "by-sa", "3.0"),
        ("cc-by-sa-3.0-migrated", "by-sa", "3.0"),
        ("CC BY-SA 4.0-3.0-2.5-2.0-1.0", "by-sa", "4.0"),
        ("cc-by-sa-all", "by-sa", ""),
        ("CC BY-SA 3.0 IGO", "by-sa", "3.0"),
        ("CC BY-NC-SA 2.0", "by-nc-sa", "2.0"),
        ("CC BY-ND 4.0", "by-nd", "4.0"),
        ("CC0", "cc0", "1.0"),
        ("cc-zero", "cc0", "1.0"),
        ("Public domain", "pdm", ""),
        ("pd", "pdm", ""),
        ("PD-USGov", "pdm", ""),
        ("CC-PD-Mark", "pdm", ""),
    ],
)
def test_names_on_commons(name: str, code: str, version: str) -> None:
    assert commons_licences(name) == [Licence(code, version)]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "GFDL",
        "FAL",
        "Attribution",
        "No restrictions",
        "not public domain",
        "CC BY-SA-ND 4.0",
        "CC BY 4.0 no ai",
        "CC BY 4.0 nc",
        "CC",
        "CC SA 1.0",
        "All rights reserved",
        "CC BY 4.0 and CC BY-NC 4.0",
    ],
)
def test_what_is_not_understood_to_the_last_word_is_no_licence(name: str) -> None:
    assert commons_licences(name) == []


@pytest.mark.parametrize(
    "name", ["GFDL or CC BY-SA 3.0", "CC BY-SA 3.0, CC BY-NC 2.5", "cc-by-sa-3.0|GFDL", "FAL/CC BY-SA 3.0"]
)
def test_of_several_licences_the_freest_allowed_is_chosen(name: str) -> None:
    assert freest(commons_licences(name), FREE) == Licence("by-sa", "3.0")


def test_what_is_free_is_ordered_by_what_it_asks_for() -> None:
    assert freest([Licence(code) for code in reversed(CODES)], CODES) == Licence("cc0")
    assert freest([Licence("by-nc"), Licence("by-nd")], FREE) is None


def test_codes_of_openverse() -> None:
    assert [openverse_licence(code, "2.0") for code in CODES] == [Licence(code, "2.0") for code in CODES]
    assert openverse_licence("BY-SA", "4.0; rm") == Licence("by-sa", "")
    assert openverse_licence("sampling+", "1.0") is None
    assert openverse_licence("nc-sampling+", "1.0") is None


@pytest.mark.parametrize(
    ("licence", "name", "link"),
    [
        (Licence("by-sa", "4.0"), "CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
        (Licence("cc0", "1.0"), "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        (Licence("pdm"), "Public Domain Mark", "https://creativecommons.org/publicdomain/mark/1.0/"),
    ],
)
def test_name_and_link(licence: Licence, name: str, link: str) -> None:
    assert licence.name == name
    assert licence.link() == link


def test_a_link_that_is_given_must_be_one_of_the_licence() -> None:
    licence, own = Licence("by", "3.0"), "https://creativecommons.org/licenses/by/3.0/"
    german = "http://creativecommons.org/licenses/by/3.0/de/deed.en"
    assert licence.link(german) == german
    for other in (
        "https://creativecommons.org/licenses/by-sa/3.0/",
        "https://evil.example/licenses/by/3.0/",
        f"{own})x",
    ):
        assert licence.link(other) == own
