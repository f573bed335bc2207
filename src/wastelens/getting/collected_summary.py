"""What a collection has come to: what is there by licence, what was left out by reason, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from wastelens.getting.attribution import ATTRIBUTION, licence_name
from wastelens.getting.collected_photos import FAILED, KEPT, LEFT_OUT, CollectedPhotos, Row, kind_of
from wastelens.system.console import say, table, warn

# What the run counts as photos_… beside the materials.
NOT_KEPT = {LEFT_OUT: "left_out", FAILED: "failed"}
_REASONS_SHOWN = 4


def summary_metrics(photos: CollectedPhotos, materials: Iterable[str], bad_records: int) -> dict[str, float]:
    """As the run logs it; bad_records: of the catalogues."""
    of_status = Counter(row["status"] for row in photos.rows())
    return {
        "photos": of_status[KEPT],
        **{f"photos_{name}": of_status[status] for status, name in NOT_KEPT.items()},
        "bad_records": bad_records,
        "megabytes": sum(_bytes(row) for row in photos.kept_rows()) / 1e6,
        **{f"photos_{material}": photos.kept(material) for material in materials},
    }


def report(photos: CollectedPhotos, materials: Iterable[str], wanted: int) -> None:
    """The closing tables, and what is missing; wanted: photos of each material."""
    _report_reasons(photos, materials)
    _report_licences(photos)
    for material in materials:
        if (kept := photos.kept(material)) < wanted:
            warn(f'{material}: {kept:,} of {wanted:,} photos; more terms in set="terms.{material}=[…]" may help.')
    if total := len(photos.kept_rows()):
        there = f"{total:,} photos in {photos.folder}"
        say(f"{there}; {photos.list_path} tells of each, {ATTRIBUTION} whom to name.", "green")


def _report_reasons(photos: CollectedPhotos, materials: Iterable[str]) -> None:
    """Material by what became of its photos: kept, or left out for one of the commonest kinds of reasons."""
    against = Counter((row["material"], kind_of(row["reason"])) for row in photos.rows() if row["status"] != KEPT)
    kinds: Counter[str] = Counter()
    for (_, kind), count in against.items():
        kinds[kind] += count
    shown = [kind for kind, _ in kinds.most_common(_REASONS_SHOWN)]
    others = ["other"] if len(kinds) > len(shown) else []
    rows = []
    for material in materials:
        counts = [against[material, kind] for kind in shown]
        rest = sum(count for (of, _), count in against.items() if of == material) - sum(counts)
        numbers = [photos.kept(material), *counts, rest] if others else [photos.kept(material), *counts]
        rows.append([material, *(f"{number:,}" for number in numbers)])
    table(f"{photos.folder}: photos kept and left out", ["material", "kept", *shown, *others], rows)


def _report_licences(photos: CollectedPhotos) -> None:
    counts, sizes = Counter[str](), Counter[str]()
    for row in photos.kept_rows():
        counts[licence_name(row)] += 1
        sizes[licence_name(row)] += _bytes(row)
    rows = [[name, f"{count:,}", f"{sizes[name] / 1e6:,.1f}"] for name, count in counts.most_common()]
    table(f"{photos.folder}: photos by licence", ["licence", "photos", "MB"], rows)


def _bytes(row: Row) -> int:
    return int(row["bytes"]) if row["bytes"].isdecimal() else 0
