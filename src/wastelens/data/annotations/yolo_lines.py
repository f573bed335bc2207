"""The lines of YOLO's label files: boxes, polygons, and boxes with key points."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wastelens.data.annotations.layout import Marked
from wastelens.data.annotations.yolo_data import YoloData
from wastelens.errors import AnnotationsError
from wastelens.system.arrays import FloatArray
from wastelens.system.files import read_text
from wastelens.system.text import one_line

LARGEST_BYTES = 10_000_000
_LIKE_LABELS = re.compile(r"\s*\d{1,9}([ \t]+[-+.\de]{1,40}){4,}\s*", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})(e[-+]?\d{1,3})?|[-+]?(nan|inf)", re.IGNORECASE)
_FARTHEST = (-1.0, 2.0)  # beyond them, numbers are no fractions of a photo
_FEWEST_ALIKE = 10  # objects, before equal numbers of numbers mean something


@dataclass(frozen=True)
class LabelLine:
    """An object: where it stands, its label and its numbers, in fractions of the photo's width and height."""

    where: str
    label: str
    numbers: list[float]  # a box (centre, width, height), or the points of a polygon

    @property
    def is_far_outside(self) -> bool:
        """Whether a number cannot be a fraction of a photo, such as one in pixels."""
        return not all(_FARTHEST[0] <= number <= _FARTHEST[1] for number in self.numbers)

    def marked(self) -> Marked:
        """Return the object; what overruns the photo is clipped, and an outline far outside left out, as in COCO."""
        if self.is_far_outside:
            return Marked(self.label, np.full((3, 2), np.nan))
        if len(self.numbers) > 4:
            return Marked(self.label, np.array(self.numbers).reshape(-1, 2))
        return Marked(self.label, _corners(self.numbers), is_box=True)


def _corners(box: list[float]) -> FloatArray:
    x, y, width, height = box
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])


def read_lines(path: Path, data: YoloData, data_file: Path) -> list[LabelLine]:
    """Read a label file.

    Raises:
        AnnotationsError: it cannot be read, or a line names no class or is of another task; one line that names it.
    """
    try:
        lines = read_text(path, LARGEST_BYTES).splitlines()
    except OSError as error:
        raise AnnotationsError(f"{path}: cannot be read ({error.strerror}). Repair the file.") from None
    except ValueError as error:
        raise AnnotationsError(
            f"{path}: cannot be read (it {error}). Save it as UTF-8 text, an object a line."
        ) from None
    numbered = ((f"{path}, line {number}", line.split()) for number, line in enumerate(lines, 1) if line.strip())
    return [_line(where, words, data, data_file) for where, words in numbered]


def holds_labels(path: Path) -> bool:
    """Return whether a text file that belongs to no photo holds labels: it is empty or has a line like a label's."""
    try:
        text = read_text(path, LARGEST_BYTES, errors="replace")
    except (OSError, ValueError):
        return path.is_file()  # reading its objects will report the error
    return not text.strip() or any(_LIKE_LABELS.fullmatch(line) for line in text.splitlines())


def _line(where: str, words: list[str], data: YoloData, data_file: Path) -> LabelLine:
    """Parse a line: the class number, then centre and size of a box, or the points of a polygon."""
    if not all(_NUMBER.fullmatch(word) for word in words):
        odd = next(word for word in words if not _NUMBER.fullmatch(word))
        raise AnnotationsError(f"{where}: holds something that is not a number, '{one_line(odd, 40)}'. Correct it.")
    number, *values = [float(word) for word in words]
    label = data.names.get(int(number)) if math.isfinite(number) and number == int(number) else None
    if label is None:
        raise AnnotationsError(
            f"{where}: class {one_line(words[0], 40)} is not one of the {len(data.names)} names in {data_file}. "
            "Correct the number, or add the name."
        )
    return LabelLine(where, label, _of_outline(where, values, data.key_point_numbers))


def _of_outline(where: str, values: list[float], key_point_numbers: int | None) -> list[float]:
    """Return the numbers of a line that are a box or a polygon; key points are left out."""
    count = len(values)
    if key_point_numbers:
        if count not in (4, 4 + key_point_numbers):
            raise AnnotationsError(
                f"{where}: {count} numbers after the class are neither a box (4) nor a box with the key points of "
                f"kpt_shape ({4 + key_point_numbers}). Correct the line, or kpt_shape."
            )
        return values[:4]
    if count != 4 and (count < 6 or count % 2):
        raise AnnotationsError(
            f"{where}: {count} numbers after the class are neither a box (4) nor a polygon (x and y of three points or "
            "more). Correct the line; if key points follow the box, add kpt_shape: [points, 2 or 3] to data.yaml."
        )
    return values


def check_all(objects: Iterable[LabelLine], data: YoloData, data_file: Path) -> None:
    """Refuse objects that are all misread: in pixels, or boxes with key points read as polygons.

    Raises:
        AnnotationsError: they are.
    """
    lines = list(objects)
    if lines and all(line.is_far_outside for line in lines):
        outside = next(one for one in lines[0].numbers if not 0 <= one <= 1)
        raise AnnotationsError(
            f"{lines[0].where}: {outside:g} is outside 0 to 1, and so are all objects. Give coordinates in fractions "
            "of the photo's width and height."
        )
    if data.key_point_numbers is None and len(lines) >= _FEWEST_ALIKE and all(map(_may_be_pose, lines)):
        counts = {len(line.numbers) for line in lines}
        if len(counts) == 1:
            points = counts.pop() - 4
            raise AnnotationsError(
                f"{lines[0].where}: {points + 4} numbers in every line of all label files, with all points inside the "
                f"box that the first four would be: key points? Then add kpt_shape to {data_file}, such as "
                f"kpt_shape: [{points // 2}, 2]; if these are polygons, add kpt_shape: [0, 2]."
            )


def _may_be_pose(line: LabelLine) -> bool:
    """Return whether the points after the first four numbers are inside the box of these, or at 0 0 (not visible)."""
    if len(line.numbers) < 10 or len(line.numbers) % 2:
        return False
    box, points = _corners(line.numbers[:4]), np.array(line.numbers[4:])
    return any(_inside(points.reshape(-1, each)[:, :2], box) for each in (2, 3) if not len(points) % each)


def _inside(points: FloatArray, box: FloatArray) -> bool:
    within = ((points >= box.min(axis=0)) & (points <= box.max(axis=0))).all(axis=1)
    return bool((within | (points == 0).all(axis=1)).all())
