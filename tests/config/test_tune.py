"""The settings of ``tune`` and its search space as data: valid values, and the messages of invalid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.factories import config

from wastelens.config.files import load_config
from wastelens.config.tune import ChoiceConfig, RangeConfig, TuneConfig
from wastelens.errors import ConfigError


def refusal(settings: str = "", config_file: object = "", **parameters: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config("tune", parameters=parameters, settings=settings, config_file=str(config_file))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def written(file: Path, text: str) -> TuneConfig:
    """The shipped settings with a user's file over them."""
    file.write_text(text)
    loaded = load_config("tune", config_file=str(file))
    assert isinstance(loaded, TuneConfig)
    return loaded


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("30min", 1800.0),
        ("8h", 28800.0),
        ("1.5 h", 5400.0),
        (" 90 s ", 90.0),
        ("90", 90.0),
        ("0.5", 0.5),
        ("none", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert config("tune", timeout=text).timeout_s == seconds
    assert config("tune", f"timeout='{text}'").timeout_s == seconds


@pytest.mark.parametrize(
    "text", ["0s", "0", "-3h", "8 hours", "8H", "30m", "1h30min", "h", "soon", "inf", "nan", "1e3"]
)
def test_durations_that_cannot_be(text: str) -> None:
    assert refusal(timeout=text) == (
        f"Config key 'timeout' in the command line: must be a time as in 90s, 30min or 8h, or none (not '{text}')."
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("trials=0", "Config key 'trials' in the parameter 'set': input should be greater than or equal to 1 (not 0)."),
        ("trials=-3", "'trials' in the parameter 'set': input should be greater than or equal to 1"),
        ("trials=2.5", "'trials'"),
        ("trials=true", "'trials' in the parameter 'set': cannot be true or false"),
        ("workers=0", "'workers' in the parameter 'set': input should be greater than or equal to 1"),
        ("workers=65", "less than or equal to 64"),
        ("pruner_first_epoch=0", "'pruner_first_epoch'"),
        ("retries=-1", "'retries' in the parameter 'set': input should be greater than or equal to 0"),
        ("outage_minutes=19", "less than or equal to 18"),
        (
            "workers=2 engine=processes:3",
            "workers=2 is short for engine=processes:2; give one of them",
        ),
        ("workers=4 engine=tcp://a:8786", "workers=4 is short for engine=processes:4; give one of them"),
        ("seed=-1", "'seed'"),
        ("seed=4294967296", "'seed'"),
        ("sampler=tbe", "'sampler' in the parameter 'set': input should be 'tpe', 'random' or 'grid' (not 'tbe')."),
        ("pruner=hyper", "'pruner' in the parameter 'set': input should be 'hyperband', 'median' or 'none'"),
        ("retrain=perhaps", "'retrain' in the parameter 'set': must be true or false"),
        ("timeout=true", "'timeout' in the parameter 'set': cannot be true or false"),
        ("train=7", "'train'"),
        ("space=7", "'space' in the parameter 'set'"),
        ("trails=3", "Unknown key 'trails' in the parameter 'set'. Did you mean 'trials'?"),
        ("fold=1", "Unknown key 'fold' in the parameter 'set'."),
    ],
)
def test_settings_that_cannot_be(settings: str, words: str) -> None:
    assert words in refusal(settings)


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ("", "local"),
        ("workers=3", "processes:3"),
        ("workers=3 engine=processes:3", "processes:3"),
        ("engine=processes:3", "processes:3"),
        ("engine=processes:1", "processes:1"),
        ("engine=tcp://a:8786", "tcp://a:8786"),
    ],
)
def test_workers_are_short_for_an_engine(settings: str, engine: str) -> None:
    assert config("tune", settings).engine_in_use == engine


def test_an_unknown_key_of_a_users_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("prunner: none\n")
    assert refusal(config_file=file) == f"Unknown key 'prunner' in {file}. Did you mean 'pruner'?"
    file.write_text("tune: {trials: 7}\ntrain: {seed: 9}\n")
    assert load_config("tune", config_file=str(file)).trials == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["", "2nd study", "a.b_c-d", "Müll 9"])
def test_names_of_studies(name: str) -> None:
    assert config("tune", study=name).study == config("tune", study=f" {name} ").study == name


@pytest.mark.parametrize("character", ["/", "'", '"', "%", "=", ",", "\\", "$", "\n", "…"])
def test_characters_that_no_name_of_a_study_has(character: str) -> None:
    message = refusal(study=f"a{character}b")
    assert message.startswith("Config key 'study' in the command line: ")
    assert f"{character!r} cannot be in a study's name; use letters, digits, spaces and . _ - only" in message


