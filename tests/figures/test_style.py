"""Every material has a colour of its own, and keeps it."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_hex
from tests.figure_checks import ALL_MATERIALS

from wastelens.figures.style import material_colours


@pytest.mark.parametrize("count", [1, 2, 11, 24, 25, 200])
def test_every_material_has_a_colour_of_its_own(count: int) -> None:
    materials = [f"stuff_{number}" for number in range(count)]
    colours = material_colours(materials)
    assert list(colours) == materials
    assert len(set(colours.values())) == count
    assert all(to_hex(colour) == colour.lower() for colour in colours.values())


def test_more_materials_do_not_change_the_colours_of_the_first() -> None:
    few, many = material_colours(ALL_MATERIALS[:4]), material_colours(ALL_MATERIALS)
    assert few.items() <= many.items()
