"""The mapping from categories of litter to materials, with a reason for each doubtful row."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wastelens.config.files import conf_folder
from wastelens.data.annotations.tables import named_column, read_table
from wastelens.errors import MappingError, did_you_mean
from wastelens.system.text import one_line

COLUMNS = ("category", "material", "reason")
MAPPING_FILE = "materials.csv"  # of a prepared dataset
_BESIDE_IT = "manifest.json"
# The other columns of the prepared tables, and parts of metric names beside the materials.
_OTHER_COLUMNS = ("control", "file_name", "fold", "group", "height", "image_id", "photo_index", "source_file", "width")
# explain_gradcam_energy_low is the end of an interval, explain_gradcam_energy_over_centre a score.
_PARTS_OF_METRICS = ("left_out", "low", "high", "chance", "over_centre")
_ENDS_OF_INTERVALS = ("_low", "_high")
RESERVED_NAMES = frozenset({*_OTHER_COLUMNS, *_PARTS_OF_METRICS, "split", "train", "val", "test"})
_MATERIAL_NAME = re.compile(r"[a-z][a-z0-9_]*")
_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")  # also of camelCase
_HOW_TO_NAME = "lower-case letters, digits and _, the first a letter"


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


def is_material_name(name: str) -> bool:
    """Return whether a material may have this name: columns of tables and metrics are called after it."""
    return bool(_MATERIAL_NAME.fullmatch(name)) and not _is_taken(name)


def _is_taken(name: str) -> bool:
    return name in RESERVED_NAMES or name.endswith(_ENDS_OF_INTERVALS)


def material_name(text: str) -> str:
    """Return the nearest name that a material may have: ``paper_card`` for ``Paper & Card``, "" for ``纸``."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_").lstrip("0123456789_")
    return f"{name}_material" if name and _is_taken(name) else name


def read_mapping(path: Path) -> MaterialMapping:
    """Read ``category,material[,reason]`` rows.

    Raises:
        MappingError: the file or a column is missing, a category is repeated, or a material is empty or not usable.
    """
    try:
        table = read_table(path)
    except OSError as error:
        raise MappingError(f"{path}: the material mapping cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise MappingError(
            f"{path}: the material mapping {error}. Save it as UTF-8 CSV; it needs the columns 'category' and "
            "'material' in its first line."
        ) from None
    columns = [named_column(table.header, (name,)) for name in COLUMNS]
    if not all(columns[:2]):
        raise MappingError(f"{path}: needs the columns 'category' and 'material' in its first line.")
    places = [table.header.index(column) if column else len(table.header) for column in columns]
    material_of: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for line, cells in table.lines:
        category, material, reason = (label_name(cells[at]) if at < len(cells) else "" for at in places)
        if problem := _problem_of_row(category, material, material_of):
            raise MappingError(f"{path}, line {line}: {one_line(problem)}")
        material_of[category], reasons[category] = material, reason
    materials = tuple(dict.fromkeys(material_of.values()))
    if len(materials) < 2:
        raise MappingError(f"{path}: maps to {len(materials)} material(s), but at least two are needed. Add rows.")
    return MaterialMapping(path, material_of, materials, reasons)


def _problem_of_row(category: str, material: str, known: dict[str, str]) -> str:
    if not category:
        return "the category is empty. Name it or remove the line."
    if category in known:
        return f"category '{category}' has a row already. Keep one of them."
    if not material:
        return f"category '{category}' has an empty material. Write one."
    if not is_material_name(material):
        legal = material_name(material)
        proposal = f"Write '{legal}'" if legal else "Write another name"
        return f"'{material}' cannot name a material. {proposal}: {_HOW_TO_NAME}, and no name of a column or a split."
    return ""


def _is_shipped(mapping: MaterialMapping) -> bool:
    return mapping.path.parent == conf_folder() / "materials"


def _is_prepared(mapping: MaterialMapping) -> bool:
    return mapping.path.name == MAPPING_FILE and (mapping.path.parent / _BESIDE_IT).is_file()


def _is_to_edit(mapping: MaterialMapping) -> bool:
    """Return whether a mapping is the user's own; an edited one of a prepared dataset would spoil the dataset."""
    return not _is_shipped(mapping) and not _is_prepared(mapping)


def _called(mapping: MaterialMapping) -> str:
    """Return what to call a mapping in messages, so that nobody edits that of a prepared dataset."""
    return f"the mapping of dataset '{mapping.path.parent.name}'" if _is_prepared(mapping) else str(mapping.path)


def _or_correct(mapping: MaterialMapping) -> str:
    return ", or correct the mapping" if _is_to_edit(mapping) else ", or give a mapping of your own by materials="


