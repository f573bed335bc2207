"""Photos of one source are known by their names, where the names say so, and only there."""

from __future__ import annotations

import pytest

from wastelens.preparing.shared_sources import shared_source_links, stem_of


def sets(files: list[str], told: dict[str, str] | None = None) -> list[set[str]]:
    """Return the sets of files that share a source."""
    found: dict[int, set[str]] = {}
    for first, other in shared_source_links(files, told or {}).tolist():
        found.setdefault(first, {files[first]}).add(files[other])
    return list(found.values())


@pytest.mark.parametrize(
    "files",
    [
        ["train/IMG_1_jpg.rf.0123456789abcdef.jpg", "valid/IMG_1_jpg.rf.fedcba9876543210.jpg"],
        ["train/images/a b_HEIC.rf.abcdef012345.jpg", "test/images/a b_HEIC.rf.012345abcdef.jpg"],
        ["x/IMG_1.jpg", "x/IMG_1_jpg.rf.0123456789abcdef.jpg"],
        ["glass/7.jpg", "glass/7_rot90.jpg", "glass/7_flipped_bright.jpg", "glass/7-crop2.jpg", "glass/aug_3_7.jpg"],
        ["7_aug_1.png", "7_aug_2.png", "7_aug_10.png"],
        ["p 3.jpg", "p 3 - Copy.jpg", "p 3 - Copy (2).jpg"],
        ["a/can.jpg", "a/a_original_can.jpg_1b4e28ba-2fa1-11d2-883f-0016d3cca427.jpg"],
    ],
)
def test_copies_are_known_by_their_names(files: list[str]) -> None:
    assert sets([*files, "other/9.jpg", "8.jpg"]) == [set(files)]


@pytest.mark.parametrize(
    "files",
    [
        ["batch_1/000001.jpg", "batch_2/000001.jpg"],
        ["1.jpg", "1.png"],
        ["train/glass/1.jpg", "test/glass/1.jpg"],
        ["glass (1).jpg", "glass (2).jpg"],
        ["glass_dark_1.jpg", "glass_dark_2.jpg"],
        ["aug_1.jpg", "aug_2.jpg"],
        ["a/IMG_1_jpg.rf.0123456789abcdef.jpg", "b/IMG_1_jpg.rf.fedcba9876543210.jpg"],
        [f"{k}/image_jpg.rf.{k:016x}.jpg" for k in range(3)],
        [f"image_jpg.rf.{k:016x}.jpg" for k in range(60)],
    ],
)
def test_names_that_are_no_evidence(files: list[str]) -> None:
    assert sets(files) == []


def test_the_annotations_tell_the_source() -> None:
    told = {"0a.jpg": "IMG_1.jpg", "0b.jpg": "IMG_1.jpg", "0c.jpg": "IMG_2.jpg"}
    assert sets([*told], told) == [{"0a.jpg", "0b.jpg"}]


def test_a_stem_has_no_last_number_unless_it_is_the_only_one() -> None:
    names = ["IMG_7_2.jpg", "IMG_7.jpg", "clip3_000120.jpg", "train/x/IMG_1_jpg.rf.0123456789ab.jpg", "5_rot90.jpg"]
    assert [stem_of(name) for name in names] == ["IMG_7", "IMG_7", "clip3", "x/IMG_1", "5"]
