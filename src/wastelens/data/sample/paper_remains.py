"""Draw paper and carton, toxic litter (cigarettes, batteries), other objects, and clutter that is not litter."""

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
    creases,
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
    sheet,
    smooth_rows,
    text,
)


def _white(rng: Random) -> Colour:
    """Draw a colour of white paper, yellowed or greyed."""
    return rgb(rng.uniform(0.08, 0.16), rng.uniform(0.0, 0.16), rng.uniform(0.72, 0.95))


def _kraft(rng: Random) -> Colour:
    """Draw a colour of brown carton."""
    return rgb(rng.uniform(0.07, 0.1), rng.uniform(0.35, 0.55), rng.uniform(0.55, 0.75))


def _printed(rng: Random, base: Colour, mask: Image, pitch_px: int, ink: Colour) -> Sprite:
    """Draw a folded sheet with lines of print."""
    shade = creases(rng, mask.shape, int(rng.integers(2, 5)), 0.1) - 0.06
    weight = text(rng, mask.shape, pitch_px) * 0.85
    return opaque(blend(paint(base, shade), ink, weight) * np.minimum(shade, 1)[..., None], mask)


def normal_paper(rng: Random) -> Sprite:
    """Draw a sheet of paper."""
    mask = sheet(rng, rng.uniform(0.65, 0.9), 4, 0.04)
    return _printed(rng, _white(rng), mask, int(rng.integers(15, 20)), rgb(0.6, 0.3, rng.uniform(0.1, 0.3)))


