"""A picture a photo and method, for people who browse artifacts: the photo, then the evidence for each material."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.explain.page.gallery import ShownPair, ShownPhoto
from wastelens.figures.heatmap import bar_ends, colour_bar, heat_rgba, laid_over, rim_colour, scale_of, shown_map
from wastelens.figures.style import label_text, material_colours

Pixels = npt.NDArray[np.uint8]

PANEL_PX = 280  # the longer side of a photo
_COLUMNS = 4
_MARGIN, _GAP, _LINE = 14, 12, 17  # px
_TITLE_PX, _TEXT_PX = 15, 12
_BAR_WIDTH, _BAR_HEIGHT = 160, 10
_INK, _MUTED, _PAPER, _BACKDROP = "#1B1B1A", "#5F5F5A", "#FFFFFF", 141
_FINER = 2  # lines are drawn on a canvas so many times as large: OpenCV's thinnest would hide small litter
_THIN, _THICK, _RIM = 2, 5, 2  # px of that canvas
_SUBPIXEL_BITS = 4
_PALETTE_SAMPLE = 4  # every fourth pixel a side chooses the palette: faster, and it looks alike
_GREYS, _BAR_COLOURS, _MOST_OUTLINES = 8, 24, 16  # of the palette's 256


def photo_figure(
    photo: ShownPhoto,
    pairs: Sequence[ShownPair],
    method: str,
    *,
    title: str,
    signed: bool,
    materials: Sequence[str],
) -> bytes:
    """A PNG with the photo and its outlines, then a panel a material with the method's map over it.

    Args:
        photo: with all its outlines.
        pairs: those without a map of this method are left out.
        method: its name.
        title: its name as people read it.
        signed: whether its maps speak for and against.
        materials: all of the dataset, in its order, which gives their colours.
    """
    named = [*materials, *sorted({one.material for one in photo.outlines} - set(materials))]
    colours = material_colours(named)
    pixels = _fitted(photo.photo)
    panels = [(_with_outlines(pixels, photo.outlines, colours, None), "photo and outlines")]
    for pair in pairs:
        if method in pair.overlays:
            heated = _heated(pixels, pair.overlays[method], signed)
            panels.append((_with_outlines(heated, photo.outlines, colours, pair.material), pair_text(pair, method)))
    bar = _bar(signed)
    image = _composed(panels, f"{photo.file_name} ({photo.split})", title, bar, signed)
    outlined = sorted({colours[one.material] for one in photo.outlines})
    return _png(image, _exact_colours(bar, outlined[:_MOST_OUTLINES]))


def pair_text(pair: ShownPair, method: str) -> str:
    """Such as ``plastic: 0.83 (threshold 0.41), right, energy 2.3x chance``."""
    probability = f"{pair.probability:.2f} (threshold {pair.threshold:.2f})"
    text = f"{label_text(pair.material)}: {probability}, {label_text(pair.outcome)}"
    energy = pair.energy(method)
    if math.isfinite(energy):
        return f"{text}, energy {energy:.1f}x chance"
    return f"{text}; {pair.note}" if pair.note else text


def _fitted(photo: Pixels) -> Pixels:
    """The photo with a longer side of 280 px, uint8 (h, w, 3)."""
    height, width = photo.shape[:2]
    share = PANEL_PX / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    interpolation = cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, size, interpolation=interpolation), dtype=np.uint8)


def _heated(photo: Pixels, evidence: npt.NDArray[np.float32], signed: bool) -> Pixels:
    """The map's colours over the photo: blocks for signed maps, smooth for the others."""
    shown = shown_map(evidence, signed=signed)
    scale = scale_of(shown, signed=signed)
    interpolation = cv2.INTER_NEAREST if signed else cv2.INTER_LINEAR
    # values grow, not colours: halfway between two colours lies one that the bar does not know
    grown = np.asarray(cv2.resize(shown, photo.shape[1::-1], interpolation=interpolation), dtype=np.float32)
    return laid_over(photo, heat_rgba(grown, scale, signed=signed))


