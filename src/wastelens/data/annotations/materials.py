"""The mapping from categories of litter to materials, with a reason for each doubtful row."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wastelens.errors import MappingError, did_you_mean

_MATERIAL_NAME = re.compile(r"[a-z][a-z0-9_]*")
COLUMNS = ("category", "material", "reason")
MAPPING_FILE = "materials.csv"  # of a prepared dataset
# The other columns of the prepared tables, and parts of metric names beside the materials.
_OTHER_COLUMNS = ("control", "file_name", "fold", "group", "height", "image_id", "photo_index", "source_file", "width")
# explain_gradcam_energy_low is the end of an interval, explain_gradcam_energy_over_centre a score.
_PARTS_OF_METRICS = ("left_out", "low", "high", "chance", "over_centre")
_ENDS_OF_INTERVALS = ("_low", "_high")
RESERVED_NAMES = frozenset({*_OTHER_COLUMNS, *_PARTS_OF_METRICS, "split", "train", "val", "test"})


@dataclass(frozen=True)
class MaterialMapping:
    """Category → material, the materials in order of first appearance, and category → reason for the doubtful ones."""

    path: Path
    material_of: dict[str, str]
    materials: tuple[str, ...]
    reasons: dict[str, str]


def label_name(text: str) -> str:
    """Return a label as it is compared: stripped, with composed accents (NFC), as macOS decomposes file names."""
    return unicodedata.normalize("NFC", text).strip()


def read_mapping(path: Path) -> MaterialMapping:
    """Read ``category,material[,reason]`` rows.

    Raises:
        MappingError: the file or a column is missing, a category is repeated, or a material is empty or not usable.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"category", "material"} <= set(reader.fieldnames or ()):
                raise MappingError(f"{path}: needs the columns 'category' and 'material' in its first line.")
            rows = [(reader.line_num, {key: label_name(row.get(key) or "") for key in COLUMNS}) for row in reader]
    except OSError as error:
        raise MappingError(f"{path}: the material mapping cannot be read ({error.strerror}).") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise MappingError(f"{path}: the material mapping is not CSV text ({error}). Save it as UTF-8 CSV.") from None
    material_of: dict[str, str] = {}
    for line, row in rows:
        if problem := _problem_of_row(row["category"], row["material"], material_of):
            raise MappingError(f"{path}, line {line}: {problem}")
        material_of[row["category"]] = row["material"]
    materials = tuple(dict.fromkeys(material_of.values()))
    if len(materials) < 2:
        raise MappingError(f"{path}: maps to {len(materials)} material(s), but at least two are needed. Add rows.")
    reasons = {row["category"]: row["reason"] for _, row in rows}
    return MaterialMapping(path, material_of, materials, reasons)


def _problem_of_row(category: str, material: str, known: dict[str, str]) -> str:
    if not category:
        return "the category is empty. Name it or remove the line."
    if category in known:
        return f"category '{category}' has a row already. Keep one of them."
    if not material:
        return f"category '{category}' has an empty material. Write one."
    if material in RESERVED_NAMES or material.endswith(_ENDS_OF_INTERVALS) or not _MATERIAL_NAME.fullmatch(material):
        return (
            f"'{material}' cannot name a material. Use lower-case letters, digits and _, "
            f"none of {', '.join(sorted(RESERVED_NAMES))}, and no name that ends in _low or _high."
        )
    return ""


def check_covers(
    mapping: MaterialMapping, categories: Iterable[str], annotations: Path, *, unused: Collection[str] = ()
) -> None:
    """Raise MappingError if a category has no material, or a row is for a category that does not exist.

    Categories that no object has, ``unused``, need no material.
    """
    names = list(categories)
    for name in names:
        if name not in mapping.material_of and name not in unused:
            raise MappingError(
                f"{annotations}: category '{name}' has no material. Add a row to {mapping.path}, or give your own "
                "mapping: -P materials=FILE.csv"
            )
    for name in mapping.material_of:
        if name not in names:
            hint = did_you_mean(name, names)
            raise MappingError(
                f"{mapping.path}: '{name}' is not a category of {annotations}.{hint} Correct or remove the row."
            )


def with_materials(mapping: MaterialMapping, materials: Collection[str]) -> MaterialMapping:
    """Return the rows of a mapping for these materials.

    Raises:
        MappingError: fewer than two.
    """
    material_of = {name: material for name, material in mapping.material_of.items() if material in materials}
    kept = tuple(material for material in mapping.materials if material in materials)
    if len(kept) < 2:
        named = f"only {kept[0]}" if kept else "none of its materials"
        raise MappingError(
            f"{mapping.path}: the annotated objects are of {named}, but at least two materials are needed. "
            "Add photos of others, or correct the mapping."
        )
    return MaterialMapping(mapping.path, material_of, kept, {name: mapping.reasons[name] for name in material_of})


def mapping_of_labels(
    mapping: MaterialMapping, labels: Sequence[str], of_label: Callable[[str], str], others: Sequence[Path] = ()
) -> MaterialMapping:
    """Return the part of a mapping that these labels need; a label may also be the name of a material.

    Only materials that occur are kept, in the mapping's order.

    Args:
        mapping, labels: the whole mapping; the labels that occur.
        of_label: returns a label and where it was found, as the subject of a sentence.
        others: mapping files to suggest, if they have a material for every label.

    Raises:
        MappingError: a label has no material, or the labels have fewer than two materials.
    """
    known = {**{material: material for material in mapping.materials}, **mapping.material_of}
    unknown = [label for label in labels if label not in known]
    if unknown:
        more = f" (nor {'has' if len(unknown) == 2 else 'have'} {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
        raise MappingError(
            f"{of_label(unknown[0])} has no material in {mapping.path}{more}. Add a row{_covering(others, labels)}."
        )
    materials = tuple(material for material in mapping.materials if material in {known[label] for label in labels})
    if len(materials) < 2:
        named = ", ".join(labels) or "(none at all)"
        raise MappingError(
            f"{mapping.path}: the labels {named} give {len(materials)} material(s), but at least two are needed. "
            "Add photos with other labels, or correct the mapping."
        )
    order = [*mapping.material_of, *labels]
    rows = sorted(labels, key=lambda label: (materials.index(known[label]), order.index(label)))
    material_of = {label: known[label] for label in rows}
    return MaterialMapping(mapping.path, material_of, materials, {row: mapping.reasons.get(row, "") for row in rows})


def mapping_frame(mapping: MaterialMapping) -> pd.DataFrame:
    """Return a mapping as a table; labels that are named like their material have rows too."""
    rows = [(label, material, mapping.reasons[label]) for label, material in mapping.material_of.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _covering(files: Sequence[Path], labels: Sequence[str]) -> str:
    """Return ``, or give -P materials=NAME, …`` for the mappings that have a material for every label."""
    mappings = ((file.stem, read_mapping(file)) for file in files)
    names = [name for name, one in mappings if {*labels} <= {*one.material_of, *one.materials}]
    return f", or give -P materials={' or '.join(names)}, which knows them all" if names else ""
