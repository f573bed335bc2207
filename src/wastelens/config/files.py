"""From the files of ``conf/``, a user's own, the command line and ``set`` to a step's checked configuration."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from wastelens.config.base import Config, as_text, plain_boolean
from wastelens.config.explain import methods_with_settings
from wastelens.config.main import MainConfig
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.steps import STEP_CONFIGS
from wastelens.config.study import StudyConfig
from wastelens.config.train import TrainConfig
from wastelens.errors import ConfigError, did_you_mean

Tree = dict[str, Any]
Layer = tuple[str, Tree]  # what a user knows it by, and what it says
MAIN_FILES = ("prepare", "train", "cluster", "explain", "main")
FOLLOW_TRAIN = ("cluster", "explain")  # what the main job's section train says of keys they know, holds for them
_FIXES = {
    "augmentation": "Set {0}augment=true too",
    "network": "Choose another model",
    "learner": "Choose another method",
}
KINDS = ("augmentation", "loss", "schedule", "optimizer")  # parts of train that come in kinds, each with its files
AUGMENT = "augment"  # true or false: a parameter of train, short for the kind of augmentation
SHORT_KEYS = {"augment_policy": "augmentation.policy", "views": "augmentation.views"}  # parameters of train, likewise
AnyConfig = TypeVar("AnyConfig", bound=Config)

_WORDS = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*"|['"])+""")  # an apostrophe without its pair is only a letter


class _YamlLoader(yaml.SafeLoader):
    """YAML 1.1, but in two things as people mean it, and as YAML 1.2 has it.

    Only true and false are booleans, not on, off, yes and no wherever they stand; and 1e-5 is a number.
    """


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"
)
_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]{1,9}[eE][-+]?[0-9]{1,3}$"), "-+0123456789"
)


def conf_folder() -> Path:
    """The folder of shipped configuration: ``conf/`` of the checkout, or the copy inside an installed package."""
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
    return _resolved(schema, layers)


def train_config_of(above: Iterable[Layer]) -> TrainConfig:
    """What ``train`` would do with these layers over the shipped ones: the settings of a study's cell.

    Raises:
        ConfigError: an unknown key, a wrong type or value. One line, with the layer's label.
    """
    return _resolved(TrainConfig, _layers_of_step("train", list(above)))


def _shipped(step: str) -> Layer:
    return f"conf/{step}.yaml", read_shipped(step)


def _layers_of_step(step: str, above: list[Layer]) -> list[Layer]:
    """Return the shipped file, those of the parts that are named, and what the user says."""
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


def _resolved(schema: type[AnyConfig], layers: list[Layer]) -> AnyConfig:
    layers = [(label, _without_replaced(layer, schema, number, layers)) for number, (label, layer) in enumerate(layers)]
    tree = _merged(layers)
    for label, layer in layers:
        _refuse_unknown_keys(layer, schema, label, tree)
    return _validated(schema, tree, layers)


def config_file_says(step: str, config_file: str) -> dict[str, str]:
    """The plain keys that a user's file sets for a step, as text.

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
    """What the user says: in a file, on the command line, and by ``set``."""
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
    """Every section's layers, and those of every model: what holds for ``train`` holds for each, below its own."""
    sections = [(label, {label.removeprefix("conf/").removesuffix(".yaml"): tree}) for label, tree in shipped[:-1]]
    layers: list[Layer] = [
        (label, _sections_spelled_out(tree, label)) for label, tree in [*sections, shipped[-1], *above]
    ]
    of_train = [(label, layer["train"]) for label, layer in layers if isinstance(layer.get("train"), dict)]
    parts = _named_parts(of_train[:1], of_train[1:], TrainConfig)
    follows: Layer = ("the section train", {step: _known_to(step, _merged(of_train[1:])) for step in FOLLOW_TRAIN})
    layers[len(sections) : len(sections)] = [*((label, {"train": part}) for label, part in parts), follows]
    models = _merged(layers).get("models")
    resolved: list[Layer] = []
    for name in models if isinstance(models, dict) else ():
        own = [(label, layer["models"][name]) for label, layer in layers if _names(layer, name)]
        if own[-1][1] is None or not all(isinstance(layer, dict) for _, layer in own):
            continue
        model = str(_merged(own).get("model", name))
        named: Layer = ("conf/main.yaml", {"model": model})
        # A network's keys are its model's: what train says of its own network says nothing of another one.
        trained = str(_merged(of_train)["model"])
        general = [(label, _without(layer, set() if model == trained else {"network"})) for label, layer in of_train]
        parts = _named_parts(general[:1], [*general[1:], *own, named], TrainConfig)
        every = [general[0], *parts, *general[1:], *own, named]
        resolved += [(label, {"models": {name: layer}}) for label, layer in every]
    # Settings of other kinds that the section train holds are for its models: there they are checked.
    kinds = {part: {"kind": _at(_merged(of_train), (part,)).get("kind")} for part in KINDS}
    settled = [("the section train", {"train": kinds})] if isinstance(_merged(layers).get("train"), dict) else []
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
    """A layer without the models that a later one has set to null."""
    kept = layer.get("models")
    if not isinstance(kept, Mapping) or not isinstance(models, Mapping):
        return layer
    return {**layer, "models": {name: value for name, value in kept.items() if models.get(name) is not None}}