# The space


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("{low: 2, high: 1}", "schedule.start: the range is empty: low 2 is above high 1"),
        ("{low: 0, high: 1, log: true}", "schedule.start: log: true needs a range above zero, and low is 0"),
        ("{low: -1.5, high: 1, log: true}", "schedule.start: log: true needs a range above zero, and low is -1.5"),
        ("{low: 1, high: 9, log: true, step: 2}", "schedule.start: log and step cannot be combined"),
        (
            "{low: 1, high: 9, step: 0.5}",
            "schedule.start: low and high are whole numbers, and step 0.5 is not; write low: 1.0",
        ),
        ("{low: 1, high: 9, step: 0}", "schedule.start.step: Input should be greater than 0"),
        ("{low: 1, high: 9, step: -1}", "schedule.start.step: Input should be greater than 0"),
        ("{low: one, high: 9}", "schedule.start.low: Input should be a valid "),
        ("{low: true, high: 9}", "schedule.start.low: cannot be true or false"),
        ("{low: 1, high: .inf}", "schedule.start.high: Input should be a finite number"),
        ("{low: .nan, high: 1}", "schedule.start.low: Input should be a finite number"),
        ("{low: 1, high: 9, log: perhaps}", "schedule.start.log: must be true or false"),
        ("{low: 1, high: 9, when: cosine}", "schedule.start.when: Input should be a valid dictionary"),
        ("{values: []}", "schedule.start.values: Tuple should have at least 1 item"),
        ("{values: 7}", "schedule.start.values: Input should be a valid tuple"),
        ("{values: [1, 2, 1]}", "schedule.start.values: names a value twice"),
        ("{values: [1, 1.0]}", "schedule.start.values: names a value twice"),
        ("{values: [[8], [8]]}", "schedule.start.values: names a value twice"),
        ("{values: [{a: 1, b: 2}, {b: 2, a: 1}]}", "schedule.start.values: names a value twice"),
        ("{low: 1}", "schedule.start says low; write {values: [...]} or {low: ..., high: ...}"),
        ("{high: 1, log: true}", "schedule.start says high, log; write"),
        ("{when: {augment: true}}", "schedule.start says when; write"),
        ("{values: [1], low: 1, high: 2}", "schedule.start says values, low, high; write"),
        ("{values: [1], step: 2}", "schedule.start says values, step; write"),
        ("{}", "schedule.start says nothing; write"),
        ("{low: 1, hihg: 9}", "schedule.start has the unknown key 'hihg' (did you mean 'high'?)."),
        ("{low: 1, high: 9, logg: true}", "schedule.start has the unknown key 'logg' (did you mean 'log'?)."),
        ("{value: [1], when: {}}", "schedule.start has the unknown key 'value' (did you mean 'values'?)."),
        (
            "{low: 1, high: 9, q: 3}",
            "schedule.start has the unknown key 'q' (there are: high, log, low, step, values, when).",
        ),
        (
            "0.5",
            "schedule.start is 0.5; write start: {values: [...]} or start: {low: ..., high: ...}",
        ),
        ("[1, 2]", "schedule.start is [1, 2]; write"),
    ],
)
def test_parameters_that_cannot_be(tmp_path: Path, parameter: str, words: str) -> None:
    file = tmp_path / "mine.yaml"
    # One of which nothing is shipped: that would be laid below.
    file.write_text(f"space: {{schedule: {{start: {parameter}}}}}")
    message = refusal(config_file=file)
    assert message.startswith(f"Config key 'space' in {file}: {words}")
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("{schedule.floor: null}", "schedule.floor is written with a dot; write schedule: {floor: ...}."),
        (
            "{schedule.peak: {low: 0.001, high: 0.1}}",
            "schedule.peak is written with a dot; write schedule: {peak: ...}.",
        ),
        ("{network.learner.noise: null}", "write network: {learner: {noise: ...}}."),
        (
            "{network: {learner.noise: null}}",
            "network.learner.noise is written with a dot; write learner: {noise: ...}.",
        ),
    ],
)
def test_keys_of_the_space_are_written_as_a_tree(tmp_path: Path, space: str, words: str) -> None:
    """Beside what is shipped of the same parameter, one of the two would be without effect."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"space: {space}")
    message = refusal(config_file=file)
    assert message.startswith(f"Config key 'space' in {file}: ")
    assert message.endswith(words)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (
            "{model: vgg16, fit: {epochs: 5}}",
            "model is not a setting of its trials; write model beside train, not below it",
        ),
        ("{dataset: taco}", "dataset is not a setting of its trials; write dataset beside train, not below it"),
        ("{data_folder: data}", "data_folder is not a setting of its trials; write data_folder beside"),
        ("{resume: 0123456789abcdef}", "resume is not a setting of its trials; a search resumes by itself."),
    ],
)
def test_settings_of_all_trials_that_are_not_the_trials(tmp_path: Path, train: str, words: str) -> None:
    """The trials would go by the study's own, and best.yaml by these."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"train: {train}")
    assert refusal(config_file=file).startswith(f"Config key 'train' in {file}: {words}")
    key = train.strip("{").partition(":")[0]
    assert refusal(f"train.{key}=other").startswith(f"Config key 'train' in the parameter 'set': {key} is not")


