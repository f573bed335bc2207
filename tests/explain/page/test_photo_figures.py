"""Pictures a photo and method: what they show where, and that no text is cut off."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests import factories

from wastelens.data.annotations.outlines import DrawnOutline
from wastelens.explain.page.gallery import ShownPair, ShownPhoto
from wastelens.explain.page.photo_figures import PANEL_PX, pair_text, photo_figure, plain
from wastelens.figures.style import material_colours

MATERIALS = factories.MATERIALS
SQUARE = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
TOP_LEFT = np.array([[1.0, 0.0], [0.0, 0.0]], dtype=np.float32)


def grey_photo(
    width: int = 320, height: int = 240, name: str = "a.jpg", outlines: tuple[DrawnOutline, ...] = ()
) -> ShownPhoto:
    return ShownPhoto(name, np.full((height, width, 3), 120, dtype=np.uint8), outlines, "test")


def a_pair(
    material: str = "plastic",
    evidence: npt.NDArray[np.float32] = TOP_LEFT,
    energy: float = 2.34,
    *,
    label: bool = True,
    note: str = "",
) -> ShownPair:
    scores = {"gradcam": {"energy": energy}}
    return ShownPair(material, label, True, 0.834, 0.41, {"gradcam": evidence}, scores, not note, note)


def drawn(photo: ShownPhoto, pairs: list[ShownPair], *, signed: bool = False, title: str = "Grad-CAM") -> Image.Image:
    content = photo_figure(photo, pairs, "gradcam", title=title, signed=signed, materials=MATERIALS)
    image = Image.open(io.BytesIO(content))
    assert (image.format, image.mode) == ("PNG", "P")
    return image.convert("RGB")


def pixels_of(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image, dtype=np.int64)


def corner_of(pixels: npt.NDArray[np.int64], number: int, size: tuple[int, int]) -> tuple[int, int]:
    """x and y of a panel's first pixel."""
    width = size[0]
    x = 14 + number * (max(width, 180) + 12)
    column = pixels[:, x + 1]
    y = int(np.flatnonzero((column != 255).any(axis=1) & (np.roll(column, -20, axis=0) != 255).any(axis=1))[0])
    while (pixels[y, x + width // 2 : x + width] == 255).any():  # text above the panel
        y += 1
    return x, y


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (64, 48), (320, 20), (20, 320), (1, 1)])
def test_photos_keep_their_proportions(size: tuple[int, int]) -> None:
    one, three = drawn(grey_photo(*size), []), drawn(grey_photo(*size), [a_pair(), a_pair("paper")])
    shown = (max(1, round(size[0] * PANEL_PX / max(size))), max(1, round(size[1] * PANEL_PX / max(size))))
    grey = (np.abs(pixels_of(one) - 120) <= 2).all(axis=-1)
    rows, columns = np.flatnonzero(grey[:, : 14 + shown[0]].sum(axis=1) >= shown[0]), slice(14, 14 + shown[0])
    assert len(rows) == shown[1]
    assert grey[rows[0] : rows[-1] + 1, columns].all()
    assert three.width >= one.width


def test_each_material_has_a_panel_with_its_own_map() -> None:
    bottom_right = TOP_LEFT[::-1, ::-1].copy()
    pixels = pixels_of(drawn(grey_photo(280, 280), [a_pair("plastic"), a_pair("paper", bottom_right)]))
    for number, hot, cold in ((1, 10, 270), (2, 270, 10)):
        x, y = corner_of(pixels, number, (280, 280))
        red, _, blue = pixels[y + hot, x + hot]
        assert red - blue > 100  # yellow
        assert np.abs(pixels[y + cold, x + cold] - 120).max() <= 3  # the photo itself
    x, y = corner_of(pixels, 0, (280, 280))
    assert np.abs(pixels[y : y + 280, x : x + 280] - 120).max() <= 3


def test_signed_maps_are_red_and_blue_blocks() -> None:
    evidence = np.array([[1.0, -1.0]], dtype=np.float32)
    pixels = pixels_of(drawn(grey_photo(280, 280), [a_pair(evidence=evidence)], signed=True))
    x, y = corner_of(pixels, 1, (280, 280))
    assert np.ptp(pixels[y : y + 280, x : x + 138], axis=(0, 1)).max() <= 3
    assert pixels[y + 140, x + 130, 0] - pixels[y + 140, x + 130, 2] > 100
    assert pixels[y + 140, x + 150, 2] - pixels[y + 140, x + 150, 0] > 100


