"""Requests to a served model: their photos, and the form of the answer. A served model takes this file along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.photos.decode import BadPhotoError, decode, read_photo


def requested_photos(frame: pd.DataFrame, side_px: int, allow_paths: bool) -> npt.NDArray[np.uint8]:
    """Decode the photos of a request to uint8 (rows, side, side, 3) in 0–255.

    Each row of ``frame`` has ``image`` (the file's bytes) or, if ``allow_paths`` lets any caller of the server open its
    files, ``path``.

    Raises:
        ValueError: a row has no usable photo, or gives a path although paths are not allowed.
    """
    rows: list[Any] = frame.to_dict(orient="records")
    if not rows:
        raise ValueError("The request has no photo: give one row per photo, its file's bytes in the column 'image'.")
    return np.stack([decode_row(row, number, side_px, allow_paths) for number, row in enumerate(rows)])


def decode_row(row: dict[str, Any], number: int, side_px: int, allow_paths: bool) -> Any:
    """Decode one row's photo to uint8 (side, side, 3) in 0–255."""
    content, path = row.get("image"), row.get("path")
    if isinstance(path, str) and path:
        if not allow_paths:
            raise ValueError(
                f"Row {number} gives a path. Send the photo's bytes in 'image', or load the model with "
                'model_config={"allow_paths": True} to let it open files.'
            )
        try:
            content = read_photo(Path(path))
        except BadPhotoError as error:
            raise ValueError(f"Row {number}, '{path}': {error}.") from None
    if not isinstance(content, bytes) or not content:
        raise ValueError(f"Row {number} has no photo: give the file's bytes in the column 'image'.")
    try:
        return decode(content, side_px).pixels_0_255
    except BadPhotoError as error:
        raise ValueError(f"Row {number} is not a usable photo: {error}.") from None


def answer_frame(probabilities: Any, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Return ``probability_<material>`` and ``decision_<material>`` for each photo.

    Args:
        probabilities: (photos, materials).
        thresholds: material → threshold, in the order of the columns of ``probabilities``.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    answer: dict[str, Any] = {}
    for column, (material, threshold) in enumerate(thresholds.items()):
        answer[f"probability_{material}"] = probabilities[:, column]
        answer[f"decision_{material}"] = probabilities[:, column] >= threshold
    return pd.DataFrame(answer)
