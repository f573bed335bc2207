"""The search space of ``tune``: conditions, defaults, grids, and settings that cannot be trained."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories import config

from wastelens.config.base import flatten
from wastelens.config.tune import ChoiceConfig, ParameterConfig, RangeConfig, TuneConfig
from wastelens.errors import ConfigError
from wastelens.tuning.space import Space, Values, contains, nested

HERE = "in the space of tune."
MODELS = ("base", "autoencoder", "dbn", "vgg16")


def tune(tree: Mapping[str, Any] | None = None, **changes: Any) -> TuneConfig:
    shipped: TuneConfig = config("tune")
    space = shipped.space if tree is None else tree
    return TuneConfig.model_validate({**shipped.model_dump(), "space": space, **changes})


def space_of(tree: Mapping[str, Any], **changes: Any) -> Space:
    return Space(tune(tree, **changes))


@functools.cache
def shipped_space(model: str) -> Space:
    return Space(tune(model=model, train={"weights": "none", "freeze": 0.0} if model == "vgg16" else {}))


def refusal(tree: Mapping[str, Any], **changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        space_of(tree, **changes).grid()
    message = str(caught.value)
    assert "\n" not in message
    return message


def first(_: str, parameter: ParameterConfig) -> Any:
    return parameter.values[0] if isinstance(parameter, ChoiceConfig) else parameter.low


def at(tree: Mapping[str, Any], key: str) -> Any:
    branch: Any = tree
    for part in key.split("."):
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    return branch


def drawn(data: st.DataObject, key: str, parameter: ParameterConfig) -> Any:
    if isinstance(parameter, ChoiceConfig):
        return data.draw(st.sampled_from(parameter.values), label=key)
    if parameter.whole:
        return data.draw(st.integers(int(parameter.low), int(parameter.high)), label=key)
    return data.draw(st.floats(float(parameter.low), float(parameter.high)), label=key)


# Any draw


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_draw_is_a_training_with_just_these_values(model: str, data: st.DataObject) -> None:
    space = shipped_space(model)
    values = space.walk(lambda key, parameter: drawn(data, key, parameter))
    tree = space.settings(values).model_dump(mode="json")
    for key, value in values.items():
        assert at(tree, key) == value
    # Judged by the finished settings, whatever way the walk took: what is varied is what its conditions ask for.
    for key, parameter in space.parameters.items():
        holds = all(at(tree, name) in wanted for name, wanted in parameter.when.items())
        assert (key in values) is holds
    ours = tuple(
        f"{key}." for key in (*values, "augmentation", *(key.removesuffix(".kind") for key in values))
    )  # a kind brings its settings
    for key, value in flatten(space.defaults).items():
        if not f"{key}.".startswith(ours):
            assert flatten(tree)[key] == value


@pytest.mark.parametrize(
    ("model", "own"),
    [
        ("base", {"network.widths"}),
        ("autoencoder", {"network.learner.widths", "network.learner.noise"}),
        ("dbn", {"network.learner.hidden_units", "network.learner.gibbs_steps"}),
        ("vgg16", {"freeze"}),
    ],
)
def test_what_is_varied_of_each_model(model: str, own: set[str]) -> None:
    known = set(shipped_space(model).walk(first))
    special = {key for key in known if key == "freeze" or key.startswith("network.")} - {"network.dropout"}
    assert special == own
    assert {"schedule.peak", "schedule.decay_per_epoch", "fit.batch_size", "network.dropout", "loss.kind"} <= known


@pytest.mark.parametrize("model", MODELS)
def test_the_defaults_values(model: str) -> None:
    space = shipped_space(model)
    values = space.default_values()
    assert space.settings(values) == space.defaults
    varied = space.walk(first)
    assert set(values) <= set(varied) | {"schedule.decay_per_epoch", "optimizer.weight_decay", "balance_target"}
    assert all(contains(space.parameters[key], value) for key, value in values.items())
    assert isinstance(values["schedule.warmup_epochs"], int)
    assert values["optimizer.kind"] == "adamw"
    assert "balance_target" not in values  # auto is no number of the range


def test_defaults_as_the_space_spells_them() -> None:
    tree = {"fit": {"batch_size": {"values": [16.0, 32.0]}}, "schedule": {"warmup_epochs": {"low": 0, "high": 5}}}
    values = space_of(tree).default_values()
    assert values == {"fit.batch_size": 32.0, "schedule.warmup_epochs": 2}
    assert [type(value) for value in values.values()] == [float, int]


def test_settings_that_all_trials_have() -> None:
    space = space_of({"balanced": {"values": [False]}}, train={"fit": {"epochs": 3}, "seed": 5}, model="dbn")
    trained = space.settings({"balanced": False})
    assert (trained.fit.epochs, trained.seed, trained.model, trained.balanced) == (3, 5, "dbn", False)
    assert (space.defaults.fit.epochs, space.defaults.balanced) == (3, True)


# Conditions


def test_conditions_on_what_is_fixed_and_on_what_is_chosen() -> None:
    tree = {
        "freeze": {"values": [0.5], "when": {"network.kind": "transfer"}},
        "balance_target": {"values": [0.5], "when": {"balanced": True, "network.kind": ["cnn", "dbn"]}},
        "balanced": {"values": [True, False]},
    }
    space = space_of(tree)
    assert list(space.parameters) == ["freeze", "balanced", "balance_target"]
    assert space.grid() == [{"balanced": True, "balance_target": 0.5}, {"balanced": False}]
    assert "balance_target" not in space_of(tree, model="vgg16", train={"weights": "none"}).walk(first)


def test_a_chain_of_conditions() -> None:
    tree = {
        "balance_target": {"values": [0.5], "when": {"balanced": True}},
        "balanced": {"values": [True, False], "when": {"cache_features": True}},
        "cache_features": {"values": [True, False]},
    }
    space = space_of(tree)
    assert list(space.parameters) == ["cache_features", "balanced", "balance_target"]
    assert space.grid() == [
        {"cache_features": True, "balanced": True, "balance_target": 0.5},
        {"cache_features": True, "balanced": False},
        {"cache_features": False, "balance_target": 0.5},  # balanced is not varied, and true by default
    ]
    assert space_of(tree, train={"balanced": False}).grid()[-1] == {"cache_features": False}


def test_a_condition_on_a_part_of_what_is_chosen() -> None:
    noises = [{"name": "none", "strength": 0.0}, {"name": "masking", "strength": 0.3}]
    tree = {
        "freeze": {"values": [0], "when": {"network.learner.noise.name": "masking"}},
        "network": {"learner": {"noise": {"values": noises}}},
    }
    space = space_of(tree, model="autoencoder")
    assert [sorted(values) for values in space.grid()] == [
        ["network.learner.noise"],
        ["freeze", "network.learner.noise"],
    ]
    assert space.settings(space.grid()[1]).network.learner.noise.strength == 0.3  # type: ignore[union-attr]


def test_a_choice_of_methods_decides_what_else_is_varied() -> None:
    """The method brings a file of settings, one of which is the kind that conditions ask for."""
    shipped = tune().space["network"]
    tree = {"network": {**shipped, "method": {"values": ["conv_autoencoder", "dense_autoencoder"]}}}
    space = space_of(tree, model="autoencoder")
    of_method = {
        method: set(space.walk(lambda key, one, method=method: method if key == "network.method" else first(key, one)))
        for method in ("conv_autoencoder", "dense_autoencoder")
    }
    common = {"network.method", "network.dropout", "network.learner.noise"}
    assert of_method["conv_autoencoder"] == {*common, "network.learner.widths"}
    assert of_method["dense_autoencoder"] == {*common, "network.learner.hidden_units"}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {
                "cache_features": {"values": [True, False], "when": {"balanced": True}},
                "balanced": {"values": [True, False], "when": {"cache_features": True}},
                "seed": {"values": [1, 2]},
            },
            "In the space of tune, the conditions of cache_features, balanced depend on each other. Remove one.",
        ),
        (
            {"cache_features": {"values": [True, False], "when": {"cache_features": True}}},
            "the conditions of cache_features depend on each other",
        ),
    ],
)
def test_circles(tree: dict[str, Any], words: str) -> None:
    assert words in refusal(tree)


# What cannot be in a space


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"shedule": {"peak": {"values": [0.1]}}}, f"Unknown key 'shedule.peak' {HERE} Did you mean 'schedule'?"),
        ({"schedule": {"peek": {"values": [0.1]}}}, f"Unknown key 'schedule.peek' {HERE} Did you mean 'peak'?"),
        (
            {"network": {"learner": {"noize": {"values": [1]}}}},
            f"Unknown key 'network.learner.noize' {HERE} Did you mean 'noise'?",
        ),
        (
            {"seed": {"low": 1, "high": 2, "when": {"schedule.kin": "cosine"}}},
            f"Unknown key 'schedule.kin' {HERE} Did you mean 'kind'?",
        ),
        ({"seed": {"low": 1, "high": 2, "when": {"cache_features.p": True}}}, f"Unknown key 'cache_features.p' {HERE}"),
        (
            {"seed": {"low": 1, "high": 2, "when": {"schedule.kind": ["cosine", "exponental"]}}},
            "In the space of tune, 'seed' is varied when schedule.kind is exponental, which is not one of its values. "
            "Did you mean 'exponential'?",
        ),
        (
            {"seed": {"low": 1, "high": 2, "when": {"network.kind": 7}}},
            "In the space of tune, 'seed' is varied when network.kind is 7, which is not one of its values. "
            "It is one of cnn, autoencoder, dbn, objects, probe, encoder_probe, transfer.",
        ),
        *(
            ({key: {"values": ["a", "b"]}}, f"'{key}' cannot be in the space of tune, which sets it itself.")
            for key in ("dataset", "data_folder", "model", "resume", "seed", "fold")
        ),
        (
            {"bootstrap_resamples": {"low": 100, "high": 200}},
            "'bootstrap_resamples' cannot be in the space of tune, which sets it itself.",
        ),
    ],
)
def test_parameters_that_cannot_be(tree: dict[str, Any], message: str) -> None:
    assert refusal(tree) == message


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"schedule": {"floor": {"low": 1e-5, "high": 0.02, "log": True}, "peak": {"low": 0.001, "high": 0.01}}},
            ("'schedule'", "floor 0.02 is above peak "),
        ),
        ({"schedule": {"peak": {"low": 0.00005, "high": 0.01}}}, ("start 0.0001 is above peak 5e-05",)),
        (
            {"schedule": {"warmup_epochs": {"low": -1, "high": 3}}},
            ("'schedule.warmup_epochs' in the space", "(not -1)"),
        ),
        ({"schedule": {"kind": {"values": ["cosine", "exp"]}}}, ("Unknown schedule 'exp'", "Available: constant")),
        ({"schedule": {"kind": {"low": 1, "high": 2}}}, ("Unknown schedule '",)),
        ({"network": {"widths": {"values": [[8], []]}}}, ("'network.widths' in the space",)),
        ({"network": {"learner": {"gibbs_steps": {"low": 1, "high": 3}}}}, ("'network.learner'", "in the space")),
        ({"weights": {"values": ["none", "imagenet"]}}, ("weights=imagenet, but only transfer models",)),
        ({"augmentation": {"views": {"low": 0, "high": 2}}}, ("'augmentation.views' in the space", "augment=true")),
    ],
)
def test_spaces_of_what_no_training_can_be(tree: dict[str, Any], words: tuple[str, ...]) -> None:
    message = refusal(tree)
    assert message.startswith("The space of tune allows settings that cannot be trained. ")
    assert message.endswith(" Narrow the space.")
    assert len(message) < 400
    for word in words:
        assert word in message


def test_settings_of_all_trials_that_cannot_be() -> None:
    message = refusal({"cache_features": {"values": [True]}}, train={"fit": {"epocs": 3}})
    assert message == "Unknown key 'fit.epocs' in the section train. Did you mean 'fit.epochs'?"


# contains, nested


@settings(max_examples=200, deadline=None)
@given(
    low=st.integers(-9, 9),
    length=st.integers(0, 12),
    step=st.one_of(st.none(), st.integers(1, 5)),
    value=st.one_of(st.integers(-12, 24), st.floats(-12, 24), st.booleans(), st.none(), st.just("3")),
)
def test_whole_numbers_of_a_range(low: int, length: int, step: int | None, value: Any) -> None:
    one = RangeConfig(low=low, high=low + length, log=False, step=step, when={})
    numbers = range(low, low + length + 1, step or 1)
    assert contains(one, value) is (type(value) in (int, float) and value in numbers)


@settings(max_examples=200, deadline=None)
@given(
    low=st.integers(-20, 20),
    length=st.integers(0, 30),
    step=st.integers(1, 9),
    number=st.integers(-20, 60),
    off=st.booleans(),
)
def test_tenths_of_a_range(low: int, length: int, step: int, number: int, off: bool) -> None:
    one = RangeConfig(low=low / 10, high=(low + length) / 10, log=False, step=step / 10, when={})
    value = number / 10 + (0.03 if off else 0.0)
    assert contains(one, value) is (not off and number in range(low, low + length + 1, step))


def test_numbers_of_a_range_without_steps() -> None:
    one = RangeConfig(low=0.5, high=2.0, log=True, step=None, when={})
    assert [contains(one, value) for value in (0.49, 0.5, 1, 1.999, 2.0, 2.01, "1", True)] == [
        False, True, True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (1, True),
        (1.0, True),
        (True, False),
        ("1", False),
        (123456.7, True),
        (123456.8, False),  # alike to six digits
        ([8, 16], True),
        ((8, 16), True),
        ([16, 8], False),
        ({"b": 2, "a": 1}, True),
        ({"a": 1}, False),
        (None, False),
    ],
)
def test_values_of_a_choice(value: Any, known: bool) -> None:
    one = ChoiceConfig(values=(1, 123456.7, [8, 16], {"a": 1, "b": 2}), when={})
    assert contains(one, value) is known


@given(st.dictionaries(st.from_regex(r"[a-c](\.[d-f]){2}", fullmatch=True), st.integers(), max_size=8))
def test_nested_keys(values: dict[str, int]) -> None:
    tree = nested(values)
    assert {key: at(tree, key) for key in values} == values
    leaves = [leaf for branch in tree.values() for twig in branch.values() for leaf in twig.values()]
    assert len(leaves) == len(values)


# Grids


def brute_force(tree: Mapping[str, list[Any]], holds: Mapping[str, tuple[str, Any]]) -> list[Values]:
    """All combinations of all values, those of parameters whose condition does not hold taken out, each once."""
    found = []
    for combination in itertools.product(*tree.values()):
        values = dict(zip(tree, combination, strict=True))
        for key, (name, wanted) in holds.items():
            if values.get(name) != wanted:
                values.pop(key, None)
        if values not in found:
            found.append(values)
    return found


@settings(max_examples=25, deadline=None)
@given(
    methods=st.lists(st.sampled_from(["exponential", "cosine", "constant"]), min_size=1, unique=True),
    balanced=st.lists(st.booleans(), min_size=1, unique=True),
    count=st.integers(0, 3),
    condition=st.sampled_from([None, "exponential", "cosine"]),
)
def test_grids_against_brute_force(methods: list[str], balanced: list[bool], count: int, condition: str | None) -> None:
    when = {} if condition is None else {"when": {"schedule.kind": condition}}
    tree = {
        "network": {"dropout": {"low": 0.1, "high": 0.1 + count * 0.1, "step": 0.1, **when}},
        "balance_target": {"values": [0.5, 1.0], "when": {"balanced": True}},
        "balanced": {"values": balanced},
        "schedule": {"kind": {"values": methods}},
    }
    steps = [round(0.1 + number * 0.1, 9) for number in range(count + 1)]
    holds = {"balance_target": ("balanced", True)}
    if condition is not None:
        holds["network.dropout"] = ("schedule.kind", condition)
    every = {
        "network.dropout": steps,
        "balance_target": [0.5, 1.0],
        "balanced": balanced,
        "schedule.kind": methods,
    }
    expected = brute_force(every, holds)
    found = space_of(tree).grid()

    def as_texts(combinations: list[Values]) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in combinations)

    assert as_texts(found) == as_texts(expected)


def test_a_grid_too_large_to_try() -> None:
    message = refusal(
        {"fit": {"patience_epochs": {"low": 1, "high": 4000000000}}, "cache_features": {"values": [True, False]}}
    )
    assert message == (
        "sampler=grid has more than 10,000 combinations in this space. Remove parameters from it by null, or use "
        "sampler=random."
    )
    assert len(space_of({"fit": {"patience_epochs": {"low": 1, "high": 10000}}}).grid()) == 10_000


@pytest.mark.parametrize("log", [False, True])
def test_a_grid_over_every_number_between(log: bool) -> None:
    message = refusal({"network": {"dropout": {"low": 0.1, "high": 0.9, "log": log}}})
    assert message == (
        "sampler=grid needs values or a step for 'network.dropout', which can be any number from 0.1 to 0.9. Give it "
        "values, or use sampler=random."
    )


def test_whole_numbers_are_steps_of_a_grid_unless_they_are_on_a_log_scale() -> None:
    steps = space_of({"fit": {"epochs": {"low": 3, "high": 5}}}).grid()
    assert [one["fit.epochs"] for one in steps] == [3, 4, 5]
    message = refusal({"fit": {"epochs": {"low": 3, "high": 5, "log": True}}})
    assert "needs values or a step for 'fit.epochs'" in message


def test_a_number_that_this_model_does_not_vary_is_no_hindrance() -> None:
    tree = {
        "cache_features": {"values": [True, False]},
        "freeze": {"low": 0.0, "high": 1.0, "when": {"network.kind": "transfer"}},
    }
    assert space_of(tree).grid() == [{"cache_features": True}, {"cache_features": False}]
