"""The command line: arguments → config → step. Imports only the chosen step, so ``--help`` stays light."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import click
from click.core import ParameterSource

from wastelens.errors import WastelensError
from wastelens.system import interrupts

INTERRUPTED_STATUS = 130
_MENDABLE = {
    errno.ENOSPC: "Free space",
    errno.EDQUOT: "Free space",
    errno.EFBIG: "Free space, raise the limit on the size of files",
    errno.EACCES: "Mend the permission",
    errno.EPERM: "Mend the permission",
    errno.EROFS: "Mend the permission",
    errno.ENOTDIR: "Move the file away",
    errno.EEXIST: "Move the file away",
    errno.EISDIR: "Move the folder away",
    errno.ENAMETOOLONG: "Shorten the path",
    errno.EIO: "Look after the disk",
    errno.ESTALE: "Look after the disk",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of an entry point: an option here, a ``-P`` parameter in MLproject."""

    name: str
    default: str
    help: str


_DATASET = Parameter(
    "dataset", "auto", "auto, taco, sample, or a folder of photos with their labels: data/README.md has the layouts"
)
_SEED = Parameter("seed", "0", "the same seed gives the same split, copies and first loss")
_CONFIG = Parameter("config", "", "a YAML file over the shipped conf/, for instance conf/smoke.yaml")
_SET = Parameter("set", "", 'any other key, as in set="fit.epochs=3 fit.batch_size=16"')

_PREPARE = (
    Parameter("materials", "default", "default, predecessor, trashnet, or a CSV file of category,material,reason"),
    Parameter("image_side_px", "160", "side of the square photos that training sees, in pixels"),
    Parameter("group_by", "auto", "auto, batch, scene, photo, or a column of the images: never split apart"),
    Parameter("folds", "0", "3 or more: as many splits for cross-validation, besides the one split"),
    Parameter("balance_target", "0.7", "oversample until each material has this share of the commonest's count"),
    Parameter("max_copies", "auto", "copies of one photo at most"),
    Parameter("max_problem_share", "0.3", "more photos than this left out stops the step"),
)
_UNLABELLED = Parameter("unlabelled", "", "a folder of photos without labels to learn from besides")
_FOLD = Parameter("fold", "0", "0: the one split; K: the K-th split for cross-validation")
_MIXED = Parameter("mixed_precision", "false", "true or false: bfloat16, where the machine multiplies it")
_RESUME = Parameter("resume", "", "the id of an interrupted run to go on with")

_PRETRAIN = (
    Parameter(
        "method",
        "conv_autoencoder",
        "dense_autoencoder, conv_autoencoder, denoising_autoencoder, rbm or dbn: the file conf/pretrain/<method>.yaml",
    ),
    _UNLABELLED,
    _FOLD,
    _MIXED,
    _RESUME,
)
_TRAIN = (
    Parameter("model", "base", "base, autoencoder, dbn, vgg16 or efficientnetv2: the file conf/model/<model>.yaml"),
    Parameter(
        "pretrained", "", "autoencoder, dbn: auto, none, or the id of a pretrain run; empty: as the model's file says"
    ),
    _UNLABELLED,
    Parameter("weights", "", "vgg16, efficientnetv2: imagenet, none, or a file; empty: as the model's file says"),
    Parameter(
        "freeze", "", "share of the backbone's layers to freeze, or a block's name; empty: as the model's file says"
    ),
    Parameter("augment", "false", "true or false: change the training photos at random every epoch"),
    Parameter("augment_policy", "default", "none, light, default, or a YAML file"),
    Parameter("views", "0", "with augment: so many augmented views a photo, and no others; 0: new ones every epoch"),
    Parameter("balanced", "true", "true or false: repeat photos of rare materials"),
    _FOLD,
    _MIXED,
    _RESUME,
)
_TUNE = (
    Parameter("model", "base", "base, autoencoder, dbn, vgg16 or efficientnetv2: the file conf/model/<model>.yaml"),
    Parameter("trials", "20", "how many, over all workers and all calls of this study; ask for more, and it goes on"),
    Parameter("study", "", "a name; the same one goes on with the same study, here or elsewhere; empty: the model's"),
    Parameter(
        "storage", "", "a database, as postgresql://user@host/name, its password in PGPASSWORD; empty: data/tuning.db"
    ),
    Parameter("timeout", "none", "end after so long, as in 90s, 30min or 8h; the next call goes on"),
    Parameter("workers", "1", "processes on this machine, which share its cores"),
    Parameter("sampler", "tpe", "tpe, random or grid"),
    Parameter("pruner", "hyperband", "hyperband, median or none: end hopeless trials early"),
    Parameter("retrain", "true", "true or false: train the best settings once more, and evaluate them on test"),
)
_CLUSTER = (
    Parameter("run_id", "", "a pretrain or train run whose features are clustered; empty: the controls alone"),
    Parameter("k", "auto", "clusters; auto: the best silhouette within k_range"),
    Parameter("n_init", "auto", "starts of k-means: a number, or scikit-learn's own default"),
    Parameter("photos", "held_out", "held_out (val and test), val, test, train or all: compared with their materials"),
    _FOLD,
)
_EXPLAIN = (
    Parameter("run_id", "", "a train run; empty: the best of this dataset by val_macro_ap"),
    Parameter("split", "test", "test, val or train: whose photos are explained"),
    Parameter("photos", "80", "at most so many of them, drawn by the seed"),
    Parameter("file_names", "", "these photos instead, with commas between, as labels.csv names them"),
    Parameter(
        "methods",
        "auto",
        "with commas between: gradcam, gradcam_plus_plus, scorecam, shap, shap_partition; auto: what fits the model",
    ),
    Parameter("layer", "auto", "whose map class activation methods draw; auto: the last that knows places"),
)

