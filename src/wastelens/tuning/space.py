"""The search space of ``conf/tune.yaml``: its parameters, and the training settings that their values make."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice, takewhile
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic import BaseModel

from wastelens.config.base import as_text
from wastelens.config.checking import Layer
from wastelens.config.files import train_config_of
from wastelens.config.train import TrainConfig
from wastelens.config.tune import SET_BY_TUNE, ChoiceConfig, ParameterConfig, RangeConfig, TuneConfig, taken_out
from wastelens.errors import ConfigError, did_you_mean

Values = dict[str, Any]  # dotted key of conf/train.yaml → value
Choose = Callable[[str, ParameterConfig], Any]

_OWN_KEYS = (*SET_BY_TUNE, "bootstrap_resamples", "seed", "fold")
_DRAWS = 300  # of settings with every number at an end of its range: enough to meet any two ends that conflict
_LARGEST_GRID = 10_000
_NETWORK_BY_NAME = "network.method"  # a key whose value loads a file of other settings


class Space:
    """The trainings that trials can try.

    Attributes:
        parameters: dotted key → how it is varied, with dependencies first.
        defaults: the settings without any trial: those of ``train`` with the same fixed keys.
    """

    def __init__(self, config: TuneConfig) -> None:
        """Read the space.

        Raises:
            ConfigError: keys that are unknown or set by tune itself, invalid values, circular conditions, or settings
                within the space that conflict.
        """
        self._layers: list[Layer] = [
            ("the section train", dict(config.train)),
            ("tune", {"model": config.model, "dataset": config.dataset, "data_folder": str(config.data_folder)}),
        ]
        self.defaults = self.settings({})
        self._default_tree = self.defaults.model_dump(mode="json")
        self._trees: dict[str, dict[str, Any]] = {}  # by the network's method
        for key in taken_out(config.space):
            _annotations(key)
        self.parameters = _in_order(config.parameters)
        self._check()

    def settings(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return the settings of a training with these parameter values.

        Raises:
            ConfigError: they conflict.
        """
        return train_config_of([*self._layers, ("the space", nested(values))])

    def walk(self, choose: Choose) -> Values:
        """Choose a value for each parameter whose conditions hold, with dependencies first."""
        chosen: Values = {}
        for key, parameter in self.parameters.items():
            if self._holds(parameter.when, chosen):
                chosen[key] = choose(key, parameter)
        return chosen

    def default_values(self) -> Values:
        """Return the defaults of those parameters whose range contains them."""
        return {
            key: _spelled_as_in(parameter, value)
            for key, parameter in self.parameters.items()
            if self._holds(parameter.when, {}) and contains(parameter, value := _at(self._default_tree, key))
        }

    def grid(self) -> list[Values]:
        """Return every combination of values.

        Raises:
            ConfigError: a parameter has infinitely many values, or there are more than 10,000 combinations.
        """
        combinations = list(islice(self._combinations(list(self.parameters.items()), {}), _LARGEST_GRID + 1))
        if len(combinations) > _LARGEST_GRID:
            raise ConfigError(
                f"sampler=grid has more than {_LARGEST_GRID:,} combinations in this space. Remove parameters from "
                "it by null, or use sampler=random."
            )
        return combinations

    def _combinations(self, left: Sequence[tuple[str, ParameterConfig]], chosen: Values) -> Iterator[Values]:
        if not left:
            yield dict(chosen)
            return
        (key, parameter), *others = left
        if not self._holds(parameter.when, chosen):
            yield from self._combinations(others, chosen)
            return
        for value in _steps(key, parameter):
            yield from self._combinations(others, {**chosen, key: value})

    def _holds(self, when: Mapping[str, tuple[Any, ...]], chosen: Values) -> bool:
        tree = self._default_tree
        if method := str(chosen.get(_NETWORK_BY_NAME, "")):  # its network file has other defaults
            if method not in self._trees:
                self._trees[method] = self.settings({_NETWORK_BY_NAME: method}).model_dump(mode="json")
            tree = self._trees[method]
        return all(_text(_set_at(tree, chosen, key)) in {_text(one) for one in values} for key, values in when.items())

    def _check(self) -> None:
        for key, parameter in self.parameters.items():
            _check_key(key, parameter)
        rng = np.random.default_rng(0)
        drawn = (self.walk(lambda _, parameter: _end_of(parameter, rng)) for _ in range(_DRAWS))
        for values in {_text(one): one for one in drawn}.values():
            try:
                self.settings(values)
            except ConfigError as error:
                raise ConfigError(
                    f"The space of tune allows settings that cannot be trained. {error} Narrow the space."
                ) from None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as a tree, as in a config file."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