def magazine_paper(rng: Random) -> Sprite:
    """Draw a printed page with a picture among its lines."""
    mask = sheet(rng, rng.uniform(0.7, 0.9), 4, 0.03)
    page = _printed(rng, _white(rng), mask, 16, rgb(0, 0, 0.15))
    height, width = mask.shape
    top, left = int(height * rng.uniform(0.1, 0.5)), int(width * rng.uniform(0.08, 0.3))
    picture = np.zeros_like(mask)
    picture[top : top + height // 3, left : left + width // 2] = 1
    tones = 0.7 + 0.3 * noise(rng, (height, width), 6)
    scene = paint(any_colour(rng, (0.3, 0.8), (0.4, 0.9)), np.clip(tones, 0.2, 1.4))
    return opaque(blend(page.colour, scene, picture), mask)


def tissue(rng: Random) -> Sprite:
    """Draw a crumpled tissue: white, soft-edged, with grey hollows and no print."""
    mask = sheet(rng, rng.uniform(0.7, 1.0), int(rng.integers(10, 15)), 0.1)
    folds = cv2.GaussianBlur(facets(rng, mask.shape, 40, 0.5), (0, 0), 2.0)
    return opaque(paint(_white(rng), 0.66 + 0.4 * folds), mask)


def wrapping_paper(rng: Random) -> Sprite:
    """Draw matte paper with a regular pattern of dots."""
    mask = sheet(rng, rng.uniform(0.6, 0.9), 4, 0.05)
    pattern = np.zeros_like(mask)
    for row in range(0, mask.shape[0], 20):
        for column in range(0, mask.shape[1], 20):
            cv2.circle(pattern, (column + row % 40 // 2, row), 5, 1.0, -1, cv2.LINE_AA)
    shade = creases(rng, mask.shape, 4, 0.14) - 0.05
    base = any_colour(rng, (0.15, 0.5), (0.7, 0.9))
    return opaque(blend(paint(base, shade), _white(rng), pattern), mask)


def corrugated_carton(rng: Random) -> Sprite:
    """Draw brown board with fine flutes, which show strongly in a torn band."""
    mask = sheet(rng, rng.uniform(0.55, 0.9), 4, 0.05)
    y, x = coordinates(mask.shape)
    flutes = np.sin(x * mask.shape[1] / 2 * 2 * np.pi / rng.uniform(9, 12))
    torn = np.clip(3 * (np.abs(y - rng.uniform(-0.4, 0.4)) < rng.uniform(0.2, 0.5)), 0, 1)
    shade = creases(rng, mask.shape, 2, 0.1) + flutes * (0.06 + 0.24 * torn)
    return opaque(paint(_kraft(rng), np.clip(shade, 0, 1.2).astype(np.float32)), mask)


def _box(rng: Random, base: Colour, ink: Colour) -> Sprite:
    """Draw a flattened box: panels and flaps with dark folds between them, and print on the panels."""
    mask = sheet(rng, rng.uniform(0.6, 0.85), 4, 0.02)
    height, width = mask.shape
    shade = creases(rng, (height, width), 1, 0.08) - 0.03
    for fold in (0.2, 0.55, 0.85):
        row = int(height * (fold + rng.normal(0, 0.02)))
        shade[row : row + 3] *= 0.55
        shade[:row] *= rng.uniform(0.9, 1.02)
    weight = text(rng, (height, width), int(rng.integers(16, 22))) * 0.8
    weight[: int(height * 0.22)] = 0
    return opaque(blend(paint(base, shade), ink, weight), mask)


def other_carton(rng: Random) -> Sprite:
    """Draw a carton box, white or coloured."""
    base = _white(rng) if rng.uniform() < 0.5 else any_colour(rng, (0.2, 0.6), (0.6, 0.9))
    return _box(rng, base, rgb(rng.uniform(), 0.6, 0.25))


def pizza_box(rng: Random) -> Sprite:
    """Draw a pizza box."""
    return _box(rng, _kraft(rng), rgb(0.0, rng.uniform(0.5, 0.9), 0.4))


def egg_carton(rng: Random) -> Sprite:
    """Draw grey pulp with rows of cups."""
    mask = sheet(rng, 0.45, 4, 0.01)
    y, x = coordinates(mask.shape)
    bumps = np.sin((y + 1) * np.pi * 6) * np.sin((x + 1) * np.pi * 2)
    shade = 0.75 + 0.3 * bumps + 0.05 * noise(rng, mask.shape, 50)
    return opaque(paint(rgb(0.1, 0.1, rng.uniform(0.6, 0.75)), np.clip(shade, 0, 1)), mask)


def paper_cup(rng: Random) -> Sprite:
    """Draw a tapering matte cup with a rolled rim and a printed band."""
    foot = rng.uniform(0.22, 0.27)
    cup = body([(0, foot * 1.42), (0.05, foot * 1.42), (0.051, foot * 1.35), (1, foot)])
    light = lathe_light(cup.across, rng.uniform(-0.5, 0.5))
    light = light + 0.12 * (cup.along < 0.05) - 0.2 * (np.abs(cup.along - 0.06) < 0.01)
    colour = paint(_white(rng), light)
    band = text(rng, cup.mask.shape, 18) * (np.abs(cup.along - 0.5) < 0.25)
    return opaque(blend(colour, any_colour(rng, (0.5, 0.9), (0.2, 0.5)), band), cup.mask)


def paper_bag(rng: Random) -> Sprite:
    """Draw a brown bag with a saw-toothed mouth, long folds and some print."""
    height, width = CANVAS_PX, int(CANVAS_PX * rng.uniform(0.55, 0.75))
    teeth = np.arange(0, 19)
    mouth = np.stack([4 + teeth / 18 * (width - 8), 5 + 7.0 * (teeth % 2)], 1)
    mask = outline(np.concatenate([mouth, [[width - 5, height - 4], [4, height - 4]]]), (height, width))
    shade = creases(rng, (height, width), 5, 0.16) - 0.05
    side = int(width * rng.uniform(0.15, 0.25))
    shade[:, :side] *= 0.8
    weight = text(rng, (height, width), 22) * 0.7
    return opaque(blend(paint(_kraft(rng), shade), rgb(0.05, 0.5, 0.2), weight), mask)


def cigarette(rng: Random) -> Sprite:
    """Draw a crumpled white tube with a cork-coloured filter and a burnt end."""
    half = rng.uniform(0.09, 0.11)
    stub = body([(0, half), (0.95, half), (1, half * 0.6)], smooth_rows(rng, 3, rng.uniform(1, 6)))
    light = lathe_light(stub.across, rng.uniform(-0.4, 0.4))
    filter_end = rng.uniform(0.36, 0.5)
    colour = paint(rgb(0.12, 0.04, 0.97), light)
    cork = rgb(rng.uniform(0.06, 0.09), rng.uniform(0.65, 0.8), rng.uniform(0.8, 0.9))
    speckled = paint(cork, light * np.clip(1 + 0.12 * noise(rng, light.shape, 40), 0, 1.3))
    colour = blend(colour, speckled, (stub.along < filter_end).astype(np.float32))
    ash = np.clip((stub.along - 0.9 + 0.02 * noise(rng, light.shape, 20)) * 25, 0, 1)
    return opaque(blend(colour, rgb(0, 0, 0.12), ash), stub.mask)


def battery(rng: Random) -> Sprite:
    """Draw a cell with a metal button, a coloured cap and a black wall."""
    cell = body([(0, 0.06), (0.04, 0.06), (0.041, 0.165), (1, 0.165)])
    shine = lathe_light(cell.across, -0.3) + 0.5 * glint(cell.across, -0.35, 0.14)
    cap = any_colour(rng, (0.7, 0.95), (0.7, 0.95))
    if rng.uniform() < 0.6:
        cap = rgb(0.08, 0.75, 0.85)
    colour = paint(rgb(0, 0, 0.1), shine)
    colour = blend(colour, paint(cap, shine), (cell.along < 0.38).astype(np.float32))
    ends = ((cell.along < 0.05) | (cell.along > 0.96)).astype(np.float32)
    return opaque(blend(colour, paint(rgb(0, 0, 0.9), metal_light(rng, cell.across)), ends), cell.mask)


def shoe(rng: Random) -> Sprite:
    """Draw a shoe from above: a pale sole around a darker upper, a dark opening, pale laces."""
    height, width = CANVAS_PX, int(CANVAS_PX * 0.46)
    shape = [(0.5, 0.01), (0.78, 0.07), (0.95, 0.24), (0.93, 0.42), (0.8, 0.6), (0.82, 0.85), (0.68, 0.98)]
    shape += [(0.32, 0.98), (0.18, 0.85), (0.16, 0.6), (0.07, 0.4), (0.08, 0.22), (0.24, 0.06)]
    points = np.array(shape) * [width, height]
    centre = np.array([width / 2, height / 2])
    sole = outline(points, (height, width))
    upper = outline(centre + (points - centre) * [0.8, 0.92], (height, width))
    base = any_colour(rng, (0.1, 0.6), (0.2, 0.5))
    grain = 0.9 + 0.1 * noise(rng, (height, width), 45)
    colour = blend(paint(rgb(0.1, 0.1, 0.88), grain), paint(base, grain), upper)
    opening = np.zeros_like(sole)
    cv2.ellipse(opening, (width // 2, int(height * 0.75)), (int(width * 0.22), 26), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    laces = np.zeros_like(sole)
    for row in range(int(height * 0.3), int(height * 0.56), 11):
        cv2.line(laces, (int(width * 0.28), row), (int(width * 0.72), row + 5), 1.0, 4, cv2.LINE_AA)
    colour = blend(blend(colour, rgb(0, 0, 0.05), opening), rgb(0.1, 0.05, 0.92), laces)
    return opaque(colour, sole)


def food_waste(rng: Random) -> Sprite:
    """Draw a peel or a half-eaten lump, yellow to brown, freckled with dark rot."""
    if rng.uniform() < 0.55:
        return _peel(rng)
    mask = sheet(rng, rng.uniform(0.7, 0.95), int(rng.integers(9, 13)), 0.07)
    y, x = coordinates(mask.shape)
    dome = np.sqrt(np.maximum(1.1 - x * x - y * y, 0))
    shade = 0.35 + 0.7 * dome + 0.1 * noise(rng, mask.shape, 20)
    hue = rng.choice([0.0, 0.07, 0.14, 0.24]) + rng.normal(0, 0.015)
    colour = paint(rgb(hue, rng.uniform(0.4, 0.75), rng.uniform(0.55, 0.85)), shade)
    return opaque(_freckles(rng, colour, 12), mask)


def _freckles(rng: Random, colour: Image, cells: float) -> Image:
    """Add spots of dark rot."""
    spots = np.clip((noise(rng, colour.shape[:2], cells) - 0.45) * 3, 0, 0.85)
    return blend(colour, rgb(0.06, 0.7, 0.13), spots)


def _peel(rng: Random) -> Sprite:
    """Draw a banana peel: three or four curling strips from one stem."""
    size = CANVAS_PX
    mask, shade = np.zeros((size, size), np.float32), np.ones((size, size), np.float32)
    centre = np.array([size / 2, size / 2])
    start = rng.uniform(0, 6)
    for strip in range(int(rng.integers(3, 5))):
        angle = start + strip * 1.7 + rng.normal(0, 0.15)
        steps = np.linspace(0, 1, 14)
        turns = angle + rng.uniform(-0.9, 0.9) * steps
        spine = centre + polar(turns, steps * size * 0.46)
        across = np.stack([-np.sin(turns), np.cos(turns)], 1) * (15 * np.sqrt(1.02 - steps))[:, None]
        mask = np.maximum(mask, outline(np.concatenate([spine + across, (spine - across)[::-1]]), (size, size)))
        half = outline(np.concatenate([spine, (spine - across)[::-1]]), (size, size))
        shade -= 0.25 * half * (shade > 0.9)
    base = rgb(rng.uniform(0.11, 0.15), rng.uniform(0.6, 0.85), rng.uniform(0.75, 0.95))
    return opaque(_freckles(rng, paint(base, shade), 16), np.clip(mask, 0, 1))


def leaf(rng: Random) -> Sprite:
    """Draw a leaf with veins, green to brown or red."""
    steps = np.linspace(0, np.pi, 20)
    height, width = CANVAS_PX, int(CANVAS_PX * rng.uniform(0.3, 0.65))
    bulge = np.sin(steps) ** rng.uniform(0.8, 1.6) * (width / 2 - 2)
    rows = steps / np.pi * (height - 4) + 2
    left, right = np.stack([width / 2 - bulge, rows], 1), np.stack([width / 2 + bulge, rows], 1)
    mask = outline(np.concatenate([left, right[::-1]]), (height, width))
    y, x = coordinates((height, width))
    veins = np.maximum(np.abs(x) < 0.06, np.sin((y - np.abs(x) * 0.5) * 22) > 0.9)
    shade = 0.9 + 0.12 * noise(rng, (height, width), 10) + 0.12 * np.sign(x) - 0.18 * veins
    hue = rng.choice([0.28, 0.2, 0.12, 0.08, 0.05, 0.0])
    base = rgb(hue + rng.normal(0, 0.02), rng.uniform(0.45, 0.9), rng.uniform(0.3, 0.85))
    return opaque(paint(base, shade), mask)


def stone(rng: Random) -> Sprite:
    """Draw a stone, white to black or ochre, lit from one side."""
    mask = cv2.GaussianBlur(sheet(rng, rng.uniform(0.6, 1), int(rng.integers(7, 11)), 0.06), (0, 0), 5)
    mask = np.clip((mask - 0.5) * 8, 0, 1)
    y, x = coordinates(mask.shape)
    turn = rng.uniform(0, 6)
    shade = 0.8 + 0.3 * (np.cos(turn) * x + np.sin(turn) * y) + 0.08 * noise(rng, mask.shape, 30)
    base = rgb(rng.uniform(0, 0.15), rng.uniform(0, 0.35), rng.uniform(0.25, 0.95))
    return opaque(paint(base, shade), mask)


def twig(rng: Random) -> Sprite:
    """Draw a bent, tapering stick."""
    stick = body([(0, rng.uniform(0.012, 0.025)), (1, 0.008)], smooth_rows(rng, 4, 6))
    base = rgb(rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.6))
    return opaque(paint(base, lathe_light(stick.across, 0.3)), stick.mask)


def flower(rng: Random) -> Sprite:
    """Draw fallen blossom in any colour."""
    size = CANVAS_PX
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    petals = int(rng.integers(4, 8))
    radius = (size / 2 - 4) * (0.62 + 0.38 * np.abs(np.sin(angles * petals / 2 + rng.uniform(0, 3))))
    mask = outline(size / 2 + polar(angles, radius), (size, size))
    y, x = coordinates((size, size))
    reach = np.hypot(x, y)
    colour = paint(any_colour(rng, (0.1, 0.9), (0.6, 1)), 1.1 - 0.35 * (1 - reach))
    heart = np.clip((0.25 - reach) * 12, 0, 1)
    return opaque(blend(colour, rgb(0.13, 0.8, 0.8), heart), mask)


def bark(rng: Random) -> Sprite:
    """Draw a flake of bark or a clod of earth."""
    mask = sheet(rng, rng.uniform(0.3, 0.9), int(rng.integers(7, 12)), 0.12)
    shade = 0.6 + 0.35 * facets(rng, mask.shape, 18, 0.3) + 0.1 * noise(rng, mask.shape, 40)
    base = rgb(rng.uniform(0.03, 0.11), rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.6))
    return opaque(paint(base, shade), mask)
