"""The parameters of each step on the command line and in MLproject, from the types of its settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args, get_origin

from wastelens.config.augmentation import PolicyAugmentation
from wastelens.config.base import Config, as_text
from wastelens.config.files import AUGMENT, SHORT_KEYS, conf_folder, read_shipped, read_yaml
from wastelens.config.main import MainConfig
from wastelens.config.networks import NETWORKS, EncoderNetworkConfig, NetworkConfig
from wastelens.config.prepare import PrepareConfig
from wastelens.config.steps import STEP_CONFIGS
from wastelens.config.train import TrainConfig

_EVERY_SECTION = ("dataset", "seed")  # of the main job: these reach every step that knows them
_MAIN_HELP = {"seed": "of every step: the same seed gives the same split, copies and first losses"}
_SET_EXAMPLES = {
    "prepare": "workers=2",
    "pretrain": "learner.epochs=3",
    "train": "fit.epochs=3 fit.batch_size=16",
    "tune": "train.fit.epochs=10",
    "cluster": "k_range=[2,20]",
    "explain": "shap.samples=100",
    "labels": "train.fit.epochs=3",
    "predict": "block_photos=256",
    "study": "train.fit.epochs=10",
    "compare": "bootstrap_resamples=5000",
    "evaluate": "workers=1",
    "promote": "bootstrap_resamples=5000",
    "download": "web.attempts=8",
    "collect": "min_side_px=512",
    "main": "train.fit.epochs=3",
}
# Heading in a command's help → the parameters below it, last; the others stand before them.
GROUPS = {
    "Start of the model": ("pretrained", "unlabelled", "weights", "freeze"),
    "Augmentation": ("augment", "augment_policy", "views"),
    "The run": ("engine", "workers", "mixed_precision", "resume", "seed", "config", "set"),
}
_BOOLEAN = ("true", "false")
_TYPES: dict[object, str] = {int: "INTEGER", float: "NUMBER"}
# Setting → whether it applies to a type of network.
_TAKES: dict[str, Callable[[type[NetworkConfig]], bool]] = {
    "pretrained": lambda network: issubclass(network, EncoderNetworkConfig) or network.probes_encoders,
    "weights": lambda network: network.takes_weights,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry point: an option of the command, a ``-P`` parameter in MLproject.

    Attributes:
        choices: values to offer while typing; others may be allowed.
        type: as the command's help shows it.
    """

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    type: str = "TEXT"


def parameters_of(step: str) -> tuple[Parameter, ...]:
    """Return a step's parameters, in the order of its type, and last ``seed``, ``config`` and ``set``."""
    config = STEP_CONFIGS[step]
    if config is MainConfig:
        found = [
            replace(one, help=_MAIN_HELP.get(one.name, one.help))
            for one in _fields(PrepareConfig, "prepare")
            if one.name in _EVERY_SECTION
        ]
    else:
        found = _fields(config, step)
    last = [one for one in found if one.name == "seed"]
    return (
        *(one for one in found if one.name != "seed"),
        *(_short_parameters() if config is TrainConfig else ()),
        *last,
        Parameter("config", "", "a YAML file over the shipped conf/, for instance conf/smoke.yaml"),
        Parameter("set", "", f'any other key, as in set="{_SET_EXAMPLES[step]}"'),
    )


def _fields(config: type[Config], step: str) -> list[Parameter]:
    shipped = read_shipped(step)
    found = []
    for name, field in config.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("parameter"):
            default = extra["default"] if isinstance(extra.get("default"), str) else _typed(shipped[name])
            text = str(field.description)
            choices, kind = _choices(field.annotation), _TYPES.get(field.annotation, "TEXT")
            if named := re.search(r"\{(\w+)\}", text):
                choices = tuple(_shipped_names(named[1]))
                kind = "NAME"
            elif choices:
                kind = "|".join(choices)
            found.append(Parameter(name, str(default), _with_names(text), choices, kind))
    return found


def _choices(annotation: object) -> tuple[str, ...]:
    """Return the values of a setting that is true or false, or one of a few words."""
    if annotation is bool:
        return _BOOLEAN
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else ()


def _typed(value: object) -> str:
    """Return a value as it is typed: names of a list with commas between."""
    return ",".join(as_text(one) for one in value) if isinstance(value, list) else as_text(value)


def _with_names(description: str) -> str:
    """Fill in the names of the files that ship.

    ``{model}`` stands for all of ``conf/model/``, ``{model:pretrained}`` and ``{model:weights}`` for those whose
    network takes this setting.
    """

    def names(found: re.Match[str]) -> str:
        return ", ".join(_shipped_names(found[1], found[2]))

    return re.sub(r"\{(\w+)(?::(\w+))?\}", names, description)


def _shipped_names(folder: str, setting: str | None = None) -> list[str]:
    """Return the names of the files in a folder of ``conf/``, or of those whose network takes a setting."""
    files = sorted((conf_folder() / folder).iterdir())
    return [file.stem for file in files if setting is None or _TAKES[setting](_network_of(file))]


def _network_of(model: Path) -> type[NetworkConfig]:
    """Return the type of network in a model's file."""
    return NETWORKS[read_yaml(model)["network"]["kind"]]


def _short_parameters() -> list[Parameter]:
    """Return the parameters of ``train`` that stand for keys of its augmentation."""
    policy = read_yaml(conf_folder() / "augmentation" / "policy.yaml")
    fields = PolicyAugmentation.model_fields
    return [
        Parameter(AUGMENT, "false", "true or false: train on randomly changed photos", _BOOLEAN, "|".join(_BOOLEAN)),
        *(
            Parameter(short, as_text(policy[name]), f"with augment: {_with_names(str(fields[name].description))}")
            for short, name in ((short, key.rpartition(".")[2]) for short, key in SHORT_KEYS.items())
        ),
    ]
