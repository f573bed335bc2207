"""Draw plastic: smooth saturated bodies and film, with soft highlights."""

from __future__ import annotations

import cv2
import numpy as np

from wastelens.data.sample.shapes import (
    CANVAS_PX,
    Colour,
    Image,
    Random,
    Sprite,
    any_colour,
    blend,
    body,
    coordinates,
    glint,
    lathe_light,
    noise,
    opaque,
    outline,
    paint,
    rgb,
    see_through,
    sheet,
    smooth_rows,
    streaks,
)

WHITE = np.ones(3, np.float32)


def _plastic_colour(rng: Random) -> Colour:
    """Draw a colour: mostly a strong one, sometimes white or black."""
    if rng.uniform() < 0.25:
        return rgb(0, 0, rng.choice([0.12, 0.9]))
    return any_colour(rng, (0.55, 0.95), (0.5, 0.95))


def _moulded(rng: Random, across: Image, mask: Image, base: Colour) -> Image:
    """Draw a smooth, coloured round body with one broad soft highlight."""
    place = rng.uniform(-0.5, 0.5)
    return blend(paint(base, lathe_light(across, place)), WHITE, 0.7 * glint(across, place, 0.16) * mask)


def clear_bottle(rng: Random) -> Sprite:
    """Draw a ribbed, pale, see-through bottle with a coloured cap and often a label."""
    half = rng.uniform(0.14, 0.17)
    profile = [(0, 0.05), (0.07, 0.05), (0.071, 0.042), (0.12, 0.045), (0.26, half), (0.97, half), (1, half * 0.8)]
    bottle = body(profile, smooth_rows(rng, 4, rng.uniform(0, 3)))
    ribs = 0.5 + 0.5 * np.sin(bottle.along * 2 * np.pi * rng.integers(9, 14))
    light = np.clip(0.6 * glint(bottle.across, -0.4, 0.25) + 0.35 * ribs * (bottle.along > 0.3), 0, 1)
    tint = rgb(rng.uniform(0.5, 0.6), rng.uniform(0.05, 0.25), 0.85)
    colour = paint(tint, 0.75 + 0.5 * light)
    cap = (bottle.along < 0.075).astype(np.float32)
    label = bottle.band(0.42, 0.68) * (rng.uniform() < 0.6)
    solid = np.maximum(cap, label)
    colour = blend(colour, _moulded(rng, bottle.across, bottle.mask, _plastic_colour(rng)), solid)
    opacity = np.clip(0.42 + 0.5 * light + 0.3 * np.abs(bottle.across) ** 4 + solid, 0, 1) * bottle.mask
    return see_through(colour, opacity, bottle.mask)


def other_bottle(rng: Random) -> Sprite:
    half = rng.uniform(0.16, 0.24)
    bottle = body([(0, 0.07), (0.14, 0.07), (0.141, 0.05), (0.18, 0.06), (0.28, half), (0.96, half), (1, half * 0.8)])
    colour = _moulded(rng, bottle.across, bottle.mask, _plastic_colour(rng))
    cap = (bottle.along < 0.14).astype(np.float32)
    return opaque(blend(colour, paint(_plastic_colour(rng), lathe_light(bottle.across, 0.3)), cap), bottle.mask)


def _disc(rng: Random, base: Colour, rings: float, teeth: int) -> Sprite:
    """Draw a moulded disc from above: a raised rim, a soft crescent of light, a ribbed edge."""
    y, x = coordinates((CANVAS_PX, CANVAS_PX))
    radius = np.hypot(x, y)
    angle = np.arctan2(y, x)
    edge = 0.95 + 0.02 * np.sin(angle * teeth)
    mask = np.clip((edge - radius) * CANVAS_PX / 2, 0, 1)
    turn = np.cos(angle - rng.uniform(0, 6))
    rim = glint(radius, 0.75, 0.09) + glint(radius, rings, 0.05)
    shade = 0.8 + 0.15 * turn + 0.45 * rim * turn
    return opaque(paint(base, np.clip(shade, 0.2, 1.6)), mask)


def bottle_cap(rng: Random) -> Sprite:
    return _disc(rng, _plastic_colour(rng), 0.3, 40)


def plastic_lid(rng: Random) -> Sprite:
    return _disc(rng, _plastic_colour(rng), 0.5, 3)


def plastic_cup(rng: Random) -> Sprite:
    """Draw a ribbed tapering cup, coloured or milky."""
    foot = rng.uniform(0.22, 0.27)
    cup = body([(0, foot * 1.45), (0.03, foot * 1.45), (0.04, foot * 1.32), (0.97, foot), (1, foot * 0.9)])
    colour = _moulded(rng, cup.across, cup.mask, _plastic_colour(rng))
    ribs = 0.9 + 0.12 * np.sin(cup.along * 2 * np.pi * rng.integers(6, 10))
    opacity = cup.mask * np.float32(rng.uniform(0.75, 1))
    return see_through(colour * ribs[..., None], opacity, cup.mask)


def spread_tub(rng: Random) -> Sprite:
    """Draw a rounded tub from above, with a shaded floor and a bright rim."""
    y, x = coordinates((int(CANVAS_PX * 0.75), CANVAS_PX))
    reach = (np.abs(x) ** 4 + np.abs(y) ** 4) ** 0.25
    mask = np.clip((0.96 - reach) * 60, 0, 1)
    rim = glint(reach, 0.86, 0.06)
    shade = 0.55 + 0.15 * (x + y) * (reach < 0.75) + 0.3 * (reach > 0.75) + 0.5 * rim
    return opaque(paint(_plastic_colour(rng), shade), mask)


