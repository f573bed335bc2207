"""A suggested command is understood by the step that it names, and printed names steer no terminal."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from wastelens.config.files import conf_folder, load_config, read_yaml
from wastelens.system.console import DATA_FOLDER, next_command, printable, progress_bar, say, table, warn


def understood(command: str, step: str) -> object:
    """Return the config that a command leads to."""
    words = [word.partition("=") for word in shlex.split(command) if "=" in word]
    said = {name: value for name, _, value in words}
    return load_config(step, settings=said.pop("set", ""), parameters=said)


def test_defaults_and_empty_values_are_left_out() -> None:
    command = next_command("train", {"dataset": "taco", "pretrained": "", "config": Path("a b.yaml")})
    assert command == "mlflow run . -e train --env-manager local -P dataset=taco -P 'config=a b.yaml'"


@pytest.mark.parametrize("folder", ["/mnt/großer Ordner/it's", "elsewhere", "12", "true"])
def test_another_data_folder_is_included(folder: str) -> None:
    settings = {"dataset": "my litter", "model": "base", "set": "fit.epochs=3 seed=7"}
    config = load_config("train", parameters={"dataset": "my litter"}, settings="fit.epochs=3 seed=7")
    there = config.model_copy(update={"data_folder": Path(folder)})
    assert understood(next_command("train", settings, Path(folder)), "train") == there


def test_the_default_is_that_of_every_step() -> None:
    said = {
        str(tree["data_folder"]) for path in conf_folder().glob("*.yaml") if "data_folder" in (tree := read_yaml(path))
    }
    assert said == {str(DATA_FOLDER)}


def test_names_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\n\x1b[2JNext: rm -rf /\r\u202egpj.jpg\x9b[1m"
    say(f"Photo {name}")
    warn(name)
    with progress_bar(name, 1) as bar:
        bar.advance()
    table("Title", ["[red]name", "value"], [[name, "[/red]1"]])
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\r\x9b\u202e")
    assert "Photo a\\n\\x1b[2JNext: rm -rf /\\r\\u202egpj.jpg\\x9b[1m\n" in out
    assert "[red]name" in out
    assert "[/red]1" in out
    assert not any(line.startswith("Next") for line in out.splitlines())
    assert printable("glass – حجر 🍾") == "glass – حجر 🍾"