def _section_for(step: str, tree: Tree) -> Tree:
    """A file may hold one step's keys, or a section a step (``conf/smoke.yaml``): then only the step's own counts."""
    if step in ("study", "tune") and step not in tree and set(tree) <= set(STEP_CONFIGS[step].model_fields):
        return tree  # their own keys 'train' and 'models' are no sections
    if step != "main" and tree and set(tree) <= {*STEP_CONFIGS, *MainConfig.model_fields}:
        section = tree.get(step, {})
        return section if isinstance(section, dict) else {}
    return tree


def _for_every_section(parameters: Mapping[str, str]) -> Tree:
    """A parameter of the main job reaches every step that knows it (``dataset`` and ``seed`` reach all)."""
    sections = {
        section: _known_to(section, parameters) for section in MainConfig.model_fields if section in STEP_CONFIGS
    }
    return {section: values for section, values in sections.items() if values}


def _known_to(step: str, tree: Mapping[str, Any]) -> Tree:
    return {key: value for key, value in tree.items() if key in STEP_CONFIGS[step].model_fields}


@lru_cache(maxsize=64)
def _parsed(path: Path, modified_ns: int) -> Any:
    """A file's content; a search space is checked by hundreds of configurations, each of the same files."""
    return yaml.load(path.read_text(encoding="utf-8"), _YamlLoader)


def read_yaml(path: Path) -> Tree:
    """A YAML mapping from a file.

    Raises:
        ConfigError: missing, unreadable, not YAML, or not a mapping.
    """
    try:
        tree = copy.deepcopy(_parsed(path, path.stat().st_mtime_ns))
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
        tree = merge(tree, setting(key, value, "the parameter 'set'"))
    return tree


