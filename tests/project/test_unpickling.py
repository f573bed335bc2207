"""Nothing unpickles what others may have written: SECURITY.md names the places that unpickle at all."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.project.running import ROOT

SOURCE = ROOT / "src" / "wastelens"
RUN_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# Between the processes of an engine; a temporary file of the same process; tensors alone, from a file of known digest.
ALLOWED = {"engine/dask_cluster.py", "explain/page/gallery.py", "models/torch_weights.py"}


def imported(tree: ast.AST) -> set[str]:
    """Return the top-level packages that a module imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def allows_pickles(tree: ast.AST) -> bool:
    """Return whether a call lets NumPy read or write pickles."""
    words = [word for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords]
    return any(
        word.arg == "allow_pickle" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
        for word in words
    )


def test_only_these_places_unpickle() -> None:
    trees = {path.relative_to(SOURCE): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")}
    assert {path.as_posix() for path, tree in trees.items() if imported(tree) & RUN_CODE} == ALLOWED
    assert [path for path, tree in trees.items() if allows_pickles(tree)] == []


def test_the_check_sees_what_it_looks_for() -> None:
    assert imported(ast.parse("def f():\n    from joblib.externals import x\n    import os.path")) == {"joblib", "os"}
    assert allows_pickles(ast.parse("np.load(file, allow_pickle=True)"))
    assert not allows_pickles(ast.parse("np.savez(file, allow_pickle=False)"))
    assert Path(SOURCE / "cli.py").exists()
