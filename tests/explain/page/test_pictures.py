"""Names of pictures: those of the photos, as far as file systems and addresses take them."""

from __future__ import annotations

from urllib.parse import quote, unquote

from hypothesis import given
from hypothesis import strategies as st

from wastelens.explain.page.pictures import figure_name


def test_plain_names_are_kept() -> None:
    assert figure_name("batch_1_000006.jpg") == "batch_1_000006.jpg.png"
    assert figure_name("Glas-Grün.JPG") == "Glas-Grün.JPG.png"


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_any_name_becomes_one_that_can_be_stored_and_fetched(name: str) -> None:
    made = figure_name(name)
    assert made.endswith(".png")
    assert len(made.encode()) <= 255
    assert not set(made) & set("/\\?#%&+ \0")
    assert unquote(quote(made)) == unquote(made) == made


def test_names_that_differ_stay_different() -> None:
    names = ["a b.jpg", "a?b.jpg", "a_b.jpg", "a#b.jpg", "x" * 250 + "1.jpg", "x" * 250 + "2.jpg"]
    assert len({figure_name(name) for name in names}) == len(names)
