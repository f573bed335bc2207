"""Which material a category of litter is made of: a table, with a reason for each doubtful row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wastelens.errors import MappingError, did_you_mean

_MATERIAL_NAME = re.compile(r"[a-z][a-z0-9_]*")
COLUMNS = ("category", "material", "reason")
# The other columns of the prepared tables, and what is counted beside the materials in the run's metrics.
_OTHER_COLUMNS = ("control", "file_name", "fold", "group", "height", "image_id", "photo_index", "source_file", "width")
# explain_gradcam_energy_low is an interval's end, explain_gradcam_energy_over_centre a score.
_PARTS_OF_METRICS = ("left_out", "low", "high", "chance", "over_centre")
_ENDS_OF_INTERVALS = ("_low", "_high")
RESERVED_NAMES = frozenset({*_OTHER_COLUMNS, *_PARTS_OF_METRICS, "split", "train", "val", "test"})


@dataclass(frozen=True)
class MaterialMapping:
    """Category name → material name, the materials in their order (that of first appearance), the doubts' reasons."""

    path: Path
    material_of: dict[str, str]
    materials: tuple[str, ...]
    reasons: dict[str, str]


def read_mapping(path: Path) -> MaterialMapping:
    """Read ``category,material[,reason]`` rows.

    Raises:
        MappingError: no such file, no such columns, a repeated category, an empty or unusable material.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"category", "material"} <= set(reader.fieldnames or ()):
                raise MappingError(f"{path}: needs the columns 'category' and 'material' in its first line.")
            rows = [(reader.line_num, {key: (row.get(key) or "").strip() for key in COLUMNS}) for row in reader]
    except OSError as error:
        raise MappingError(f"{path}: the material mapping cannot be read ({error.strerror}).") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise MappingError(f"{path}: the material mapping is no CSV text ({error}). Save it as UTF-8 CSV.") from None
    material_of: dict[str, str] = {}
    for line, row in rows:
        _check_row(path, line, row["category"], row["material"], material_of)
        material_of[row["category"]] = row["material"]
    materials = tuple(dict.fromkeys(material_of.values()))
    if len(materials) < 2:
        raise MappingError(f"{path}: maps to {len(materials)} material(s); a verdict needs at least two.")
    reasons = {row["category"]: row["reason"] for _, row in rows}
    return MaterialMapping(path, material_of, materials, reasons)


def _check_row(path: Path, line: int, category: str, material: str, known: dict[str, str]) -> None:
    if not category:
        raise MappingError(f"{path}, line {line}: the category is empty. Name it or remove the line.")
    if category in known:
        raise MappingError(f"{path}, line {line}: category '{category}' has a row already. Keep one of them.")
    if not material:
        raise MappingError(f"{path}, line {line}: category '{category}' has an empty material. Write one.")
    reserved = material in RESERVED_NAMES or material.endswith(_ENDS_OF_INTERVALS)
    if not _MATERIAL_NAME.fullmatch(material) or reserved:
        raise MappingError(
            f"{path}, line {line}: '{material}' cannot name a material. Use lower-case letters, digits and _, "
            f"none of {', '.join(sorted(RESERVED_NAMES))}, and no name that ends on _low or _high."
        )


def check_covers(mapping: MaterialMapping, categories: Iterable[str], annotations: Path) -> None:
    """Demand that the mapping and the annotations' categories are the same set.

    Raises:
        MappingError: a category without a material, or a row for a category that does not exist.
    """
    names = list(categories)
    for name in names:
        if name not in mapping.material_of:
            raise MappingError(f"{annotations}: category '{name}' has no material. Add a row to {mapping.path}.")
    for name in mapping.material_of:
        if name not in names:
            hint = did_you_mean(name, names)
            raise MappingError(
                f"{mapping.path}: '{name}' is no category of {annotations}.{hint} Correct or remove the row."
            )