def _with_outlines(
    pixels: Pixels, outlines: Sequence[DrawnOutline], colours: dict[str, str], material: str | None
) -> Pixels:
    """All outlines with their rims, thicker for this material, on a copy."""
    height, width = pixels.shape[:2]
    size = (width * _FINER, height * _FINER)
    canvas = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    for outline in sorted(outlines, key=lambda one: one.material == material):
        points = [_canvas_points(polygon, size) for polygon in outline.polygons if len(polygon) > 1]
        thickness = _THICK if outline.material == material else _THIN
        colour = colours[outline.material]
        for line, line_colour in ((thickness + _RIM, rim_colour(colour)), (thickness, colour)):
            cv2.polylines(canvas, points, True, _rgb(line_colour), line, cv2.LINE_AA, _SUBPIXEL_BITS)
    return np.asarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _canvas_points(polygon: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Shares of the photo → OpenCV's fixed-point coordinates, which count from the first pixel's centre."""
    places = (np.clip(polygon, 0, 1) * np.array(size) - 0.5) * 2**_SUBPIXEL_BITS
    return np.asarray(np.rint(places), dtype=np.int32)


def _composed(panels: Sequence[tuple[Pixels, str]], caption: str, title: str, bar: Pixels, signed: bool) -> Image.Image:
    """Panels in rows of four below the caption, the colour bar at the end."""
    cell = max(panels[0][0].shape[1], 180)  # a narrow photo's text needs more room than the photo
    columns = min(len(panels), _COLUMNS)
    width = max(2 * _MARGIN + columns * cell + (columns - 1) * _GAP, 420)
    texts = [_wrapped(text, _TEXT_PX, cell) for _, text in panels]
    below = _LINE * max(map(len, texts)) + 6
    photo_height = panels[0][0].shape[0]
    rows = math.ceil(len(panels) / columns)
    top = _MARGIN + 2 * _LINE + 14
    bottom = top + rows * (photo_height + below + _GAP)
    image = Image.new("RGB", (width, bottom + _BAR_HEIGHT + _MARGIN + 4), _PAPER)
    draw = ImageDraw.Draw(image)
    _write(draw, (_MARGIN, _MARGIN - 2), _fitting(caption, _TITLE_PX, width - 2 * _MARGIN), _TITLE_PX, _INK)
    heading = _fitting(f"{title}: where the evidence lies", _TEXT_PX, width - 2 * _MARGIN)
    _write(draw, (_MARGIN, _MARGIN + _LINE + 4), heading, _TEXT_PX, _MUTED)
    for number, ((pixels, _), lines) in enumerate(zip(panels, texts, strict=True)):
        row, column = divmod(number, columns)
        x, y = _MARGIN + column * (cell + _GAP), top + row * (photo_height + below + _GAP)
        image.paste(Image.fromarray(pixels), (x, y))
        for line, text in enumerate(lines):
            _write(draw, (x, y + photo_height + 5 + line * _LINE), text, _TEXT_PX, _INK)
    _draw_bar(image, draw, bottom, bar, signed)
    return image


def _bar(signed: bool) -> Pixels:
    """The colours over a grey that stands for the photo."""
    backdrop = np.full((_BAR_HEIGHT, _BAR_WIDTH, 3), _BACKDROP, dtype=np.uint8)
    return laid_over(backdrop, colour_bar(signed, _BAR_WIDTH, _BAR_HEIGHT))


def _draw_bar(image: Image.Image, draw: ImageDraw.ImageDraw, y: int, bar: Pixels, signed: bool) -> None:
    left, right = bar_ends(signed)
    _write(draw, (_MARGIN, y - 3), left, _TEXT_PX, _MUTED)
    x = _MARGIN + math.ceil(_width(left, _TEXT_PX)) + 7
    image.paste(Image.fromarray(bar), (x, y))
    note = f"{right} (averaged over blocks to be seen)" if signed else right
    _write(draw, (x + _BAR_WIDTH + 7, y - 3), note, _TEXT_PX, _MUTED)


def _png(image: Image.Image, exact: Pixels) -> bytes:
    """A palette of 256 colours, a third of the size: these (n, 3), and for the rest what the picture needs most."""
    small = (max(1, image.width // _PALETTE_SAMPLE), max(1, image.height // _PALETTE_SAMPLE))
    sample = image.resize(small, Image.Resampling.NEAREST)
    chosen = sample.quantize(256 - len(exact), method=Image.Quantize.MEDIANCUT).getpalette() or []
    palette = Image.new("P", (1, 1))
    colours = [*exact.ravel().tolist(), *chosen[: 3 * (256 - len(exact))]]
    palette.putpalette(colours)
    indices = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
    paper = tuple(exact[0].tolist())
    indices[cv2.inRange(np.asarray(image), paper, paper) > 0] = 0  # Pillow's search is coarse: paper would turn grey
    reduced = Image.fromarray(indices)
    reduced.putpalette(colours)
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG")
    return buffer.getvalue()


def _exact_colours(bar: Pixels, colours: Sequence[str]) -> Pixels:
    """What is drawn and not photographed, paper first, uint8 (n, 3): greys of the text, the bar, the outlines."""
    greys = np.linspace(255, 0, _GREYS).repeat(3).reshape(-1, 3)
    steps = bar[0, np.linspace(0, bar.shape[1] - 1, _BAR_COLOURS).astype(np.intp)]
    drawn = np.array([_rgb(colour) for colour in colours], dtype=np.uint8).reshape(-1, 3)
    return np.concatenate([greys.astype(np.uint8), steps, drawn])


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size_px: int, colour: str) -> None:
    draw.text(place, plain(text), fill=colour, font=_font(size_px))


def plain(text: str) -> str:
    """Letters without accents, on one line: Pillow's own font has few others, and draws a box for what it lacks."""
    letters = (letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter))
    return "".join(letter if letter.isprintable() else "?" for letter in letters)


def _wrapped(text: str, size_px: int, width_px: int) -> list[str]:
    """Lines no wider than this; a word that is wider is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else ""
        if longer and _width(longer, size_px) <= width_px:
            lines[-1] = longer
        else:
            lines.append(_fitting(word, size_px, width_px))
    return lines


def _fitting(text: str, size_px: int, width_px: int) -> str:
    """The text with its middle left out where it is too wide: its ends tell it from its neighbours."""
    if _width(text, size_px) <= width_px:
        return text
    low, high = 0, len(text) // 2
    while low < high:
        letters = (low + high + 1) // 2
        low, high = (letters, high) if _width(_ends(text, letters), size_px) <= width_px else (low, letters - 1)
    return _ends(text, low)


def _ends(text: str, letters: int) -> str:
    return f"{text[:letters]}…{text[len(text) - letters :]}"


def _width(text: str, size_px: int) -> float:
    return float(_font(size_px).getlength(plain(text)))


@cache
def _font(size_px: int) -> Any:
    return ImageFont.load_default(size_px)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
