"""Draw aluminium, glass and plastic: metal bands and facets; clear bodies with bright rims; smooth bodies and film."""

from __future__ import annotations

import cv2
import numpy as np

from wastelens.data.sample.shapes import (
    CANVAS_PX,
    Body,
    Colour,
    Field,
    Image,
    Random,
    Sprite,
    any_colour,
    blend,
    body,
    coordinates,
    facets,
    glint,
    lathe_light,
    metal_light,
    noise,
    opaque,
    outline,
    paint,
    polar,
    rgb,
    see_through,
    sheet,
    smooth_rows,
    streaks,
    text,
)


def silver(rng: Random, light: Field) -> Image:
    """Draw bare metal in this light, grey and slightly warm or cold; (height, width) → (height, width, 3)."""
    tint = np.array([1.0, 1.0, 1.0], np.float32) + rng.uniform(-0.05, 0.05, 3).astype(np.float32)
    return np.asarray(np.clip(0.08 + 0.95 * light, 0, 1)[..., None] * tint, np.float32)


def drink_can(rng: Random) -> Sprite:
    """Draw a beverage can, whole or crushed."""
    crush = smooth_rows(rng, 5, rng.uniform(0, 5))
    can = body([(0, 0.2), (0.06, 0.235), (0.1, 0.27), (0.9, 0.27), (0.95, 0.235), (1, 0.2)], crush)
    light, dented = metal_light(rng, can.across), rng.uniform(0.1, 0.45)
    light = (1 - dented) * light + dented * facets(rng, light.shape, 28, 0.5)
    colour = silver(rng, light)
    if rng.uniform() < 0.65:
        printed = noise(rng, can.across.shape, 4) > rng.uniform(-0.6, 0.5)
        enamel = any_colour(rng, (0.5, 0.9), (0.5, 0.95)) * (0.25 + 1.0 * light[..., None])
        colour = blend(colour, enamel, can.band(0.12, 0.88) * printed * 0.85)
    return opaque(colour, can.mask)


def food_can(rng: Random) -> Sprite:
    """Draw a food tin."""
    half = rng.uniform(0.3, 0.42)
    can = body([(0, half), (1, half)])
    ribs = 0.8 + 0.2 * np.sin(can.along * np.pi * 2 * rng.integers(9, 14))
    light = metal_light(rng, can.across) * ribs
    colour = silver(rng, light)
    rust = np.clip(noise(rng, light.shape, 9) - 1.0, 0, 0.8)
    return opaque(blend(colour, rgb(0.06, 0.7, 0.4), rust), can.mask)


def aerosol(rng: Random) -> Sprite:
    """Draw a spray can."""
    can = body([(0, 0.05), (0.08, 0.05), (0.085, 0.09), (0.14, 0.1), (0.2, 0.15), (0.97, 0.155), (1, 0.14)])
    light = metal_light(rng, can.across)
    colour = silver(rng, light)
    label = can.band(0.35, 0.85)
    enamel = any_colour(rng, (0.4, 0.9), (0.4, 0.9)) * (0.3 + 0.9 * light[..., None])
    return opaque(blend(colour, enamel, label * 0.8), can.mask)


def foil(rng: Random) -> Sprite:
    """Draw a crumpled sheet of aluminium foil."""
    mask = sheet(rng, rng.uniform(0.6, 1.0), int(rng.integers(9, 15)), 0.12)
    light = facets(rng, mask.shape, int(rng.integers(45, 90)), 1.2)
    return opaque(silver(rng, light**1.3 * 1.1), mask)


