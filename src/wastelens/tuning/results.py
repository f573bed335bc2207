"""What the trials of a study have come to: a table, the best settings as a config file, sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from wastelens.config.base import as_text
from wastelens.config.files import merge
from wastelens.config.tune import COMPLETE, FAILED, PRUNED, RUNNING
from wastelens.tuning.database import database_errors
from wastelens.tuning.space import Space, Values, nested
from wastelens.tuning.trials import ERROR, RUN_ID, WORKER, Standing, TrialStore, is_lost

LOST = "it ended with its worker, and is done again"
LEFT_ALONE = "it ended with its worker again and again, and is left alone"
_STATES = {
    TrialState.COMPLETE: COMPLETE,
    TrialState.PRUNED: PRUNED,
    TrialState.FAIL: FAILED,
    TrialState.RUNNING: RUNNING,
}
_FEWEST_FOR_IMPORTANCES = 4


@dataclass(frozen=True)
class Found:
    """What a study has found.

    Attributes:
        standing: how many trials ended how.
        table: a row a trial, in their order; lost ones too.
        best: the best trial's values; those of the defaults where no trial was better.
        best_value: its val_macro_ap.
        defaults_value: that of the defaults; None where their trial is not complete.
        best_is_defaults: whether no trial was better than they.
    """

    standing: Standing
    table: pd.DataFrame
    best: Values
    best_value: float
    defaults_value: float | None
    best_is_defaults: bool

    def metrics(self) -> dict[str, float]:
        """For the study's run."""
        counts = {
            "trials_complete": self.standing.complete,
            "trials_pruned": self.standing.pruned,
            "trials_failed": self.standing.failed,
            "epochs": float(self.table["epochs"].sum()),
            "best_val_macro_ap": self.best_value,
        }
        known = {} if self.defaults_value is None else {"defaults_val_macro_ap": self.defaults_value}
        return {**counts, **known}

    def sentence(self) -> str:
        """The verdict of the study, which is one on val."""
        counts = (
            f"{self.standing.done} trials: {self.standing.complete} complete, {self.standing.pruned} pruned, "
            f"{self.standing.failed} failed"
        )
        if self.best_is_defaults:
            return f"{counts}. None was better than the defaults, with val_macro_ap {self.best_value:.3f}."
        gain = (
            "" if self.defaults_value is None else f", {self.best_value - self.defaults_value:+.3f} over the defaults"
        )
        return (
            f"{counts}. Best val_macro_ap {self.best_value:.3f}{gain}. It was chosen by val, where it therefore looks "
            "better than it is: test tells."
        )


def found_by(store: TrialStore, space: Space) -> Found | None:
    """What a study has found so far; None before a trial is complete."""
    standing = store.standing()
    best = standing.best
    if best is None or best.value is None:
        return None
    trials = sorted([*store.trials(), *store.lost()], key=lambda trial: trial.number)
    # A pruned one has a value, too, in Optuna: of fewer epochs.
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and store.is_defaults(trial)]
    defaults_value = max((float(trial.value or 0.0) for trial in complete), default=None)
    return Found(
        standing=standing,
        table=trials_table(trials, store, space),
        best=store.values(best if defaults_value != best.value else complete[0]),
        best_value=float(best.value),
        defaults_value=defaults_value,
        best_is_defaults=defaults_value == best.value,
    )


def trials_table(trials: Sequence[FrozenTrial], store: TrialStore, space: Space) -> pd.DataFrame:
    """A row a trial: how it ended, its value, its epochs and minutes, its run, and its parameters' values as text."""
    rows = [
        {
            "trial": trial.number,
            "state": _STATES[trial.state],
            "val_macro_ap": _value(trial),
            "epochs": len(trial.intermediate_values),
            "minutes": trial.duration.total_seconds() / 60 if trial.duration else None,
            "defaults": store.is_defaults(trial),
            "run_id": trial.user_attrs.get(RUN_ID, ""),
            "worker": trial.user_attrs.get(WORKER, ""),
            "error": _error(trial),
            **_texts(store.values(trial), space),
        }
        for trial in trials
        if trial.state is not TrialState.WAITING
    ]
    return pd.DataFrame(rows)


def _error(trial: FrozenTrial) -> str:
    """Why it failed, if it did."""
    if is_lost(trial):
        return LOST
    return str(trial.user_attrs.get(ERROR, LEFT_ALONE if trial.state is TrialState.FAIL else ""))


def _value(trial: FrozenTrial) -> float | None:
    """Its value, or the best so far where it was ended early."""
    if trial.state is TrialState.COMPLETE:
        return trial.value
    return max(trial.intermediate_values.values(), default=None)


def _texts(values: Mapping[str, Any], space: Space) -> dict[str, str]:
    return {key: as_text(values[key]) if key in values else "" for key in space.parameters}


def importances(store: TrialStore) -> dict[str, float]:
    """How much of the variance of val_macro_ap each parameter explains, the most first; empty after too few trials.

    By PED-ANOVA (Watanabe et al. 2023), which also takes parameters that only some trials have.
    """
    complete = [trial for trial in store.trials() if trial.state is TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < _FEWEST_FOR_IMPORTANCES:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with database_errors(store.config):
        return dict(optuna.importance.get_param_importances(store.study, evaluator=evaluator))


def config_file(found: Found, name: str, model: str, fixed: Mapping[str, Any], command: str) -> str:
    """The best settings as a file that ``train -P config=`` takes.

    Args:
        found: by the study.
        name: of the study.
        model: that was tuned.
        fixed: keys of conf/train.yaml that all its trials had.
        command: to train with it.
    """
    tree = merge(fixed, nested(found.best))
    head = (
        f"# The best of {found.standing.done} trials of the study '{name}', by val_macro_ap ({found.best_value:.4f}).\n"
        f"#   {command}\n"
    )
    return head + yaml.safe_dump({"model": model, **tree}, sort_keys=False, default_flow_style=None, allow_unicode=True)
