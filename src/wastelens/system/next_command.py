"""The commands that a step tells its user to type next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

DATA_FOLDER = Path("data")  # of all conf/*.yaml


def next_command(entry_point: str, parameters: Mapping[str, object], data_folder: Path = DATA_FOLDER) -> str:
    """What to type in the project's folder to run an entry point.

    Args:
        entry_point: its name, as in ``prepare``.
        parameters: name → value, in the order in which they are to be said; an empty value is not said.
        data_folder: where the step that tells it has its data; said where it is not the default.
    """
    quoted = json.dumps(str(data_folder), ensure_ascii=False)  # YAML, which may hold spaces
    elsewhere = f"data_folder={quoted}" if data_folder != DATA_FOLDER else ""
    settings = [str(parameters.get("set", "")), elsewhere]
    said = {**parameters, "set": " ".join(setting for setting in settings if setting)}
    words = [shlex.quote(f"{name}={value}") for name, value in said.items() if str(value)]
    return " ".join([f"mlflow run . -e {entry_point} --env-manager local", *(f"-P {word}" for word in words)])
