"""The types of ``conf/study.yaml`` and ``conf/compare.yaml``: grids of training runs, and comparisons between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from wastelens.config.base import (
    DATASET_HELP,
    LARGEST_SEED,
    Config,
    NameList,
    StudyName,
    auto_or_listed,
    parameter,
)
from wastelens.config.engine import ENGINE_HELP, EngineName, OutageMinutes, Retries

# Short names of factors whose key in conf/train.yaml is longer.
_FACTOR_KEYS = {"labels": "labels_percent", "loss": "loss.kind"}
_OWN_KEYS = {
    "model": "models",
    "seed": "seeds",
    "fold": "folds",
    "dataset": "dataset",
    "data_folder": "data_folder",
    "resume": "",
    "fit.steps_per_epoch": "train.fit.steps_per_epoch",
    "fit.patience_epochs": "",
}
MAPPING, CORRECTIONS = "mapping", "corrections"
DATASET_FACTORS = (MAPPING, CORRECTIONS)  # they change the dataset, and no key of conf/train.yaml


@dataclass(frozen=True)
class Factor:
    """A setting that a study varies, by the name that the user gave; its other levels are compared with the first."""

    name: str
    levels: tuple[str, ...]

    @property
    def key(self) -> str:
        """Its key in conf/train.yaml; those of ``DATASET_FACTORS`` have none."""
        return key_of(self.name)


def key_of(factor: str) -> str:
    """Return the key of a factor in ``conf/train.yaml``."""
    return _FACTOR_KEYS.get(factor, factor)


def parse_factor(text: str) -> Factor:
    """Parse a factor, such as ``"labels=10|25|50|100 %"``.

    Raises:
        ValueError: there are no levels, only one, or one twice, or a study sets the key by other means.
    """
    name, equals, levels_text = (part.strip() for part in text.partition("="))
    levels = tuple(level.strip().removesuffix("%").strip() for level in levels_text.split("|"))
    if not name or not equals or not all(levels):
        raise ValueError(f"'{text}' is not a factor; write it as in augment=false|true")
    if len(levels) < 2:
        raise ValueError(f"{name} has only one level ({levels[0]}): a comparison needs two, as in augment=false|true")
    if len(set(levels)) < len(levels):
        raise ValueError(f"{name} has a level twice ({levels_text})")
    if name in _OWN_KEYS:
        instead = f"; set {_OWN_KEYS[name]}" if _OWN_KEYS[name] else ""
        raise ValueError(f"{name} cannot be a factor: a study sets it itself{instead}")
    return Factor(name, levels)


def _folds(value: object) -> object:
    """Accept ``auto``, a list, or a single number."""
    return [value] if isinstance(value, int) else auto_or_listed(value)


class StudyConfig(Config):
    """A grid of training runs and their comparison; ``conf/study.yaml`` explains every key."""

    dataset: str = parameter(DATASET_HELP)
    data_folder: Path
    preset: str = parameter("{study}: the file conf/study/<preset>.yaml")
    study: StudyName = parameter("study name; reuse it to continue the study; empty: the preset's name")
    models: NameList = parameter(
        "models as for train, separated by commas; empty: the preset's", default="", min_length=1
    )
    factors: NameList = parameter(
        "such as augment=false|true; the first is compared, others are kept apart; empty: the preset's",
        default="",
        min_length=1,
    )
    seeds: int = parameter("number of trainings of each kind; empty: the preset's", default="", ge=1, le=1000)
    folds: Annotated[tuple[Annotated[int, Field(ge=0)], ...] | Literal["auto"], BeforeValidator(_folds)] = parameter(
        "fold numbers, or auto: all that prepare made, else the one split; empty: the preset's, or auto", default=""
    )
    engine: EngineName = parameter(ENGINE_HELP)
    seed: int = parameter("the first seed; the others follow it", ge=0, le=LARGEST_SEED - 1000)
    train: dict[str, Any]
    bootstrap_resamples: int = Field(ge=100)
    retries: Retries
    outage_minutes: OutageMinutes

    @field_validator("models")
    @classmethod
    def _each_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if len({Path(model).stem for model in models}) < len(models):
            raise ValueError("names a model twice")
        return models

    @field_validator("factors")
    @classmethod
    def _factors(cls, factors: tuple[str, ...]) -> tuple[str, ...]:
        keys = [parse_factor(text).key for text in factors]
        if len(set(keys)) < len(keys):
            raise ValueError("names a factor twice")
        return factors

    @field_validator("train")
    @classmethod
    def _train(cls, train: dict[str, Any]) -> dict[str, Any]:
        if own := next((key for key in _OWN_KEYS if key in train), ""):
            beside = _OWN_KEYS[own]
            instead = f"write {beside} beside train, not below it" if beside else "a study resumes when it is run again"
            raise ValueError(f"{own} is not a setting of its cells; {instead}")
        return train

    @model_validator(mode="after")
    def _one_value_each(self) -> StudyConfig:
        if not self.folds:
            raise ValueError("folds is empty; give auto, or numbers as in folds=1,2,3")
        for factor in self.parsed_factors:
            if _contains_key(self.train, factor.key.split(".")):
                raise ValueError(f"train.{factor.key} is set, but {factor.name} is a factor: remove one of them")
        return self

    @property
    def parsed_factors(self) -> tuple[Factor, ...]:
        """The factors; the first is the one whose levels are compared."""
        return tuple(parse_factor(text) for text in self.factors)


def _contains_key(tree: object, path: list[str]) -> bool:
    """Return whether a tree holds a key."""
    return not path or (isinstance(tree, Mapping) and path[0] in tree and _contains_key(tree[path[0]], path[1:]))


class CompareConfig(Config):
    """A comparison of finished runs in pairs; ``conf/compare.yaml`` explains every key."""

    run_ids: NameList = parameter("separated by commas; runs that differ only in seed and fold are one arm")
    bootstrap_resamples: int = Field(ge=100)
    seed: int = parameter("of the bootstrap", ge=0, le=LARGEST_SEED)

    @field_validator("run_ids")
    @classmethod
    def _each_once(cls, run_ids: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(run_ids)) < len(run_ids):
            raise ValueError("names a run twice")
        return run_ids
