"""Check that the commands in the documentation exist: targets, entry points, parameters, options, files."""

from __future__ import annotations

import re
import shlex
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import click
import pytest
import yaml
from tests.project.running import ROOT

from wastelens import cli
from wastelens.config.files import load_config
from wastelens.config.parameters import parameters_of
from wastelens.explain.scoring.scores import SCORES, method_titles

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md", "bench/results.md"]
DOCUMENTS += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PROGRAMS = ("make", "mlflow", "wastelens", "python", "git", "source", "pip")
MENTIONS = (*PROGRAMS, "mlflow run")  # names, not commands
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|.*[<>…].*|.*/PATH\b.*")
ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]


@dataclass(frozen=True)
class Command:
    """A command in a document."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {shlex.join(self.words)}"


def commands_in(document: str) -> list[Command]:
    """Every command of the shell blocks, and those between backticks in the text that begin with a known program."""
    text = (ROOT / document).read_text(encoding="utf-8")
    lines = [line for language, block in FENCE.findall(text) for line in shell_lines(language, block)]
    inline = [span for span in INLINE.findall(FENCE.sub("", text)) if span.split()[0] in PROGRAMS]
    lines += [span for span in inline if span not in MENTIONS and "…" not in span and "..." not in span]
    return [Command(document, words) for line in lines for words in split_commands(line)]


def shell_lines(language: str, block: str) -> list[str]:
    """The lines that are typed; where there are prompts, the others are what the commands answer."""
    if language not in ("sh", "bash", "shell", "console"):
        return []
    lines = block.replace("\\\n", " ").splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    return prompted or [line for line in lines if language != "console" and line.strip()]


def split_commands(line: str) -> list[tuple[str, ...]]:
    """The words of each command of a line, without comments and without settings of variables before it."""
    commands: list[list[str]] = [[]]
    words = iter(shlex.split(line, comments=True))
    for word in words:
        if word == ">":
            next(words)  # the file that the output goes to
        elif word in ("&&", ";", "|", "||", "&"):
            commands.append([])
        else:
            commands[-1].append(word.removesuffix(";"))
    bare = [command[next((i for i, word in enumerate(command) if "=" not in word), 0) :] for command in commands]
    return [tuple(command) for command in bare if command]


# The commands of guides use what the guides add: test_guides.py runs them.
PARSED = [document for document in DOCUMENTS if not document.startswith("docs/guides/")]
COMMANDS = list(dict.fromkeys(command for document in PARSED for command in commands_in(document)))


MLFLOW_RUNS = [command for command in COMMANDS if command.words[:2] == ("mlflow", "run")]


def of(program: str) -> list[Command]:
    """The commands of a program, without those of ``mlflow run``."""
    return [command for command in COMMANDS if command.words[0] == program and command not in MLFLOW_RUNS]


@pytest.fixture(scope="module")
def mlflow_cli() -> Any:
    """MLflow's own command line, to parse with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, while it is being imported
        from mlflow.cli import cli as commands
    return commands


def test_the_readme_shows_the_flow() -> None:
    shown = {command.words[:2] for command in COMMANDS if command.document == "README.md"}
    assert {("make", "demo"), ("make", "test"), ("mlflow", "run"), ("mlflow", "ui")} <= shown
    steps = {entry_point(command.words) for command in MLFLOW_RUNS if command.document == "README.md"}
    assert {"prepare", "train", "explain"} <= steps


