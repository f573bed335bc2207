"""The command line: every parameter reaches the config, and every ending has its exit status."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from wastelens import cli
from wastelens.config.files import load_config
from wastelens.config.parameters import parameters_of
from wastelens.config.steps import STEP_CONFIGS
from wastelens.errors import AnnotationsError, NonFiniteLossError, StoreUnreachable, WastelensError
from wastelens.system import interrupts

SOURCE = Path(cli.__file__).resolve().parents[1]
# Parameters that are empty by default: as conf/model/<model>.yaml or conf/study/<preset>.yaml says.
AS_A_FILE_SAYS = {
    "train": ("pretrained", "weights", "freeze", "balanced"),
    "study": ("models", "factors", "seeds", "folds"),
}


@pytest.fixture
def calls(monkeypatch):
    """Steps replaced by ones that only keep what they are called with."""
    seen = []
    monkeypatch.setattr(cli, "prepare_environment", lambda: None)
    for step in cli.ENTRY_POINTS:
        module = types.ModuleType(f"wastelens.steps.{step}")
        module.run = lambda config, tracker, step=step: seen.append((step, config, tracker))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_every_step_says_where_things_lie_under_mlflow_run(step, monkeypatch):
    said = []
    monkeypatch.setattr(
        "wastelens.tracking.project_folder.say_where_things_lie", lambda folder, keys: said.append((str(folder), keys))
    )
    required = {"compare": {"run_ids": "a,b"}}
    cli._say_where_things_lie(load_config(step, parameters=required.get(step, {})))
    sections = [f"{name}.data_folder" for name in ("prepare", "train", "cluster", "explain")]
    keys = {"compare": [], "promote": [], "main": sections}.get(step, ["data_folder"])
    assert said == ([("data", keys)] if keys else [])


def status(*arguments):
    with pytest.raises(SystemExit) as caught:
        cli.run(list(arguments))
    return caught.value.code


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_entry_point_runs_its_step_with_the_shipped_config(step, calls):
    assert status(step) == 0
    assert [(name, type(config)) for name, config, _ in calls] == [(step, STEP_CONFIGS[step])]


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_spelled_out_defaults_change_nothing(step, calls):
    spelled = [f"--{one.name}={one.default}" for one in parameters_of(step)]
    assert status(step) == status(step, *spelled) == 0
    assert calls[0][1] == calls[1][1]


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["train", "--balanced", "NO"], "balanced", False),
        (["train", "--seed", "4", "--set", "fit.epochs=3 fit.batch_size=16"], "fit.epochs", 3),
        (["train", "--resume", "abc"], "resume", "abc"),
        (["train", "--fold", "2"], "fold", 2),
        (["prepare", "--image_side_px", "64"], "image_side_px", 64),
        (["prepare", "--max_copies", "3"], "max_copies", 3),
        (["prepare", "--dataset", "sample"], "dataset", "sample"),
        (["explain", "--methods", "gradcam, shap"], "methods", ("gradcam", "shap")),
        (["explain", "--file_names", "a.jpg,b c.jpg"], "file_names", ("a.jpg", "b c.jpg")),
        (["explain", "--file_names", ""], "file_names", ()),
        (["explain", "--split", "val", "--photos", "7", "--set", "shap.samples=100"], "photos", 7),
        (["explain", "--run_id", "abc"], "run_id", "abc"),
        (["study", "--models", "base, dbn", "--seeds", "4"], "models", ("base", "dbn")),
        (["study", "--factors", "loss=bce|focal,labels=10|100 %"], "factors", ("loss=bce|focal", "labels=10|100 %")),
        (["study", "--preset", "smoke"], "seeds", 2),
        (["study", "--preset", "smoke", "--folds", "1,2"], "folds", (1, 2)),
        (["study", "--set", "train.fit.epochs=3"], "train", {"fit": {"epochs": 3}}),
        (["study", "--study", "mine"], "study", "mine"),
        (["study", "--engine", "processes:2", "--set", "retries=1"], "engine", "processes:2"),
        (["tune", "--workers", "3"], "engine_in_use", "processes:3"),
        (["tune", "--engine", "tcp://a:8786"], "engine", "tcp://a:8786"),
        (["compare", "--run_ids", "a,b"], "run_ids", ("a", "b")),
        (["compare", "a", "b", "--seed", "3"], "run_ids", ("a", "b")),
        (["compare", "--run_ids", "a", "b", "c"], "run_ids", ("a", "b", "c")),
        (["compare", "c", "--run_ids", "a,b"], "run_ids", ("a", "b", "c")),
        (["compare", "--run_ids", "", "a", "b"], "run_ids", ("a", "b")),
        (["main", "--seed", "9"], "train.seed", 9),
        (["main", "--seed", "9"], "explain.seed", 9),
        (["main", "--dataset", "sample"], "explain.dataset", "sample"),
    ],
)
def test_parameters_reach_the_config(calls, arguments, path, value):
    assert status(*arguments) == 0
    found = calls[0][1]
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_step_waits_for_the_server_as_long_as_its_settings_say(calls):
    assert status("train", "--set", "outage_minutes=2.5") == status("study") == status("prepare") == 0
    assert [tracker._outage_minutes for _, _, tracker in calls] == [2.5, 10, cli.OUTAGE_MINUTES]


def test_an_absent_server_is_refused_before_any_step(calls, capsys, monkeypatch):
    def absent(self):
        raise StoreUnreachable("MLflow's server does not answer.")

    monkeypatch.setattr("wastelens.tracking.mlflow_tracker.MlflowTracker.check_reachable", absent)
    assert status("train") == 2
    assert capsys.readouterr().err == "wastelens: MLflow's server does not answer.\n"
    assert not calls


def test_mlflow_runs_defaults_do_not_beat_the_config_file(calls, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_RUN_ID", "opened by mlflow run")
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 5\nfold: 3\n")
    assert status("train", "--config", str(file), "--seed", "0", "--fold", "4") == 0
    assert (calls[0][1].seed, calls[0][1].fold) == (5, 4)
    assert capsys.readouterr().out == f'{file} sets seed=5. To override it: -P set="seed=0"\n'


def test_what_is_typed_beats_the_config_file_even_where_it_is_the_default(calls, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 5\nfold: 3\n")
    assert status("train", "--config", str(file), "--seed", "0") == 0
    assert (calls[0][1].seed, calls[0][1].fold) == (0, 3)


@pytest.mark.parametrize(("step", "names"), AS_A_FILE_SAYS.items())
def test_what_a_file_says_is_empty_on_the_command_line(step, names):
    defaults = {one.name: one.default for one in parameters_of(step)}
    assert [defaults[name] for name in names] == [""] * len(names)


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_defaults_on_the_command_line_are_those_of_conf(step):
    config = STEP_CONFIGS[step]
    shipped = cli_config(step)
    for parameter in parameters_of(step):
        if parameter.name in config.model_fields and parameter.name not in AS_A_FILE_SAYS.get(step, ()):
            value = getattr(shipped, parameter.name)
            assert parameter.default == as_typed(value), parameter.name


def as_typed(value):
    """A value as it is given on the command line: names with commas between."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def cli_config(step):
    from wastelens.config.files import load_config

    return load_config(step)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--augment", "maybe"], "'augment' in the command line: must be true or false"),
        (["train", "--set", "fit.epoch=1"], "Did you mean 'fit.epochs'?"),
        (["train", "--config", "no-such.yaml"], "'no-such.yaml' cannot be read"),
        (["explain", "--methods", "gradcam,grad"], "not 'grad'"),
        (["explain", "--photos", "0"], "greater than or equal to 1"),
        (["study", "--seeds", "0"], "greater than or equal to 1"),
        (["study", "--factors", "augment=true"], "a comparison needs two"),
        (["study", "--preset", "smok"], "Did you mean 'smoke'?"),
        (["compare", "a", "a"], "names a run twice"),
        (["compare", "--run_ids", "a", "b", "a"], "names a run twice"),
        (["study", "--study", "mine/1"], "'/' cannot be in a study's name"),
        (["study", "--engine", "process:2"], "Did you mean 'processes'?"),
        (["tune", "--workers", "0"], "greater than or equal to 1"),
        (["tune", "--workers", "2", "--engine", "tcp://a:8786"], "workers=2 is short for engine=processes:2"),
        (["train", "--no_such_option", "1"], "No such option"),
        (["train", "--epochs", "3"], "It is a setting: --set fit.epochs=VALUE or --set fine_tune.epochs=VALUE"),
        (["train", "--model", "base", "--widths", "3"], "It is a setting: --set network.widths=VALUE"),
        (["no-such-step"], "No such command"),
    ],
)
def test_bad_input_ends_with_two_and_one_message(calls, capsys, arguments, words):
    assert status(*arguments) == 2
    assert words in capsys.readouterr().err
    assert not calls


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (AnnotationsError("a.json: the file is empty."), 2, "wastelens: a.json: the file is empty."),
        (NonFiniteLossError("The loss is nan."), 1, "wastelens: The loss is nan."),
        (WastelensError("Something."), 1, "wastelens: Something."),
        (OSError(28, "No space left on device", "/data/x"), 2, "No space left on device: '/data/x'. Free space"),
        (OSError(28, "No space left on device"), 2, "No space left on device. Free space"),
        (OSError(13, "Permission denied", "/data/x"), 2, "Permission denied: '/data/x'. Fix the permissions"),
        (KeyboardInterrupt(), 130, "Interrupted. Finished work is kept"),
        (click.UsageError("No."), 2, "No."),
    ],
)
def test_each_ending_has_its_status_and_no_traceback(calls, monkeypatch, capsys, error, code, words):
    def fail(config, tracker):
        raise error

    monkeypatch.setattr(sys.modules["wastelens.steps.train"], "run", fail)
    assert status("train") == code
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("bug", [ZeroDivisionError, FileNotFoundError(2, "No such file"), ConnectionResetError])
def test_bugs_are_not_hidden(calls, monkeypatch, bug):
    def fail(config, tracker):
        raise bug

    monkeypatch.setattr(sys.modules["wastelens.steps.train"], "run", fail)
    with pytest.raises(bug if isinstance(bug, type) else type(bug)):
        cli.run(["train"])


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["prepare", "-h"], ["explain", "-h"], ["--version"]]
)
def test_help_and_version(calls, capsys, arguments):
    assert status(*arguments) == 0
    assert "wastelens" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["", "prepare", "explain"])
