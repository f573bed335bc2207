"""Colours of everything drawn over a photo: maps of evidence, their colour bar, the rims of outlines.

Maps of one sign run from transparent through violet and orange to yellow (matplotlib's plasma: even steps of
lightness, which colour-blind readers can tell apart too). Signed maps are red for evidence for a material and blue for
evidence against it. Each map is scaled by its own largest values: colours compare places within a map, not maps.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import Float32Array

Pixels = npt.NDArray[np.uint8]

SHOWN_CELLS = 48
SIGNED_QUANTILE = 0.995
ONE_SIGN_ENDS, SIGNED_ENDS = ("0", "most evidence"), ("against", "for")  # of the colour bar, left and right
# "plasma" (Smith & van der Walt 2015) at 0, 1/16, …, 1.
_PLASMA = bytes.fromhex(
    "0D0887 310597 4C02A1 6600A7 7E03A8 9511A1 AA2395 BC3587 CC4778 DA5A6A E66C5C F0804E F89540 FDAC33 FDC527 F8DF25"
    " F0F921"
)
_AGAINST, _FOR = (0, 110, 255), (255, 0, 72)
_LEVELS = 64  # per side of the scale: a palette takes four bytes per colour in every file; more cannot be seen
_MOST_OPAQUE = 225.0  # of 255: the photo stays visible under the strongest evidence
_DARK_BELOW = 0.28  # relative luminance below which a colour is lost on dark photos


def shown_map(evidence: Float32Array, *, signed: bool) -> Float32Array:
    """Return the map as it is drawn, float32 of at most 48 cells per side; scores never use it.

    Larger maps are averaged over blocks, since signed maps of photo resolution look like noise. Maps of one sign come
    from coarse layers and then grow smoothly to 48 cells (bilinear, half-pixel centres, edges held). Values that are
    not finite count as no evidence.

    signed: whether negative values are evidence against the material; otherwise they count as no evidence.
    """
    cells, size = averaged(evidence), (SHOWN_CELLS, SHOWN_CELLS)
    if signed:
        return cells
    return np.asarray(cv2.resize(np.maximum(cells, 0), size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def averaged(evidence: Float32Array) -> Float32Array:
    """Average a map by area to at most 48 cells per side, float32; smaller ones stay unchanged."""
    height, width = evidence.shape
    size = (min(width, SHOWN_CELLS), min(height, SHOWN_CELLS))
    return np.asarray(cv2.resize(_finite(evidence), size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def scale_of(evidence: Float32Array, *, signed: bool) -> float:
    """Return the value with the strongest colour: the maximum, or the 99.5 % quantile of a signed map's |values|."""
    values = _finite(evidence)
    return float(np.quantile(np.abs(values), SIGNED_QUANTILE)) if signed else max(0.0, float(values.max()))


def heat_rgba(evidence: Float32Array, scale: float, *, signed: bool) -> Pixels:
    """Return a map's colours and opacity, uint8 (h, w, 4); no evidence is transparent.

    scale: value that gets the strongest colour; zero: nothing is coloured.
    """
    return np.asarray(_table(signed)[_levels(evidence, scale, signed)], dtype=np.uint8)


def heat_png(evidence: Float32Array, *, signed: bool) -> bytes:
    """Draw a map as a small palette PNG with transparency, to be stretched over its photo."""
    from PIL import Image

    shown = shown_map(evidence, signed=signed)
    table = _table(signed)
    image = Image.fromarray(_levels(shown, scale_of(shown, signed=signed), signed))
    image.putpalette(table[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=table[:, 3].tobytes(), optimize=True)
    return buffer.getvalue()


def colour_bar(signed: bool, width: int, height: int) -> Pixels:
    """Draw the colours of `heat_rgba` from left to right, uint8 (height, width, 4)."""
    ramp = np.linspace(-1.0 if signed else 0.0, 1.0, width, dtype=np.float32)
    return heat_rgba(np.tile(ramp, (height, 1)), 1.0, signed=signed)


def rim_colour(colour: str) -> str:
    """Return the colour around an outline of this colour, both ``#RRGGBB``, visible on dark and on bright photos.

    The rim is light for dark colours and dark for light colours, by WCAG 2's relative luminance.
    """
    parts = np.frombuffer(bytes.fromhex(colour.removeprefix("#")), dtype=np.uint8) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return "#FFFFFF" if float(linear @ (0.2126, 0.7152, 0.0722)) < _DARK_BELOW else "#000000"


def _finite(evidence: Float32Array) -> Float32Array:
    return np.nan_to_num(np.asarray(evidence, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _levels(evidence: Float32Array, scale: float, signed: bool) -> Pixels:
    """Return each cell's index into the table of colours, uint8 (h, w)."""
    values = _finite(evidence).astype(np.float64)
    shares = np.clip(values / scale if scale > 0 else 0 * values, -1.0 if signed else 0.0, 1.0)
    levels: Pixels = np.rint(shares * (_LEVELS - 1) + (_LEVELS - 1 if signed else 0)).astype(np.uint8)
    return levels


def _table(signed: bool) -> Pixels:
    """Return the RGBA of every level, uint8 (levels, 4): 64 from none to most, or 127 from against to for."""
    shares = np.linspace(0, 1, _LEVELS)
    opacity = _MOST_OPAQUE * shares
    if signed:
        against, speaking_for = (np.column_stack([np.tile(one, (_LEVELS, 1)), opacity]) for one in (_AGAINST, _FOR))
        return np.asarray(np.rint(np.concatenate([against[:0:-1], speaking_for])), dtype=np.uint8)
    plasma = np.frombuffer(_PLASMA, dtype=np.uint8).reshape(-1, 3)
    colours = [np.interp(shares, np.linspace(0, 1, len(plasma)), channel) for channel in plasma.T]
    return np.asarray(np.rint(np.column_stack([*colours, opacity])), dtype=np.uint8)
