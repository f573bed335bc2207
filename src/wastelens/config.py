"""Configuration: typed, closed (unknown keys are refused), frozen. Values live in ``conf/``, types live here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wastelens.errors import ConfigError

Tree = dict[str, Any]

LARGEST_SEED = 2**32 - 1  # what scikit-learn and Keras take
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no"})
_WORDS = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*"|['"])+""")  # an apostrophe without its pair is only a letter


class _YamlLoader(yaml.SafeLoader):
    """YAML whose booleans are true and false: YAML 1.1 also takes on, off, yes and no, wherever they stand."""


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"
)


class Config(BaseModel):
    """Base of all configuration: closed, frozen, and without defaults of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _plain_booleans(cls, value: object, info: Any) -> object:
        """``true|false|1|0|yes|no`` in any case for booleans; pydantic's ``on``, ``t`` and ``y`` are refused."""
        assert info.field_name is not None
        if cls.model_fields[info.field_name].annotation is not bool:
            if isinstance(value, bool):  # pydantic would take it for the number 1 or 0
                raise ValueError("cannot be true or false")
            return value
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word in _TRUE | _FALSE:
            return word in _TRUE
        raise ValueError("must be true or false (1, 0, yes and no are understood too)")


class FractionsConfig(Config):
    """Shares of the photos that go to each split; they add up to 1."""

    train: float = Field(gt=0, lt=1)
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def _add_up(self) -> FractionsConfig:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val and test add up to {total:g}, not to 1")
        return self


class PrepareConfig(Config):
    """From annotations and photos to a prepared dataset; every key is explained in ``conf/prepare.yaml``."""

    dataset: str
    data_folder: Path
    materials: str
    image_side_px: int = Field(ge=16, le=2048)
    group_by: str = Field(min_length=1)
    fractions: FractionsConfig
    folds: int = Field(ge=0, le=50)
    near_duplicate_distance: int = Field(ge=0, le=7)
    balance_target: float = Field(gt=0, le=1)
    max_copies: Annotated[int, Field(ge=1)] | Literal["auto"]
    max_problem_share: float = Field(ge=0, lt=1)
    max_megapixels: float = Field(gt=0)
    workers: Annotated[int, Field(ge=1)] | Literal["auto"]
    seed: int = Field(ge=0, le=LARGEST_SEED)

    @field_validator("folds")
    @classmethod
    def _folds(cls, folds: int) -> int:
        if folds in (1, 2):
            raise ValueError("must be 0 (no cross-validation) or at least 3 (train, val and test need one each)")
        return folds


class CnnConfig(Config):
    """The compact convolutional base model: ``conf/model/base.yaml``."""

    kind: Literal["cnn"]
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    dropout: float = Field(ge=0, lt=1)
    pooling: Literal["average", "max", "average_and_max"]


class TransformConfig(Config):
    """One albumentations transform with its probability and its own parameters."""

    name: str
    probability: float = Field(ge=0, le=1)
    parameters: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _parameters_are_optional(cls, value: object) -> object:
        return {"parameters": {}, **value} if isinstance(value, Mapping) else value


class AugmentationConfig(Config):
    """A policy: transforms applied one after another, each with its probability. ``conf/augment/*.yaml``."""

    transforms: tuple[TransformConfig, ...]


class LossConfig(Config):
    """Multi-label loss on logits."""

    name: Literal["bce", "focal", "asymmetric"]
    focal_gamma: float = Field(ge=0)
    asymmetric_gamma_positive: float = Field(ge=0)
    asymmetric_gamma_negative: float = Field(ge=0)
    asymmetric_clip: float = Field(ge=0, lt=1)


class ScheduleConfig(Config):
    """Learning rate over the epochs."""

    name: Literal["constant", "exponential", "cosine"]
    start: float = Field(ge=0)
    peak: float = Field(gt=0)
    floor: float = Field(ge=0)
    warmup_epochs: float = Field(ge=0)
    decay_per_epoch: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> ScheduleConfig:
        if self.floor > self.peak:
            raise ValueError(f"floor {self.floor:g} is above peak {self.peak:g}")
        if self.start > self.peak:
            raise ValueError(f"start {self.start:g} is above peak {self.peak:g}")
        return self


class OptimizerConfig(Config):
    """The gradient step."""

    name: Literal["adam", "adamw", "sgd"]
    weight_decay: float = Field(ge=0)
    momentum: float = Field(ge=0, lt=1)
    clip_norm: float = Field(ge=0)