def test_help_imports_nothing_heavy(step):
    heavy = ["tensorflow", "keras", "mlflow", "pandas", "matplotlib", "albumentations", "shap"]
    heavy += ["numpy", "pydantic"] if not step else []  # a step's options are the fields of its settings
    code = (
        "import sys\nfrom wastelens.cli import run\n"
        f"try: run({[step] if step else []} + ['--help'])\nexcept SystemExit: pass\n"
        f"print('HEAVY', [name for name in {heavy} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.splitlines()[-1] == "HEAVY []"


def test_environment_is_prepared_and_sigterm_ends_as_ctrl_c_does(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    monkeypatch.setenv("MPLBACKEND", "module://of.a.notebook")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    try:
        cli.prepare_environment()
        assert (os.environ["MPLBACKEND"], os.environ["KERAS_BACKEND"]) == ("Agg", "tensorflow")  # relied upon
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"  # what the user set stays
        assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with contextlib.suppress(KeyboardInterrupt):
            interrupts.check()  # forget it, or the next training in this process would stop
        os.environ.pop("NO_ALBUMENTATIONS_UPDATE", None)


def test_a_terminal_that_lacks_letters_gets_question_marks() -> None:
    code = (
        "from wastelens.cli import run\nfrom wastelens.system.console import say\n"
        "try: run(['--version'])\nexcept SystemExit: say('größe │')"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONIOENCODING": "ascii"}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stdout.splitlines()[-1] == "gr??e ?"


def test_a_complaint_wraps_at_words_in_a_terminal_only(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert status("train", "--set", "fit.epohcs=3") == 2
    (line,) = capsys.readouterr().err.splitlines()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert status("train", "--set", "fit.epohcs=3") == 2
    lines = [click.unstyle(one) for one in capsys.readouterr().err.splitlines()]
    assert len(lines) > 2
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == line


def test_the_list_of_commands_is_in_order_of_work_with_whole_lines(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert status("--help") == 0
    listed = capsys.readouterr().out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == [*cli.ENTRY_POINTS, "materials"]
    assert all(len(line) <= 80 and line.endswith(".") and not line.endswith("...") for line in listed)


def completions(monkeypatch, capsys, *words):
    monkeypatch.setenv("_WASTELENS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["wastelens", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    status()
    return [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()]


def test_values_are_completed(monkeypatch, capsys):
    assert completions(monkeypatch, capsys, "train", "--model", "b") == ["base"]
    assert completions(monkeypatch, capsys, "train", "--balanced", "") == ["true", "false"]
    assert "explain" in completions(monkeypatch, capsys, "ex")


def test_help_shows_types_and_no_empty_defaults(capsys):
    assert status("train", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--balanced true|false repeat photos of rare materials" in shown
    assert "--fold INTEGER" in shown
    assert '""' not in shown


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_help_has_every_parameter_once_and_those_of_every_step_last(capsys, step):
    assert status(step, "--help") == 0
    own, _, last = capsys.readouterr().out.partition("\nThe run:\n")
    listed = [[line.split()[0] for line in part.splitlines() if line.startswith("  --")] for part in (own, last)]
    assert sorted([*listed[0], *listed[1]]) == sorted(f"--{one.name}" for one in parameters_of(step))
    assert listed[1][-2:] == ["--config", "--set"]
    assert ("\nAugmentation:\n  --augment " in own) == (step == "train")
