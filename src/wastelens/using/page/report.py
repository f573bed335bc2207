"""``report.html``: what the photos show, how far to believe it, and the photos to look at first.

One file that fetches nothing. It looks like the page of explanations, whose style sheet it shares.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wastelens.data.photos.decode import BadPhotoError, DecodedPhoto, decode_at
from wastelens.figures.heatmap import heat_png
from wastelens.figures.style import label_text, material_colours
from wastelens.system.arrays import PhotoArray
from wastelens.system.console import progress_bar
from wastelens.system.prefetch import prepared_ahead
from wastelens.using.output import REPORT, Summary, verdict_on
from wastelens.using.photo_list import PhotoList
from wastelens.using.predicting import EVIDENCE, Predictor

SHOWN_SIDE_PX = 320
UNFAMILIAR = 0.05
_JPEG_QUALITY = 70
_AT_ONCE = 32
_OUTSIDE_LOGITS = 1e-6


class ChosenPhotos:
    """The photos to show, chosen block by block: the least sure, the least familiar, and each material's most probable.

    A quarter of the places goes to the least familiar photos, if the model knows; half are shared by the materials; the
    others are for photos whose nearest probability is, in logits, closest to its threshold. If all photos fit, all are
    shown.
    """

    def __init__(self, materials: Sequence[str], thresholds: Any, most: int) -> None:
        self._materials, self._thresholds, self._most = materials, thresholds, most
        self._rows = pd.DataFrame()
        self._seen = 0

    def add(self, rows: pd.DataFrame) -> None:
        """Consider more rows."""
        numbered = rows.assign(row=np.arange(self._seen, self._seen + len(rows)))
        self._seen += len(rows)
        usable = numbered[numbered["problem"] == ""]
        usable = usable.assign(margin=margins(usable, self._materials, self._thresholds))
        everything = pd.concat([self._rows, usable], ignore_index=True) if len(self._rows) else usable
        self._rows = everything if len(everything) <= self._most else self._narrowed(everything)

    def _narrowed(self, rows: pd.DataFrame) -> pd.DataFrame:
        each = self._most // 2 // len(self._materials)
        probable = [rows.nlargest(each, f"probability_{name}") for name in self._materials] if each else []
        strange = rows[rows["distance"].notna()].nlargest(self._most // 4, "distance")
        kept = set(pd.concat([rows[:0], *probable, strange])["row"])
        unsure = rows.sort_values(["margin", "row"])["row"]
        kept.update([row for row in unsure if row not in kept][: self._most - len(kept)])
        return rows[rows["row"].isin(kept)].reset_index(drop=True)

    def least_sure_first(self) -> pd.DataFrame:
        """Return the chosen rows, with ``row``, their number among all, and ``margin``."""
        return self._rows.sort_values(["margin", "row"]).reset_index(drop=True) if len(self._rows) else self._rows


def margins(rows: pd.DataFrame, materials: Sequence[str], thresholds: Any) -> Any:
    """Return how far, in logits, each photo's probability nearest to its threshold is from it, float64 (rows,)."""

    def logits(shares: Any) -> Any:
        inside = np.clip(shares, _OUTSIDE_LOGITS, 1 - _OUTSIDE_LOGITS)
        return np.log(inside / (1 - inside))

    probabilities = rows[[f"probability_{name}" for name in materials]].to_numpy(dtype=np.float64)
    return np.abs(logits(probabilities) - logits(np.asarray(thresholds, dtype=np.float64))).min(axis=1, initial=np.inf)


def write_report(
    folder: Path,
    summary: Summary,
    chosen: pd.DataFrame,
    photos: PhotoList,
    predictor: Predictor,
    *,
    max_megapixels: float,
    workers: int,
) -> None:
    """Write the page; the chosen photos are read once more, and their maps made again."""
    part = folder / f"{REPORT}.part"
    model, materials = predictor.model, predictor.model.materials
    with progress_bar("Drawing the report", len(chosen)) as bar:
        cards = _cards(chosen, photos, predictor, max_megapixels, workers, bar.advance)
        pieces: Iterator[str] = _template().generate(
            title=photos.title,
            model=model,
            card=model.card,
            verdict=verdict_on(model),
            materials=materials,
            colours=material_colours(materials),
            summary=summary,
            estimates=[_estimate(summary, name) for name in materials],
            shown=len(chosen),
            has_evidence=predictor.has_evidence,
            has_familiarity=bool(len(chosen)) and bool(chosen["distance"].notna().any()),
            unfamiliar=UNFAMILIAR,
            notes=_notes(summary, photos, len(chosen)),
            cards=cards,
        )
        try:
            with part.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.writelines(pieces)
            os.replace(part, folder / REPORT)
        finally:
            part.unlink(missing_ok=True)


