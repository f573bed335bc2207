"""Corrections of labels: a table of photo, material and label, as the page of ``labels`` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.annotations.layout import first_names
from wastelens.data.annotations.tables import TextTable, named_column, read_table
from wastelens.data.prepared.dataset import corrected_labels
from wastelens.errors import ConfigError, did_you_mean
from wastelens.system.console import say, warn
from wastelens.system.tables import from_text
from wastelens.system.text import one_line

COLUMNS = ("file_name", "material", "label")
ANSWER = "answer"  # right, wrong or unsure: for the page, which reads its own file again
_HEADER = f"It needs the columns {', '.join(COLUMNS)} in its first line; a column '{ANSWER}' may follow"


@dataclass(frozen=True)
class Corrections:
    """A file of corrections.

    Attributes:
        path: of the file; None where there is none.
        label_of: (photo's flat name, material) → label, 0 or 1.
    """

    path: Path | None
    label_of: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Corrected:
    """Labels and what corrections change in them.

    Attributes:
        annotated: labels.csv as annotated, with the split.
        materials: its label columns.
        path: of the corrections; None where there are none.
        table: corrections.csv: ``file_name``, ``material``, ``old``, ``new``, and ``test``: 1 if the new label also
            counts where the photo is tested.
        unchanged: number of rows that say what the label is already.
        unmatched: names of photos that the dataset does not have.
    """

    annotated: pd.DataFrame
    materials: tuple[str, ...]
    path: Path | None
    table: pd.DataFrame
    unchanged: int
    unmatched: tuple[str, ...]

    def labels(self, split: npt.NDArray[np.str_]) -> pd.DataFrame:
        """Return the labels of a split, (photos,): corrected, but for those that photos are tested by."""
        return corrected_labels(self.annotated, self.table, self.materials, split == "test")

    @property
    def tested(self) -> int:
        """The number of changes of test photos of the one split."""
        test = self.annotated.loc[self.annotated["split"] == "test", "file_name"]
        return int(self.table["file_name"].isin(test).sum())

    def metrics(self) -> dict[str, float]:
        """Return the counts, for the run; none without corrections."""
        counts = {
            "changed": len(self.table),
            "unchanged": self.unchanged,
            "unmatched": len(self.unmatched),
            "test": self.tested,
        }
        return {f"corrections/{name}": count for name, count in counts.items()} if self.path else {}

    def report(self) -> None:
        """Say what was corrected, what was not, and which rows did not match."""
        if self.path is None:
            return
        say(f"{self.path} corrects {len(self.table):,} labels of {self.table['file_name'].nunique():,} photos.")
        if self.unchanged:
            say(f"{self.unchanged:,} of its rows say what the label is already.")
        if self.table["test"].any():
            say(f"{self.tested:,} of the labels are of test photos, which are corrected too (correct_test=true).")
        elif len(self.table):
            say(
                f"{self.tested:,} of the labels are of test photos. A label that a photo is tested by stays as "
                "annotated, in the split and in every fold; correct_test=true corrects it too."
            )
        if self.unmatched:
            warn(
                f"{self.path}: photos that the dataset does not have, so that their rows change nothing: "
                f"{first_names(self.unmatched)}."
            )


def read_corrections(file: str, materials: Sequence[str]) -> Corrections:
    """Read a file of corrections; "" stands for none.

    Raises:
        ConfigError: it cannot be read, has another column, an unknown material, another label than 0 or 1, or both
            labels for one photo and material.
    """
    if not file:
        return Corrections(None, {})
    path = Path(file)
    try:
        table = read_table(path)
    except OSError as error:
        raise ConfigError(f"corrections={file} cannot be read ({error.strerror}). Correct the path.") from None
    except ValueError as error:
        raise ConfigError(f"corrections={file} {error}. {_HEADER}.") from None
    places = _places(path, table)
    label_of: dict[tuple[str, str], int] = {}
    for line, cells in table.lines:
        name, material, label = (from_text(cells[at]) if at < len(cells) else "" for at in places)
        problem = _problem_of_row(name, material, label, materials, label_of)
        if problem:
            raise ConfigError(f"{path}, line {line}: {one_line(problem)}")
        label_of[name, material] = int(label)
    if not label_of:
        raise ConfigError(f"{path} has no rows. Give corrections, or leave corrections= out.")
    return Corrections(path, label_of)


def _places(path: Path, table: TextTable) -> list[int]:
    """Return the places of the columns."""
    named = {name: named_column(table.header, (name,)) for name in (*COLUMNS, ANSWER)}
    if lacking := [name for name in COLUMNS if not named[name]]:
        raise ConfigError(f"{path} has no column '{lacking[0]}'. {_HEADER}.")
    if unknown := [name for name in table.header if name not in named.values()]:
        raise ConfigError(f"{path} has the unknown column '{one_line(unknown[0], 100)}'. {_HEADER}.")
    return [table.header.index(named[name]) for name in COLUMNS]


def _problem_of_row(
    name: str, material: str, label: str, materials: Sequence[str], known: Mapping[tuple[str, str], int]
) -> str:
    if not name:
        return "the photo is not named. Write its file_name, as in labels.csv."
    if material not in materials:
        return (
            f"'{material}' is no material of the dataset.{did_you_mean(material, list(materials))} It has "
            f"{', '.join(materials)}."
        )
    if label not in ("0", "1"):
        return f"the label of {name} is '{label}'. Write 0 or 1."
    if known.get((name, material), int(label)) != int(label):
        return f"{name} gets the label {label} for {material}, but {1 - int(label)} in a line above. Keep one of them."
    return ""


def changes(
    corrections: Corrections, labels: pd.DataFrame, materials: tuple[str, ...], *, correct_test: bool
) -> Corrected:
    """Return what corrections change.

    Args:
        corrections: as read.
        labels: labels.csv as annotated, with the split.
        materials: its label columns.
        correct_test: whether labels that photos are tested by change too.

    Raises:
        ConfigError: no row names a photo of the dataset.
    """
    row_of = {str(name): row for row, name in enumerate(labels["file_name"])}
    given = labels[list(materials)].to_numpy(dtype=np.int64)
    unmatched = dict.fromkeys(name for name, _ in corrections.label_of if name not in row_of)
    matched = {key: label for key, label in corrections.label_of.items() if key[0] not in unmatched}
    if corrections.path and not matched:
        raise ConfigError(
            f"{corrections.path}: none of its rows names a photo of the dataset, the first '{next(iter(unmatched))}'. "
            "Write file_name as in labels.csv."
        )
    old = {(name, material): int(given[row_of[name], materials.index(material)]) for name, material in matched}
    rows = [(*key, old[key], label, int(correct_test)) for key, label in sorted(matched.items()) if old[key] != label]
    table = pd.DataFrame(rows, columns=["file_name", "material", "old", "new", "test"])
    return Corrected(labels, materials, corrections.path, table, len(matched) - len(rows), tuple(unmatched))
