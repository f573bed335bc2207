"""The search space of ``conf/tune.yaml``: from values of its parameters to a training's settings, and all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from wastelens.config import TrainConfig
from wastelens.config_base import as_text
from wastelens.config_files import Layer, train_config_of
from wastelens.errors import ConfigError, did_you_mean
from wastelens.tune_config import ChoiceConfig, ParameterConfig, RangeConfig, TuneConfig

Values = dict[str, Any]  # dotted key of conf/train.yaml → value
Choose = Callable[[str, ParameterConfig], Any]

_OWN_KEYS = ("dataset", "data_folder", "model", "resume", "bootstrap_resamples")
_DRAWS = 300  # of settings with every number at an end of its range: any two ends that do not go together are met
_LARGEST_GRID = 10_000
_NETWORK_BY_NAME = "network.method"  # a key whose value brings a file of other settings


class Space:
    """Every training that trials may try.

    Attributes:
        parameters: dotted key → how it is varied, those on which others depend first.
        defaults: the settings without any trial: those of ``train`` with the same fixed keys.
    """

    def __init__(self, config: TuneConfig) -> None:
        """Read the space.

        Raises:
            ConfigError: keys that no training knows or that tune sets itself, values that none takes, conditions in a
                circle, or settings within the space that do not go together.
        """
        self._layers: list[Layer] = [
            ("the section train", dict(config.train)),
            ("tune", {"model": config.model, "dataset": config.dataset, "data_folder": str(config.data_folder)}),
        ]
        self.defaults = self.settings({})
        self._default_tree = _tree(self.defaults)
        self.parameters = _in_order(config.parameters)
        self._check()

    def settings(self, values: Mapping[str, Any]) -> TrainConfig:
        """The training's settings where parameters have these values.

        Raises:
            ConfigError: they do not go together.
        """
        return train_config_of([*self._layers, ("the space", nested(values))])

    def walk(self, choose: Choose) -> Values:
        """Choose a value for each parameter whose conditions hold, those on which others depend first."""
        chosen: Values = {}
        for key, parameter in self.parameters.items():
            if self._holds(parameter.when, chosen):
                chosen[key] = choose(key, parameter)
        return chosen

    def default_values(self) -> Values:
        """The defaults' values of those parameters whose range they lie in."""
        return {
            key: int(value) if isinstance(parameter, RangeConfig) and parameter.whole else value
            for key, parameter in self.parameters.items()
            if self._holds(parameter.when, {}) and contains(parameter, value := _at(self._default_tree, key))
        }

    def grid(self) -> list[Values]:
        """Every combination.

        Raises:
            ConfigError: a parameter with endlessly many values, or more combinations than anybody will try.
        """
        combinations: list[Values] = []
        for values in self._combinations(list(self.parameters.items()), {}):
            combinations.append(values)
            if len(combinations) > _LARGEST_GRID:
                raise ConfigError(
                    f"sampler=grid has more than {_LARGEST_GRID:,} combinations in this space. Take parameters out of "
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
        tree = _tree(self.settings(chosen)) if when and _NETWORK_BY_NAME in chosen else self._default_tree
        return all(
            _text(chosen.get(key, _at(tree, key))) in {_text(value) for value in values} for key, values in when.items()
        )

    def _check(self) -> None:
        for key, parameter in self.parameters.items():
            _check_key(key, parameter)
        rng = np.random.default_rng(0)
        for _ in range(_DRAWS):
            values = self.walk(lambda _, parameter: _end_of(parameter, rng))
            try:
                self.settings(values)
            except ConfigError as error:
                raise ConfigError(
                    f"The space of tune allows what no training can be. {error} Narrow the space."
                ) from None


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as the tree that a config file holds."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


def contains(parameter: ParameterConfig, value: object) -> bool:
    """Whether a parameter can have a value."""
    if isinstance(parameter, ChoiceConfig):
        return _text(value) in {_text(one) for one in parameter.values}
    if isinstance(value, bool) or not isinstance(value, int | float) or (parameter.whole and value != int(value)):
        return False
    if not parameter.low <= value <= parameter.high:
        return False
    steps = (value - parameter.low) / parameter.step if parameter.step else 0.0
    return abs(steps - round(steps)) < 1e-9


def _in_order(parameters: Mapping[str, ParameterConfig]) -> dict[str, ParameterConfig]:
    """Those on which others depend first, otherwise in the order of the file."""
    ordered: dict[str, ParameterConfig] = {}
    left = dict(parameters)
    while left:
        ready = next((key for key, one in left.items() if not any(other in left for other in one.when)), None)
        if ready is None:
            raise ConfigError(
                f"In the space of tune, the conditions of {', '.join(left)} depend on each other. Break it."
            )
        ordered[ready] = left.pop(ready)
    return ordered


def _check_key(key: str, parameter: ParameterConfig) -> None:
    known = list(TrainConfig.model_fields)
    for name in (key, *parameter.when):
        first = name.split(".")[0]
        if first not in known:
            raise ConfigError(f"Unknown key '{name}' in the space of tune.{did_you_mean(first, known)}")
    if key in _OWN_KEYS:
        raise ConfigError(f"'{key}' cannot be in the space of tune, which sets it itself.")


def _steps(key: str, parameter: ParameterConfig) -> list[Any]:
    if isinstance(parameter, ChoiceConfig):
        return list(parameter.values)
    step = parameter.step or (1 if parameter.whole and not parameter.log else None)
    if step is None:
        raise ConfigError(
            f"sampler=grid needs values or a step for '{key}', which is any number from {parameter.low:g} to "
            f"{parameter.high:g}. Give it values, or use sampler=random."
        )
    count = int((parameter.high - parameter.low) / step + 1e-9)
    return [parameter.low + number * step for number in range(count + 1)]


def _end_of(parameter: ParameterConfig, rng: np.random.Generator) -> Any:
    """A value, or an end of a range, at random."""
    if isinstance(parameter, RangeConfig):
        return (parameter.low, parameter.high)[rng.integers(2)]
    return parameter.values[rng.integers(len(parameter.values))]


def _tree(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _at(tree: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    branch: Any = tree
    for part in key.split("."):
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    return branch


def _text(value: object) -> str:
    """A value as it is compared: 1 and 1.0 are the same, true is no number."""
    if isinstance(value, bool | str):
        return as_text(value)
    if isinstance(value, int | float):
        return f"{value:g}"
    return json.dumps(value, sort_keys=True, default=str)