def contains(parameter: ParameterConfig, value: object) -> bool:
    """Return whether a parameter can have a value."""
    if isinstance(parameter, ChoiceConfig):
        return _text(value) in {_text(one) for one in parameter.values}
    if isinstance(value, bool) or not isinstance(value, int | float) or (parameter.whole and value != int(value)):
        return False
    if not parameter.low <= value <= parameter.high:
        return False
    steps = (value - parameter.low) / parameter.step if parameter.step else 0.0
    return abs(steps - round(steps)) < 1e-9


def _in_order(parameters: Mapping[str, ParameterConfig]) -> dict[str, ParameterConfig]:
    """Return the parameters with dependencies first, otherwise in the order of the file."""
    ordered: dict[str, ParameterConfig] = {}
    left = dict(parameters)
    while left:
        ready = next((key for key, one in left.items() if not _decided_by(left, key, one)), None)
        if ready is None:
            raise ConfigError(
                f"In the space of tune, the conditions of {', '.join(left)} depend on each other. Remove one."
            )
        ordered[ready] = left.pop(ready)
    return ordered


def _decided_by(left: Mapping[str, ParameterConfig], key: str, parameter: ParameterConfig) -> bool:
    """Return whether one of the remaining parameters decides if this one is varied."""
    by_name = key != _NETWORK_BY_NAME and _NETWORK_BY_NAME in left
    return any(
        any(part in left for part in _itself_and_above(name)) or (by_name and name.startswith("network."))
        for name in parameter.when
    )


def _check_key(key: str, parameter: ParameterConfig) -> None:
    _annotations(key)
    for name, values in parameter.when.items():
        options = [get_args(one) for one in _annotations(name) if get_origin(one) is Literal]
        known = [str(option) for some in options for option in some]
        if options and (wrong := next((value for value in values if str(value) not in known), None)) is not None:
            hint = did_you_mean(str(wrong), known) or f" It is one of {', '.join(known)}."
            raise ConfigError(
                f"In the space of tune, '{key}' is varied when {name} is {wrong}, which is not one of its values.{hint}"
            )
    if key in _OWN_KEYS:
        raise ConfigError(f"'{key}' cannot be in the space of tune, which sets it itself.")


def _annotations(key: str) -> list[Any]:
    """Return the types of a dotted key, which exists: several where networks or learners of different kinds have it."""
    here: list[Any] = [TrainConfig]
    for part in key.split("."):
        fields = [model.model_fields for one in here for model in _models(one)]
        here = [of_model[part].annotation for of_model in fields if part in of_model]
        if not here:
            known = list(dict.fromkeys(name for of_model in fields for name in of_model))
            raise ConfigError(f"Unknown key '{key}' in the space of tune.{did_you_mean(part, known)}")
    return here


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the config classes in a type, which may be a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _steps(key: str, parameter: ParameterConfig) -> Iterator[Any]:
    if isinstance(parameter, ChoiceConfig):
        yield from parameter.values
        return
    if parameter.step is None and (parameter.log or not parameter.whole):
        raise ConfigError(
            f"sampler=grid needs values or a step for '{key}', which can be any number from {parameter.low:g} to "
            f"{parameter.high:g}. Give it values, or use sampler=random."
        )
    yield from takewhile(lambda value: value <= parameter.high, map(parameter.after, count()))


def _end_of(parameter: ParameterConfig, rng: np.random.Generator) -> Any:
    """Return a random value, or a random end of a range."""
    if isinstance(parameter, RangeConfig):
        return (parameter.low, parameter.top)[rng.integers(2)]
    return parameter.values[rng.integers(len(parameter.values))]


def _at(tree: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None where it is missing."""
    branch: Any = tree
    for part in key.split("."):
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    return branch


def _itself_and_above(key: str) -> list[str]:
    """Return a dotted key and its parents, nearest first."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _set_at(tree: Mapping[str, Any], chosen: Values, key: str) -> Any:
    """Return the value of a key: chosen, alone or as part of a larger value, or else from the tree."""
    for above in _itself_and_above(key):
        value = chosen.get(above) if above == key else _at(chosen.get(above, {}), key.removeprefix(f"{above}."))
        if value is not None:
            return value
    return _at(tree, key)


def _spelled_as_in(parameter: ParameterConfig, value: Any) -> Any:
    """Return a value as the parameter spells it: 32 and 32.0 are equal."""
    if isinstance(parameter, RangeConfig):
        return int(value) if parameter.whole else float(value)
    return next(one for one in parameter.values if _text(one) == _text(value))


def _text(value: object) -> str:
    """Return a value as text for comparison: 1 equals 1.0, and true is not a number."""
    if isinstance(value, bool | str):
        return as_text(value)
    if isinstance(value, int | float):
        return repr(float(value))
    return json.dumps(value, sort_keys=True, default=str)
