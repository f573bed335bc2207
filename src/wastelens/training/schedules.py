"""The learning rate over the epochs."""

from __future__ import annotations

import math

from wastelens.config.schedules import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, epoch: float, epochs: int) -> float:
    """The rate at a (fractional) epoch, counted from 0.

    Warm-up is linear from ``start`` to ``peak``. After it: ``constant`` stays at the peak; ``exponential`` is
    peak · decay^(epochs since); ``cosine`` falls to ``floor`` at the last epoch (Loshchilov & Hutter 2017). None
    goes below ``floor``.
    """
    if epoch < schedule.warmup_epochs:
        return schedule.start + (schedule.peak - schedule.start) * epoch / schedule.warmup_epochs
    since = epoch - schedule.warmup_epochs
    if schedule.name == "constant":
        return schedule.peak
    if schedule.name == "exponential":
        return max(schedule.floor, schedule.peak * math.pow(schedule.decay_per_epoch, since))
    progress = min(1.0, since / max(1e-9, epochs - schedule.warmup_epochs))
    return schedule.floor + (schedule.peak - schedule.floor) * (1 + math.cos(math.pi * progress)) / 2
