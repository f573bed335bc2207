"""What a study of trials is called and is of: by these it is known again when it goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from wastelens.config.base import flatten
from wastelens.config.tune import TuneConfig
from wastelens.tuning.space import Space


def study_name(config: TuneConfig) -> str:
    """What Optuna's study is called."""
    return config.study or f"{Path(config.model).stem} on {Path(config.dataset).name}"


def identity_of(config: TuneConfig, space: Space, dataset_digest: str) -> dict[str, str]:
    """What the trials of one study have in common."""
    unlike = {"dataset", "data_folder", "resume"}
    return {
        "model": Path(config.model).stem,
        "dataset": dataset_digest,
        "sampler": "grid" if config.sampler == "grid" else "tpe or random",  # a grid has a combination for each place
        "space": json.dumps({key: one.model_dump() for key, one in sorted(space.parameters.items())}, sort_keys=True),
        "train": space.defaults.model_dump_json(exclude=unlike),
    }


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In what two studies differ, in few words: the first such part; empty where they are of the same."""
    for key, value in now.items():
        if before.get(key) != value:
            return f"{key} ({_of_parts(before.get(key, ''), value)})"
    return ""


def _of_parts(before: str, now: str) -> str:
    """In what they differ: the first key where they are trees."""
    with contextlib.suppress(ValueError, AttributeError):  # a digest is no tree
        one, other = (flatten(json.loads(text)) for text in (before, now))
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                return f"{key} {_short(one.get(key, 'not at all'))}; now {_short(other.get(key, 'not at all'))}"
    return f"{_short(before)}; now {_short(now)}"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
