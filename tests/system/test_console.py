"""A suggested command is understood by the step that it names, and printed names steer no terminal."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from wastelens.config.files import conf_folder, load_config, read_yaml
from wastelens.system import console
from wastelens.system.console import DATA_FOLDER, next_command, printable, progress_bar, say, table, warn, wrapped


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
    config = load_config("train", parameters={"dataset": "my litter", "model": "base"}, settings="fit.epochs=3 seed=7")
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


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return the screen of a terminal of 80 columns without colours."""
    screen = io.StringIO()
    drawn = Console(file=screen, force_terminal=True, color_system=None, width=80, highlight=False, soft_wrap=True)
    monkeypatch.setattr(console, "console", lambda: drawn)
    return screen


@pytest.mark.parametrize(
    "beginning", ["mlflow run . -e train --env-manager local -P dataset=", "wastelens train --model base --dataset "]
)
def test_sentences_wrap_at_words_and_commands_stay_whole(terminal: io.StringIO, beginning: str) -> None:
    command = f"{beginning}{'x' * 60}"
    say(f"{'Photos of neighbours are alike. ' * 4}Next: {command}")
    lines = terminal.getvalue().splitlines()
    assert lines[-1] == command
    assert all(len(line) <= 80 for line in lines[:-1])
    assert " ".join(" ".join(lines).split()) == f"{'Photos of neighbours are alike. ' * 4}Next: {command}"
    assert wrapped("short", 80) == ["short"]
    link = f"See it: http://server/#/{'x' * 60}?key=wastelens once this runs: mlflow ui --backend-store-uri y"
    assert wrapped(link, 80)[1:] == [
        f"http://server/#/{'x' * 60}?key=wastelens",
        "once this runs:",
        "mlflow ui --backend-store-uri y",
    ]


def test_a_bar_keeps_its_count_and_time_whatever_its_figures(terminal: io.StringIO) -> None:
    with progress_bar("Training autoencoder augmented from conv_autoencoder seed 0 fold 3", 4000) as bar:
        bar.advance(1234)
        bar.show("loss 0.7 " * 30)
    shown = [line for line in terminal.getvalue().replace("\r", "\n").splitlines() if "1234/4000" in line]
    assert shown
    assert "━━━" in shown[-1]
    assert "Training autoencoder" in shown[-1]
    assert "loss" not in shown[-1]


@pytest.mark.parametrize("parts", [3, 7, 10])
def test_parts_of_a_step_add_up(terminal: io.StringIO, parts: int) -> None:
    with progress_bar("Explaining", 60) as bar:
        for _ in range(60 * parts):
            bar.advance(1 / parts)
    assert "60/60" in terminal.getvalue()
    assert sum([1 / parts] * (60 * parts)) != 60


def test_columns_that_do_not_fit_follow_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LOG_WIDTH", 80)
    columns = ["model", *(f"figure number {number}" for number in range(12))]
    rows = [
        [f"a long name of a run {row}", *(f"0.{row}{number:02} [0.111, 0.222]" for number in range(12))] for row in "12"
    ]
    table("Title", columns, rows)
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    for row in rows:
        for cell in row[1:]:
            assert cell in out
    assert out.count("a long name of a run 1") == 6


def test_a_table_that_fits_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    table("Title", ["control", "val", "test"], [["random", "0.1", "0.2"]])
    assert capsys.readouterr().out.count("random") == 1


def test_headings_wrap_before_figures_are_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LOG_WIDTH", 80)
    columns = ["method", "Energy on the litter", "Energy over the centre's", "Pointing game", "Pointing game by chance"]
    figures = ["1.72 [1.51, 1.91]", "0.15 [-0.06, 0.36]", "0.14", "0.08"]
    table("Title", columns, [["centre of the photo (control)", *figures], ["Grad-CAM", *figures]])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 and line[-1] in "┓┃┩│┘" for line in lines[1:])
    for figure in figures:
        assert sum(f"{figure} │" in line for line in lines) == 2


def test_the_next_command_follows_how_the_program_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"dataset": "my photos", "seed": 0, "model": ""}
    program, package = tmp_path / "bin" / "wastelens", tmp_path / "src" / "wastelens"
    program.parent.mkdir()
    program.touch()
    package.mkdir(parents=True)
    monkeypatch.setattr("sys.argv", [str(program)])
    assert next_command("train", asked) == "wastelens train --dataset 'my photos' --seed 0"
    monkeypatch.setattr("sys.argv", [str(package)])
    assert next_command("train", asked).startswith("mlflow run . -e train --env-manager local -P 'dataset=my photos'")
