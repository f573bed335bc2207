"""YOLO label files: a line per object, with its class number and a box or polygon in fractions of the photo."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wastelens.data.annotations.layout import Marked
from wastelens.errors import AnnotationsError
from wastelens.system.arrays import FloatArray

_TOLERANCE = 1e-3  # exporters round
_LIKE_LABELS = re.compile(r"\s*\d+(\s+[-+.\de]+){4,}\s*", re.IGNORECASE)


def read_objects(path: Path, names: Mapping[int, str], data_file: Path) -> list[Marked]:
    """Read the objects of a label file; none if there is no such file.

    Args:
        path: the file.
        names: class number → name.
        data_file: the file of the names, for messages.

    Raises:
        AnnotationsError: one line that names file and line.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationsError(f"{path}: cannot be read ({error}). Repair the file.") from None
    numbered = ((f"{path}, line {number}", line.split()) for number, line in enumerate(lines, 1) if line.strip())
    return [_object(where, words, names, data_file) for where, words in numbered]


def holds_labels(path: Path) -> bool:
    """Return whether a text file that belongs to no photo holds labels: it is empty or has a line like a label's."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return path.is_file()  # reading its objects will report the error
    return not text.strip() or any(_LIKE_LABELS.fullmatch(line) for line in text.splitlines())


def _object(where: str, words: list[str], names: Mapping[int, str], data_file: Path) -> Marked:
    """Parse a line: the class number, then centre and size of a box, or the points of a polygon."""
    try:
        number, *values = [float(word) for word in words]
    except ValueError:
        raise AnnotationsError(f"{where}: holds something that is not a number. Correct it.") from None
    name = names.get(int(number)) if math.isfinite(number) and number == int(number) else None
    if name is None:
        raise AnnotationsError(
            f"{where}: class {words[0]} is not one of the {len(names)} names in {data_file}. Correct the number, or "
            "add the name."
        )
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise AnnotationsError(
            f"{where}: {len(values)} numbers after the class are neither a box (4) nor a polygon (x and y of three "
            "points or more). Correct the line."
        )
    shares = np.array(values)
    if not ((shares >= -_TOLERANCE) & (shares <= 1 + _TOLERANCE)).all():
        outside = next(word for word, share in zip(words[1:], values, strict=True) if not 0 <= share <= 1)
        raise AnnotationsError(
            f"{where}: {outside} is outside 0 to 1. Give coordinates in fractions of the photo's width and height."
        )
    return Marked(name, _rectangle(*values) if len(values) == 4 else shares.reshape(-1, 2))


def _rectangle(x: float, y: float, width: float, height: float) -> FloatArray:
    """Return the corners of a box given by its centre and size, float (4, 2)."""
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
