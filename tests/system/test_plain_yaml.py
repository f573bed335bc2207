"""YAML without aliases, merge keys and surprising numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from wastelens.system.plain_yaml import LARGEST_BYTES, load_yaml, parse_yaml

BILLION = "a: &a {k: v}\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
MERGED = "a: &a {k: v}\nb: {<<: [*a, *a, *a]}\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1_000", 1000),
        ("-5", -5),
        ("1e-5", 1e-5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("no", "no"),
        ("true", True),
        ("~", None),
        ("'010'", "010"),
        ("10.0.0.1:8786", "10.0.0.1:8786"),
        ("<<: {a: 1}", {"<<": {"a": 1}}),
    ],
)
def test_values(text: str, value: object) -> None:
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BILLION, r"'\*a' repeats another part; write it out"),
        (MERGED, r"'\*a' repeats another part"),
        ("a: 010", "'010' is not a whole number in decimal digits; quote it"),
        ("a: 0x1F", "'0x1F' is not a whole number"),
        ("a: " + "1:" * 50_000 + "1", "is not a whole number"),
        ("a: " + "1" * 50_000, "is not a whole number"),
        ("a: 1:30.5", "'1:30.5' is not a decimal number"),
        ("a: " + "1." + "1" * 50_000, "is not a decimal number"),
        ("!!int '1:1'", "is not a whole number"),
        ("!!binary aaaa", "could not determine a constructor"),
        ("!!python/object:os.system {}", "could not determine a constructor"),
        ("a: 2024-13-45", "month must be in"),
        ("[" * 50_000, "nested too deeply"),
        ("- " * 50_000, "nested too deeply"),
        ("? [a]\n: 1", "unhashable key"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 210


def test_texts_stay_as_they_were_written() -> None:
    assert parse_yaml("names: [no, 010, 1e3, ~]\n0x1: 1:30", as_texts=True) == {
        "names": ["no", "010", "1e3", "~"],
        "0x1": "1:30",
    }
    with pytest.raises(ValueError, match="repeats another part"):
        parse_yaml(BILLION, as_texts=True)


def test_long_files_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    with file.open("wb") as opened:
        opened.truncate(30 << 30)  # sparse: takes no space
    with pytest.raises(ValueError, match=f"is longer than {LARGEST_BYTES:,} bytes"):
        load_yaml(file)
    file.write_bytes("a: ä".encode("utf-16"))
    assert load_yaml(file) == {"a": "ä"}
