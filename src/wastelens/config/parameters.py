"""The parameters of each step on the command line and in MLproject, from the types of its settings."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wastelens.config.augmentation import PolicyAugmentation
from wastelens.config.base import Config, as_text
from wastelens.config.files import AUGMENT, SHORT_KEYS, conf_folder, read_shipped, read_yaml
from wastelens.config.main import MainConfig
from wastelens.config.prepare import PrepareConfig
from wastelens.config.steps import STEP_CONFIGS
from wastelens.config.train import TrainConfig

_EVERY_SECTION = ("dataset", "seed")  # of the main job: these reach every step that knows them
_SET_EXAMPLES = {
    "prepare": "workers=2",
    "pretrain": "learner.epochs=3",
    "train": "fit.epochs=3 fit.batch_size=16",
    "tune": "train.fit.epochs=10",
    "cluster": "k_range=[2,20]",
    "explain": "shap.samples=100",
    "study": "train.fit.epochs=10",
    "compare": "bootstrap_resamples=5000",
    "download": "web.attempts=8",
    "collect": "min_side_px=512",
    "main": "train.fit.epochs=3",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry point: an option of the command, a ``-P`` parameter in MLproject."""

    name: str
    default: str
    help: str


def parameters_of(step: str) -> tuple[Parameter, ...]:
    """Return a step's parameters, in the order of its type, and last ``seed``, ``config`` and ``set``."""
    config = STEP_CONFIGS[step]
    if config is MainConfig:
        found = [one for one in _fields(PrepareConfig, "prepare") if one.name in _EVERY_SECTION]
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
            found.append(Parameter(name, str(default), _with_names(str(field.description))))
    return found


def _typed(value: object) -> str:
    """Return a value as it is typed: names of a list with commas between."""
    return ",".join(as_text(one) for one in value) if isinstance(value, list) else as_text(value)


def _with_names(description: str) -> str:
    """Fill in the names of the files that ship, as ``{model}`` for those of ``conf/model/``."""

    def names(found: re.Match[str]) -> str:
        files = sorted(file.stem for file in (conf_folder() / found[1]).iterdir())
        return ", ".join(files)

    return re.sub(r"\{(\w+)\}", names, description)


def _short_parameters() -> list[Parameter]:
    """Return the parameters of ``train`` that stand for keys of its augmentation."""
    policy = read_yaml(conf_folder() / "augmentation" / "policy.yaml")
    fields = PolicyAugmentation.model_fields
    return [
        Parameter(AUGMENT, "false", "true or false: change the training photos at random every epoch"),
        *(
            Parameter(short, as_text(policy[name]), f"with augment: {_with_names(str(fields[name].description))}")
            for short, name in ((short, key.rpartition(".")[2]) for short, key in SHORT_KEYS.items())
        ),
    ]
