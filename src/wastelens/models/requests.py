"""Requests to a served model: photos, limits, and the form of the answer. A served model takes this file along."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageOps

from wastelens.data.photos.decode import BadPhotoError, decode, read_photo, square
from wastelens.system.decision_rule import UNSURE, YES, DecisionRule

IMAGE, PATH, B64 = "image", "path", "b64"
PROBLEM = "problem"
_DECODING_BYTES = 1_000_000_000  # of one photo; of large ones, one is decoded at a time
_FORMS = "a photo file's bytes, their base64 text, or {'b64': that text}"


class RequestError(ValueError):
    """A request that cannot be answered row by row; the message says what to send instead."""


@dataclass(frozen=True)
class Limits:
    """The most that one request may ask for: no caller may take a server's memory, or block it.

    Attributes:
        max_rows: photos; 256 at 512 px are 800 MB as the network's input, float32.
        max_request_megabytes: of all photo files: 256 of 250 kB, or 12 of 5 MB. A hostile body takes thirty times its
            length while it is read.
        max_photo_megapixels: of a photo; a panorama has 60, and its header is enough to refuse it.
        max_request_megapixels: of all photos, of which the last may go beyond it; some 10 s of decoding.
    """

    max_rows: float = 256
    max_request_megabytes: float = 64
    max_photo_megapixels: float = 100
    max_request_megapixels: float = 1000

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Limits:
        """Take the limits among a model's settings.

        Raises:
            ValueError: one is no positive number.
        """
        given = {one.name: settings[one.name] for one in fields(cls) if one.name in settings}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"model_config: {name}={value!r} is no positive number")
        return cls(**given)

    def check_rows(self, rows: int) -> None:
        """Raise RequestError where a request has too many rows."""
        if rows > self.max_rows:
            raise RequestError(
                f"The request has {rows:,} rows: send at most {self.max_rows:g} at a time, or load the model with "
                "another max_rows in its model_config."
            )


class Request:
    """The rows of a request.

    Args:
        rows: as of :func:`rows_of`.
        side_px: of the photos that the network takes.
        limits: of the request.
        allow_paths: whether a row may name a file; then any caller of a server could open the server's files.
    """

    def __init__(self, rows: list[Any], side_px: int, limits: Limits | None = None, allow_paths: bool = False) -> None:
        self._limits, self._side_px, self._allow_paths = limits or Limits(), side_px, allow_paths
        self._bytes = self._pixels = 0
        if not rows:
            raise RequestError(f"The request has no photo: give one row per photo, {_FORMS} in the column '{IMAGE}'.")
        self._limits.check_rows(len(rows))
        self._rows = rows

    def photos(self) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Decode the photos, uint8 (good rows, side, side, 3) in 0–255; return them and each row's problem, or ""."""
        photos, problems = [], []
        for row in self._rows:
            try:
                photos.append(self._photo(row))
                problems.append("")
            except BadPhotoError as error:
                problems.append(str(error))
        none = np.zeros((0, self._side_px, self._side_px, 3), np.uint8)
        return np.stack(photos) if photos else none, problems

    def _photo(self, row: Any) -> npt.NDArray[np.uint8]:
        """Return a row's photo, uint8 (side, side, 3)."""
        content = self._content(row)
        if isinstance(content, np.ndarray):
            self._count(content.nbytes, content.shape[0] * content.shape[1])
            return square(content, self._side_px)
        self._count(len(content), 0)
        decoded = decode(content, self._side_px, self._limits.max_photo_megapixels, _DECODING_BYTES)
        self._pixels += decoded.width * decoded.height
        return decoded.pixels_0_255

    def _content(self, row: Any) -> Any:
        """Return a row's photo: the bytes of a file, or pixels, uint8 (height, width, 3)."""
        if isinstance(row, Mapping) and (IMAGE in row or PATH in row):
            row = row.get(IMAGE) if _is_given(row.get(IMAGE)) else _Path(row.get(PATH))
        if isinstance(row, _Path):
            return self._file(row.given)
        if isinstance(row, Path):
            return self._file(row)
        if isinstance(row, Mapping) and B64 in row:
            row = row[B64] if isinstance(row[B64], str) else None
        if isinstance(row, str) and row:
            self._count(len(row) * 3 // 4, 0, keep=False)
            return self._from_text(row)
        if isinstance(row, (bytes, bytearray, memoryview)) and len(row):
            return bytes(row)
        if isinstance(row, Image.Image):
            return self._file_of(row)
        if isinstance(row, np.ndarray):
            return self._pixels_of(row)
        raise BadPhotoError(f"no photo: give {_FORMS} as '{IMAGE}'")

    def _from_text(self, text: str) -> bytes:
        """Decode base64; of a text that is none, only who may open files is told that it names one."""
        try:
            return _from_base64(text)
        except BadPhotoError as error:
            if self._allow_paths and os.path.isfile(text):
                raise BadPhotoError(f"{error}, but names a file: give it as '{PATH}', or as a pathlib.Path") from None
            raise

    def _file(self, path: Any) -> bytes:
        if not isinstance(path, (str, Path)) or not path:
            raise BadPhotoError(f"no photo: give {_FORMS} as '{IMAGE}'")
        if not self._allow_paths:
            raise BadPhotoError(
                f"a path, which this model may not open: send the photo as '{IMAGE}', or load the model with "
                'model_config={"allow_paths": true}'
            )
        try:
            return read_photo(Path(path))
        except ValueError as error:  # a null character
            raise BadPhotoError(f"no path of a file ({error})") from None

    def _file_of(self, image: Image.Image) -> bytes:
        """Return an image of Pillow as a file, so that all its modes are treated as those of files are."""
        self._check_megapixels(image.width * image.height)
        file = io.BytesIO()
        try:
            ImageOps.exif_transpose(image).save(file, format="TIFF", exif=b"")
        except (OSError, ValueError, KeyError) as error:
            raise BadPhotoError(f"an image that cannot be read ({error})") from None
        return file.getvalue()

    def _pixels_of(self, array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        grey = array.ndim == 2
        if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
            raise BadPhotoError(
                f"an array of {array.dtype} {array.shape}: give pixels as uint8 (height, width, 3) in 0–255, RGB"
            )
        self._check_megapixels(array.shape[0] * array.shape[1])
        return np.repeat(array[:, :, None], 3, axis=2) if grey else array

    def _check_megapixels(self, pixels: int) -> None:
        if pixels > self._limits.max_photo_megapixels * 1e6:
            raise BadPhotoError(f"absurdly large: the limit is {self._limits.max_photo_megapixels:g} megapixels")

    def _count(self, size_bytes: int, pixels: int, *, keep: bool = True) -> None:
        """Count a photo towards what the request may ask for."""
        limits = self._limits
        if self._bytes + size_bytes > limits.max_request_megabytes * 1e6:
            raise BadPhotoError(
                f"the request's photos exceed {limits.max_request_megabytes:g} MB: send fewer at a time"
            )
        if self._pixels > limits.max_request_megapixels * 1e6:
            raise BadPhotoError(
                f"the request's photos exceed {limits.max_request_megapixels:g} megapixels: send fewer at a time"
            )
        if keep:
            self._bytes, self._pixels = self._bytes + size_bytes, self._pixels + pixels


@dataclass(frozen=True)
class _Path:
    given: Any


def rows_of(request: Any) -> list[Any]:
    """Return a request's rows: photos, or dicts with ``image`` or ``path``.

    Args:
        request: a frame, or a dict of columns, with ``image`` or ``path``; a list, series or array of photos or of
            ``pathlib.Path``; one of these.

    Raises:
        RequestError: a frame or dict has neither column.
    """
    if isinstance(request, pd.DataFrame):
        return _rows_of_frame(request)
    if isinstance(request, pd.Series):
        return list(request)
    if isinstance(request, Mapping):
        return _rows_of_columns(request)
    if isinstance(request, np.ndarray):
        many = request.ndim == 4 or (request.ndim == 1 and request.dtype != np.uint8)
        return [_plain(one) for one in request] if many else [_plain(request)]
    return [_plain(one) for one in request] if isinstance(request, (list, tuple)) else [request]


def _rows_of_frame(frame: pd.DataFrame) -> list[Any]:
    names = [name for name in (IMAGE, PATH) if name in frame]
    if not names and len(frame.columns) == 1:  # Spark names the only column of a model without names "0"
        return list(frame.iloc[:, 0])
    if not names:
        given = ", ".join(str(name)[:40] for name in frame.columns[:8]) or "none"
        raise RequestError(f"The request has no column '{IMAGE}' (its columns: {given}): it takes {_FORMS}.")
    return [dict(zip(names, row, strict=True)) for row in zip(*(frame[name] for name in names), strict=True)]


def _rows_of_columns(columns: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a dict of columns; a dict of single values is a row."""
    columns = {name: _plain(value) for name, value in columns.items() if name in (IMAGE, PATH, B64)}
    lengths = {len(value) for value in columns.values() if isinstance(value, (list, tuple))}
    if not lengths:
        return [columns]
    if len(lengths) > 1 or not all(isinstance(value, (list, tuple)) for value in columns.values()):
        raise RequestError("The request's columns differ in length: give each row the same columns.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(value: Any) -> Any:
    """Return what MLflow's server packs into NumPy arrays, and dicts of them, as it was sent."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    is_packed = isinstance(value, np.ndarray) and value.dtype.kind in "OUS" and value.ndim <= 1
    return value.tolist() if is_packed else value


def _is_given(value: Any) -> bool:
    return not (value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)))


def _from_base64(text: str) -> bytes:
    """Decode base64, with line breaks or without, perhaps as a data URL."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadPhotoError("a text that is not base64") from None
    if not content:
        raise BadPhotoError("an empty file")
    return content


def answer_frame(probabilities: Any, rule: DecisionRule | None, problems: list[str] | None = None) -> pd.DataFrame:
    """Return one row for each photo; a row with a problem has None but for it.

    A classifier answers with ``probability_<material>``, calibrated, and ``decision_<material>``: True, False, or None
    where it is unsure. An encoder answers with ``features``.

    Args:
        probabilities: of the network, for the good rows (photos, materials); an encoder's features.
        rule: of a classifier; None for an encoder.
        problems: of each row, "" for a good one; None: all are good.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    problems = [""] * len(probabilities) if problems is None else problems
    good = np.flatnonzero([not problem for problem in problems])
    frame = pd.DataFrame(_columns(probabilities, rule), index=good)
    if len(good) < len(problems):  # None becomes null in JSON, which knows no NaN
        frame = frame.astype(object).reindex(range(len(problems))).astype(object)
        frame = frame.where(frame.notna(), None)
    return frame.assign(**{PROBLEM: problems})


def _columns(probabilities: npt.NDArray[np.float64], rule: DecisionRule | None) -> dict[str, Any]:
    if rule is None:
        return {"features": probabilities.tolist()}
    numbers = rule.calibrated(probabilities)
    answers = rule.answers(numbers)
    columns: dict[str, Any] = {}
    for column, material in enumerate(rule.thresholds):
        columns[f"probability_{material}"] = numbers[:, column]
        said = answers[:, column]
        decisions = said == YES
        columns[f"decision_{material}"] = np.where(said == UNSURE, None, decisions) if rule.bands else decisions
    return columns
