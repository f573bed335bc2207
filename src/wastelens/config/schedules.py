"""The learning-rate schedules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wastelens.config.base import Config


class ScheduleConfig(Config):
    """Learning rate over the epochs."""

    name: Literal["constant", "exponential", "cosine"]
    start: float = Field(ge=0)
    peak: float = Field(gt=0)
    floor: float = Field(ge=0)
    warmup_epochs: float = Field(ge=0)
    decay_per_epoch: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> ScheduleConfig:
        if self.floor > self.peak:
            raise ValueError(f"floor {self.floor:g} is above peak {self.peak:g}")
        if self.start > self.peak:
            raise ValueError(f"start {self.start:g} is above peak {self.peak:g}")
        return self