class FitConfig(Config):
    """The training loop."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    patience_epochs: int = Field(ge=1)


class TrainConfig(Config):
    """One model on one prepared dataset; every key is explained in ``conf/train.yaml``."""

    dataset: str
    data_folder: Path
    model: str
    network: CnnConfig
    augment: bool
    augment_policy: str
    augmentation: AugmentationConfig
    balanced: bool
    fold: int = Field(ge=0)
    loss: LossConfig
    schedule: ScheduleConfig
    optimizer: OptimizerConfig
    fit: FitConfig
    bootstrap_resamples: int = Field(ge=100)
    resume: str
    seed: int = Field(ge=0, le=LARGEST_SEED)


class MainConfig(Config):
    """The main job: a section for each step it runs."""

    prepare: PrepareConfig
    train: TrainConfig

    @model_validator(mode="after")
    def _one_job(self) -> MainConfig:
        for key in ("dataset", "data_folder"):
            if getattr(self.prepare, key) != getattr(self.train, key):
                raise ValueError(f"prepare.{key} and train.{key} must be the same: one job has one dataset")
        if self.train.augment:
            raise ValueError("train.augment cannot be set: main trains without and with augmentation")
        if self.train.resume:
            raise ValueError("train.resume cannot be set: resume a run with the entry point train")
        return self


AnyConfig = TypeVar("AnyConfig", bound=Config)
STEP_CONFIGS: dict[str, type[Config]] = {"prepare": PrepareConfig, "train": TrainConfig, "main": MainConfig}


def conf_folder() -> Path:
    """The folder of shipped configuration: ``conf/`` of the checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent.parent / "conf"
    return checkout if (checkout / "prepare.yaml").is_file() else package / "conf"


def load_config(
    step: str, *, parameters: Mapping[str, str] | None = None, config_file: str = "", settings: str = ""
) -> Config:
    """Resolve a step's configuration, later layers over earlier ones.

    Layers: the shipped ``conf/<step>.yaml``; the user's ``config_file``; command-line ``parameters``; ``settings``,
    which is ``"key.sub=value key=value"``. A train section's ``model`` and ``augment_policy`` then bring in
    ``conf/model/<name>.yaml`` and ``conf/augment/<name>.yaml`` below those layers.

    Raises:
        ConfigError: an unknown key, a wrong type or value, or a file that cannot be read. One line.
    """
    schema = STEP_CONFIGS[step]
    layers = [(label, layer) for label, layer in _layers(step, schema, parameters or {}, config_file, settings)]
    for label, layer in layers:
        _refuse_unknown_keys(layer, schema, label)
    tree: Tree = {}
    for _, layer in layers:
        tree = _merge(tree, layer)
    parts = list(_named_parts(tree, schema))
    for label, part in parts:
        _refuse_unknown_keys(part, schema, label)
        tree = _merge(part, tree)
    return _validated(schema, tree, [*parts, *layers])


def config_file_says(step: str, config_file: str) -> dict[str, str]:
    """The plain keys that a user's file sets for a step, as text.

    Raises:
        ConfigError: the file cannot be read.
    """
    tree = _section_for(step, read_yaml(Path(config_file))) if config_file else {}
    return {key: _as_text(value) for key, value in tree.items() if not isinstance(value, Mapping)}


def _layers(
    step: str, schema: type[Config], parameters: Mapping[str, str], config_file: str, settings: str
) -> Iterator[tuple[str, Tree]]:
    if schema is MainConfig:
        for section in MainConfig.model_fields:
            yield f"conf/{section}.yaml", {section: read_yaml(conf_folder() / f"{section}.yaml")}
    else:
        yield f"conf/{step}.yaml", read_yaml(conf_folder() / f"{step}.yaml")
    if config_file:
        yield config_file, _section_for(step, read_yaml(Path(config_file)))
    given = {key: value for key, value in parameters.items() if value != ""}
    yield "the command line", _for_every_section(given) if schema is MainConfig else dict(given)
    yield "the parameter 'set'", parse_settings(settings)


def _section_for(step: str, tree: Tree) -> Tree:
    """A file may hold one step's keys, or a section a step (``conf/smoke.yaml``): then only the step's own counts."""
    if step != "main" and tree and set(tree) <= set(STEP_CONFIGS):
        section = tree.get(step, {})
        return section if isinstance(section, dict) else {}
    return tree


def _for_every_section(parameters: Mapping[str, str]) -> Tree:
    """A parameter of the main job reaches every step that knows it (``dataset`` and ``seed`` reach all)."""
    sections = {
        section: {key: value for key, value in parameters.items() if key in STEP_CONFIGS[section].model_fields}
        for section in MainConfig.model_fields
    }
    return {section: values for section, values in sections.items() if values}


