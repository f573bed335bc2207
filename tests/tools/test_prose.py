"""Banned words are found, and ordinary English is not."""

from __future__ import annotations

import pytest
from tools.prose import problems


@pytest.mark.parametrize(
    "line",
    [
        "Everything is computed anew.",
        "The file cannot be had here.",
        "Mend the permission.",
        "at most so many photos",
        "the labels of those whom it asks",
        "a row a photo",
        '"""What a run shows."""',
        "What the study has come to.",
        "Features are computed once a photo.",
        "two records made no sense",
        "each material has half of the commonest one's count",
    ],
)
def test_banned_words_are_found_with_their_line(line: str) -> None:
    assert [number for number, _, _ in problems(f"A good line.\n{line}\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "Recommend a fix and amend the text.",
        "What happens next is a matter of taste.",
        "One row per photo, 12 ms per call.",
        "Read a file, then an image.",
        "The journal gets a line once a photo's pixels are written.",
        "The renewed run has 20 photos.",
    ],
)
def test_ordinary_english_passes(line: str) -> None:
    assert list(problems(line)) == []
