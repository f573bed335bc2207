"""The search space of ``conf/tune.yaml``: from values of its parameters to a training's settings, and all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import numpy as np
from pydantic import BaseModel

from wastelens.config.base import as_text
from wastelens.config.files import Layer, train_config_of
from wastelens.config.train import TrainConfig
from wastelens.config.tune import SET_BY_TUNE, ChoiceConfig, ParameterConfig, RangeConfig, TuneConfig, taken_out
from wastelens.errors import ConfigError, did_you_mean

Values = dict[str, Any]  # dotted key of conf/train.yaml → value
Choose = Callable[[str, ParameterConfig], Any]

_OWN_KEYS = (*SET_BY_TUNE, "bootstrap_resamples", "seed", "fold")
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
        self._trees: dict[str, dict[str, Any]] = {}  # by the network's method
        for key in taken_out(config.space):
            _annotations(key)
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
            key: _as_the_space_has_it(parameter, value)
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
        tree = self._tree_with(chosen[_NETWORK_BY_NAME]) if _NETWORK_BY_NAME in chosen else self._default_tree
        return all(_text(_set_at(tree, chosen, key)) in {_text(one) for one in values} for key, values in when.items())

    def _tree_with(self, method: Any) -> dict[str, Any]:
        """The defaults, but for what a method brings."""
        if str(method) not in self._trees:
            self._trees[str(method)] = _tree(self.settings({_NETWORK_BY_NAME: method}))
        return self._trees[str(method)]

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
        ready = next((key for key, one in left.items() if not _decided_by(left, key, one)), None)
        if ready is None:
            raise ConfigError(
                f"In the space of tune, the conditions of {', '.join(left)} depend on each other. Break it."
            )
        ordered[ready] = left.pop(ready)
    return ordered


def _decided_by(left: Mapping[str, ParameterConfig], key: str, parameter: ParameterConfig) -> bool:
    """Whether one of those that are left decides if this one is varied."""
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
                f"In the space of tune, '{key}' is varied when {name} is {wrong}, which it never is.{hint}"
            )
    if key in _OWN_KEYS:
        raise ConfigError(f"'{key}' cannot be in the space of tune, which sets it itself.")


def _annotations(key: str) -> list[Any]:
    """The types of a dotted key, of which networks and learners of different kinds have several.

    Raises:
        ConfigError: no training has such a key, of whatever kind its network is.
    """
    here: list[Any] = [TrainConfig]
    for part in key.split("."):
        fields = {name: field for one in here for model in _models(one) for name, field in model.model_fields.items()}
        if part not in fields:
            raise ConfigError(f"Unknown key '{key}' in the space of tune.{did_you_mean(part, list(fields))}")
        here = [
            model.model_fields[part].annotation for one in here for model in _models(one) if part in model.model_fields
        ]
    return here


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The config classes of a type, which may be one of several."""
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
            f"sampler=grid needs values or a step for '{key}', which is any number from {parameter.low:g} to "
            f"{parameter.high:g}. Give it values, or use sampler=random."
        )
    steps = 0
    while (value := parameter.after(steps)) <= parameter.high:
        yield value
        steps += 1


def _end_of(parameter: ParameterConfig, rng: np.random.Generator) -> Any:
    """A value, or an end of a range, at random."""
    if isinstance(parameter, RangeConfig):
        return (parameter.low, parameter.top)[rng.integers(2)]
    return parameter.values[rng.integers(len(parameter.values))]


def _tree(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _at(tree: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    branch: Any = tree
    for part in key.split("."):
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    return branch


def _itself_and_above(key: str) -> list[str]:
    """A dotted key and those that it is part of, the nearest first."""
    parts = key.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _set_at(tree: Mapping[str, Any], chosen: Values, key: str) -> Any:
    """The value of a key where these are chosen, perhaps as part of a larger value, over a tree."""
    for above in _itself_and_above(key):
        value = chosen.get(above) if above == key else _at(chosen.get(above, {}), key.removeprefix(f"{above}."))
        if value is not None:
            return value
    return _at(tree, key)


def _as_the_space_has_it(parameter: ParameterConfig, value: Any) -> Any:
    """A value that a parameter can have, spelled as there: 32 and 32.0 are the same."""
    if isinstance(parameter, RangeConfig):
        return int(value) if parameter.whole else float(value)
    return next(one for one in parameter.values if _text(one) == _text(value))


def _text(value: object) -> str:
    """A value as it is compared: 1 and 1.0 are the same, true is no number."""
    if isinstance(value, bool | str):
        return as_text(value)
    if isinstance(value, int | float):
        return repr(float(value))
    return json.dumps(value, sort_keys=True, default=str)
