"""Where in a study's grid a training stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def spoken(levels: Mapping[str, str]) -> str:
    """``augment=true labels=10``."""
    return " ".join(f"{name}={level}" for name, level in levels.items())


@dataclass(frozen=True)
class Place:
    """One training's place among models, levels of factors, seeds and folds.

    Attributes:
        model: its name.
        levels: factor → level, the compared factor first.
        seed, fold: of the training.
    """

    model: str
    levels: Mapping[str, str]
    seed: int
    fold: int

    @property
    def arm(self) -> str:
        """The level of the compared factor."""
        return next(iter(self.levels.values()))

    @property
    def stratum(self) -> str:
        """The levels of all other factors: ``labels=10``; empty where there are none."""
        return ", ".join(f"{name}={level}" for name, level in list(self.levels.items())[1:])

    @property
    def label(self) -> str:
        """``base augment=true seed 0 fold 1``."""
        return f"{self.model} {spoken(self.levels)} seed {self.seed} fold {self.fold}"

    @property
    def columns(self) -> dict[str, Any]:
        """The place as columns of a table."""
        return {
            "model": self.model,
            "arm": self.arm,
            "stratum": self.stratum,
            "seed": self.seed,
            "fold": self.fold,
        }
