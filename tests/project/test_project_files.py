"""The project's files agree: MLproject and conda.yaml with the code and the lock, conf/ with itself."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from tests.project.running import PROGRAM, ROOT, ok, run

from wastelens import cli
from wastelens.config.files import AUGMENT, KINDS, SHORT_KEYS, load_config, read_yaml
from wastelens.config.main import MainConfig
from wastelens.config.parameters import parameters_of
from wastelens.config.steps import STEP_CONFIGS
from wastelens.data.sample import CATEGORIES

CONF = ROOT / "conf"
MATERIALS = {"plastic", "aluminium", "paper", "glass", "other_objects", "toxic"}
DOUBTFUL = (
    *("Pop tab", "Drink carton", "Carded blister pack", "Foam cup", "Glass jar", "Squeezable tube"),
    *("Plastified paper bag", "Cigarette", "Unlabeled litter"),
)
PREDECESSOR = ROOT.parent / "shared" / "reference" / "predecessor_materials.csv"
HOSTILE_VALUE = """fit.epochs=3  a="two words" b='it'"'"'s' $HOME `id` ; # {x} \\ *"""


@pytest.fixture(scope="module")
def project() -> Any:
    from mlflow.projects._project_spec import load_project

    return load_project(str(ROOT))


def arguments_of(project: Any, step: str, values: dict[str, str]) -> dict[str, str]:
    """Option → value, as the shell hands them to the entry point's program."""
    command = shlex.split(project.get_entry_point(step).compute_command(values, None))
    assert command[:3] == ["python", "src/wastelens", step]
    assert all(option.startswith("--") for option in command[3::2])
    return dict(zip((option[2:] for option in command[3::2]), command[4::2], strict=True))


def test_mlproject_has_the_entry_points_of_the_command_line(project: Any) -> None:
    assert set(project._entry_points) == set(cli.ENTRY_POINTS) == set(STEP_CONFIGS)
    assert project.name == "wastelens"
    assert Path(project.env_config_path) == ROOT / "conda.yaml"


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_every_declared_parameter_reaches_its_command(project: Any, step: str) -> None:
    values = {name: f"value of {name}" for name in project.get_entry_point(step).parameters}
    assert arguments_of(project, step, values) == values


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_values_arrive_as_they_were_given(project: Any, step: str) -> None:
    assert arguments_of(project, step, {"set": HOSTILE_VALUE})["set"] == HOSTILE_VALUE
    assert arguments_of(project, step, {"dataset": ""})["dataset"] == ""


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_mlproject_and_command_line_declare_the_same(project: Any, step: str) -> None:
    declared = {one.name: one.default for one in project.get_entry_point(step).parameters.values()}
    assert declared == {one.name: one.default for one in parameters_of(step)}
    assert {one.type for one in project.get_entry_point(step).parameters.values()} == {"string"}
    command = cli.wastelens.commands[step]
    command.get_params(click.Context(command, help_option_names=["-h", "--help"]))  # looks the options up
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert {option.name: option.default for option in options} == declared
    assert arguments_of(project, step, {}) == declared


@pytest.mark.parametrize("step", cli.ENTRY_POINTS)
def test_defaults_are_those_of_conf(step: str) -> None:
    sections = [section for section in MainConfig.model_fields if section in cli.ENTRY_POINTS]
    sections = sections if step == "main" else [step]
    shipped = [read_yaml(CONF / f"{section}.yaml") for section in sections]
    for parameter in parameters_of(step):
        for values in shipped:
            # Empty: as conf/model/<model>.yaml says, or conf/study/<preset>.yaml.
            named = {"pretrained", "weights", "freeze", "balanced"} | (
                {"models", "factors", "seeds", "folds"} & set(values)
            )
            if parameter.name in values and parameter.name not in named:
                value = values[parameter.name]
                value = ",".join(value) if isinstance(value, list) else value  # names with commas between
                assert parameter.default == (str(value).lower() if isinstance(value, bool) else str(value))
        known = any(parameter.name in values for values in shipped)
        short = {"config", "set", *((AUGMENT, *SHORT_KEYS) if step == "train" else ())}
        assert known or parameter.name in short, f"{parameter.name} is not a key of conf/"