def test_outlines_lie_at_their_place_in_their_colour_and_thicker_for_the_panels_material() -> None:
    photo = grey_photo(280, 140, outlines=(DrawnOutline("plastic", (SQUARE, np.empty((0, 2)))),))
    nothing = np.zeros((2, 2), dtype=np.float32)
    pixels = pixels_of(drawn(photo, [a_pair("plastic", nothing), a_pair("paper", nothing)]))
    colour = np.array([int(material_colours(MATERIALS)["plastic"][place : place + 2], 16) for place in (1, 3, 5)])
    widths = []
    for number in range(3):
        x, y = corner_of(pixels, number, (280, 140))
        row = pixels[y + 70, x : x + 280]
        distances = np.abs(row - colour).sum(axis=1)
        assert abs(int(distances[:140].argmin()) - 69.5) <= 1  # a quarter of the width
        assert abs(int(distances[140:].argmin()) - 69.5) <= 1
        widths.append(int((np.abs(row - 120).max(axis=1) > 20).sum()))
    assert widths[1] > widths[0] == widths[2]


def test_outlines_of_materials_that_nobody_named_are_drawn_too() -> None:
    photo = grey_photo(outlines=(DrawnOutline("nobody knows", (SQUARE,)), DrawnOutline("paper", ())))
    plainly = drawn(grey_photo(), [])
    assert pixels_of(drawn(photo, [])).tolist() != pixels_of(plainly).tolist()


def test_materials_without_a_map_of_the_method_have_no_panel() -> None:
    without = ShownPair("paper", True, False, 0.1, 0.4, {"shap": TOP_LEFT}, {}, False)
    assert drawn(grey_photo(), [without]).size == drawn(grey_photo(), []).size
    assert drawn(grey_photo(), [without, a_pair()]).width > drawn(grey_photo(), []).width


def test_many_materials_stand_in_rows() -> None:
    three, six = (drawn(grey_photo(), [a_pair(name) for name in MATERIALS[:count]]) for count in (3, 6))
    assert six.width == three.width
    assert six.height > 1.7 * three.height


def test_texts_of_pairs() -> None:
    assert pair_text(a_pair(), "gradcam") == "plastic: 0.83 (threshold 0.41), right, energy 2.3x chance"
    assert pair_text(a_pair("other_objects", label=False), "shap") == (
        "other objects: 0.83 (threshold 0.41), false alarm"
    )
    noted = a_pair(energy=math.nan, note="no outlines")
    assert pair_text(noted, "gradcam") == "plastic: 0.83 (threshold 0.41), right; no outlines"


NAMES = st.one_of(
    st.text(max_size=300),
    st.sampled_from(["W" * 400, "Müll–Straße_№1.jpg", "ごみ.jpg", "a\nb\tc", "\udc80.jpg", "🗑" * 50, "", "...", "…"]),
)


@settings(max_examples=25, deadline=None)
@given(name=NAMES, material=NAMES, note=NAMES, size=st.sampled_from([(320, 240), (16, 320), (320, 16)]))
def test_no_text_is_cut_off_whatever_it_is(name: str, material: str, note: str, size: tuple[int, int]) -> None:
    pair = a_pair(material, energy=math.nan, note=note)
    pixels = pixels_of(drawn(grey_photo(*size, name), [pair, pair], title=name))
    margins = [pixels[:5], pixels[-5:], pixels[:, :5], pixels[:, -8:]]
    assert all((margin == 255).all() for margin in margins)
    between = 14 + max(round(size[0] * PANEL_PX / 320), 180)
    bottom = slice(60 + round(size[1] * PANEL_PX / 320), -40)
    assert (pixels[bottom, between + 2 : between + 11] == 255).all()


@pytest.mark.parametrize(("text", "shown"), [("é…ß", "e…ß"), ("a\nb", "a?b"), ("\udc80", "?"), ("plain", "plain")])
def test_letters_that_the_font_lacks(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_pictures_are_small() -> None:
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    photo = np.asarray(Image.fromarray(rough).resize((320, 240), Image.Resampling.BICUBIC)).astype(np.int64)
    grained = np.clip(photo + rng.integers(-6, 7, photo.shape), 0, 255).astype(np.uint8)
    shown = ShownPhoto("a.jpg", grained, (DrawnOutline("plastic", (SQUARE,)),), "test")
    content = photo_figure(shown, [a_pair()], "gradcam", title="Grad-CAM", signed=False, materials=MATERIALS)
    assert 20_000 < len(content) < 160_000
