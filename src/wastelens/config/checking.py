"""Check layers of settings against a step's type: unknown keys, keys of other kinds, wrong values, each in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from wastelens.config.base import Config, as_text, flatten
from wastelens.errors import ConfigError, nearest

Tree = dict[str, Any]
Layer = tuple[str, Tree]  # the name that users know it by, and its content
Shipped = Mapping[str, Mapping[str, set[str]]]
AnyConfig = TypeVar("AnyConfig", bound=Config)
_MOST_MEANT = 3
_FIXES = {
    "augmentation": "Set {0}augment=true too",
    "network": "Choose another model",
    "learner": "Choose another method",
}


def checked(schema: type[AnyConfig], layers: list[Layer], shipped: Shipped) -> AnyConfig:
    """Lay layers over one another, later ones over earlier ones, and return them as a checked configuration.

    Args:
        schema: its type.
        layers: of the whole tree.
        shipped: part → name of a setting → its values, as text, in the files of that part's kinds.

    Raises:
        ConfigError: an unknown key, or a wrong type or value. One line, which names the layer.
    """
    layers = [
        (label, _without_replaced(layer, schema, number, layers, shipped))
        for number, (label, layer) in enumerate(layers)
    ]
    tree = merged(layers)
    for label, layer in layers:
        _refuse_unknown_keys(layer, schema, label, tree)
    return _validated(schema, tree, layers)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Return a tree with another laid over it, branch by branch; both stay unchanged."""
    merged = dict(below)
    for key, value in above.items():
        known = merged.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return merged


def merged(layers: Iterable[Layer]) -> Tree:
    """Return all layers laid over one another."""
    tree: Tree = {}
    for _, layer in layers:
        tree = merge(tree, layer)
    return tree


def branch_at(tree: Mapping[str, Any], path: Iterable[str]) -> Mapping[str, Any]:
    """Return the branch of a tree at a path; an empty one where there is none."""
    branch: Any = tree
    for part in path:
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    return branch if isinstance(branch, Mapping) else {}


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
        layer: its content.
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
            hint = _meant(str(key), known, prefix, tree) or f" Known keys: {', '.join(known)}."
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


def _meant(key: str, known: Sequence[str], prefix: str, tree: Mapping[str, Any]) -> str:
    """Return `` Did you mean 'fit.epochs'?`` for a key that is like one of this part of the tree, or one below it."""
    places = {name: [name] for name in known}
    for dotted in flatten(tree):
        above, _, name = dotted.rpartition(".")
        if above:
            places.setdefault(name, []).append(dotted)
    found = places.get(nearest(key, list(places)), [])[:_MOST_MEANT]
    return f" Did you mean {' or '.join(repr(prefix + one) for one in found)}?" if found else ""


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
    layer: Mapping[str, Any],
    schema: type[BaseModel],
    number: int,
    layers: Sequence[Layer],
    shipped: Shipped,
    path: tuple[str, ...] = (),
) -> Tree:
    """Drop settings of a kind that a later layer replaces by another kind, and those that only repeat shipped values.

    Args:
        layer: part of the layer at ``path``.
        schema: of that part.
        number: the layer's place in ``layers``.
        layers: all of them, later ones over earlier ones.
        shipped: as for :func:`checked`.
        path: where in the tree this is.
    """
    kept = dict(layer)
    for key, value in layer.items():
        if key not in schema.model_fields or not isinstance(value, Mapping):
            continue
        annotation, place = schema.model_fields[key].annotation, (*path, key)
        kinds = _kinds(annotation)
        said = [
            (at, branch["kind"]) for at, (_, tree) in enumerate(layers) if "kind" in (branch := branch_at(tree, place))
        ]
        if kinds and said and (part := kinds.get(str(said[-1][1]))):
            replaced = said[-1][0] > number
            others = {field for kind in kinds.values() for field in kind.model_fields}
            void = {
                name for name, one in value.items() if replaced or as_text(one) in shipped.get(key, {}).get(name, ())
            }
            kept[key] = {
                name: one
                for name, one in value.items()
                if name in part.model_fields or name not in others or name not in void
            }
        elif get_origin(annotation) is dict and (entry := _config_class(annotation, {})):
            kept[key] = {
                name: _without_replaced(one, entry, number, layers, shipped, (*place, name))
                if isinstance(one, Mapping)
                else one
                for name, one in value.items()
            }
        elif not kinds and (inner := _config_class(annotation, {})):
            kept[key] = _without_replaced(dict(value), inner, number, layers, shipped, place)
    return kept


def _kinds(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return kind → class of a part that comes in kinds; empty for any other."""
    classes = _config_classes(annotation)
    if not classes or any("kind" not in part.model_fields for part in classes):
        return {}
    return {get_args(part.model_fields["kind"].annotation)[0]: part for part in classes}


def _config_class(annotation: Any, whole: Mapping[str, Any]) -> type[BaseModel] | None:
    """Return the class of a part of the config; where there are several, that of the part's kind."""
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
    """Return where in the tree an error is; pydantic also names the branches of unions, which are not keys."""
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
    """Return the label of the last layer that set this key, or the nearest part of the tree above it."""

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