_STUDY = (
    Parameter("preset", "default", "default, smoke or pretraining: the file conf/study/<preset>.yaml"),
    Parameter("study", "", "a name; the same one goes on with the same study, here or elsewhere; empty: the preset"),
    Parameter("models", "", "with commas between, as train knows them; empty: the preset's"),
    Parameter("factors", "", "as in augment=false|true; the first is compared, others kept apart; empty: the preset's"),
    Parameter("seeds", "", "how many trainings of each kind; empty: the preset's"),
    Parameter("folds", "", "auto: all that prepare made, or the one split; or numbers; empty: the preset's, or auto"),
)
_DOWNLOAD = (
    Parameter("source", "web", "web: each photo from where its annotation says; zenodo: all from one archive"),
    Parameter("size", "original", "original, or 640: for photos on Flickr, its copies with a longest side of 640 px"),
    Parameter("unofficial", "false", "true or false: the set that nobody has reviewed, into data/raw/taco_unofficial"),
    Parameter("annotations", "keep", "keep or update, where they have changed upstream"),
    Parameter("workers", "8", "photos at a time"),
    Parameter("max_problem_share", "0.3", "more photos than this that cannot be had is a failure"),
)
_COLLECT = (
    Parameter("contact", "", "your e-mail address or page, told to the servers: Wikimedia's rules ask for one"),
    Parameter("materials", "", "with commas between; empty: all of conf/collect.yaml"),
    Parameter("photos", "100", "of each material, at most, over all calls"),
    Parameter("sources", "openverse,commons", "openverse, commons or both"),
    Parameter("licences", "cc0,pdm,by,by-sa", "which may be taken: also by-nc, by-nc-sa, by-nd, by-nc-nd"),
    Parameter("folder", "", "where they go; empty: data/raw/collected"),
)
_COMPARE = (Parameter("run_ids", "", "with commas between; those that differ in seed and fold alone are one arm"),)

ENTRY_POINTS: dict[str, tuple[str, tuple[Parameter, ...]]] = {
    "download": (
        "TACO's annotations and photos, as far as they can still be had.",
        (*_DOWNLOAD, _CONFIG, replace(_SET, help='any other key, as in set="web.attempts=8"')),
    ),
    "collect": (
        "Photos without labels, by search terms, from Openverse and Wikimedia Commons, with their licences.",
        (_DATASET, *_COLLECT, _CONFIG, replace(_SET, help='any other key, as in set="min_side_px=512"')),
    ),
    "main": (
        "The main job: prepare, pretrain, train every model, cluster, explain the best, compare.",
        (_DATASET, _SEED, _CONFIG, replace(_SET, help='any other key, as in set="train.fit.epochs=3"')),
    ),
    "prepare": (
        "From annotations and photos to a prepared dataset with a leak-free split.",
        (_DATASET, *_PREPARE, _SEED, _CONFIG, _SET),
    ),
    "pretrain": (
        "Learn from photos without their labels: autoencoders, restricted Boltzmann machines, deep belief networks.",
        (_DATASET, *_PRETRAIN, _SEED, _CONFIG, replace(_SET, help='any other key, as in set="learner.epochs=3"')),
    ),
    "train": (
        "Train one model on a prepared dataset and evaluate it.",
        (_DATASET, *_TRAIN, _SEED, _CONFIG, _SET),
    ),
    "tune": (
        "The best settings of a model, by trials that never see the test photos.",
        (_DATASET, *_TUNE, _SEED, _CONFIG, replace(_SET, help='any other key, as in set="train.fit.epochs=10"')),
    ),
    "cluster": (
        "k-means on what a run has learnt, compared with the materials.",
        (_DATASET, *_CLUSTER, _SEED, _CONFIG, replace(_SET, help='any other key, as in set="k_range=[2,20]"')),
    ),
    "explain": (
        "Where a model looks: Grad-CAM and SHAP of its decisions, scored against the outlines of the litter.",
        (_DATASET, *_EXPLAIN, _SEED, _CONFIG, replace(_SET, help='any other key, as in set="shap.samples=100"')),
    ),
    "study": (
        "Does a change help? Models x factors x seeds x folds, compared in pairs, with one verdict.",
        (_DATASET, *_STUDY, _SEED, _CONFIG, replace(_SET, help='any other key, as in set="train.fit.epochs=10"')),
    ),
    "compare": (
        "Finished runs of one dataset, compared in pairs on the same photos.",
        (*_COMPARE, _SEED, _CONFIG, replace(_SET, help='any other key, as in set="bootstrap_resamples=5000"')),
    ),
}


