"""Learning-rate schedules; all begin with a linear warm-up from ``start`` to ``peak``."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from wastelens.config.kinds import SCHEDULES, ScheduleConfig


@SCHEDULES.register("constant")
class ConstantSchedule(ScheduleConfig):
    """The peak, from the warm-up on."""

    kind: Literal["constant"]

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """Return the peak."""
        return self.peak


class _FallingSchedule(ScheduleConfig):
    floor: float = Field(ge=0, description="the rate never falls below this")

    @model_validator(mode="after")
    def _above_floor(self) -> _FallingSchedule:
        if self.floor > self.peak:
            raise ValueError(f"floor {self.floor:g} is above peak {self.peak:g}")
        return self


@SCHEDULES.register("exponential")
class ExponentialSchedule(_FallingSchedule):
    """peak · decay^(epochs since the warm-up), but not below ``floor``."""

    kind: Literal["exponential"]
    decay_per_epoch: float = Field(gt=0, le=1, description="factor of the rate per epoch")

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """Return the rate."""
        return max(self.floor, self.peak * math.pow(self.decay_per_epoch, epoch))


@SCHEDULES.register("cosine")
class CosineSchedule(_FallingSchedule):
    """Half a cosine, which reaches ``floor`` at the last epoch (Loshchilov & Hutter 2017)."""

    kind: Literal["cosine"]

    def after_warmup(self, epoch: float, epochs: float) -> float:
        """Return the rate."""
        progress = min(1.0, epoch / max(1e-9, epochs))
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * progress)) / 2