def _film(rng: Random, mask: Image, base: Colour, opacity: float) -> Sprite:
    """Draw film with soft wrinkles that catch the light and hide more than flat film does."""
    light = streaks(rng, mask.shape, int(rng.integers(7, 12)), rng.uniform(0.04, 0.07))
    shade = 0.78 + 0.08 * noise(rng, mask.shape, 5) + 0.7 * light
    hidden = np.clip(opacity + 0.5 * light, 0, 1) * mask
    return see_through(paint(base, shade), hidden, mask)


def plastic_film(rng: Random) -> Sprite:
    mask = sheet(rng, rng.uniform(0.5, 0.9), int(rng.integers(8, 13)), 0.15)
    return _film(rng, mask, rgb(rng.uniform(0.5, 0.65), rng.uniform(0, 0.3), 0.9), rng.uniform(0.4, 0.65))


def carrier_bag(rng: Random) -> Sprite:
    """Draw a bag with two handles."""
    height, width = CANVAS_PX, int(CANVAS_PX * rng.uniform(0.65, 0.85))
    shape = [(0.12, 0.02), (0.28, 0.02), (0.32, 0.28), (0.68, 0.28), (0.72, 0.02), (0.88, 0.02), (0.97, 0.97)]
    points = np.array([*shape, (0.03, 0.97)]) + rng.normal(0, 0.012, (8, 2))
    mask = outline(points * [width, height], (height, width))
    return _film(rng, mask, _plastic_colour(rng), rng.uniform(0.8, 0.95))


def garbage_bag(rng: Random) -> Sprite:
    mask = sheet(rng, rng.uniform(0.7, 1.0), int(rng.integers(9, 13)), 0.1)
    base = rgb(rng.uniform(0.55, 0.7), rng.uniform(0, 0.8), rng.uniform(0.1, 0.35))
    return _film(rng, mask, base, 1.0)


def wrapper(rng: Random) -> Sprite:
    """Draw a sweet or snack wrapper: crimped ends, a bold emblem, soft shine."""
    height, width = CANVAS_PX, int(CANVAS_PX * rng.uniform(0.4, 0.8))
    teeth = np.arange(0, 23)
    top = np.stack([3 + teeth / 22 * (width - 6), 3 + 5.0 * (teeth % 2)], 1)
    mask = outline(np.concatenate([top, top[::-1] * [1, -1] + [0, height]]), (height, width))
    base, second = _plastic_colour(rng), _plastic_colour(rng)
    drawn = _film(rng, mask, base, 1.0)
    emblem = np.zeros_like(mask)
    axes = (int(width * 0.33), int(height * rng.uniform(0.12, 0.25)))
    cv2.ellipse(emblem, (width // 2, height // 2), axes, rng.uniform(-30, 30), 0, 360, 1.0, -1, cv2.LINE_AA)
    y, _ = coordinates((height, width))
    crimp = (np.abs(y) > 0.84) * (0.5 + 0.5 * np.sin(y * 160)) * 0.4
    colour = blend(drawn.colour, second, emblem * 0.8)
    return opaque(blend(colour, WHITE, crimp), mask)


def _rod(rng: Random, half: float, bend: Image, stripes: Colour | None, base: Colour) -> Sprite:
    """Draw a bent thin tube, with spiral stripes if a colour for them is given."""
    tube = body([(0, half), (1, half)], bend)
    colour = _moulded(rng, tube.across, tube.mask, base)
    if stripes is not None:
        spiral = (np.sin(tube.along * 90 + tube.across * 1.5) > 0.2).astype(np.float32)
        colour = blend(colour, stripes, spiral * 0.9)
    return opaque(colour, tube.mask)


def straw(rng: Random) -> Sprite:
    along = np.linspace(-1, 1, CANVAS_PX, dtype=np.float32)
    bend = np.maximum(along - rng.uniform(0.2, 0.7), 0) * rng.uniform(-50, 50)
    stripes = WHITE if rng.uniform() < 0.4 else None
    return _rod(rng, rng.uniform(0.022, 0.032), bend, stripes, _plastic_colour(rng))


def rope(rng: Random) -> Sprite:
    """Draw a twisted cord in waves."""
    twist = any_colour(rng, (0.5, 0.9), (0.25, 0.5))
    return _rod(rng, rng.uniform(0.03, 0.04), smooth_rows(rng, 3, 16), twist, any_colour(rng, (0.5, 0.9), (0.6, 0.95)))


def utensil(rng: Random) -> Sprite:
    """Draw a fork or spoon."""
    tool = body([(0, 0.05), (0.04, 0.075), (0.2, 0.085), (0.3, 0.035), (0.5, 0.028), (0.9, 0.04), (1, 0.035)])
    colour = _moulded(rng, tool.across, tool.mask, _plastic_colour(rng))
    if rng.uniform() < 0.5:
        return opaque(colour, tool.mask)
    x_px = tool.across * 0.08 * CANVAS_PX
    gaps = ((tool.along < 0.17) & (np.abs(np.abs(x_px) - 4.5) < 1.6)).astype(np.float32)
    return opaque(colour, tool.mask * (1 - gaps))
