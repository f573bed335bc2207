"""Follow each guide literally: write the files that it shows into a copy of the project, and run its commands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.project.running import ROOT, ok, run

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"\n]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
COPIED = ("conf", "src", "tests", "pyproject.toml", "MLproject", "conda.yaml")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project that guides may change."""
    folder = tmp_path_factory.mktemp("guides") / "wastelens"
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_guide_works_as_written(guide: Path, checkout: Path) -> None:
    blocks = BLOCK.findall(guide.read_text(encoding="utf-8"))
    assert {language for language, _, _ in blocks} >= {"python", "sh"}
    for language, title, block in blocks:
        if title:
            write(checkout / title, block)
        elif language == "sh":
            for line in block.splitlines():
                ok(run("bash", "-c", line, cwd=checkout))


def write(file: Path, text: str) -> None:
    """Create a file, or append to the one that is there, as the guides say."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as written:
        written.write(text)
