"""Load a step's configuration: the files of ``conf/``, then a user's own, the command line and ``set`` over them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from wastelens.config.base import Config, as_text, plain_boolean
from wastelens.config.checking import Layer, Tree, branch_at, checked, merge, merged
from wastelens.config.explain import methods_with_settings
from wastelens.config.main import MainConfig
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.steps import STEP_CONFIGS
from wastelens.config.study import StudyConfig
from wastelens.config.train import TrainConfig
from wastelens.errors import ConfigError, did_you_mean
from wastelens.system.plain_yaml import load_yaml, parse_yaml

MAIN_FILES = ("prepare", "train", "cluster", "explain", "main")
FOLLOW_TRAIN = ("cluster", "explain")  # steps of the main job that take over settings of its section train
KINDS = (
    "augmentation",
    "loss",
    "schedule",
    "optimizer",
)  # parts of train with a file per kind: conf/<part>/<kind>.yaml
AUGMENT = "augment"  # parameter of train: true or false, short for the kind of augmentation
SHORT_KEYS = {"augment_policy": "augmentation.policy", "views": "augmentation.views"}  # likewise

_WORDS = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*"|['"])+""")  # an unpaired apostrophe is a letter


def conf_folder() -> Path:
    """Return the folder of shipped configuration: ``conf/`` of the checkout, or the copy in an installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent.parent / "conf"
    return checkout if (checkout / "prepare.yaml").is_file() else package / "conf"


def load_config(
    step: str, *, parameters: Mapping[str, str] | None = None, config_file: str = "", settings: str = ""
) -> Config:
    """Resolve a step's configuration, later layers over earlier ones.

    Layers: the shipped ``conf/<step>.yaml``; the parts it names (``conf/model/<model>.yaml``, whose keys are the
    step's own, ``conf/augment/<augment_policy>.yaml`` and ``conf/pretrain/<method>.yaml``); the user's
    ``config_file``; command-line ``parameters``; ``settings``, which is ``"key.sub=value key=value"``.

    Raises:
        ConfigError: an unknown key, a wrong type or value, or a file that cannot be read. One line.
    """
    schema = STEP_CONFIGS[step]
    above = list(_given(step, parameters or {}, config_file, settings))
    if schema is MainConfig:
        layers = _layers_of_main([_shipped(name) for name in MAIN_FILES], above)
    else:
        layers = _layers_of_step(step, above)
    return checked(schema, layers, _shipped_settings())


def train_config_of(above: Iterable[Layer]) -> TrainConfig:
    """Return the settings of ``train`` with these layers over the shipped ones, as for a study's cell.

    Raises:
        ConfigError: an unknown key, a wrong type or value. One line, with the layer's label.
    """
    return checked(TrainConfig, _layers_of_step("train", list(above)), _shipped_settings())


def _shipped(step: str) -> Layer:
    return f"conf/{step}.yaml", read_shipped(step)


def _layers_of_step(step: str, above: list[Layer]) -> list[Layer]:
    """Return the shipped file, the files of the parts that are named, and the user's layers."""
    shipped = [_shipped(step)]
    above = [(label, _spelled_out(layer, label)) for label, layer in above] if step == "train" else above
    return [*shipped, *_named_parts(shipped, above, STEP_CONFIGS[step]), *above]


def _spelled_out(tree: Tree, label: str) -> Tree:
    """Replace the short parameters of ``train`` by the keys that they stand for.

    Raises:
        ConfigError: ``augment`` is neither true nor false.
    """
    expanded = _without(tree, {*SHORT_KEYS, AUGMENT})
    for short, key in SHORT_KEYS.items():
        if short in tree:
            expanded = merge(expanded, _tree_at(key, tree[short]))
    if AUGMENT in tree:
        try:
            kind = "policy" if plain_boolean(tree[AUGMENT]) else "none"
        except ValueError as error:
            raise ConfigError(f"Config key '{AUGMENT}' in {label}: {error} (not {tree[AUGMENT]!r}).") from None
        expanded = merge(expanded, {"augmentation": {"kind": kind}})
    return expanded


def config_file_says(step: str, config_file: str) -> dict[str, str]:
    """Return the plain keys that a user's file sets for a step, as text.

    Raises:
        ConfigError: the file cannot be read.
    """
    tree = _section_for(step, read_yaml(Path(config_file))) if config_file else {}
    return {key: as_text(value) for key, value in tree.items() if not isinstance(value, Mapping)}


def read_shipped(step: str) -> Tree:
    """Return what ``conf/<step>.yaml`` says; for ``explain``, with each method's ``conf/explain/<method>.yaml``."""
    tree = read_yaml(conf_folder() / f"{step}.yaml")
    if step == "explain":
        tree |= {name: read_yaml(conf_folder() / step / f"{name}.yaml") for name in methods_with_settings()}
    return tree


def _given(step: str, parameters: Mapping[str, str], config_file: str, settings: str) -> Iterator[Layer]:
    """Yield the user's layers: a file, the command line, and ``set``."""
    if config_file:
        yield config_file, _section_for(step, read_yaml(Path(config_file)))
    given = {key: value for key, value in parameters.items() if value != ""}
    yield "the command line", _for_every_section(given) if step == "main" else dict(given)
    yield "the parameter 'set'", parse_settings(settings)


def short_keys(settings: Mapping[str, str]) -> dict[str, str]:
    """Replace keys of ``train`` by the short parameters that stand for them, as users know these."""
    short = {key: name for name, key in SHORT_KEYS.items()}
    kind = settings.get("augmentation.kind")
    augment = {} if kind is None else {AUGMENT: as_text(kind != "none")}
    return augment | {short.get(key, key): value for key, value in settings.items() if key != "augmentation.kind"}


def _layers_of_main(shipped: list[Layer], above: list[Layer]) -> list[Layer]:
    """Return every section's layers and those of every model: the section ``train`` holds for each, below its own."""
    sections = [(label, {label.removeprefix("conf/").removesuffix(".yaml"): tree}) for label, tree in shipped[:-1]]
    layers: list[Layer] = [
        (label, _sections_spelled_out(tree, label)) for label, tree in [*sections, shipped[-1], *above]
    ]
    of_train = [(label, layer["train"]) for label, layer in layers if isinstance(layer.get("train"), dict)]
    parts = _named_parts(of_train[:1], of_train[1:], TrainConfig)
    follows: Layer = ("the section train", {step: _known_to(step, merged(of_train[1:])) for step in FOLLOW_TRAIN})
    layers[len(sections) : len(sections)] = [*((label, {"train": part}) for label, part in parts), follows]
    models = merged(layers).get("models")
    resolved: list[Layer] = []
    for name in models if isinstance(models, dict) else ():
        own = [(label, layer["models"][name]) for label, layer in layers if _names(layer, name)]
        if own[-1][1] is None or not all(isinstance(layer, dict) for _, layer in own):
            continue
        model = str(merged(own).get("model", name))
        named: Layer = ("conf/main.yaml", {"model": model})
        # The section train may set keys of its own model's network, which another network does not have.
        trained = str(merged(of_train)["model"])
        general = [(label, _without(layer, set() if model == trained else {"network"})) for label, layer in of_train]
        parts = _named_parts(general[:1], [*general[1:], *own, named], TrainConfig)
        every = [general[0], *parts, *general[1:], *own, named]
        resolved += [(label, {"models": {name: layer}}) for label, layer in every]
    # The section train may hold settings of kinds that only some models use; they are checked there.
    kinds = {part: {"kind": branch_at(merged(of_train), (part,)).get("kind")} for part in KINDS}
    settled = [("the section train", {"train": kinds})] if isinstance(merged(layers).get("train"), dict) else []
    return [(label, _without_unwanted_models(layer, models)) for label, layer in [*layers, *resolved, *settled]]


def _sections_spelled_out(tree: Tree, label: str) -> Tree:
    """Spell out the short parameters in the section ``train`` and in every model of the main job."""
    spelled = dict(tree)
    if isinstance(tree.get("train"), dict):
        spelled["train"] = _spelled_out(tree["train"], label)
    if isinstance(models := tree.get("models"), dict):
        spelled["models"] = {
            name: _spelled_out(model, label) if isinstance(model, dict) else model for name, model in models.items()
        }
    return spelled


def _names(layer: Tree, model: str) -> bool:
    models = layer.get("models")
    return isinstance(models, Mapping) and model in models


def _without(tree: Tree, keys: set[str]) -> Tree:
    return {key: value for key, value in tree.items() if key not in keys}


def _without_unwanted_models(layer: Tree, models: object) -> Tree:
    """Return a layer without the models that a later one sets to null."""
    kept = layer.get("models")
    if not isinstance(kept, Mapping) or not isinstance(models, Mapping):
        return layer
    return {**layer, "models": {name: value for name, value in kept.items() if models.get(name) is not None}}


def _section_for(step: str, tree: Tree) -> Tree:
    """Return a step's part of a file, which holds one step's keys or, as ``conf/smoke.yaml``, a section per step."""
    if step in ("study", "tune") and step not in tree and set(tree) <= set(STEP_CONFIGS[step].model_fields):
        return tree  # here, 'train' and 'models' are keys, not sections
    if step != "main" and tree and set(tree) <= {*STEP_CONFIGS, *MainConfig.model_fields}:
        section = tree.get(step, {})
        return section if isinstance(section, dict) else {}
    return tree


def _for_every_section(parameters: Mapping[str, str]) -> Tree:
    """Pass a parameter of the main job to every step that has it (all have ``dataset`` and ``seed``)."""
    sections = {
        section: _known_to(section, parameters) for section in MainConfig.model_fields if section in STEP_CONFIGS
    }
    return {section: values for section, values in sections.items() if values}


def _known_to(step: str, tree: Mapping[str, Any]) -> Tree:
    return {key: value for key, value in tree.items() if key in STEP_CONFIGS[step].model_fields}


@lru_cache(maxsize=64)
def _parsed(path: Path, modified_ns: int) -> Any:
    """Parse a file once: to check a search space, hundreds of configurations are made from the same files."""
    return load_yaml(path)


def read_yaml(path: Path) -> Tree:
    """Return the YAML mapping in a file.

    Raises:
        ConfigError: missing, unreadable, not YAML, or not a mapping.
    """
    try:
        tree = copy.deepcopy(_parsed(path, path.stat().st_mtime_ns))
    except OSError as error:
        raise ConfigError(f"Config file '{path}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"Config file '{path}' is not YAML: {error}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"Config file '{path}' must contain 'key: value' pairs at the top level.")
    return tree


def parse_settings(settings: str) -> Tree:
    """Parse ``"fit.epochs=3 fit.batch_size=16"`` into a tree; values are YAML, and quotes protect spaces.

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
        tree = merge(tree, setting(key, value, "the parameter 'set'"))
    return tree


def setting(key: str, value: str, label: str) -> Tree:
    """Return a dotted key and its value, parsed as YAML, as a tree; ``label`` says where they are from.

    Raises:
        ConfigError: the value is not YAML.
    """
    try:
        return _tree_at(key, parse_yaml(value))
    except ValueError as error:
        raise ConfigError(f"Cannot read the value in '{key}={value}' of {label}.") from error


def _tree_at(key: str, value: Any) -> Tree:
    tree = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return dict(tree)


def _shipped_settings() -> dict[str, dict[str, set[str]]]:
    """Return the values, as text, of the settings in the files of kinds: a user who repeats one changes nothing."""
    found: dict[str, dict[str, set[str]]] = {part: {} for part in KINDS}
    for part, settings in found.items():
        for file in (conf_folder() / part).glob("*.yaml"):
            for name, value in read_yaml(file).items():
                settings.setdefault(name, set()).add(as_text(value))
    return found


def _named_parts(shipped: list[Layer], above: list[Layer], schema: type[Config]) -> list[Layer]:
    """Return layers of the files that other layers name."""
    parts: list[Layer] = []

    def said(key: str) -> Any:
        branch: Any = merged([*shipped, *parts, *above])
        for part in key.split("."):
            branch = branch.get(part) if isinstance(branch, Mapping) else None
        return branch

    if schema is TrainConfig:
        parts.append(_named_part("model", str(said("model"))))
        kinds = {part: kind for part in KINDS if (kind := said(f"{part}.kind")) is not None}
        # First, so that the model's file can override them.
        parts[:0] = [_below(part, _named_part(part, str(kind))) for part, kind in kinds.items()]
        if kinds.get("augmentation") == "policy":
            parts.insert(1, _below("augmentation", _named_part("augment", str(said("augmentation.policy")))))
        if (method := said("network.method")) is not None:
            # Likewise.
            parts.insert(0, _below("network", _below("learner", _named_part("pretrain", str(method)))))
    elif schema is PretrainConfig:
        parts.append(_below("learner", _named_part("pretrain", str(said("method")))))
    elif schema is StudyConfig:
        parts.append(_named_part("study", str(said("preset"))))
    return parts


def _below(key: str, layer: Layer) -> Layer:
    label, tree = layer
    return label, {key: tree}


def _named_part(kind: str, name: str) -> Layer:
    path = Path(name) if name.endswith((".yaml", ".yml")) else conf_folder() / kind / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in (conf_folder() / kind).glob("*.yaml"))
        what = {"augment": "augment policy", "pretrain": "method", "study": "preset"}.get(kind, kind)
        raise ConfigError(f"Unknown {what} '{name}'.{did_you_mean(name, known)} Available: {', '.join(known)}.")
    label = str(path) if name.endswith((".yaml", ".yml")) else f"conf/{kind}/{name}.yaml"
    return label, read_yaml(path)
