"""Colours of evidence: the part of a map that is drawn, how strongly, and in which colour."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wastelens.figures.heatmap import (
    SHOWN_CELLS,
    averaged,
    colour_bar,
    heat_png,
    heat_rgba,
    rim_colour,
    scale_of,
    shown_map,
)
from wastelens.figures.style import material_colours

SIDES = st.integers(1, 170)


def random_map(height: int, width: int, signed: bool, seed: int = 0) -> npt.NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    return values if signed else np.abs(values)


def overlaps(cells: int, values: int) -> npt.NDArray[np.float64]:
    """Return the share of each cell that each value fills, (cells, values): the slow obvious answer."""
    shares = np.zeros((cells, values))
    for cell in range(cells):
        start, end = cell * values / cells, (cell + 1) * values / cells
        for value in range(values):
            shares[cell, value] = max(0.0, min(end, value + 1) - max(start, value)) / (end - start)
    return shares


@given(height=SIDES, width=SIDES)
def test_large_maps_are_averaged_by_area(height: int, width: int) -> None:
    evidence = random_map(height, width, signed=True)
    rows, columns = min(height, SHOWN_CELLS), min(width, SHOWN_CELLS)
    slow = overlaps(rows, height) @ evidence @ overlaps(columns, width).T
    for shown in (averaged(evidence), shown_map(evidence, signed=True)):
        assert shown.dtype == np.float32
        np.testing.assert_allclose(shown, slow, atol=1e-5)


@given(height=SIDES, width=SIDES, signed=st.booleans())
def test_averaging_twice_changes_nothing(height: int, width: int, signed: bool) -> None:
    once = averaged(random_map(height, width, signed))
    np.testing.assert_array_equal(averaged(once), once)


@given(height=st.integers(1, 60), width=st.integers(1, 60))
def test_maps_of_one_sign_grow_smoothly_and_stay_in_their_range(height: int, width: int) -> None:
    evidence = random_map(height, width, signed=False)
    shown = shown_map(evidence, signed=False)
    assert shown.shape == (SHOWN_CELLS, SHOWN_CELLS)
    assert shown.min() >= evidence.min() - 1e-6
    assert shown.max() <= evidence.max() + 1e-6
    constant = shown_map(np.full((height, width), 0.3, np.float32), signed=False)
    np.testing.assert_allclose(constant, 0.3, rtol=1e-6)


def test_growing_is_bilinear_between_the_cells_centres() -> None:
    shown = shown_map(np.array([[0, 1]], dtype=np.float32), signed=False)
    centres = (np.arange(SHOWN_CELLS) + 0.5) / SHOWN_CELLS * 2 - 0.5  # in cells of the small map
    np.testing.assert_allclose(shown, np.tile(np.clip(centres, 0, 1), (SHOWN_CELLS, 1)), atol=1e-6)


def test_scale_is_the_maximum_or_nearly_the_largest_absolute_value() -> None:
    evidence = random_map(100, 100, signed=True)
    assert scale_of(np.abs(evidence), signed=False) == np.abs(evidence).max()
    almost_largest = np.sort(np.abs(evidence).ravel())[9949:9951].mean()
    assert scale_of(evidence, signed=True) == pytest.approx(almost_largest, rel=1e-2)
    assert scale_of(np.abs(evidence), signed=True) == pytest.approx(scale_of(evidence, signed=True))
    assert scale_of(-np.abs(evidence), signed=False) == 0


def test_colours_of_one_sign_are_plasma_and_grow_opaque() -> None:
    ramp = np.linspace(0, 7, 64, dtype=np.float32)[None]
    colours = heat_rgba(ramp, 7, signed=False)[0].astype(int)
    plasma = matplotlib.colormaps["plasma"](np.linspace(0, 1, 64), bytes=True)[:, :3].astype(int)
    assert np.abs(colours[:, :3] - plasma).max() <= 4
    assert colours[0, 3] == 0
    assert (np.diff(colours[:, 3]) > 0).all()
    assert 200 < colours[-1, 3] < 255  # the photo stays visible


def test_signed_colours_are_red_for_and_blue_against() -> None:
    evidence = random_map(9, 7, signed=True)
    speaking_for, against = heat_rgba(evidence, 1.0, signed=True), heat_rgba(-evidence, 1.0, signed=True)
    np.testing.assert_array_equal(speaking_for[..., 3], against[..., 3])
    positive = evidence > 0.1
    assert (speaking_for[positive][:, 0] > speaking_for[positive][:, 2]).all()
    assert (against[positive][:, 2] > against[positive][:, 0]).all()
    assert heat_rgba(np.zeros((1, 1), np.float32), 1.0, signed=True)[0, 0, 3] == 0


def test_a_signed_map_without_negative_values_is_red_too() -> None:
    evidence = np.array([[0.0, 1.0]], dtype=np.float32)
    with_negative = np.array([[-1.0, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(
        heat_rgba(evidence, 1.0, signed=True)[0, 1], heat_rgba(with_negative, 1.0, signed=True)[0, 1]
    )


def test_values_against_count_as_none_in_maps_of_one_sign() -> None:
    evidence = np.array([[-5.0, 0.0, 1.0]], dtype=np.float32)
    assert heat_rgba(evidence, 1.0, signed=False)[0, :, 3].tolist()[:2] == [0, 0]
    assert shown_map(evidence, signed=False).min() == 0


@pytest.mark.parametrize("signed", [False, True])
def test_maps_without_evidence_or_not_finite_are_transparent(signed: bool) -> None:
    nothing = np.zeros((5, 5), np.float32)
    broken = np.array([[np.nan, np.inf], [-np.inf, np.nan]], dtype=np.float32)
    for evidence in (nothing, broken):
        assert scale_of(evidence, signed=signed) == 0
        assert not heat_rgba(evidence, 0.0, signed=signed)[..., 3].any()
        assert not np.asarray(Image.open(io.BytesIO(heat_png(evidence, signed=signed))).convert("RGBA"))[..., 3].any()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shape", [(5, 5), (1, 3), (160, 160), (60, 30)])
def test_the_png_holds_the_colours_of_the_drawn_map(signed: bool, shape: tuple[int, int]) -> None:
    evidence = random_map(*shape, signed)
    shown = shown_map(evidence, signed=signed)
    content = heat_png(evidence, signed=signed)
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
    np.testing.assert_array_equal(pixels, heat_rgba(shown, scale_of(shown, signed=signed), signed=signed))
    assert pixels[..., 3].any()
    assert len(content) < 4000


@pytest.mark.parametrize("signed", [False, True])
def test_the_colour_bar_runs_from_one_end_to_the_other(signed: bool) -> None:
    bar = colour_bar(signed, 101, 3)
    assert bar.shape == (3, 101, 4)
    left = np.array([[-1.0 if signed else 0.0, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(bar[0, [0, -1]], heat_rgba(left, 1.0, signed=signed)[0])
    assert (bar == bar[:1]).all()


def test_rims_stand_out_from_every_materials_colour() -> None:
    """The contrast is at least 3, which WCAG 2.1 (1.4.11) demands of graphics."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in material_colours([str(number) for number in range(40)]).values():
        dark, light = sorted((luminance(colour), luminance(rim_colour(colour))))
        assert (light + 0.05) / (dark + 0.05) >= 3