def _own_mapping(dataset: Path | None) -> str:
    """Return how to get a mapping with all labels of a dataset."""
    command = f"wastelens materials --dataset {shlex.quote(str(dataset or 'FOLDER'))} > my.csv"
    return f"Write a mapping of your own with: {command} (then check it, and give -P materials=my.csv)"


def check_covers(
    mapping: MaterialMapping,
    categories: Iterable[str],
    annotations: Path,
    dataset: Path | None = None,
    *,
    unused: Collection[str] = (),
) -> None:
    """Raise MappingError if a category has no material, or a row is for a category that does not exist.

    Categories that no object has, ``unused``, need no material.
    """
    names = list(categories)
    for name in names:
        if name not in mapping.material_of and name not in unused:
            fact = f"{annotations}: category '{one_line(name, 100)}' has no material"
            if not _is_to_edit(mapping):
                raise MappingError(f"{fact} in {_called(mapping)}. {_own_mapping(dataset or annotations)}.")
            raise MappingError(f"{fact}. Add a row to {mapping.path}, or give your own mapping: -P materials=FILE.csv")
    for name in mapping.material_of:
        if name not in names:
            hint = did_you_mean(name, names)
            fix = _own_mapping(dataset or annotations) if _is_prepared(mapping) else "Correct or remove the row"
            raise MappingError(
                f"{_called(mapping)}: '{one_line(name, 100)}' is not a category of {annotations}.{hint} {fix}."
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
            f"{_called(mapping)}: the annotated objects are of {named}, but at least two materials are needed. "
            f"Add photos of others{_or_correct(mapping)}."
        )
    return MaterialMapping(mapping.path, material_of, kept, {name: mapping.reasons[name] for name in material_of})


def mapping_of_labels(
    mapping: MaterialMapping,
    labels: Sequence[str],
    of_label: Callable[[str], str],
    others: Sequence[Path] = (),
    dataset: Path | None = None,
) -> MaterialMapping:
    """Return the part of a mapping that these labels need; a label may also be the name of a material.

    Capitals do not count where only they differ. Only materials that occur are kept, in the mapping's order.

    Args:
        mapping, labels: the whole mapping; the labels that occur.
        of_label: returns a label and where it was found, as the subject of a sentence.
        others: mapping files to suggest, if they have a material for every label.
        dataset: the folder or file of the labels, for messages.

    Raises:
        MappingError: a label has no material, or the labels have fewer than two materials.
    """
    known = {**{material: material for material in mapping.materials}, **mapping.material_of}
    in_lower_case = {name.casefold(): material for name, material in known.items()}
    known = {label: known.get(label, in_lower_case.get(label.casefold(), "")) for label in labels}
    unknown = [label for label in labels if not known[label]]
    if unknown:
        more = f" (nor {'has' if len(unknown) == 2 else 'have'} {len(unknown) - 1:,} more)" if len(unknown) > 1 else ""
        fix = "Add a row" if _is_to_edit(mapping) else _own_mapping(dataset)
        raise MappingError(
            f"{of_label(unknown[0])} has no material in {_called(mapping)}{more}. {fix}{_covering(others, labels)}."
        )
    materials = tuple(material for material in mapping.materials if material in {known[label] for label in labels})
    if len(materials) < 2:
        raise MappingError(
            f"{_called(mapping)}: the labels {one_line(', '.join(labels))} give {len(materials)} material(s), but at "
            f"least two are needed. Add photos with other labels{_or_correct(mapping)}."
        )
    order = {label: place for place, label in reversed(list(enumerate([*mapping.material_of, *labels])))}
    rows = sorted(labels, key=lambda label: (materials.index(known[label]), order[label]))
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


def proposed_mapping(labels: Sequence[str], shipped: Sequence[MaterialMapping]) -> pd.DataFrame:
    """Return a mapping of these labels, to be checked by a person, as a table.

    A label's material is that of a shipped mapping, the first that has it; or that of a word in its name; or a material
    of its own. ``reason`` says so where it is not a shipped mapping's.
    """
    known = {material.casefold(): material for mapping in shipped for material in mapping.materials}
    for mapping in reversed(shipped):
        known |= {name.casefold(): material for name, material in mapping.material_of.items()}
    rows = [(label, *_proposed(label, known, number)) for number, label in enumerate(labels, 1)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _proposed(label: str, known: dict[str, str], number: int) -> tuple[str, str]:
    """Return a label's material, and the reason; known: name in lower case → material."""
    if material := known.get(label.casefold()):
        return material, ""
    words = [word.casefold() for word in _WORD.findall(label)]
    by_word = (known[form] for word in words for form in (word, word.removesuffix("s")) if form in known)
    if material := next(by_word, ""):
        return material, "proposed after a word of the name"
    return material_name(label) or f"material_{number}", "proposed: a material of its own"
