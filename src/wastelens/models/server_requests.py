"""Bodies of requests to MLflow's scoring server. A served model takes this file along."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from wastelens.models.requests import IMAGE, PATH, Limits, RequestError, rows_of

_FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
_BASE64_SHARE = 4 / 3
_JSON = "application/json"
_OTHER_BYTES = 1_000_000  # of a body: names, brackets, line breaks


def check_content_type(content_type: str | None) -> None:
    """Raise RequestError for all but JSON: MLflow reads CSV and Parquet whole before anyone can count rows."""
    if (content_type or "").partition(";")[0].strip() != _JSON:
        given = (content_type or "none")[:80]
        raise RequestError(f"The request's Content-Type is {given}: send JSON, photos as base64 text, as {_JSON}.")


def frame_of(body: bytes | str, limits: Limits) -> pd.DataFrame:
    """Return a request's rows as a frame with ``image`` and, where one row has it, ``path``.

    Raises:
        RequestError: the body is too long, no JSON, has none of MLflow's four forms, or too many rows.
    """
    if len(body) > limits.max_request_megabytes * 1e6 * _BASE64_SHARE + _OTHER_BYTES:
        raise RequestError(
            f"The request is longer than {limits.max_request_megabytes:g} MB of photos: send fewer at a time."
        )
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("The request is not JSON.") from None
    given = [form for form in _FORMS if isinstance(request, dict) and form in request]
    if len(given) != 1:
        raise RequestError(f"The request must be a JSON object with one of {', '.join(_FORMS)}.")
    (form,) = given
    content = request[form]
    for column in content.values() if isinstance(content, dict) else [content]:  # before each row takes memory
        limits.check_rows(len(column) if isinstance(column, list) else 0)
    rows = rows_of(_split(content) if form == "dataframe_split" else content)
    named = [row if isinstance(row, dict) and (IMAGE in row or PATH in row) else {IMAGE: row} for row in rows]
    columns = [IMAGE, PATH] if any(PATH in row for row in named) else [IMAGE]
    return pd.DataFrame({name: pd.Series([row.get(name) for row in named], dtype=object) for name in columns})


def _split(content: Any) -> dict[str, Any]:
    """Return the columns of pandas' form "split"."""
    names = content.get("columns") if isinstance(content, dict) else None
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(names, list) or not isinstance(data, list):
        raise RequestError('dataframe_split must be an object with lists "columns" and "data".')
    if not {IMAGE, PATH} & {name for name in names if isinstance(name, str)}:
        raise RequestError(f"dataframe_split has no column '{IMAGE}'.")
    rows = [row if isinstance(row, list) else [row] for row in data]
    return {
        name: [row[place] if place < len(row) else None for row in rows]
        for place, name in enumerate(names)
        if name in (IMAGE, PATH)
    }
