"""The types of ``conf/tune.yaml``: a search space as data, and how to search it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from wastelens.config.base import DATASET_HELP, LARGEST_SEED, Config, StudyName, parameter
from wastelens.config.engine import ENGINE_HELP, LOCAL, EngineName, OutageMinutes, Retries
from wastelens.errors import did_you_mean

_SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|)")
SET_BY_TUNE = ("dataset", "data_folder", "model", "resume")  # keys of conf/train.yaml that tune sets itself
_CHOICE, _RANGE = {"values", "when"}, {"low", "high", "log", "step", "when"}
COMPLETE, PRUNED, FAILED, RUNNING = "COMPLETE", "PRUNED", "FAILED", "RUNNING"  # in the table and the tags of runs


def _each(value: object) -> object:
    """Accept one value or several alternatives."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Conditions = dict[str, Annotated[tuple[Any, ...], BeforeValidator(_each)]]


class ChoiceConfig(Config):
    """A parameter that takes one of several values, of any type.

    Attributes:
        values: the possible ones.
        when: key of the settings → its values under which this parameter is varied.
    """

    values: tuple[Any, ...] = Field(min_length=1)
    when: Conditions

    @field_validator("values")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if any(value in values[:number] for number, value in enumerate(values)):  # 1 equals 1.0
            raise ValueError("names a value twice")
        return values


