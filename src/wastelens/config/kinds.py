"""Parts of a configuration that come in kinds: a loss, a schedule, an optimizer, an augmentation.

Each kind is a class in the file that implements it: it declares its own settings, registers itself, and does its work.
This module has the registries, the base of all kinds of a part, and the type of the field that holds one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Union

from pydantic import Discriminator, Field, Tag, model_validator

from wastelens.config.base import Config
from wastelens.system.registry import Registry

LOSSES: Registry[type[LossConfig]] = Registry("loss", "wastelens.training.losses")
SCHEDULES: Registry[type[ScheduleConfig]] = Registry("schedule", "wastelens.training.schedules")
OPTIMIZERS: Registry[type[OptimizerConfig]] = Registry("optimizer", "wastelens.training.optimizers")
AUGMENTATIONS: Registry[type[Config]] = Registry("augmentation", "wastelens.config.augmentation")


class LossConfig(Config, ABC):
    """A multi-label loss on logits."""

    kind: str

    @abstractmethod
    def __call__(self, labels: Any, logits: Any) -> Any:
        """Return the scalar loss, the mean over photos and materials, in nats.

        Args:
            labels: 0 and 1, float (photos, materials).
            logits: of the same shape.
        """


class ScheduleConfig(Config, ABC):
    """The learning rate over the epochs: a linear warm-up from ``start`` to ``peak``, then the course of the kind."""

    kind: str
    start: float = Field(ge=0, description="learning rate at the first step")
    peak: float = Field(gt=0, description="learning rate after the warm-up")
    warmup_epochs: float = Field(ge=0, description="epochs over which the rate rises from start to peak")

    @model_validator(mode="after")
    def _ordered(self) -> ScheduleConfig:
        if self.start > self.peak:
            raise ValueError(f"start {self.start:g} is above peak {self.peak:g}")
        return self

    def learning_rate(self, epoch: float, epochs: int) -> float:
        """Return the rate at a (fractional) epoch, counted from 0, of a phase of this many epochs."""
        if epoch < self.warmup_epochs:
            return self.start + (self.peak - self.start) * epoch / self.warmup_epochs
        return self.after_warmup(epoch - self.warmup_epochs, epochs - self.warmup_epochs)

    @abstractmethod
    def after_warmup(self, epoch: float, epochs: float) -> float:
        """Return the rate at an epoch counted from the end of the warm-up, of this many after it."""


class OptimizerConfig(Config, ABC):
    """The gradient step."""

    kind: str
    clip_norm: float = Field(ge=0, description="scale gradients down to this norm; 0: never")

    @abstractmethod
    def build(self) -> Any:
        """Return a fresh Keras optimizer; the training loop sets its learning rate step by step."""

    @property
    def clipping(self) -> dict[str, float]:
        """Keras' argument for ``clip_norm``."""
        return {"global_clipnorm": self.clip_norm} if self.clip_norm > 0 else {}


def one_of(registry: Registry[Any]) -> Any:
    """Return the type of a field that holds any kind of a part, told apart by its key ``kind``."""
    known = ", ".join(registry.parts)
    kinds = [Annotated[part, Tag(name)] for name, part in registry.parts.items()]
    discriminator = Discriminator(
        kind_of, custom_error_type="kind", custom_error_message=f"the kind must be one of {known}"
    )
    return Annotated[Union[tuple(kinds)], discriminator]  # noqa: UP007  made at run time


def kind_of(value: object) -> object:
    """Return the kind of a part, in a tree or as a config; "none" where it has none, which is refused by name."""
    return value.get("kind", "none") if isinstance(value, Mapping) else getattr(value, "kind", "none")
