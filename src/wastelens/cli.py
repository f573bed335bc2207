"""The command line: arguments → config → step. Imports only the chosen step, so ``--help`` stays light."""

from __future__ import annotations

import errno
import importlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from wastelens.errors import StoreUnreachable, WastelensError
from wastelens.system import interrupts
from wastelens.system.machine import set_up_libraries

if TYPE_CHECKING:
    from wastelens.config.parameters import Parameter

OUTAGE_MINUTES = 10.0  # for steps without this setting
INTERRUPTED_STATUS = 130
_MOST_WAYS = 2  # to name of those that a setting may be given by
_FIXES = {
    errno.ENOSPC: "Free space",
    errno.EDQUOT: "Free space",
    errno.EFBIG: "Free space, raise the limit on the size of files",
    errno.EACCES: "Fix the permissions",
    errno.EPERM: "Fix the permissions",
    errno.EROFS: "Fix the permissions",
    errno.ENOTDIR: "Move the file away",
    errno.EEXIST: "Move the file away",
    errno.EISDIR: "Move the folder away",
    errno.ENAMETOOLONG: "Shorten the path",
    errno.EIO: "Check the disk",
    errno.ESTALE: "Check the disk",
}


# Step → its summary, in order of work. A first sentence of at most 63 letters is whole in the list of commands. The
# parameters come from the types of the settings, which are imported for a step's own help only.
ENTRY_POINTS = {
    "main": "Run the whole flow, from prepare to compare. Trains every model, and explains the best.",
    "download": "Download TACO: its annotations, and the photos still available.",
    "collect": "Collect photos without labels, with their licences. Sources: Openverse and Wikimedia Commons.",
    "prepare": "Turn annotations and photos into a dataset, split by groups.",
    "pretrain": "Learn from photos without labels. Methods: autoencoders, Boltzmann machines, deep belief networks.",
    "train": "Train one model on a prepared dataset and evaluate it.",
    "tune": "Find a model's best settings by trials that never see test.",
    "explain": "Show where a model looks. Grad-CAM and SHAP, scored against the outlines of the litter.",
    "cluster": "Cluster the features that a run has learnt. Compares k-means clusters with the materials.",
    "labels": "Find annotations that look wrong. Gives a list, and a page to go through.",
    "study": "Find out whether a change helps. Models x factors x seeds x folds, in pairs, with one verdict.",
    "compare": "Compare finished runs of one dataset, in pairs.",
    "predict": "Use a trained model on new photos. Gives a table, a page with evidence, counts with intervals.",
    "evaluate": "Judge a trained model on other photos with labels.",
    "promote": "Register a model. It becomes champion if it is proven and beats the present one.",
}
_REPEATABLE = frozenset({"predict", "prepare", "study", "tune"})  # they do only what is left to do
_SECTIONS = ("prepare", "train", "cluster", "explain")  # of main that have a data folder
_WITHOUT_NAME = {"compare": "run_ids"}  # step → the parameter whose values may also be typed without its name
# Given to each command too: click remembers a command's help option from the first context that asks for it, and a
# context without a parent knows only --help.
_CONTEXT = {"help_option_names": ["-h", "--help"]}


class _Step(click.Command):
    """A step as a command; its options are looked up when they are asked for."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the step's options."""
        if not self.params:
            parameters = importlib.import_module("wastelens.config.parameters").parameters_of(self.name)
            self.params = [_option(one) for one in parameters]
            if self.name in _WITHOUT_NAME:
                self.params.append(click.Argument(["words"], nargs=-1, metavar="[RUN_ID]..."))
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; one that is a setting without an option of its own is refused with the way to give it."""
        typed = [*args]  # the parser takes them away
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            message = f"{error.message}{self._how_to_set(error.option_name.lstrip('-'), typed)}"
            raise click.NoSuchOption(error.option_name, message, error.possibilities, ctx) from None

    def _how_to_set(self, name: str, typed: list[str]) -> str:
        """Return how to give a setting; the model that is asked for decides which there are."""
        files, base = (importlib.import_module(f"wastelens.config.{module}") for module in ("files", "base"))
        asked = dict(pairwise(typed)).get("--model", "")
        try:
            config = files.load_config(self.name, parameters={"model": asked} if asked else {})
        except WastelensError:
            return ""
        known = [key for key in base.flatten(config) if f".{key}".endswith(f".{name}")]
        ways = " or ".join(f"--set {key}=VALUE" for key in sorted(known, key=len)[:_MOST_WAYS])
        return f" It is a setting: {ways}" if known else ""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the step's own options, and those that several steps have below a heading for each kind."""
        groups = importlib.import_module("wastelens.config.parameters").GROUPS
        heading_of = {name: heading for heading, names in groups.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in ("Options", *groups)}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
                rows[heading_of.get(option.name or "", "Options")].append(record)
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _option(parameter: Parameter) -> click.Option:
    """Return a parameter as an option, whose type is checked later, with all settings."""
    return click.Option(
        [f"--{parameter.name}"],
        default=parameter.default,
        show_default=bool(parameter.default),
        help=parameter.help.removeprefix("true or false: "),
        metavar=parameter.type,
        shell_complete=lambda context, option, typed: [one for one in parameter.choices if one.startswith(typed)],
    )


