"""Colours of what lies over a photo: a map of evidence, the bar that says what its colours mean, outlines' rims.

Maps of one sign run from transparent over violet and orange to yellow (matplotlib's plasma: even steps of lightness,
which colour-blind readers tell apart too). Signed maps are red where they speak for a material and blue where they
speak against it. A map is scaled by its own largest values: colours compare places in one map, not one map with
another.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt

FloatMap = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

SHOWN_CELLS = 48
SIGNED_QUANTILE = 0.995
ONE_SIGN_ENDS, SIGNED_ENDS = ("0", "most evidence"), ("against", "for")
# "plasma" (Smith & van der Walt 2015) at 0, 1/16, …, 1.
_PLASMA = bytes.fromhex(
    "0D0887 310597 4C02A1 6600A7 7E03A8 9511A1 AA2395 BC3587 CC4778 DA5A6A E66C5C F0804E F89540 FDAC33 FDC527 F8DF25"
    " F0F921"
)
_AGAINST, _FOR = (0, 110, 255), (255, 0, 72)
_LEVELS = 64  # a side of the scale: a palette takes four bytes a colour in every file, and more is not seen
_MOST_OPAQUE = 225.0  # of 255: the photo stays visible under the strongest evidence
_DARK_BELOW = 0.28  # relative luminance: which of a palette's colours are lost on dark photos


def is_signed(evidence: FloatMap) -> bool:
    """Whether any value speaks against the material."""
    return bool((_finite(evidence) < 0).any())


def shown_map(evidence: FloatMap, *, signed: bool) -> FloatMap:
    """What is shown of a map, float32 of at most 48 cells a side; scores never use it.

    Larger maps are averaged over blocks: signed maps of photo resolution are noise otherwise. Maps of one sign come
    from coarse layers and then grow smoothly to 48 cells (bilinear, half-pixel centres, edges held). Values that are
    not finite count as no evidence.

    Args:
        evidence: (h, w), any size.
        signed: whether values below zero speak against the material; otherwise they count as none.
    """
    cells = averaged(evidence)
    if signed:
        return cells
    size = (SHOWN_CELLS, SHOWN_CELLS)
    return np.asarray(cv2.resize(np.maximum(cells, 0), size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def averaged(evidence: FloatMap) -> FloatMap:
    """A map averaged by area to at most 48 cells a side, float32; smaller ones stay as they are."""
    height, width = evidence.shape
    size = (min(width, SHOWN_CELLS), min(height, SHOWN_CELLS))
    return np.asarray(cv2.resize(_finite(evidence), size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def scale_of(evidence: FloatMap, *, signed: bool | None = None) -> float:
    """The value that gets the strongest colour: the maximum, or 99.5 % of the absolute values of a signed map.

    Args:
        evidence: (h, w).
        signed: None: as the values are.
    """
    values = _finite(evidence)
    if is_signed(values) if signed is None else signed:
        return float(np.quantile(np.abs(values), SIGNED_QUANTILE))
    return max(0.0, float(values.max()))


def heat_rgba(evidence: FloatMap, scale: float, *, signed: bool | None = None) -> Pixels:
    """A map's colours and opacity, uint8 (h, w, 4); no evidence is transparent.

    Args:
        evidence: (h, w).
        scale: what gets the strongest colour; zero: nothing is coloured.
        signed: None: as the values are.
    """
    two_sided = is_signed(evidence) if signed is None else signed
    return np.asarray(_table(two_sided)[_levels(evidence, scale, two_sided)], dtype=np.uint8)


def heat_png(evidence: FloatMap, *, signed: bool) -> bytes:
    """What is shown of a map as a small palette PNG with transparency, to be stretched over its photo."""
    from PIL import Image

    shown = shown_map(evidence, signed=signed)
    table = _table(signed)
    image = Image.fromarray(_levels(shown, scale_of(shown, signed=signed), signed))
    image.putpalette(table[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=table[:, 3].tobytes(), optimize=True)
    return buffer.getvalue()


def colour_bar(signed: bool, width: int, height: int) -> Pixels:
    """The colours from left to right as `heat_rgba` gives them, uint8 (height, width, 4); see the ends' names."""
    ramp = np.linspace(-1.0 if signed else 0.0, 1.0, width, dtype=np.float32)
    return heat_rgba(np.tile(ramp, (height, 1)), 1.0, signed=signed)


def laid_over(photo: Pixels, rgba: Pixels) -> Pixels:
    """Colours of the photo's size over it, uint8 (h, w, 3)."""
    opacity = rgba[..., 3:].astype(np.float32) / 255
    mixed = photo + opacity * (rgba[..., :3].astype(np.float32) - photo)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def bar_ends(signed: bool) -> tuple[str, str]:
    """What the left and the right end of the colour bar mean."""
    return SIGNED_ENDS if signed else ONE_SIGN_ENDS


def rim_colour(colour: str) -> str:
    """What surrounds an outline of this colour, both ``#RRGGBB``, so that it is seen on dark and on bright photos.

    A light rim for dark colours and a dark one for light colours, by WCAG 2's relative luminance.
    """
    parts = np.frombuffer(bytes.fromhex(colour.removeprefix("#")), dtype=np.uint8) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return "#FFFFFF" if float(linear @ (0.2126, 0.7152, 0.0722)) < _DARK_BELOW else "#000000"


def _finite(evidence: FloatMap) -> FloatMap:
    return np.nan_to_num(np.asarray(evidence, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def _levels(evidence: FloatMap, scale: float, signed: bool) -> npt.NDArray[np.uint8]:
    """Places in the table of colours, uint8 (h, w)."""
    values = _finite(evidence).astype(np.float64)
    shares = values / scale if scale > 0 else np.zeros_like(values)
    shares = np.clip(shares, -1.0 if signed else 0.0, 1.0)
    levels = np.rint(shares * (_LEVELS - 1) + (_LEVELS - 1 if signed else 0))
    return np.asarray(levels, dtype=np.uint8)


def _table(signed: bool) -> Pixels:
    """RGBA of every level, uint8 (levels, 4): 64 from none to most, or 127 from against over none to for."""
    shares = np.linspace(0, 1, _LEVELS)
    opacity = _MOST_OPAQUE * shares
    if not signed:
        plasma = np.frombuffer(_PLASMA, dtype=np.uint8).reshape(-1, 3)
        places = np.linspace(0, 1, len(plasma))
        colours = [np.interp(shares, places, plasma[:, channel]) for channel in range(3)]
        return np.rint(np.column_stack([*colours, opacity])).astype(np.uint8)
    against = np.column_stack([np.tile(_AGAINST, (_LEVELS, 1)), opacity])
    speaking_for = np.column_stack([np.tile(_FOR, (_LEVELS, 1)), opacity])
    return np.asarray(np.rint(np.concatenate([against[:0:-1], speaking_for])), dtype=np.uint8)
