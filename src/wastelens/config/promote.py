"""The settings of ``promote``: ``conf/promote.yaml``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from wastelens.config.base import LARGEST_SEED, Config, parameter

# It is part of addresses such as models:/litter@champion, and of commands.
_NAME = re.compile(r"(\w[\w .-]*)?")


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name.strip()):
        raise ValueError(
            f"{name!r} cannot be the name of a model; begin with a letter or digit, then use letters, digits, spaces "
            "and . _ - only"
        )
    return name.strip()


class PromoteConfig(Config):
    """A model run to register, or a version to go back to; ``conf/promote.yaml`` explains every key."""

    name: Annotated[str, AfterValidator(_plain_name)] = parameter("of the model in MLflow's registry, such as litter")
    run_id: str = parameter("a finished train run: its model is registered, and compared with the champion")
    margin: float = parameter(
        "how much worse than the champion the model may be in macro AP, at the end of the interval; 0: it must beat it",
        ge=0,
        lt=1,
    )
    accept_single_seed: bool = parameter(
        "true or false: let photos alone decide where no fold has two seeds of both sides, though seeds differ by luck"
    )
    rollback: bool = parameter("true: give the alias champion back to the version that had it before")
    version: int = parameter("give the alias champion to this version, whatever the numbers; 0: none", ge=0)
    bootstrap_resamples: int = Field(ge=100)
    seed: int = parameter("of the bootstrap", ge=0, le=LARGEST_SEED)

    @model_validator(mode="after")
    def _one_task(self) -> PromoteConfig:
        if sum([bool(self.run_id), self.rollback, bool(self.version)]) > 1:
            raise ValueError("run_id, rollback and version are three different commands; give one of them")
        return self
