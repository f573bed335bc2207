"""The name and identity of a search, by which it is recognised when it is resumed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from wastelens.config.base import flatten
from wastelens.config.tune import TuneConfig
from wastelens.tuning.space import Space


def search_name(config: TuneConfig) -> str:
    """Return the name of the search, which is that of Optuna's study."""
    return config.study or f"{Path(config.model).stem} on {Path(config.dataset).name}"


def identity_of(config: TuneConfig, space: Space, dataset_digest: str) -> dict[str, str]:
    """Return the settings that all trials of a search share."""
    unlike = {"dataset", "data_folder", "resume"}
    return {
        "model": Path(config.model).stem,
        "dataset": dataset_digest,
        "sampler": "grid" if config.sampler == "grid" else "tpe or random",  # a grid fixes the values of each place
        "space": json.dumps({key: one.model_dump() for key, one in sorted(space.parameters.items())}, sort_keys=True),
        "train": space.defaults.model_dump_json(exclude=unlike),
    }


def identity_difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe the first difference between two identities; "" where they are equal."""
    for key, value in now.items():
        if before.get(key) != value:
            return f"{key} ({_of_parts(before.get(key, ''), value)})"
    return ""


def _of_parts(before: str, now: str) -> str:
    """Describe how two values differ: by the first differing key where they are trees."""
    with contextlib.suppress(ValueError, AttributeError):  # a digest is not a tree
        one, other = (flatten(json.loads(text)) for text in (before, now))
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                return f"{key} {_short(one.get(key, 'missing'))}; now {_short(other.get(key, 'missing'))}"
    return f"{_short(before)}; now {_short(now)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
