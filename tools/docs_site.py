"""MkDocs hooks: a page of API reference per package, and links that lead outside ``docs/``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = re.compile(r"\]\(((?:\.\./)+[^)\s]+)\)")


def packages() -> list[str]:
    """Return the names of the packages below ``wastelens``, and of its modules that users meet."""
    source = ROOT / "src" / "wastelens"
    return [*sorted(path.parent.name for path in source.glob("*/__init__.py")), "cli", "errors"]


def on_config(config: Any) -> Any:
    """Append the API reference to the navigation."""
    config.nav.append({"API reference": [{name: f"reference/{name}.md"} for name in packages()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add a page per package, which mkdocstrings fills from the docstrings."""
    for name in packages():
        content = f"# wastelens.{name}\n\n::: wastelens.{name}\n"
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links to files of the repository outside ``docs/`` at the repository's site."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def absolute(link: re.Match[str]) -> str:
        path, _, anchor = link[1].partition("#")
        target = (folder / path).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return link[0]
        return f"]({config.extra['repository']}/blob/main/{target.relative_to(ROOT)}{'#' + anchor if anchor else ''})"

    return OUTSIDE.sub(absolute, markdown)
