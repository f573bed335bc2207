"""From the files of ``conf/``, a user's own, the command line and ``set`` to a step's checked configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from wastelens.config import STEP_CONFIGS, Config, MainConfig, TrainConfig, as_text
from wastelens.errors import ConfigError, did_you_mean

Tree = dict[str, Any]
AnyConfig = TypeVar("AnyConfig", bound=Config)

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
    return {key: as_text(value) for key, value in tree.items() if not isinstance(value, Mapping)}


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
