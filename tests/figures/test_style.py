"""Every material has a colour of its own, and keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_hex
from tests.figure_checks import ALL_MATERIALS

from wastelens.figures import style
from wastelens.figures.style import floor_style, material_colours


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


def test_floors_look_alike_and_several_in_one_panel_can_be_told_apart() -> None:
    first, *others = (floor_style("a", number) for number in range(3))
    assert first["label"] == "floor: a"
    assert all({**one, "linestyle": first["linestyle"]} == first for one in others)
    assert len({one["linestyle"] for one in (first, *others)}) == 3


def test_no_figure_draws_a_floor_of_its_own() -> None:
    """All labels of floors come from `floor_style`."""
    files = [file for file in Path(style.__file__).parent.glob("*.py") if file.name != "style.py"]
    assert files
    assert [file.name for file in files if 'label="floor' in file.read_text(encoding="utf-8")] == []
