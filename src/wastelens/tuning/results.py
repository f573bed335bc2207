"""Results of a search: a table of its trials, the best settings as a config file, and its verdict."""

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
from wastelens.config.tune import FAILED
from wastelens.tuning.database import database_errors
from wastelens.tuning.space import Space, Values, nested
from wastelens.tuning.trials import ERROR, RUN_ID, WORKER, SearchProgress, TrialStore, is_lost

LOST = "it ended with its worker and is repeated"
LEFT_ALONE = "its workers died repeatedly, so it is not repeated again"
_FEWEST_FOR_IMPORTANCES = 4


@dataclass(frozen=True)
class SearchResults:
    """The results of a search.

    Attributes:
        progress: the number of trials by outcome.
        table: a row per trial, in order, including lost ones.
        best: the best trial's values; the defaults where no trial was better.
        best_value: its val_macro_ap.
        defaults_value: val_macro_ap of the defaults; None where their trial is not complete.
        best_is_defaults: whether no trial was better than the defaults.
    """

    progress: SearchProgress
    table: pd.DataFrame
    best: Values
    best_value: float
    defaults_value: float | None
    best_is_defaults: bool

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the search's run."""
        counts = {
            "trials_complete": self.progress.complete,
            "trials_pruned": self.progress.pruned,
            "trials_failed": self.progress.failed,
            "epochs": float(self.table["epochs"].sum()),
            "best_val_macro_ap": self.best_value,
        }
        known = {} if self.defaults_value is None else {"defaults_val_macro_ap": self.defaults_value}
        return {**counts, **known}

    def sentence(self) -> str:
        """Return the verdict of the search, which is based on val."""
        counts = (
            f"{self.progress.done} trials: {self.progress.complete} complete, {self.progress.pruned} pruned, "
            f"{self.progress.failed} failed"
        )
        if self.best_is_defaults:
            return f"{counts}. None was better than the defaults, with val_macro_ap {self.best_value:.3f}."
        gain = (
            "" if self.defaults_value is None else f", {self.best_value - self.defaults_value:+.3f} over the defaults"
        )
        return (
            f"{counts}. Best val_macro_ap {self.best_value:.3f}{gain}. It was chosen on val, so it looks better there "
            "than it is: test decides."
        )


def search_results(store: TrialStore, space: Space) -> SearchResults | None:
    """Return the results so far; None before a trial is complete."""
    progress = store.progress()
    best = progress.best
    if best is None or best.value is None:
        return None
    trials = sorted([*store.trials(), *store.lost()], key=lambda trial: trial.number)
    # Optuna gives pruned trials a value too, of fewer epochs.
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and store.is_defaults(trial)]
    defaults_value = max((float(trial.value or 0.0) for trial in complete), default=None)
    return SearchResults(
        progress=progress,
        table=trials_table(trials, store, space),
        best=store.values(best if defaults_value != best.value else complete[0]),
        best_value=float(best.value),
        defaults_value=defaults_value,
        best_is_defaults=defaults_value == best.value,
    )


def trials_table(trials: Sequence[FrozenTrial], store: TrialStore, space: Space) -> pd.DataFrame:
    """Return a row per trial: state, value, epochs, minutes, run, and the values of its parameters as text."""
    rows = [
        {
            "trial": trial.number,
            "state": FAILED if trial.state is TrialState.FAIL else trial.state.name,
            "val_macro_ap": _value(trial),
            "epochs": len(trial.intermediate_values),
            "minutes": trial.duration.total_seconds() / 60 if trial.duration else None,
            "defaults": store.is_defaults(trial),
            "run_id": trial.user_attrs.get(RUN_ID, ""),
            "worker": trial.user_attrs.get(WORKER, ""),
            "error": _error(trial),
            **{key: as_text(values[key]) if key in values else "" for key in space.parameters},
        }
        for trial, values in ((trial, store.values(trial)) for trial in trials)
        if trial.state is not TrialState.WAITING
    ]
    return pd.DataFrame(rows)


def _error(trial: FrozenTrial) -> str:
    """Return why a trial failed, if it did."""
    default = LEFT_ALONE if trial.state is TrialState.FAIL else ""
    return LOST if is_lost(trial) else str(trial.user_attrs.get(ERROR, default))


def _value(trial: FrozenTrial) -> float | None:
    """Return the value of a trial, or its best so far where it was ended early."""
    if trial.state is TrialState.COMPLETE:
        return trial.value
    return max(trial.intermediate_values.values(), default=None)


def importances(store: TrialStore) -> dict[str, float]:
    """Return the share of the variance of val_macro_ap that each parameter explains, largest first; {} for few trials.

    Computed by PED-ANOVA (Watanabe et al. 2023), which supports parameters that only some trials have.
    """
    complete = [trial for trial in store.trials() if trial.state is TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < _FEWEST_FOR_IMPORTANCES:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with database_errors(store.config):
        return dict(optuna.importance.get_param_importances(store.optuna_study, evaluator=evaluator))


def config_file(found: SearchResults, name: str, model: str, fixed: Mapping[str, Any], command: str) -> str:
    """Return the best settings as a file for ``train -P config=``; fixed: the settings that all its trials had."""
    tree = merge(fixed, nested(found.best))
    head = (
        f"# Best of {found.progress.done} trials of the search '{name}', by val_macro_ap ({found.best_value:.4f}).\n"
        f"#   {command}\n"
    )
    return head + yaml.safe_dump({"model": model, **tree}, sort_keys=False, default_flow_style=None, allow_unicode=True)


def why_none(store: TrialStore) -> str:
    """Say why no trial is complete."""
    errors = [trial.user_attrs[ERROR] for trial in store.trials() if ERROR in trial.user_attrs]
    return f"The last one failed: {errors[-1]}" if errors else "Give it more time (timeout=)."
