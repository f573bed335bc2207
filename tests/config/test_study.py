"""The settings of ``study`` and ``compare``: valid values, and the messages of invalid ones."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.factories import config

from wastelens.config.files import load_config
from wastelens.config.study import Factor, key_of, parse_factor
from wastelens.errors import ConfigError
from wastelens.studies.plan import command_of


def refusal(step: str = "study", settings: str = "", config_file: object = "", **parameters: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(step, parameters=parameters, settings=settings, config_file=str(config_file))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "name", "key", "levels"),
    [
        ("augment=false|true", "augment", "augment", ("false", "true")),
        ("labels=10|25|50|100 %", "labels", "labels_percent", ("10", "25", "50", "100")),
        ("labels=10|100%", "labels", "labels_percent", ("10", "100")),
        ("labels=10%|25 %|100%", "labels", "labels_percent", ("10", "25", "100")),
        ("loss=bce|focal", "loss", "loss.kind", ("bce", "focal")),
        (" schedule.peak = 0.001 | 0.002 ", "schedule.peak", "schedule.peak", ("0.001", "0.002")),
        ("mapping=default|predecessor", "mapping", "mapping", ("default", "predecessor")),
    ],
)
def test_factors_as_a_user_writes_them(text: str, name: str, key: str, levels: tuple[str, ...]) -> None:
    factor = parse_factor(text)
    assert factor == Factor(name, levels)
    assert factor.key == key_of(name) == key


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ("augment", "'augment' is not a factor; write it as in augment=false|true"),
        ("=false|true", "is not a factor"),
        ("augment=", "is not a factor"),
        ("augment=false|", "is not a factor"),
        ("labels=10|%", "is not a factor"),
        ("labels=10|10%", "labels has a level twice (10|10%)"),
        ("augment=true", "augment has only one level (true): a comparison needs two"),
        ("augment=true|false|true", "augment has a level twice (true|false|true)"),
        ("seed=1|2", "seed cannot be a factor: a study sets it itself; set seeds"),
        ("fold=1|2", "set folds"),
        ("model=base|dbn", "set models"),
        ("dataset=taco|sample", "set dataset"),
        ("data_folder=a|b", "set data_folder"),
        ("fit.steps_per_epoch=3|4", "set train.fit.steps_per_epoch"),
        ("resume=a|b", "resume cannot be a factor: a study sets it itself"),
        ("fit.patience_epochs=3|4", "fit.patience_epochs cannot be a factor: a study sets it itself"),
        ("augment=false|true,augment=true|false", "names a factor twice"),
        ("labels=10|100,labels_percent=25|50", "names a factor twice"),
        ("", "at least 1"),
    ],
)
def test_factors_that_cannot_be(factors: str, words: str) -> None:
    message = refusal(settings="factors=[]") if factors == "" else refusal(factors=factors)
    assert words in message
    assert "'factors' in the " in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("seeds=0", "Config key 'seeds' in the parameter 'set': input should be greater than or equal to 1 (not 0)."),
        ("seeds=1001", "less than or equal to 1000"),
        ("seeds=many", "'seeds'"),
        ("seed=4294967295", "'seed'"),
        ("seed=-1", "'seed'"),
        ("models=[]", "'models' in the parameter 'set': tuple should have at least 1 item"),
        ("models=[base,dbn,base]", "names a model twice"),
        ("models=[base,mine/base.yaml]", "names a model twice"),
        ("folds=[]", "folds is empty; give auto, or numbers as in folds=1,2,3"),
        ("folds=[-1]", "'folds.0'"),
        ("folds=all", "'folds"),
        ("folds=true", "'folds' in the parameter 'set': cannot be true or false"),
        ("bootstrap_resamples=99", "greater than or equal to 100"),
        ("retries=-1", "'retries' in the parameter 'set': input should be greater than or equal to 0"),
        ("retries=101", "less than or equal to 100"),
        ("outage_minutes=-1", "'outage_minutes' in the parameter 'set': input should be greater than or equal to 0"),
        ("outage_minutes=18.5", "less than or equal to 18"),  # longer than MLflow can wait
        ("outage_minutes=true", "'outage_minutes' in the parameter 'set': cannot be true or false"),
        ("workers=2", "Unknown key 'workers' in the parameter 'set'."),
        ("train=7", "'train'"),
        ("fold=1", "Unknown key 'fold' in the parameter 'set'. Did you mean 'folds'?"),
        ("train.augment=true", "train.augment is set, but augment is a factor: remove one of them"),
        (
            "factors=[loss=bce|focal] train.loss.kind=bce",
            "train.loss.kind is set, but loss is a factor: remove one of them",
        ),
        ("factors=[labels=10|100] train.labels_percent=50", "train.labels_percent is set, but labels is a factor"),
    ],
)
def test_settings_that_cannot_be(settings: str, words: str) -> None:
    assert words in refusal(settings=settings)


@pytest.mark.parametrize("name", ["", "2nd study", "a.b_c-d", "Über 9", "Müll-Studie"])
def test_names_of_studies(name: str) -> None:
    assert config("study", study=name).study == name
    assert config("study", study=f" {name} ").study == name


@pytest.mark.parametrize("character", ["/", "'", '"', "`", "%", "=", ",", "\\", "$", "\n", "\t", "…"])
def test_characters_that_no_name_of_a_study_has(character: str) -> None:
    message = refusal(study=f"a{character}b")
    assert message.startswith("Config key 'study' in the command line: ")
    assert "cannot be in a study's name; use letters, digits, spaces and . _ - only" in message
    assert repr(character) in message


def test_a_factor_and_a_setting_beside_it_go_together() -> None:
    loaded = config("study", "factors=[loss=bce|focal] train.loss.gamma=3")
    assert loaded.train == {"loss": {"gamma": 3}}


def test_an_unknown_preset_lists_what_there_is() -> None:
    message = refusal(preset="smok")
    assert message.startswith("Unknown preset 'smok'. Did you mean 'smoke'?")
    assert "default, pretraining, smoke" in message


@pytest.mark.parametrize(
    ("preset", "models", "factors"),
    [
        ("default", ("probe", "efficientnet_lite", "base", "autoencoder", "dbn"), {"augment": ("false", "true")}),
        ("smoke", ("base", "dbn"), {"augment": ("false", "true")}),
        (
            "pretraining",
            ("autoencoder", "dbn"),
            {"pretrained": ("none", "auto"), "labels": ("10", "25", "50", "100")},
        ),
    ],
)
def test_presets_resolve(preset: str, models: tuple[str, ...], factors: dict[str, tuple[str, ...]]) -> None:
    loaded = config("study", preset=preset)
    assert loaded.models == models
    assert {factor.name: factor.levels for factor in loaded.parsed_factors} == factors
    assert loaded.preset == preset


def test_few_labels_are_not_balanced_by_the_preset_that_has_them() -> None:
    assert config("study", preset="pretraining").train == {"balanced": False}


def test_what_is_typed_lies_over_the_preset() -> None:
    loaded = config("study", "train.fit.epochs=3", preset="smoke", models="dbn, base", seeds="4", folds="2,1")
    assert (loaded.models, loaded.seeds, loaded.folds) == (("dbn", "base"), 4, (2, 1))
    assert loaded.train["fit"] == {"epochs": 3, "batch_size": 16}  # the batch is the preset's
    assert config("study", preset="smoke", models="", seeds="").seeds == 2


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("models: [dbn]\nfactors: [loss=bce|focal]\nseeds: 7\n")
    loaded = config("study", preset=str(file))
    assert (loaded.models, loaded.factors, loaded.seeds) == (("dbn",), ("loss=bce|focal",), 7)
    file.write_text("seed: 7\nsedes: 3\n")
    assert refusal(preset=str(file)) == f"Unknown key 'sedes' in {file}. Did you mean 'seeds'?"


@pytest.mark.parametrize("folds", ["2", 2, [2]])
def test_one_fold_as_a_number(folds: Any) -> None:
    assert config("study", f"folds={folds}").folds == (2,)


def test_a_file_of_a_studys_own_keys_and_one_with_sections(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("models: [dbn]\ntrain: {fit: {epochs: 3}}\nseeds: 2\n")
    loaded = load_config("study", config_file=str(own))
    # Of a study's own keys, 'train' and 'models' are no sections of the main job.
    assert (loaded.models, loaded.train, loaded.seeds) == (("dbn",), {"fit": {"epochs": 3}}, 2)  # type: ignore[attr-defined]
    sections = tmp_path / "sections.yaml"
    sections.write_text("train: {seed: 9}\nstudy: {seeds: 3, train: {fit: {epochs: 4}}}\ncompare: {seed: 8}\n")
    loaded = load_config("study", config_file=str(sections))
    assert (loaded.seeds, loaded.train) == (3, {"fit": {"epochs": 4}})  # type: ignore[attr-defined]
    assert load_config("compare", config_file=str(sections)).seed == 8  # type: ignore[attr-defined]
    assert load_config("train", config_file=str(sections)).seed == 9  # type: ignore[attr-defined]
    sections.write_text("study: {sedes: 3}\n")
    assert refusal(config_file=sections) == f"Unknown key 'sedes' in {sections}. Did you mean 'seeds'?"


def test_runs_to_compare() -> None:
    assert config("compare", run_ids="a, b").run_ids == ("a", "b")
    assert config("compare").run_ids == ()
    assert "names a run twice" in refusal("compare", run_ids="a,b,a")
    assert "'seed'" in refusal("compare", "seed=-1")


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "train.fit.epochs=3 train.network.widths=[4,8]",
        "factors=['pretrained=none|auto','labels=10|100 %'] models=[autoencoder] folds=[1,3] study='of mine' seed=7",
    ],
)
@pytest.mark.parametrize("preset", ["default", "smoke"])
def test_the_command_of_the_report_asks_for_the_same_study(preset: str, settings: str) -> None:
    asked = load_config("study", parameters={"preset": preset, "dataset": "my litter"}, settings=settings)
    words = [word for word in shlex.split(command_of(asked)) if "=" in word]
    said = dict(word.split("=", 1) for word in words)
    assert load_config("study", settings=said.pop("set", ""), parameters=said) == asked