def unexplained(text: str) -> list[str]:
    """Return the settings of a YAML file without a comment: on their line, above it, below it, or on their section."""
    lines, bare, section_explained = text.splitlines(), [], False
    for above, line, below in zip(["", *lines], lines, [*lines[1:], ""], strict=False):
        setting = re.match(r"( *)([a-z_]+):(.*)", line)
        if setting is None:
            continue
        explained = "#" in line or (bool(above) and above.startswith("#")) or bool(re.match(r" +#", below))
        indented, key, value = setting.groups()
        if not indented:
            section_explained = explained
        if not (explained or (indented and section_explained) or key == "kind" or not value.strip()):
            bare.append(key)
    return bare


def test_every_setting_is_explained_where_it_stands() -> None:
    folders = [CONF / name for name in (*KINDS, "model", "pretrain", "explain")]
    files = [*(CONF / f"{step}.yaml" for step in STEP_CONFIGS), *(file for each in folders for file in each.iterdir())]
    space = "\n# The search space"  # one comment explains all its entries
    found = {file.name: unexplained(file.read_text(encoding="utf-8").partition(space)[0]) for file in files}
    assert {name: keys for name, keys in found.items() if keys} == {}
    assert unexplained("a: 1\nb: 2  # why\n\nc:\n  d: 3\n") == ["a", "d"]


def test_help_names_the_models_that_take_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(CONF, tmp_path / "conf")
    (copy / "model" / "wide.yaml").write_text("network: {kind: transfer}\n", encoding="utf-8")
    monkeypatch.setattr("wastelens.config.parameters.conf_folder", lambda: copy)
    told = {one.name: one.help.partition(":")[0] for one in parameters_of("train")}
    assert told["model"] == "autoencoder, base, dbn, efficientnet_lite, efficientnetv2, objects, probe, vgg16, wide"
    assert told["weights"] == "efficientnet_lite, efficientnetv2, objects, probe, vgg16, wide"
    assert told["pretrained"] == "autoencoder, dbn, probe"


def test_generated_files_are_up_to_date() -> None:
    answer = run(sys.executable, "tools/project_files.py", "--check", cwd=ROOT)
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stdout + answer.stderr


@pytest.mark.parametrize("folder", ["evaluated", "mappings", "predictions", "prepared", "raw", "tuned", "unlogged"])
def test_photos_and_what_is_made_of_them_stay_out_of_the_repository(folder: str) -> None:
    assert f"data/{folder}/" in (ROOT / ".gitignore").read_text().splitlines()


def test_conda_yaml_names_python_and_pinned_packages_only() -> None:
    environment = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert pip == "pip"
    assert list(packages) == ["pip"]
    for pin in packages["pip"]:
        assert re.fullmatch(r"[a-z0-9._-]+==[^ ;]+( ; .+)?", pin), pin
        assert not pin.startswith(("-", "."))


def test_conda_yaml_holds_exactly_the_locked_run_time_packages() -> None:
    pins = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))["dependencies"][2]["pip"]
    pinned = [tuple(pin.split(";")[0].strip().split("==")) for pin in pins]
    assert len(set(pinned)) == len(pinned)
    assert set(pinned) == run_time_closure()
    unmarked = [pin.split("==")[0] for pin in pins if ";" not in pin]
    assert len(set(unmarked)) == len(unmarked), "two versions of a package without a marker that tells which"
    assert not set(unmarked) & {pin.split("==")[0] for pin in pins if ";" in pin}