def read_yaml(path: Path) -> Tree:
    """A YAML mapping from a file.

    Raises:
        ConfigError: missing, unreadable, not YAML, or not a mapping.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _YamlLoader)
    except OSError as error:
        raise ConfigError(f"Config file '{path}' cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date like 2024-13-45 is a ValueError
        reason = " ".join(str(error).split())
        raise ConfigError(f"Config file '{path}' is not YAML: {reason}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"Config file '{path}' must hold 'key: value' lines at its top.")
    return tree


def parse_settings(settings: str) -> Tree:
    """``"fit.epochs=3 fit.batch_size=16"`` as a tree; values are read as YAML, and quotes hold spaces together.

    Raises:
        ConfigError: a word without '=' or a value that is not YAML.
    """
    tree: Tree = {}
    for word in _WORDS.findall(settings):
        key, equals, value = word.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(
                f"Cannot read '{word}' in the parameter 'set'; write key=value, as in set=\"fit.epochs=3\"."
            )
        branch: Tree = {}
        leaf = branch
        *parents, last = key.split(".")
        for parent in parents:
            leaf[parent] = {}
            leaf = leaf[parent]
        try:
            leaf[last] = yaml.load(value, _YamlLoader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"Cannot read the value in '{word}' of the parameter 'set'.") from error
        tree = _merge(tree, branch)
    return tree


def _merge(below: Tree, above: Mapping[str, Any]) -> Tree:
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = _merge(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged


def _named_parts(tree: Tree, schema: type[Config]) -> Iterator[tuple[str, Tree]]:
    """Layers of the files that ``model`` and ``augment_policy`` name, for the keys ``network`` and ``augmentation``."""
    if schema is MainConfig:
        train = tree["train"]
        if isinstance(train, dict):
            yield from ((label, {"train": part}) for label, part in _named_parts(train, TrainConfig))
    elif schema is TrainConfig:
        named = {"network": ("model", tree["model"]), "augmentation": ("augment", tree["augment_policy"])}
        for key, (kind, name) in named.items():
            label, part = _named_part(kind, str(name))
            yield label, {key: part}


def _named_part(kind: str, name: str) -> tuple[str, Tree]:
    path = Path(name) if name.endswith((".yaml", ".yml")) else conf_folder() / kind / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in (conf_folder() / kind).glob("*.yaml"))
        raise ConfigError(f"Unknown {kind} '{name}'.{did_you_mean(name, known)} There are: {', '.join(known)}.")
    label = str(path) if name.endswith((".yaml", ".yml")) else f"conf/{kind}/{name}.yaml"
    return label, read_yaml(path)


def did_you_mean(word: str, known: list[str]) -> str:
    """`` Did you mean 'x'?`` where a near word is known, otherwise nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""


def _refuse_unknown_keys(tree: Mapping[str, Any], schema: type[BaseModel], label: str, prefix: str = "") -> None:
    known = list(schema.model_fields)
    for key, value in tree.items():
        if key not in known:
            hint = did_you_mean(str(key), known) or f" Known keys: {', '.join(known)}."
            raise ConfigError(f"Unknown key '{prefix}{key}' in {label}.{hint}")
        part = _config_class(schema.model_fields[key].annotation)
        if part is not None and isinstance(value, Mapping):
            _refuse_unknown_keys(value, part, label, f"{prefix}{key}.")


def _config_class(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _validated(schema: type[AnyConfig], tree: Tree, layers: list[tuple[str, Tree]]) -> AnyConfig:
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"] if not str(part).startswith(("constrained-", "literal["))]
        key = ".".join(location)
        value = "" if isinstance(first.get("input"), Mapping) else f" (not {first['input']!r})"
        reason = first["msg"].removeprefix("Value error, ")
        where = f"Config key '{key}' in {_set_by(location, layers)}" if key else "Config"
        raise ConfigError(f"{where}: {_lower(reason)}{value}.") from error


def _set_by(location: list[str], layers: list[tuple[str, Tree]]) -> str:
    """The label of the last layer that set this key, or the nearest part of the tree above it."""

    def depth(layer: Tree) -> int:
        branch: Any = layer
        for count, part in enumerate(location):
            if not isinstance(branch, Mapping) or part not in branch:
                return count
            branch = branch[part]
        return len(location)

    return max(reversed(layers), key=lambda labelled: depth(labelled[1]))[0]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def flatten(config: Config) -> dict[str, str]:
    """Dotted keys and their values as text, for MLflow's parameters; nested lists stay one value."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", _as_text(value)

    return dict(walk(config.model_dump(mode="json"), ""))


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