class _InOrderOfWork(click.Group):
    """The list of commands, in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(self.commands)


@click.group(cls=_InOrderOfWork, context_settings=_CONTEXT)
@click.version_option(package_name="wastelens", message="%(prog)s %(version)s")
def wastelens() -> None:
    """Classify photos of litter by material, with results you can trust."""


def _command(step: str, summary: str) -> click.Command:
    def execute(words: tuple[str, ...] = (), **values: str) -> None:
        context = click.get_current_context()
        typed = {name for name in values if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
        if words:
            name = _WITHOUT_NAME[step]
            values[name] = ",".join([values[name], *words])  # 'compare --run_ids A B C' leaves B and C without a name
            typed.add(name)
        run_step(step, values, typed)

    return _Step(step, context_settings=_CONTEXT, callback=execute, help=summary)


for _name, _summary in ENTRY_POINTS.items():
    wastelens.add_command(_command(_name, _summary))


@wastelens.command(context_settings=_CONTEXT)
@click.option("--dataset", required=True, help="a folder of photos with their labels, or their file of annotations")
@click.option("--data_folder", default="data", show_default=True, help="the folder that contains raw/")
def materials(dataset: str, data_folder: str) -> None:
    """Write a mapping of a dataset's labels to standard output. It proposes a material for each label."""
    set_up_libraries()
    proposing = importlib.import_module("wastelens.preparing.proposing")
    click.echo(proposing.mapping_text(dataset, Path(data_folder)), nl=False)


def run_step(step: str, values: dict[str, str], typed: set[str]) -> None:
    """Resolve the config from the command line's values and run the step under the MLflow tracker."""
    prepare_environment()
    opened = os.environ.get("MLFLOW_RUN_ID", "")
    try:
        _run_configured(step, values, typed, under_mlflow_run=bool(opened))
    finally:
        if opened:
            importlib.import_module("wastelens.tracking.mlflow_tracker").name_opened_run(opened, step)


def _run_configured(step: str, values: dict[str, str], typed: set[str], *, under_mlflow_run: bool) -> None:
    config_files = importlib.import_module("wastelens.config.files")
    config_file, settings = values.pop("config"), values.pop("set")
    given = {name: values[name] for name in values if name in typed}
    if under_mlflow_run:
        given = _unlike_defaults(step, given, config_file, config_files.config_file_says(step, config_file))
    config = config_files.load_config(step, parameters=given, config_file=config_file, settings=settings)
    tracking = importlib.import_module("wastelens.tracking.mlflow_tracker")
    tracker = tracking.MlflowTracker(getattr(config, "outage_minutes", OUTAGE_MINUTES))
    tracker.check_reachable()
    if under_mlflow_run:
        _say_where_things_lie(config)
    try:
        importlib.import_module(f"wastelens.steps.{step}").run(config, tracker)
    except StoreUnreachable:
        if step in _REPEATABLE:
            click.echo("When MLflow's server runs again, the same command goes on.")
        raise


def _unlike_defaults(step: str, given: dict[str, str], config_file: str, file_says: dict[str, str]) -> dict[str, str]:
    """Return the parameters that mean something under mlflow run, which passes every declared one, given or not.

    There, only a value that differs from the default says something and may override the user's config file.
    """
    parameters = importlib.import_module("wastelens.config.parameters").parameters_of(step)
    defaults = {parameter.name: parameter.default for parameter in parameters}
    silent = {name for name, value in given.items() if value == defaults[name]}
    for name in sorted(silent & set(file_says)):
        if file_says[name] != given[name]:
            click.echo(f'{config_file} sets {name}={file_says[name]}. To override it: -P set="{name}={given[name]}"')
    return {name: value for name, value in given.items() if name not in silent}


def _say_where_things_lie(config: object) -> None:
    """Say it for a step's settings: main has the data folder in each of its sections, compare has none."""
    parts = {"data_folder": config, **{f"{name}.data_folder": getattr(config, name, None) for name in _SECTIONS}}
    folders = {name: part.data_folder for name, part in parts.items() if hasattr(part, "data_folder")}
    if folders:
        places = importlib.import_module("wastelens.tracking.project_folder")
        places.say_where_things_lie(next(iter(folders.values())), list(folders))


def prepare_environment() -> None:
    """Set up the libraries, and let a polite kill (SIGTERM) end a run as Ctrl-C does, before heavy imports."""
    interrupts.listen()
    set_up_libraries()


def run(arguments: list[str] | None = None) -> None:
    """Run the console script; exit status: 0 on success, 2 on bad input, 130 when interrupted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # of a terminal that lacks a letter
    sys.exit(_status(lambda: wastelens.main(args=arguments, prog_name="wastelens", standalone_mode=False)))


def _status(command: Callable[[], object]) -> int:
    try:
        result = command()
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except click.ClickException as error:
        error.show()
        return 2
    except WastelensError as error:
        _complain(str(error))
        return error.exit_status
    except OSError as error:
        if error.errno not in _FIXES:
            raise
        where = f": '{error.filename}'" if error.filename else ""
        _complain(f"{error.strerror}{where}. {_FIXES[error.errno]}, or choose another data_folder.")
        return 2
    except (KeyboardInterrupt, click.Abort):
        _complain("Interrupted. Finished work is kept.")
        return INTERRUPTED_STATUS
    return result if isinstance(result, int) else 0


def _complain(message: str) -> None:
    from wastelens.system.console import printable, wrapped  # rich takes a while: only where it is needed

    text = f"wastelens: {printable(message)}"
    lines = wrapped(text, shutil.get_terminal_size().columns) if sys.stderr.isatty() else [text]
    click.secho("\n".join(lines), fg="red", err=True)
