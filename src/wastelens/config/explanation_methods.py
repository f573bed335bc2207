"""The registry of explanation methods: each file in ``wastelens.explain.methods`` adds its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from wastelens.config.base import Config
from wastelens.system.registry import Registry

if TYPE_CHECKING:
    from wastelens.system.arrays import PhotoArray


@dataclass(frozen=True)
class MethodInputs:
    """Everything a method may use besides the network and its own settings.

    Attributes:
        layer: name of the layer whose map is drawn; empty where no chosen method draws one.
        training_photos: draws this many training photos, uint8 (photos, side, side, 3); the same ones in every call.
        seed: of a method's own draws.
    """

    layer: str
    training_photos: Callable[[int], PhotoArray]
    seed: int


class MethodConfig(Config):
    """Base of an explanation method's settings, which also say what kind of method it is and how to build it.

    Fields of a subclass are the method's settings: their values are in ``conf/explain/<method>.yaml``, and users
    write ``set="<method>.<field>=..."``. A method without fields has no such file.

    Attributes:
        title: the method's name in tables, on the page and in figures.
        signed: whether maps show evidence against a material too, as negative values.
        draws_layer: whether the method draws the map of a layer, and so needs a network with convolutions.
        in_auto: whether ``methods=auto`` includes it where it fits the network.
    """

    title: ClassVar[str]
    signed: ClassVar[bool] = False
    draws_layer: ClassVar[bool] = False
    in_auto: ClassVar[bool] = False

    def check(self, training_photos: int, dataset: str) -> None:
        """Check the settings against the number of training photos of the named dataset.

        Raises:
            ConfigError: the method needs more.
        """

    @classmethod
    def misfit(cls, network: Any) -> str:
        """Return why the method does not work with a network; empty if it does."""
        return ""

    def build(self, network: Any, inputs: MethodInputs) -> Any:
        """Return the method as a ``wastelens.explain.methods.evidence.Method``, ready for this network.

        Args:
            network: flat, as a network's ``build`` makes it.
            inputs: what else the method may use.
        """
        raise NotImplementedError


METHODS: Registry[type[MethodConfig]] = Registry("explanation method", "wastelens.explain.methods")


def method_names() -> tuple[str, ...]:
    """Return the names of all explanation methods, in the order of tables."""
    return tuple(sorted(METHODS.parts))


def automatic_methods() -> tuple[str, ...]:
    """Return the names of the methods that ``methods=auto`` includes where they fit the network."""
    return tuple(name for name in method_names() if METHODS[name].in_auto)
