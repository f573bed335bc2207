"""Restricted Boltzmann machines: one, or a stack of them."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wastelens.config.networks import LEARNERS, BoltzmannConfig, Units


class _Boltzmann(BoltzmannConfig, ABC):
    def visible_side_px(self, image_side_px: int) -> int:
        """Return the side of the shrunk photos."""
        from wastelens.data.photos.shrink import shrunk_side

        return shrunk_side(image_side_px, self.side_px)

    def encode(self, photos_0_255: Any, seeds: Iterator[int]) -> Any:
        """Return the top machine's hidden probabilities, from random weights."""
        from wastelens.models.encoders import unrolled_stack, visible_pixels

        visible = visible_pixels(photos_0_255, self.side_px)
        return unrolled_stack(visible, self.layers, seeds, standardised=self.visible == "gaussian")

    def standardise(self, network: Any, photos: Any, folder: Path) -> None:
        """Standardise pixels as pretraining does; otherwise training from scratch, the control, has another task."""
        if self.visible == "gaussian":
            from wastelens.models.encoders import set_visible_statistics
            from wastelens.training.visible_photos import pixel_statistics

            set_visible_statistics(network, *pixel_statistics(photos, self, folder))

    def learning(self, photos: Any, *, seed: int, mixed_precision: bool, folder: Path) -> Any:
        """Return the layerwise learning."""
        from wastelens.training.stack_learning import StackLearning

        return StackLearning(self, photos, seed=seed, mixed_precision=mixed_precision, folder=folder)


@LEARNERS.register("rbm")
class RbmConfig(_Boltzmann):
    """One restricted Boltzmann machine."""

    kind: Literal["rbm"]
    hidden_units: Units

    @property
    def layers(self) -> tuple[int, ...]:
        """Its hidden units."""
        return (self.hidden_units,)


@LEARNERS.register("dbn")
class DbnConfig(_Boltzmann):
    """A greedy stack of restricted Boltzmann machines; each layer is trained for ``epochs``."""

    kind: Literal["dbn"]
    hidden_units: tuple[Units, ...] = Field(min_length=1)

    @property
    def layers(self) -> tuple[int, ...]:
        """Hidden units of each layer, from the bottom up."""
        return self.hidden_units