def _estimate(summary: Summary, material: str) -> dict[str, Any]:
    """Return a row of the table: counts as text, and the interval in percent."""
    share = summary.shares.get(material)
    if share is None:
        return {
            "yes": summary.yes.get(material, 0),
            "unsure": 0,
            "count": "–",
            "interval": "",
            "low": 0.0,
            "high": 0.0,
            "at": None,
        }
    low, high = (round(bound * summary.usable) for bound in (share.low, share.high))
    known = math.isfinite(share.estimate)
    return {
        "yes": summary.yes[material],
        "unsure": summary.unsure[material],
        "count": f"{round(share.estimate * summary.usable):,}" if known else "cannot be told",
        "interval": f"{low:,} to {high:,}",
        "low": 100 * share.low,
        "high": 100 * share.high,
        "at": 100 * share.estimate if known else None,
    }


def _notes(summary: Summary, photos: PhotoList, shown: int) -> list[str]:
    notes = [*photos.notes, *summary.notes]
    if shown < summary.usable:
        notes.append(
            f"Shown below: {shown:,} of {summary.usable:,} photos: the least sure ones, the least familiar ones, and "
            "the most probable ones of each material. Show more with gallery_photos=; all are in predictions.csv."
        )
    return notes


def _cards(
    chosen: pd.DataFrame,
    photos: PhotoList,
    predictor: Predictor,
    max_megapixels: float,
    workers: int,
    drawn: Any,
) -> Iterator[dict[str, Any]]:
    """Yield a card for each chosen photo, as the template expects it; photos are decoded while the network works."""
    sides_px = (SHOWN_SIDE_PX, predictor.model.card.image_side_px)
    with photos.files.opened() as read, ThreadPoolExecutor(workers) as pool:

        def one(row: int) -> tuple[str, bytes, PhotoArray] | None:
            try:
                small, square = decode_at(sides_px, read(row), max_megapixels)
            except BadPhotoError:  # gone since it was predicted
                return None
            return f"{small.width / small.height:.4f}", _thumbnail(small), square.pixels_0_255

        def batch(number: int) -> list[tuple[str, bytes, PhotoArray] | None]:
            rows = chosen["row"].iloc[number * _AT_ONCE : (number + 1) * _AT_ONCE]
            return list(pool.map(one, rows.astype(int)))

        for number, found in enumerate(prepared_ahead(batch, -(-len(chosen) // _AT_ONCE))):
            there = [(place, *photo) for place, photo in enumerate(found, number * _AT_ONCE) if photo is not None]
            squares = [square for *_, square in there]
            maps = predictor(np.stack(squares)).maps if squares and predictor.has_evidence else None
            for nth, (place, ratio, jpeg, _) in enumerate(there):
                yield _card(chosen.iloc[place], ratio, jpeg, None if maps is None else maps[nth], predictor)
            drawn(len(found))


def _card(row: pd.Series[Any], ratio: str, jpeg: bytes, evidence: Any, predictor: Predictor) -> dict[str, Any]:
    materials = predictor.model.materials
    found = evidence is not None and math.isfinite(row[EVIDENCE[0]])
    left, top, right, bottom = (100 * float(row[side]) for side in EVIDENCE) if found else (0.0,) * 4
    answers = [
        {
            "number": number,
            "name": name,
            "probability": float(row[f"probability_{name}"]),
            "threshold": predictor.model.card.thresholds[name],
            "decision": row[f"decision_{name}"],
        }
        for number, name in enumerate(materials)
    ]
    return {
        "row": int(row["row"]),
        "file": row["file"],
        "ratio": ratio,
        "jpeg": _base64(jpeg),
        "heat": _base64(heat_png(evidence, signed=False)) if found else "",
        "seen": row["evidence_material"] if found else "",
        "box": f"left:{left:.1f}%;top:{top:.1f}%;width:{right - left:.1f}%;height:{bottom - top:.1f}%",
        "margin": f"{row['margin']:.3f}",
        "distance": float(row["distance"]),
        "familiarity": float(row["familiarity"]),
        "answers": answers,
        "said": [one for one in answers if one["decision"] == "yes"],
        "unsure": [one for one in answers if one["decision"] == "unsure"],
    }


def _thumbnail(photo: DecodedPhoto) -> bytes:
    """Return a photo in its own proportions as a JPEG, the longer side 320 px."""
    from PIL import Image

    scale = SHOWN_SIDE_PX / max(photo.width, photo.height)
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    small: PhotoArray = np.asarray(cv2.resize(photo.pixels_0_255, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).save(buffer, "JPEG", optimize=True, quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    shared = here.parents[1] / "explain" / "page"
    environment = Environment(
        loader=FileSystemLoader([here, shared]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["label_text"] = label_text
    return environment.get_template("report.html.jinja")
