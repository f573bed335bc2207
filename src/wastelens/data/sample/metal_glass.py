"""Draw aluminium and glass: hard metal bands and crumpled facets; clear bodies with bright rims."""

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
    text,
)


def silver(rng: Random, light: Field) -> Image:
    """Draw bare metal in this light, grey and slightly warm or cold; (height, width) → (height, width, 3)."""
    tint = np.array([1.0, 1.0, 1.0], np.float32) + rng.uniform(-0.05, 0.05, 3).astype(np.float32)
    return np.asarray(np.clip(0.08 + 0.95 * light, 0, 1)[..., None] * tint, np.float32)


def _dents(rng: Random, light: Field, share: float) -> Field:
    """Mix crumpled facets into the light."""
    return (1 - share) * light + share * facets(rng, light.shape, 28, 0.5)


def drink_can(rng: Random) -> Sprite:
    crush = smooth_rows(rng, 5, rng.uniform(0, 5))
    can = body([(0, 0.2), (0.06, 0.235), (0.1, 0.27), (0.9, 0.27), (0.95, 0.235), (1, 0.2)], crush)
    light = _dents(rng, metal_light(rng, can.across), rng.uniform(0.1, 0.45))
    colour = silver(rng, light)
    if rng.uniform() < 0.65:
        printed = noise(rng, can.across.shape, 4) > rng.uniform(-0.6, 0.5)
        enamel = any_colour(rng, (0.5, 0.9), (0.5, 0.95)) * (0.25 + 1.0 * light[..., None])
        colour = blend(colour, enamel, can.band(0.12, 0.88) * printed * 0.85)
    return opaque(colour, can.mask)


def food_can(rng: Random) -> Sprite:
    half = rng.uniform(0.3, 0.42)
    can = body([(0, half), (1, half)])
    ribs = 0.8 + 0.2 * np.sin(can.along * np.pi * 2 * rng.integers(9, 14))
    light = metal_light(rng, can.across) * ribs
    colour = silver(rng, light)
    rust = np.clip(noise(rng, light.shape, 9) - 1.0, 0, 0.8)
    return opaque(blend(colour, rgb(0.06, 0.7, 0.4), rust), can.mask)


def aerosol(rng: Random) -> Sprite:
    can = body([(0, 0.05), (0.08, 0.05), (0.085, 0.09), (0.14, 0.1), (0.2, 0.15), (0.97, 0.155), (1, 0.14)])
    light = metal_light(rng, can.across)
    colour = silver(rng, light)
    label = can.band(0.35, 0.85)
    enamel = any_colour(rng, (0.4, 0.9), (0.4, 0.9)) * (0.3 + 0.9 * light[..., None])
    return opaque(blend(colour, enamel, label * 0.8), can.mask)


def foil(rng: Random) -> Sprite:
    mask = sheet(rng, rng.uniform(0.6, 1.0), int(rng.integers(9, 15)), 0.12)
    light = facets(rng, mask.shape, int(rng.integers(45, 90)), 1.2)
    return opaque(silver(rng, light**1.3 * 1.1), mask)


def blister_pack(rng: Random) -> Sprite:
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
    light, radius = _brushed(rng)
    colour = silver(rng, light)
    disc = (radius < 0.7).astype(np.float32)
    if rng.uniform() < 0.5:
        enamel = any_colour(rng, (0.5, 0.9), (0.4, 0.9)) * (0.4 + 0.7 * light[..., None])
        colour = blend(colour, enamel, disc * 0.8)
    return opaque(colour, _round(21, 0.035))


def metal_lid(rng: Random) -> Sprite:
    light, radius = _brushed(rng)
    rings = 0.75 + 0.35 * np.sin(radius * rng.uniform(24, 34))
    return opaque(silver(rng, np.clip(light * rings, 0, 1)), _round(3, 0.004))


def scrap_metal(rng: Random) -> Sprite:
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
    half = rng.uniform(0.28, 0.36)
    jar = body([(0, half * 0.8), (0.12, half * 0.8), (0.2, half), (0.95, half), (1, half * 0.85)])
    return _glass(rng, jar, 0.45)


def glass_cup(rng: Random) -> Sprite:
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