def run_time_closure() -> set[tuple[str, str]]:
    """(name, version) of everything that the package needs at run time on any platform, by uv.lock."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    versions: dict[str, list[dict[str, Any]]] = {}
    for package in packages:
        versions.setdefault(package["name"], []).append(package)
    seen: set[tuple[str, str]] = set()
    waiting = list(versions["wastelens"][0]["dependencies"])
    while waiting:
        wanted = waiting.pop()
        chosen = [one for one in versions[wanted["name"]] if wanted.get("version", one["version"]) == one["version"]]
        for package in chosen:
            extras = [package.get("optional-dependencies", {}).get(extra, []) for extra in wanted.get("extra", [])]
            waiting += [one for extra in extras for one in extra if (one["name"], one.get("version")) not in seen]
            if (package["name"], package["version"]) not in seen:
                seen.add((package["name"], package["version"]))
                waiting += package.get("dependencies", [])
    return seen


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_of_conf_can_be_used(path: Path) -> None:
    kind, name = path.parent.name, path.stem
    assert read_yaml(path)
    named = {"model": ("train", "model"), "pretrain": ("pretrain", "method"), "study": ("study", "preset")}
    if kind in KINDS:
        loaded = load_config("train", settings=f"{kind}.kind={name}")
        assert read_yaml(path).items() <= getattr(loaded, kind).model_dump().items()
    elif kind == "augment":
        assert load_config("train", parameters={"augment": "true", "augment_policy": name}).policy.policy == name
    elif kind in named:
        step, parameter = named[kind]
        loaded = load_config(step, parameters={parameter: name})
        assert getattr(loaded, parameter) == name
    elif kind == "explain":
        assert read_yaml(path) == load_config("explain").model_dump()[name]
    elif name in STEP_CONFIGS:
        assert set(read_yaml(path)) <= set(STEP_CONFIGS[name].model_fields)
        load_config(name)
    else:
        for step in STEP_CONFIGS:
            load_config(step, config_file=str(path))


@pytest.mark.parametrize("name", ["default", "predecessor"])
def test_mappings_hold_each_category_once(name: str) -> None:
    rows = mapping(CONF / "materials" / f"{name}.csv")
    assert sorted(row["category"] for row in rows) == sorted(category for category, _ in CATEGORIES)
    assert len(rows) == 60
    assert {row["material"] for row in rows} <= MATERIALS


def test_doubtful_categories_have_a_reason() -> None:
    reasons = {row["category"]: row["reason"] for row in mapping(CONF / "materials" / "default.csv")}
    assert [category for category in DOUBTFUL if len(reasons[category]) < 10] == []


def test_predecessor_mapping_is_the_predecessors() -> None:
    if not PREDECESSOR.is_file():
        pytest.skip(f"{PREDECESSOR} is not there")
    ours, theirs = (
        {row["category"]: row["material"] for row in mapping(path)}
        for path in (CONF / "materials" / "predecessor.csv", PREDECESSOR)
    )
    assert ours == theirs


def mapping(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "command",
    [
        (*PROGRAM[1:], "--help"),
        (*PROGRAM[1:], "prepare", "--help"),
        (*PROGRAM[1:], "train", "--help"),
        (*PROGRAM[1:], "explain", "--help"),
        ("-c", "import wastelens.steps.prepare"),
        ("-c", "import wastelens.steps.explain"),
    ],
    ids=lambda command: " ".join(command[1:]),
)
def test_light_commands_load_no_tensorflow(command: tuple[str, ...], tmp_path: Path) -> None:
    answer = ok(run(sys.executable, "-X", "importtime", *command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "src")}))
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in answer.stderr.splitlines()}
    assert "wastelens" in loaded
    assert not loaded & {"tensorflow", "keras", "jax", "torch", "mlflow", "shap", "numba"}
    if "--help" in command:
        assert not loaded & {"pandas", "scipy", "sklearn", "cv2", "matplotlib"}


IMPORT_EACH = """
import importlib, json, logging, os, pkgutil, sys, tempfile
import wastelens

def hear(name):
    real = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as heard:
        os.dup2(heard.fileno(), 1), os.dup2(heard.fileno(), 2)
        try:
            importlib.import_module(name)
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os.dup2(real[0], 1), os.dup2(real[1], 2)
        heard.seek(0)
        return heard.read().decode()

names = [one.name for one in pkgutil.walk_packages(wastelens.__path__, "wastelens.") if "__main__" not in one.name]
print(json.dumps({name: hear(name) for name in names}))
"""


def test_importing_says_nothing(tmp_path: Path) -> None:
    answer = ok(run(sys.executable, "-c", IMPORT_EACH, cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "src")}))
    heard = json.loads(answer.stdout)
    assert len(heard) > 30
    assert {name: text for name, text in heard.items() if text} == {}
    assert list(tmp_path.iterdir()) == []
