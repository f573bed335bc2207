"""The commands that a step suggests next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

DATA_FOLDER = Path("data")  # the default in every conf/*.yaml


def next_command(entry_point: str, parameters: Mapping[str, object], data_folder: Path = DATA_FOLDER) -> str:
    """Return the command that runs an entry point from the project's folder.

    Args:
        entry_point: its name, as in ``prepare``.
        parameters: name → value, in the order of the command; empty values are left out.
        data_folder: the data folder of the calling step; included if it is not the default.
    """
    quoted = json.dumps(str(data_folder), ensure_ascii=False)  # YAML: the path may contain spaces
    elsewhere = f"data_folder={quoted}" if data_folder != DATA_FOLDER else ""
    settings = [str(parameters.get("set", "")), elsewhere]
    given = {**parameters, "set": " ".join(setting for setting in settings if setting)}
    words = [shlex.quote(f"{name}={value}") for name, value in given.items() if str(value)]
    return " ".join([f"mlflow run . -e {entry_point} --env-manager local", *(f"-P {word}" for word in words)])
