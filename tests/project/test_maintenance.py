"""The files for maintainers agree: versions, Python releases, workflows, type information."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.project.running import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI_TARGETS = {"check", "test", "slow", "docs"}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def ci_targets(workflow: Path) -> set[str]:
    """Return what a workflow runs through ``.ci/run``."""
    steps = [step for job in read(workflow)["jobs"].values() for step in job["steps"]]
    runs = [step["run"].split() for step in steps if "run" in step]
    assert all(words[0] == ".ci/run" for words in runs)
    return {target for words in runs for target in words[1:]}


def test_the_version_is_the_same_everywhere() -> None:
    citation = read(ROOT / "CITATION.cff")
    latest, date = re.findall(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert PROJECT["version"] == citation["version"] == latest
    assert str(citation["date-released"]) == date


def test_continuous_integration_tests_every_supported_python() -> None:
    tested = read(ROOT / ".github" / "workflows" / "check.yml")["jobs"]["check"]["strategy"]["matrix"]["python"]
    assert [f"Programming Language :: Python :: {one}" for one in tested] == [
        one for one in PROJECT["classifiers"] if one.startswith("Programming Language")
    ]
    first, last = (int(one.split(".")[1]) for one in (tested[0], tested[-1]))
    assert PROJECT["requires-python"] == f">=3.{first},<3.{last + 1}"


def test_the_workflows_run_all_of_continuous_integration() -> None:
    assert set().union(*map(ci_targets, WORKFLOWS)) == CI_TARGETS
    assert f"set -- {' '.join(['check', 'test', 'slow', 'docs'])}" in (ROOT / ".ci" / "run").read_text()
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_yaml_of_github_is_read(path: Path) -> None:
    assert isinstance(read(path), dict)


def test_pre_commit_runs_tools_of_the_project() -> None:
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])


def test_type_information_ships() -> None:
    assert (ROOT / "src" / "wastelens" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]