def test_what_is_taken_back_is_not_said() -> None:
    message = refusal("space.schedule.peak.low=null space.schedule.peak.log=null")
    assert "schedule.peak says high; write {values: [...]} or {low: ..., high: ...}" in message
    words = " ".join(f"space.schedule.peak.{word}=null" for word in ("low", "high", "log"))
    assert "schedule.peak says nothing" in refusal(words)
    assert "schedule.peak has the unknown key 'hihg'" in refusal("space.schedule.peak.hihg=null")


def test_a_bound_that_is_typed_is_checked_with_the_shipped_one() -> None:
    assert refusal("space.schedule.peak.high=0.0001") == (
        "Config key 'space' in the parameter 'set': schedule.peak: the range is empty: low 0.0003 is above high 0.0001."
    )


def test_a_space_without_parameters(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    gone = ", ".join(f"{key}: null" for key in config("tune").space)
    file.write_text(f"space: {{{gone}}}")
    assert "is empty: name at least one parameter to vary" in refusal(config_file=file)


def test_the_shipped_space() -> None:
    parameters = config("tune").parameters
    peak = parameters["schedule.peak"]
    assert isinstance(peak, RangeConfig)
    assert (peak.low, peak.high, peak.log, peak.step, peak.whole) == (0.0003, 0.01, True, None, False)
    warmup = parameters["schedule.warmup_epochs"]
    assert isinstance(warmup, RangeConfig)
    assert warmup.whole
    floor = parameters["schedule.floor"]
    assert floor.when == {"schedule.kind": ("exponential", "cosine")}
    widths = parameters["network.learner.widths"]
    assert isinstance(widths, ChoiceConfig)
    assert widths.when == {"network.learner.kind": ("conv_autoencoder",)}
    assert [24, 48, 64, 96, 128] in widths.values


def test_a_users_file_lies_over_the_shipped_space(tmp_path: Path) -> None:
    shipped = config("tune").parameters
    loaded = written(
        tmp_path / "mine.yaml",
        """
        space:
          augmentation: {views: {values: [0, 4], when: {augmentation.kind: policy}}, policy: {when: null}}
          schedule: {peak: {high: 0.02}, warmup_epochs: null}
          loss: null
          fit: {batch_size: {values: null, low: 8, high: 64, step: 8}}
        """,
    ).parameters
    gone = {"schedule.warmup_epochs", "loss.kind", "loss.gamma", "loss.gamma_negative"}
    assert set(loaded) == (set(shipped) | {"augmentation.views"}) - gone
    peak, batch = loaded["schedule.peak"], loaded["fit.batch_size"]
    assert isinstance(peak, RangeConfig)
    assert isinstance(batch, RangeConfig)
    assert (peak.low, peak.high, peak.log) == (0.0003, 0.02, True)
    assert (batch.low, batch.high, batch.step) == (8, 64, 8)
    assert loaded["augmentation.views"].when == {"augmentation.kind": ("policy",)}
    assert loaded["augmentation.policy"].when == {}
    assert shipped["augmentation.policy"].when == {"augmentation.kind": ("policy",)}


def test_one_bound_by_set() -> None:
    peak = config("tune", "space.schedule.peak.high=0.02 space.balanced=null").parameters["schedule.peak"]
    assert isinstance(peak, RangeConfig)
    assert (peak.low, peak.high, peak.log) == (0.0003, 0.02, True)
    assert "balanced" not in config("tune", "space.balanced=null").parameters


def test_numbers_without_a_point_in_their_exponent() -> None:
    # YAML takes 1e-5 for a word.
    low = config("tune", "space.schedule.floor.low=1e-5").parameters["schedule.floor"].low
    assert low == 0.00001


@pytest.mark.parametrize(
    ("parameter", "top"),
    [
        ({"low": 0, "high": 7, "step": 3}, 6),
        ({"low": 0, "high": 6, "step": 3}, 6),
        ({"low": 2, "high": 3, "step": 5}, 2),
        ({"low": 0.0, "high": 0.3, "step": 0.1}, 0.3),
        ({"low": 0.1, "high": 0.5, "step": 0.15}, 0.4),
        ({"low": 0, "high": 7}, 7),
        ({"low": 0.5, "high": 0.75}, 0.75),
    ],
)
def test_the_highest_value_of_a_range(parameter: dict[str, Any], top: float) -> None:
    one = RangeConfig.model_validate({"log": False, "step": None, "when": {}, **parameter})
    assert one.top == top
    assert isinstance(one.top, int) is one.whole
