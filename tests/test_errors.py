"""The tree drawn in the docstring of errors.py is the tree of the classes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from wastelens import errors

PACKAGE = Path(errors.__file__).parent


def classes() -> dict[str, list[str]]:
    """Return the bases of every class in the package, by name, without importing it."""
    return {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


def drawn() -> dict[str, str]:
    """Return the parent of every class in the drawing."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for branch, name in re.findall(r"^ {4}((?:[│├└─ ]{4})*)(\w+) {2,}", errors.__doc__ or "", re.MULTILINE):
        depth = len(branch) // 4
        path = [*path[:depth], name]
        if depth:
            parents[name] = path[depth - 1]
    return parents


def test_the_drawing_is_the_tree() -> None:
    bases = classes()
    tree: dict[str, str] = {}
    parents = {"WastelensError", "BadPhotoError"}
    while parents:
        found = {name: base for name, of in bases.items() for base in of if base in parents}
        tree |= found
        parents = set(found)
    assert drawn() == {name: base for name, base in tree.items() if not name.startswith("_")}