class RangeConfig(Config):
    """A parameter that takes a number in a range, including both ends.

    Attributes:
        low, high: its ends; if both are whole numbers, so is every value.
        log: whether it is sampled evenly on a logarithmic scale.
        step: distance between its values; None: any.
        when: as in :class:`ChoiceConfig`.
    """

    low: int | float
    high: int | float
    log: bool
    step: Annotated[int | float, Field(gt=0)] | None
    when: Conditions

    @model_validator(mode="after")
    def _sound(self) -> RangeConfig:
        if self.low > self.high:
            raise ValueError(f"the range is empty: low {self.low:g} is above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs a range above zero, and low is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step cannot be combined")
        if self.whole and self.step is not None and not isinstance(self.step, int):
            raise ValueError(f"low and high are whole numbers, and step {self.step:g} is not; write low: {self.low}.0")
        return self

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def top(self) -> int | float:
        """Its highest value: high, or the last step below it."""
        if self.step is None:
            return self.high
        return self.after(int((_exact(self.high) - _exact(self.low)) // _exact(self.step)))

    def after(self, steps: int) -> int | float:
        """Return the value `steps` steps above low, rounded as in decimal: 0.3, not 0.30000000000000004."""
        value = _exact(self.low) + steps * _exact(self.step or 1)
        return int(value) if self.whole else float(value)


ParameterConfig = ChoiceConfig | RangeConfig


def _exact(value: float) -> Decimal:
    return Decimal(str(value))


def _parameters(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the parameters of a nested space by dotted key, skipping those that are null."""
    for key, value in tree.items():
        if "." in (name := str(key)):  # it would not override the shipped entry of the same parameter
            raise ValueError(
                f"{prefix}{name} is written with a dot; write {name.replace('.', ': {')}: ...{'}' * name.count('.')}"
            )
        if isinstance(value, Mapping) and (not value or set(value) & (_CHOICE | _RANGE)):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _parameters(value, f"{prefix}{key}.")
        elif value is not None:
            raise ValueError(
                f"{prefix}{key} is {value!r}; write {key}: {{values: [...]}} or {key}: {{low: ..., high: ...}}, or set "
                "fixed values in train"
            )


def taken_out(space: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys that are null in a nested space, and thus are not varied."""
    for key, value in space.items():
        if value is None:
            yield f"{prefix}{key}"
        elif isinstance(value, Mapping) and not set(value) & (_CHOICE | _RANGE):
            yield from taken_out(value, f"{prefix}{key}.")


def _parameter(key: str, said: Mapping[str, Any]) -> ParameterConfig:
    """Return one parameter of the space; a ValueError names its fault."""
    known = sorted(_CHOICE | _RANGE)
    if unknown := next((str(word) for word in said if word not in known), ""):
        hint = did_you_mean(unknown, known).strip() or f"there are: {', '.join(known)}"
        raise ValueError(f"{key} has the unknown key '{unknown}' ({hint[0].lower()}{hint[1:]})")
    given = {word: value for word, value in said.items() if value is not None}
    try:
        if "values" in given and set(given) <= _CHOICE:
            return ChoiceConfig.model_validate({"when": {}, **given})
        if {"low", "high"} <= set(given) <= _RANGE:
            return RangeConfig.model_validate({"when": {}, "log": False, "step": None, **given})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([key, *(str(part) for part in first["loc"] if part not in ("int", "float"))])
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
    raise ValueError(
        f"{key} says {', '.join(given) or 'nothing'}; write {{values: [...]}} or {{low: ..., high: ...}}, the latter "
        "with log or step, both with when; remove a shipped key by null, as in values: null"
    )


def _seconds(duration: str) -> float | None:
    """Return the seconds in ``"90s"``, ``"30min"``, ``"8h"`` or a plain number; None for ``"none"``."""
    if duration == "none":
        return None
    found = _DURATION.fullmatch(duration)
    if found is None or float(found[1]) <= 0:
        raise ValueError("must be a time as in 90s, 30min or 8h, or none")
    return float(found[1]) * _SECONDS[found[2]]


def _duration(value: object) -> str:
    """Check a duration and return it as written."""
    text = "none" if value is None else str(value).strip()
    _seconds(text)
    return text


class TuneConfig(Config):
    """Trials of one model's settings; ``conf/tune.yaml`` explains every key."""

    dataset: str = parameter(DATASET_HELP)
    data_folder: Path
    model: str = parameter("{model}: the file conf/model/<model>.yaml")
    study: StudyName = parameter("search name; reuse it to continue the search; empty: '<model> on <dataset>'")
    storage: str = parameter(
        "database such as postgresql://user@host/name, with its password in PGPASSWORD; empty: data/tuning.db"
    )
    trials: int = parameter("total number of trials over all calls of this search; raise it to extend it", ge=1)
    timeout: Annotated[str, BeforeValidator(_duration)] = parameter(
        "stop after this time, such as 90s, 30min or 8h; the next call continues"
    )
    engine: EngineName = parameter(ENGINE_HELP)
    workers: int = parameter("short for engine=processes:N", ge=1, le=64)
    sampler: Literal["tpe", "random", "grid"] = parameter("tpe, random or grid")
    pruner: Literal["hyperband", "median", "none"] = parameter(
        "hyperband, median or none: stop unpromising trials early"
    )
    pruner_first_epoch: int = Field(ge=1)
    retrain: bool = parameter("true or false: train once more with the best settings, and evaluate on test")
    seed: int = parameter("of the sampler; that of the trials is train.seed", ge=0, le=LARGEST_SEED)
    retries: Retries
    outage_minutes: OutageMinutes
    train: dict[str, Any]
    space: dict[str, Any]

    @field_validator("train")
    @classmethod
    def _train(cls, train: dict[str, Any]) -> dict[str, Any]:
        if own := next((key for key in SET_BY_TUNE if key in train), ""):
            instead = "a search resumes by itself" if own == "resume" else f"write {own} beside train, not below it"
            raise ValueError(f"{own} is not a setting of its trials; {instead}")
        return train

    @field_validator("space")
    @classmethod
    def _space(cls, space: dict[str, Any]) -> dict[str, Any]:
        if not _checked(space):
            raise ValueError("is empty: name at least one parameter to vary")
        return space

    @model_validator(mode="after")
    def _one_engine(self) -> TuneConfig:
        if self.workers > 1 and self.engine not in (LOCAL, f"processes:{self.workers}"):
            raise ValueError(f"workers={self.workers} is short for engine=processes:{self.workers}; give one of them")
        return self

    @property
    def engine_in_use(self) -> str:
        """The engine; workers is its short form."""
        return f"processes:{self.workers}" if self.workers > 1 else self.engine

    @property
    def timeout_s(self) -> float | None:
        """Time limit in seconds; None for no limit."""
        return _seconds(self.timeout)

    @property
    def parameters(self) -> dict[str, ParameterConfig]:
        """Dotted key of ``conf/train.yaml`` → how it is varied, in the order of the file."""
        return _checked(self.space)


def _checked(space: Mapping[str, Any]) -> dict[str, ParameterConfig]:
    return {key: _parameter(key, said) for key, said in _parameters(space)}