def test_the_documents_name_every_method_score_and_tag_of_explain() -> None:
    explanations, metrics = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("explanations", "metrics"))
    words = set(INLINE.findall(explanations))
    assert set(SCORES) <= words
    assert (set(method_titles()) | {"auto"}) <= words
    assert {f"explain/{name}" for name in ("covered_too_much", "without_outline")} <= words
    assert {f"explain/{name}" for name in ("photos", "pairs")} <= set(INLINE.findall(metrics))
    tags = {"explained_by", "explained_layer", "explained_split", "explanations", "adds_to_run"}
    assert tags <= set(INLINE.findall(metrics))


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_make_targets_exist(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    asked = {word for word in command.words[1:] if not word.startswith("-") and "=" not in word}
    assert asked <= targets


def entry_point(words: tuple[str, ...]) -> str:
    """The step that an ``mlflow run`` names; MLflow takes ``main`` where it names none."""
    return next((after for flag, after in pairwise(words) if flag in ("-e", "--entry-point")), "main")


@pytest.mark.parametrize("command", MLFLOW_RUNS, ids=str)
def test_mlflow_run_commands_name_what_mlproject_declares(
    command: Command, mlflow_cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    context = mlflow_cli.commands["run"].make_context("run", list(command.words[2:]))
    step = entry_point(command.words)
    assert context.params["uri"] == "." or "://" in context.params["uri"]
    assert step in ENTRY_POINTS
    given = dict(word.split("=", 1) for word in context.params["param_list"])
    assert set(given) <= set(ENTRY_POINTS[step]["parameters"])
    assert_accepted(step, given)


def assert_accepted(step: str, given: dict[str, str]) -> None:
    """The step's config takes the values, as far as they are meant as they stand."""
    values = {name: value for name, value in given.items() if not PLACEHOLDER.fullmatch(value)}
    file, settings = values.pop("config", ""), values.pop("set", "")
    load_config(step, parameters=values, config_file=file, settings=settings)


@pytest.mark.parametrize("command", of("mlflow"), ids=str)
def test_other_mlflow_commands_parse(command: Command, mlflow_cli: Any) -> None:
    found: click.Command = mlflow_cli
    words = list(command.words[1:])
    while isinstance(found, click.Group):
        known = found.get_command(click.Context(found), words[0])  # knows other names of a command, too
        assert known is not None
        found, words = known, words[1:]
    if words:
        parse(found, words)


@pytest.mark.parametrize("command", of("wastelens"), ids=str)
def test_wastelens_commands_parse(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check_wastelens(list(command.words[1:]))


def check_wastelens(words: list[str]) -> None:
    if not words or words[0].startswith("-"):
        parse(cli.wastelens, words)
        return
    step = words[0]
    assert step in cli.wastelens.commands
    context = parse(cli.wastelens.commands[step], words[1:])
    if context is not None and step in ENTRY_POINTS:
        defaults = {parameter.name: parameter.default for parameter in parameters_of(step)}
        named = {name: value for name, value in context.params.items() if name in defaults}
        assert_accepted(step, {name: value for name, value in named.items() if value != defaults[name]})


def parse(command: click.Command, words: list[str]) -> click.Context | None:
    """The parsed command line, or nothing where it only asks for help or version."""
    try:
        return command.make_context(command.name, words)
    except click.exceptions.Exit as stop:
        assert stop.exit_code == 0
        return None


@pytest.mark.parametrize("command", of("python"), ids=str)
def test_python_commands_name_files_that_are_there(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = list(command.words[1:])
    if words[0] == "-c":
        return
    if words[0] == "-m":
        module = words[1].replace(".", "/")
        own = words[1].split(".")[0] in ("bench", "tests", "tools", "wastelens")
        places = [ROOT / folder / f"{module}{end}" for folder in ("", "src") for end in (".py", "/__init__.py")]
        assert not own or any(place.is_file() for place in places)
        return
    assert (ROOT / words[0]).exists()
    if words[0] == "src/wastelens":
        monkeypatch.chdir(ROOT)
        check_wastelens(words[1:])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_that_are_there(document: str) -> None:
    text = FENCE.sub("", (ROOT / document).read_text(encoding="utf-8"))
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in links if not ((ROOT / document).parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_command_hides_in_a_block_that_is_not_for_the_shell(document: str) -> None:
    for language, block in FENCE.findall((ROOT / document).read_text(encoding="utf-8")):
        if not shell_lines(language, block):
            starts = [line.removeprefix("$ ").split(" ")[0] for line in block.splitlines()]
            assert not set(starts) & {"make", "mlflow", "wastelens", "git", "source", "pip"}


def test_the_commands_of_the_makefile_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipes = [
        line.strip() for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if line[:1] == "\t"
    ]
    own = [shlex.split(line)[2:] for line in recipes if line.startswith("python src/wastelens")]
    assert own
    for words in own:
        check_wastelens(words)
