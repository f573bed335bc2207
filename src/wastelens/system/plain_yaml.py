"""YAML as people write settings: no aliases, no merge keys, whole numbers in decimal digits only.

A few hundred bytes of aliases can stand for gigabytes, and a number in base 60 takes quadratic time. PyYAML's parser in
C is not used: deep nesting crashes it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from wastelens.system.files import read_text
from wastelens.system.text import one_line

LARGEST_BYTES = 500_000  # takes about 3 s to parse
_TAG = "tag:yaml.org,2002:"
_SCALARS = ("null", "bool", "int", "float", "timestamp")
_WHOLE_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9_]{0,17})")
_NUMBER = re.compile(
    r"[-+]?[0-9][0-9_]*\.?[0-9_]*([eE][-+]?[0-9]{1,3})?|[-+]?\.([0-9][0-9_]*([eE][-+]?[0-9]{1,3})?|inf)|\.nan", re.I
)
_LONGEST_NUMBER = 40


class _Texts(yaml.BaseLoader):
    """Lists, pairs and texts; every scalar stays the text that was written."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"'*{event.anchor}' repeats another part; write it out", event.start_mark
            )
        return super().compose_node(parent, index)


class _Values(_Texts, yaml.SafeLoader):
    """YAML 1.1 with two rules of YAML 1.2: on, off, yes and no are not booleans, and 1e-5 is a number."""

    def construct_whole_number(self, node: Any) -> int:
        """Return an integer; ValueError for other bases and more than 18 digits."""
        text = str(self.construct_scalar(node))
        if not _WHOLE_NUMBER.fullmatch(text):
            raise ValueError(f"'{text[:40]}' is not a whole number in decimal digits; quote it if it is a text")
        return int(text.replace("_", ""))

    def construct_number(self, node: Any) -> float:
        """Return a floating-point number; ValueError for base 60."""
        text = str(self.construct_scalar(node))
        if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
            raise ValueError(f"'{text[:40]}' is not a decimal number; quote it if it is a text")
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))


_Values.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(_TAG) in _SCALARS and tag != _TAG + "bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Values.add_implicit_resolver(_TAG + "bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF")
_Values.add_implicit_resolver(_TAG + "float", re.compile(r"^[-+]?[0-9]{1,9}[eE][-+]?[0-9]{1,3}$"), "-+0123456789")
_Values.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(_TAG) in (*_SCALARS, "str", "seq", "map")
}
_Values.add_constructor(_TAG + "int", _Values.construct_whole_number)
_Values.add_constructor(_TAG + "float", _Values.construct_number)


def parse_yaml(text: str, *, as_texts: bool = False) -> Any:
    """Parse YAML into lists, dicts and values; as_texts: leave every scalar the text that was written.

    Raises:
        ValueError: not YAML, or YAML with aliases, other number bases or rare tags; the reason in one line.
    """
    try:
        return yaml.load(text, _Texts if as_texts else _Values)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(
            one_line(" ".join(str(error).replace('in "<unicode string>", ', "in ").split()), 200)
        ) from None


def load_yaml(path: Path, *, as_texts: bool = False) -> Any:
    """Parse a YAML file of at most ``LARGEST_BYTES``.

    Raises:
        OSError: it cannot be read.
        ValueError: as ``parse_yaml``, or it is too long or not text.
    """
    return parse_yaml(read_text(path, LARGEST_BYTES), as_texts=as_texts)
