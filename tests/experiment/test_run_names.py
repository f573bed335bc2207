"""The names of runs: short, and different where the runs are."""

from __future__ import annotations

import pytest
from tests.factories import config

from wastelens.experiment.finished_runs import without_dataset
from wastelens.experiment.fitting import run_name


@pytest.mark.parametrize(
    ("settings", "parameters", "name"),
    [
        ("", {"model": "probe"}, "probe"),
        ("network.side_px=96", {"model": "probe"}, "probe @96px"),
        ("network.side_px=96", {"model": "probe", "dataset": "demo", "seed": "2"}, "probe @96px seed 2 @demo"),
        ("", {"model": "base", "augment": "true", "dataset": "demo"}, "base +aug @demo"),
    ],
)
def test_only_what_is_unusual_stands_in_a_name(settings: str, parameters: dict[str, str], name: str) -> None:
    assert run_name(config("train", settings, **{"dataset": "sample", **parameters})) == name


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("base", "base"),
        ("base +aug @demo", "base +aug"),
        ("probe @96px", "probe @96px"),
        ("probe @96px seed 2 @my photos @ home", "probe @96px seed 2"),
    ],
)
def test_the_dataset_is_left_out(name: str, without: str) -> None:
    assert without_dataset(name) == without