_WITHOUT_NAME = {"compare": "run_ids"}  # step → the parameter whose values may also be typed without its name
# Given to each command too: click remembers a command's help option from the first context that asks for it, and a
# context without a parent knows only --help.
_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_CONTEXT)
@click.version_option(package_name="wastelens", message="%(prog)s %(version)s")
def wastelens() -> None:
    """Photos of litter to a verdict on its materials, with numbers that can be believed."""


def _command(step: str, summary: str, parameters: tuple[Parameter, ...]) -> click.Command:
    def execute(words: tuple[str, ...] = (), **values: str) -> None:
        context = click.get_current_context()
        typed = {name for name in values if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
        if words:
            name = _WITHOUT_NAME[step]
            values[name] = ",".join([values[name], *words])  # 'compare --run_ids A B C' leaves B and C without a name
            typed.add(name)
        run_step(step, values, typed)

    options: list[click.Parameter] = [
        click.Option([f"--{parameter.name}"], default=parameter.default, show_default=True, help=parameter.help)
        for parameter in parameters
    ]
    if step in _WITHOUT_NAME:
        options.append(click.Argument(["words"], nargs=-1, metavar="[RUN_ID]..."))
    return click.Command(step, context_settings=_CONTEXT, params=options, callback=execute, help=summary)


for _step, (_summary, _parameters) in ENTRY_POINTS.items():
    wastelens.add_command(_command(_step, _summary, _parameters))


def run_step(step: str, values: dict[str, str], typed: set[str]) -> None:
    """Resolve the config from the command line's values and run the step under the MLflow tracker."""
    prepare_environment()
    config_files = importlib.import_module("wastelens.config.files")
    config_file, settings = values.pop("config"), values.pop("set")
    given = {name: values[name] for name in values if name in typed}
    if "MLFLOW_RUN_ID" in os.environ:
        given = _unlike_defaults(step, given, config_file, config_files.config_file_says(step, config_file))
    config = config_files.load_config(step, parameters=given, config_file=config_file, settings=settings)
    tracking = importlib.import_module("wastelens.tracking.mlflow_tracker")
    importlib.import_module(f"wastelens.steps.{step}").run(config, tracking.MlflowTracker())


def _unlike_defaults(step: str, given: dict[str, str], config_file: str, file_says: dict[str, str]) -> dict[str, str]:
    """The parameters that mean something under mlflow run, which types every declared one, given or not.

    There only a value that differs from the default says something, and may overrule the user's config file.
    """
    defaults = {parameter.name: parameter.default for parameter in ENTRY_POINTS[step][1]}
    silent = {name for name, value in given.items() if value == defaults[name]}
    for name in sorted(silent & set(file_says)):
        if file_says[name] != given[name]:
            click.echo(f'{config_file} sets {name}={file_says[name]}. To overrule it: -P set="{name}={given[name]}"')
    return {name: value for name, value in given.items() if name not in silent}


def prepare_environment() -> None:
    """Quiet the libraries and let a polite kill (SIGTERM) end a run as Ctrl-C does, before heavy imports."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # each step says where its run is
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar a file says nothing
    # Or MLflow puts the uv.lock of the checkout into each model, and serving tries to build the whole project.
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")
    interrupts.listen()


def run(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: exit status 0 on success, 2 on bad input, 130 when interrupted."""
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
        if error.errno not in _MENDABLE:
            raise
        where = f": '{error.filename}'" if error.filename else ""
        _complain(f"{error.strerror}{where}. {_MENDABLE[error.errno]}, or choose another data_folder.")
        return 2
    except (KeyboardInterrupt, click.Abort):
        _complain("Interrupted. Finished work is kept.")
        return INTERRUPTED_STATUS
    return result if isinstance(result, int) else 0


def _complain(message: str) -> None:
    click.secho(f"wastelens: {message}", fg="red", err=True)
