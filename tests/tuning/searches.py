"""Searches for the tests of tuning, whose trials are objectives that take no time."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import TrialPruned
from optuna.trial import Trial, TrialState
from tests.factories import config

from wastelens.config.tune import TuneConfig
from wastelens.errors import WastelensError
from wastelens.tuning.space import Space
from wastelens.tuning.trials import TrialStore

SPACE = {
    "schedule": {
        "kind": {"values": ["exponential", "cosine"]},
        "peak": {"low": 0.0005, "high": 0.01, "log": True},
        "decay_per_epoch": {"low": 0.8, "high": 0.99, "when": {"schedule.kind": "exponential"}},
    },
    "network": {"widths": {"values": [[8, 8], [24, 48, 64, 96, 128]]}},
}
STEPS = {"fit": {"batch_size": {"low": 8, "high": 15}}}
NO_WIDTHS = {"schedule": SPACE["schedule"]}
DEFAULTS = {
    "schedule.kind": "exponential",
    "schedule.peak": 0.002,
    "schedule.decay_per_epoch": 0.95,
    "network.widths": [24, 48, 64, 96, 128],
}
PASSWORD = "opensesame"

Objective = Callable[[Trial], float]


@functools.cache
def space_of(tree: str, model: str = "base", train: str = "{}") -> Space:
    return Space(config_of(json.loads(tree), model=model, train=json.loads(train)))


def config_of(space: Any = SPACE, **changes: Any) -> TuneConfig:
    shipped: TuneConfig = config("tune")
    return TuneConfig.model_validate({**shipped.model_dump(), "space": space, "dataset": "tiny", **changes})


def opened(folder: Path, space: Any = SPACE, *, digest: str = "digest", **changes: Any) -> TrialStore:
    known = config_of(space, **{"data_folder": folder, "sampler": "random", "trials": 5, **changes})
    return TrialStore(known, space_of(json.dumps(space), known.model, json.dumps(known.train)), digest)


def work(store: TrialStore, objective: Objective | None = None) -> list[dict[str, Any]]:
    """Do what is left, by peak unless told otherwise; return the values tried here.

    What an objective raises, except to be pruned, ends the search as it does in its coordinator.
    """
    tried = []
    while (trial := store.next_trial()) is not None:
        values = store.suggest(trial)
        tried.append(values)
        try:
            value = float(values.get("schedule.peak", 0.5)) if objective is None else objective(trial)
        except TrialPruned:
            store.tell(trial.number, TrialState.PRUNED)
        except BaseException:
            store.give_back()
            raise
        else:
            store.tell(trial.number, TrialState.COMPLETE, value)
    return tried


def refusal(error: type[WastelensError], act: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    assert len(message) < 400
    return message