def setting(key: str, value: str, label: str) -> Tree:
    """A dotted key and its value, which is read as YAML, as a tree; label: what a user knows their place by.

    Raises:
        ConfigError: the value is not YAML.
    """
    try:
        return _tree_at(key, yaml.load(value, _YamlLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"Cannot read the value in '{key}={value}' of {label}.") from error


def _tree_at(key: str, value: Any) -> Tree:
    tree = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return dict(tree)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """A tree with another one laid over it, branch by branch; both stay as they are."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged


def _merged(layers: Iterable[Layer]) -> Tree:
    tree: Tree = {}
    for _, layer in layers:
        tree = merge(tree, layer)
    return tree


def _named_parts(shipped: list[Layer], above: list[Layer], schema: type[Config]) -> list[Layer]:
    """Layers of the files that the layers around them name."""
    parts: list[Layer] = []

    def said(key: str) -> Any:
        branch: Any = _merged([*shipped, *parts, *above])
        for part in key.split("."):
            branch = branch.get(part) if isinstance(branch, Mapping) else None
        return branch

    if schema is TrainConfig:
        parts.append(_named_part("model", str(said("model"))))
        kinds = {part: kind for part in KINDS if (kind := said(f"{part}.kind")) is not None}
        # First, and so below the model's file, which may differ from them.
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
        raise ConfigError(f"Unknown {what} '{name}'.{did_you_mean(name, known)} There are: {', '.join(known)}.")
    label = str(path) if name.endswith((".yaml", ".yml")) else f"conf/{kind}/{name}.yaml"
    return label, read_yaml(path)


def _refuse_unknown_keys(
    layer: Mapping[str, Any],
    schema: type[BaseModel],
    label: str,
    tree: Mapping[str, Any],
    prefix: str = "",
    siblings: Mapping[str, type[BaseModel]] | None = None,
) -> None:
    """Check a layer's keys.

    Args:
        layer: what it says.
        schema: of this part of the tree.
        label: the layer's.
        tree: all layers together, which tells the kind of a part.
        prefix: of dotted keys.
        siblings: kind → class, where this part comes in kinds.

    Raises:
        ConfigError: an unknown key, or a key of another kind.
    """
    known = list(schema.model_fields)
    for key, value in layer.items():
        if key not in known:
            _refuse_key_of_other_kind(f"{prefix}{key}", key, label, tree, siblings)
            hint = did_you_mean(str(key), known) or f" Known keys: {', '.join(known)}."
            raise ConfigError(f"Unknown key '{prefix}{key}' in {label}.{hint}")
        if not isinstance(value, Mapping):
            continue
        annotation, whole = schema.model_fields[key].annotation, tree[key]
        if get_origin(annotation) is dict and (entry := _config_class(annotation, {})):
            entries = whole if isinstance(whole, Mapping) else {}
            for name in (name for name in value if isinstance(value[name], Mapping) and name in entries):
                _refuse_unknown_keys(value[name], entry, label, whole[name], f"{prefix}{key}.{name}.")
        elif isinstance(whole, Mapping) and (part := _config_class(annotation, whole)):
            _refuse_unknown_keys(value, part, label, whole, f"{prefix}{key}.", _kinds(annotation))


def _refuse_key_of_other_kind(
    dotted: str, key: str, label: str, tree: Mapping[str, Any], siblings: Mapping[str, type[BaseModel]] | None
) -> None:
    kinds = [kind for kind, part in (siblings or {}).items() if key in part.model_fields]
    if kinds:
        where = dotted.rpartition(".")[0]
        above, _, part = where.rpartition(".")
        fix = _FIXES.get(part, f"Set {where}.kind={kinds[0]} too").format(f"{above}." if above else "")
        raise ConfigError(
            f"'{dotted}' in {label} is a setting of {where}.kind={' or '.join(kinds)}, but it is {tree.get('kind')}. "
            f"{fix}, or leave it out."
        )


def _without_replaced(
    layer: Mapping[str, Any], schema: type[BaseModel], number: int, layers: Sequence[Layer], path: tuple[str, ...] = ()
) -> Tree:
    """Drop settings of a kind that a later layer replaces by another kind: they no longer mean anything.

    Args:
        layer: part of the layer at ``path``.
        schema: of that part.
        number: the layer's place in ``layers``.
        layers: all of them, later ones over earlier ones.
        path: where in the tree this is.
    """
    kept = dict(layer)
    for key, value in layer.items():
        if key not in schema.model_fields or not isinstance(value, Mapping):
            continue
        annotation, place = schema.model_fields[key].annotation, (*path, key)
        kinds = _kinds(annotation)
        said = [(at, branch["kind"]) for at, (_, tree) in enumerate(layers) if "kind" in (branch := _at(tree, place))]
        if kinds and said and (part := kinds.get(str(said[-1][1]))):
            replaced = said[-1][0] > number
            others = {field for kind in kinds.values() for field in kind.model_fields}
            kept[key] = {
                name: one
                for name, one in value.items()
                if name in part.model_fields or name not in others or not (replaced or _is_shipped(key, name, one))
            }
        elif get_origin(annotation) is dict and (entry := _config_class(annotation, {})):
            kept[key] = {
                name: _without_replaced(one, entry, number, layers, (*place, name)) if isinstance(one, Mapping) else one
                for name, one in value.items()
            }
        elif not kinds and (inner := _config_class(annotation, {})):
            kept[key] = _without_replaced(dict(value), inner, number, layers, place)
    return kept


def _is_shipped(part: str, name: str, value: object) -> bool:
    """Return whether a setting has the value that ships for the kinds that have it, and so says nothing."""
    files = sorted((conf_folder() / part).glob("*.yaml")) if part in KINDS else []
    return any(as_text(value) == as_text(tree[name]) for file in files if name in (tree := read_yaml(file)))


def _at(tree: Mapping[str, Any], path: Iterable[str]) -> Mapping[str, Any]:
    """Return the branch of a tree at a path; an empty one where there is none."""
    branch: Any = tree
    for part in path:
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    return branch if isinstance(branch, Mapping) else {}


def _kinds(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return kind → class of a part that comes in kinds; empty for any other."""
    classes = _config_classes(annotation)
    if not classes or any("kind" not in part.model_fields for part in classes):
        return {}
    return {get_args(part.model_fields["kind"].annotation)[0]: part for part in classes}


def _config_class(annotation: Any, whole: Mapping[str, Any]) -> type[BaseModel] | None:
    """The class of a part of the config; of several, the one of the kind that the part says it is."""
    classes = _config_classes(annotation)
    if len(classes) <= 1:
        return classes[0] if classes else None
    return _kinds(annotation).get(str(whole.get("kind")))


def _config_classes(annotation: Any) -> list[type[BaseModel]]:
    candidates = (annotation, *(inner for part in get_args(annotation) for inner in (part, *get_args(part))))
    return [part for part in candidates if isinstance(part, type) and issubclass(part, BaseModel)]


def _validated(schema: type[AnyConfig], tree: Tree, layers: list[Layer]) -> AnyConfig:
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        location = _location([str(part) for part in first["loc"]], tree)
        key = ".".join(location)
        value = "" if isinstance(first.get("input"), Mapping) else f" (not {first['input']!r})"
        reason = first["msg"].removeprefix("Value error, ")
        where = f"Config key '{key}' in {_set_by(location, layers)}" if key else "Config"
        raise ConfigError(f"{where}: {_lower(reason)}{value}.") from error


def _location(parts: list[str], tree: Tree) -> list[str]:
    """Where in the tree an error is: pydantic also names the branches of unions, which are no keys."""
    location: list[str] = []
    branch: Any = tree
    for number, part in enumerate(parts):
        if isinstance(branch, Mapping) and part not in branch and part == branch.get("kind"):
            continue
        here = isinstance(branch, Mapping) and part in branch
        missing = isinstance(branch, Mapping) and number == len(parts) - 1
        if here or missing or (isinstance(branch, list) and part.isdigit()):
            location.append(part)
            branch = branch[part] if here else None
    return location


def _set_by(location: list[str], layers: list[Layer]) -> str:
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
