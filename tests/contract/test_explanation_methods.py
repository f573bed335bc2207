"""Every registered explanation method keeps the contract: its own settings, and maps of the promised shape and sign."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.factories import config

from wastelens.config.explain import methods_with_settings
from wastelens.config.explanation_methods import METHODS, MethodInputs, method_names
from wastelens.config.files import conf_folder
from wastelens.models.features import choose_layer

SIDE_PX, MATERIALS = 16, 3
TINY = "shap.samples=4 shap.background_photos=2 shap_partition.evaluations=20 scorecam.channels=4"


def photos(count: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


def test_conf_has_a_file_per_method_with_settings() -> None:
    assert sorted(file.stem for file in (conf_folder() / "explain").glob("*.yaml")) == list(methods_with_settings())


def networks() -> Iterator[Any]:
    """Yield small networks, the base model first."""
    for settings in ("network.widths=[4,6]", "model=objects network.side_px=64"):
        yield config("train", settings).network.build(image_side_px=SIDE_PX, outputs=MATERIALS, seed=1)


@pytest.mark.parametrize("name", method_names())
def test_maps_have_the_promised_shape_and_sign(keras: Any, name: str) -> None:
    kind = METHODS[name]
    network = next(one for one in networks() if not kind.misfit(one))
    inputs = MethodInputs(choose_layer(network) if kind.draws_layer else "", photos, seed=0)
    pairs = np.array([(2, 0), (0, 1), (0, 2)])
    first, again = (config("explain", TINY).method(name).build(network, inputs)(photos(3), pairs) for _ in range(2))
    assert kind.title
    assert first.maps.dtype == np.float32
    assert first.maps.shape[0] == len(pairs)
    assert first.maps.ndim == 3
    assert np.isfinite(first.maps).all()
    assert kind.signed or (first.maps >= 0).all()
    assert first.additivity_error.shape == (len(pairs),)
    np.testing.assert_array_equal(first.maps, again.maps)