def blister_pack(rng: Random) -> Sprite:
    """Draw a blister pack of aluminium foil."""
    mask = sheet(rng, 0.5, 4, 0.01)
    height, width = mask.shape
    light = 0.45 + 0.5 * facets(rng, (height, width), 14, 0.4)
    for row in range(5):
        for column in range(2):
            centre = (int(width * (0.28 + 0.44 * column)), int(height * (0.13 + 0.185 * row)))
            cv2.ellipse(light, centre, (15, 11), 0, 0, 360, float(rng.uniform(0.1, 0.35)), -1, cv2.LINE_AA)
            cv2.ellipse(light, (centre[0] - 4, centre[1] - 3), (7, 4), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    return opaque(silver(rng, light), mask)


def _round(teeth: int, depth: float) -> Image:
    """Draw a round mask with ``teeth`` around its rim."""
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    radius = (CANVAS_PX / 2 - 3) * (1 - depth + depth * np.cos(angles * teeth))
    return outline(polar(angles, radius) + CANVAS_PX / 2, (CANVAS_PX, CANVAS_PX))


def _brushed(rng: Random) -> tuple[Field, Field]:
    """Draw the light on a lathe-turned metal disc, bright and dark sectors; returns it and the radius."""
    y, x = coordinates((CANVAS_PX, CANVAS_PX))
    angle = np.arctan2(y, x) * rng.integers(2, 4) + rng.uniform(0, 6)
    return 0.5 + 0.5 * np.clip(1.6 * np.sin(angle), -1, 1), np.hypot(x, y)


def metal_cap(rng: Random) -> Sprite:
    """Draw a metal bottle cap."""
    light, radius = _brushed(rng)
    colour = silver(rng, light)
    disc = (radius < 0.7).astype(np.float32)
    if rng.uniform() < 0.5:
        enamel = any_colour(rng, (0.5, 0.9), (0.4, 0.9)) * (0.4 + 0.7 * light[..., None])
        colour = blend(colour, enamel, disc * 0.8)
    return opaque(colour, _round(21, 0.035))


def metal_lid(rng: Random) -> Sprite:
    """Draw the metal lid of a jar."""
    light, radius = _brushed(rng)
    rings = 0.75 + 0.35 * np.sin(radius * rng.uniform(24, 34))
    return opaque(silver(rng, np.clip(light * rings, 0, 1)), _round(3, 0.004))


def scrap_metal(rng: Random) -> Sprite:
    """Draw a bent sheet of scrap metal."""
    mask = sheet(rng, rng.uniform(0.35, 0.7), 4, 0.1)
    y, _ = coordinates(mask.shape)
    folds = np.abs(((y * rng.uniform(2, 4) + rng.uniform()) % 1) * 2 - 1)
    light = 0.65 * folds + 0.35 * facets(rng, mask.shape, 20, 0.6)
    return opaque(silver(rng, light), mask)


def _glass_tint(rng: Random) -> Colour:
    """Draw a colour of bottle glass: green, brown or nearly clear."""
    tints = ((0.36, 0.75, 0.34), (0.28, 0.7, 0.36), (0.07, 0.8, 0.3), (0.45, 0.15, 0.75))
    hue, saturation, value = tints[int(rng.integers(len(tints)))]
    return rgb(hue + rng.normal(0, 0.015), saturation, value * rng.uniform(0.85, 1.2))


def _glass(rng: Random, shape: Body, hollow: float) -> Sprite:
    """Draw clear glass: dark thick walls, a see-through middle, two hard white glints along the wall."""
    wall = np.abs(shape.across) ** 3
    shade = 1.15 - 0.85 * wall
    glints = glint(shape.across, -0.62, 0.1) + 0.8 * glint(shape.across, 0.72, 0.06)
    broken_up = np.clip(1.2 + 0.4 * noise(rng, wall.shape, 7), 0, 1)
    glints = np.clip(glints * broken_up + glint(shape.along, 0.985, 0.012), 0, 1)
    colour = blend(paint(_glass_tint(rng), shade), np.ones(3, np.float32), glints)
    opacity = np.clip(hollow + 0.4 * wall + glints, 0, 1) * shape.mask
    return see_through(colour, opacity, shape.mask)


def glass_bottle(rng: Random) -> Sprite:
    """Draw a glass bottle."""
    neck, belly, shoulder = rng.uniform(0.045, 0.055), rng.uniform(0.13, 0.17), rng.uniform(0.32, 0.42)
    lip = [(0, neck * 1.25), (0.04, neck * 1.25), (0.05, neck)]
    bottle = body([*lip, (shoulder - 0.14, neck * 1.2), (shoulder, belly), (0.97, belly), (1, belly * 0.9)])
    drawn = _glass(rng, bottle, 0.62)
    if rng.uniform() < 0.5:
        return drawn
    label = bottle.band(0.55, 0.8) * bottle.mask
    ink = text(rng, bottle.mask.shape, 9)
    paper = any_colour(rng, (0.1, 0.7), (0.6, 0.95)) * (1 - 0.6 * ink[..., None])
    return see_through(blend(drawn.colour, paper, label * 0.9), np.maximum(drawn.opacity, label), drawn.silhouette)


def glass_jar(rng: Random) -> Sprite:
    """Draw a glass jar."""
    half = rng.uniform(0.28, 0.36)
    jar = body([(0, half * 0.8), (0.12, half * 0.8), (0.2, half), (0.95, half), (1, half * 0.85)])
    return _glass(rng, jar, 0.45)


def glass_cup(rng: Random) -> Sprite:
    """Draw a drinking glass."""
    foot = rng.uniform(0.22, 0.28)
    return _glass(rng, body([(0, foot * 1.3), (0.97, foot), (1, foot * 0.9)]), 0.42)


def broken_glass(rng: Random) -> Sprite:
    """Draw shards with dark, see-through faces and bright broken edges."""
    height = width = CANVAS_PX
    mask, edges = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(3, 6))):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 5))
        radius = rng.uniform(18, 42, (5, 1))
        centre = rng.uniform(45, CANVAS_PX - 45, 2)
        points = centre + polar(angles, radius)
        mask = np.maximum(mask, outline(points, (height, width)))
        cv2.polylines(edges, [np.round(points * 16).astype(np.int32)], True, 1.0, 3, cv2.LINE_8, 4)
    edges *= mask
    shade = 0.7 + 0.6 * facets(rng, (height, width), 12, 0.5)
    colour = blend(paint(_glass_tint(rng), shade), np.ones(3, np.float32), edges)
    return see_through(colour, np.clip(0.65 + edges, 0, 1) * mask, mask)


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
    """Draw an opaque plastic bottle."""
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
    """Draw a plastic bottle cap."""
    return _disc(rng, _plastic_colour(rng), 0.3, 40)


def plastic_lid(rng: Random) -> Sprite:
    """Draw a plastic lid."""
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
    """Draw a crumpled plastic film."""
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
    """Draw a garbage bag."""
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
    """Draw a drinking straw."""
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
