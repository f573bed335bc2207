"""Results of a search: its table of trials, best settings, verdict and figures, logged in its run and printed."""

from __future__ import annotations

import contextlib
import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from wastelens.config.base import as_text, flatten
from wastelens.config.checking import merge
from wastelens.config.tune import COMPLETE, FAILED, TuneConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError, StoreUnreachable
from wastelens.figures import tuning as figures
from wastelens.system.console import next_command, say, table, warn
from wastelens.tracking.tracker import Run, StoredRun, Tracker, run_note, to_json
from wastelens.tuning.database import database_errors, holds_password
from wastelens.tuning.space import Space, Values, nested
from wastelens.tuning.trials import ERROR, RUN_ID, WORKER, SearchProgress, TrialStore, is_lost, search_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOST = "it ended with its worker and is repeated"
LEFT_ALONE = "its workers died repeatedly, so it is not repeated again"
_FEWEST_FOR_IMPORTANCES = 4
BEST_FILE = "best.yaml"
_SHOWN, _COLUMNS = 5, 6


@dataclass(frozen=True)
class SearchResults:
    """The results of a search.

    Attributes:
        progress: the number of trials by outcome.
        table: a row per trial, in order, including lost ones.
        best: the best trial's values; the defaults where no trial was better.
        best_value: its val macro AP.
        defaults_value: val macro AP of the defaults; None where their trial is not complete.
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
            # A trial that continues another one's run has its epochs, too.
            "epochs": float(self.table.groupby("run_id")["epochs"].max().sum()),
            "val/macro_ap": self.best_value,
        }
        known = {} if self.defaults_value is None else {"val/defaults_macro_ap": self.defaults_value}
        return {**counts, **known}

    def sentence(self) -> str:
        """Return the verdict of the search, which is based on val."""
        counts = (
            f"{self.progress.done} trials: {self.progress.complete} complete, {self.progress.pruned} pruned, "
            f"{self.progress.failed} failed"
        )
        if self.best_is_defaults:
            return f"{counts}. None was better than the defaults, with val macro AP {self.best_value:.3f}."
        gain = (
            "" if self.defaults_value is None else f", {self.best_value - self.defaults_value:+.3f} over the defaults"
        )
        return (
            f"{counts}. Best val macro AP {self.best_value:.3f}{gain}. It was chosen on val, so it looks better there "
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
        table=_trials_table(trials, store, space),
        best=store.values(best if defaults_value != best.value else complete[0]),
        best_value=float(best.value),
        defaults_value=defaults_value,
        best_is_defaults=defaults_value == best.value,
    )


def _trials_table(trials: Sequence[FrozenTrial], store: TrialStore, space: Space) -> pd.DataFrame:
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
    """Return the share of the variance of val macro AP that each parameter explains, largest first; {} for few trials.

    Computed by PED-ANOVA (Watanabe et al. 2023), which supports parameters that only some trials have.
    """
    complete = [trial for trial in store.trials() if trial.state is TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < _FEWEST_FOR_IMPORTANCES:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with database_errors(store.config):
        return dict(optuna.importance.get_param_importances(store.optuna_study, evaluator=evaluator))


def _config_file(found: SearchResults, config: TuneConfig) -> str:
    """Return the best settings, and those that all trials had, as a file for ``train -P config=``."""
    tree = {"model": config.model, **merge(config.train, nested(found.best))}
    head = (
        f"# Best of {found.progress.done} trials of the search '{search_name(config)}', by val macro AP "
        f"({found.best_value:.4f}).\n#   {_train_command(config)}\n"
    )
    return head + yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, allow_unicode=True)


def why_none(store: TrialStore) -> str:
    """Say why no trial is complete."""
    errors = [trial.user_attrs[ERROR] for trial in store.trials() if ERROR in trial.user_attrs]
    return f"The last one failed: {errors[-1]}" if errors else "Give it more time (timeout=)."


def say_plan(config: TuneConfig, space: Space, store: TrialStore) -> None:
    """Announce the search, and warn of a password in the parameters and of a grid smaller than requested."""
    done = store.progress().done
    before = f" ({done} of them done before)" if done else ""
    if done > store.asked:
        before = f" requested ({done} are done already, so none is started)"
    say(
        f"Search '{search_name(config)}': {store.asked} trials{before} of {len(space.parameters)} parameters of "
        f"{config.model}, sampler {config.sampler}, pruner {config.pruner}, "
        f"{space.defaults.fit.epochs} epochs at most each. The first tries the defaults."
    )
    if holds_password(config):
        warn(
            "The parameter 'storage' contains a password, and mlflow run shows parameters in its log and its run. "
            "Remove the password and set PGPASSWORD instead."
        )
    if store.asked < config.trials:
        warn(f"The grid has {store.asked} combinations; there will be fewer than {config.trials} trials.")


def log_settings(shared: Run, config: TuneConfig, dataset: PreparedDataset, space: Space) -> None:
    """Log the settings of the search; if it is resumed, the tags hold the latest."""
    shared.log_parameters(
        {
            "dataset": config.dataset,
            "model": config.model,
            "sampler": config.sampler,
            "pruner": config.pruner,
            "seed": config.seed,
            **{f"train.{key}": value for key, value in flatten(config.train).items()},
        }
    )
    shared.set_tags(
        {
            "step": "tune",
            "study_name": search_name(config),
            "model": Path(config.model).stem,
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "trials": config.trials,
        }
    )
    shared.log_text(to_json(config.space), "space.json")


def log_report(
    shared: Run, found: SearchResults, store: TrialStore, space: Space, config: TuneConfig, tracker: Tracker
) -> None:
    """Log the results of a search in its run, and write the best settings to a file."""
    file = best_file(config)
    text = _config_file(found, config)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    shared.log_text(text, BEST_FILE)
    shared.log_table(found.table, "trials.csv")
    shared.log_metrics(found.metrics())
    several = len(found.table) > 1  # of one trial there is nothing to see
    pictures = ["figures/optimisation_history.png", "figures/slices.png"] if several else []
    shared.set_tags({"verdict": found.sentence(), **run_note(shared.id, f"**{found.sentence()}**", pictures=pictures)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # repeated for every parameter: few trials are inaccurate
        known = importances(store)
    drawn = {
        **(_of_trials(found.table, space) if several else {}),
        "learning_rates": figures.learning_rates(_curves(found, tracker)),
        **({"parameter_importances": figures.parameter_importances(known)} if known else {}),
    }
    for title, figure in drawn.items():
        shared.log_figure(figure, f"figures/{title}.png", found.sentence().split(". ")[0])


def _of_trials(table: pd.DataFrame, space: Space) -> dict[str, Figure]:
    return {
        "optimisation_history": figures.optimisation_history(table),
        "slices": figures.slices(table, space.parameters),
        "parallel_coordinates": figures.parallel_coordinates(table, space.parameters),
    }


def _curves(found: SearchResults, tracker: Tracker) -> Mapping[str, list[dict[str, float]]]:
    """Return the learning rates of the best and worst complete trials and the defaults; these can coincide."""
    ordered = _best_first(found)
    chosen = {"best": ordered.head(1), "worst": ordered.tail(1), "defaults": ordered[ordered["defaults"]]}
    curves = {}
    for number in dict.fromkeys(number for rows in chosen.values() for number in rows.index):
        row, names = ordered.loc[number], [what for what, rows in chosen.items() if number in rows.index]
        name = f"{', '.join(names)}: trial {row['trial']}, val macro AP {row['val_macro_ap']:.3f}"
        try:
            curves[name] = tracker.stored(str(row["run_id"])).run.metric_history(["learning_rate"])
        except StoreUnreachable:
            raise
        except RunError:  # somebody deleted it
            continue
    return curves


def _best_first(found: SearchResults) -> pd.DataFrame:
    """Return the complete trials, best first; among equals the defaults first, then the earlier."""
    complete = found.table[found.table["state"] == COMPLETE]
    return complete.sort_values(["val_macro_ap", "defaults", "trial"], ascending=[False, False, True])


def say_report(
    run_id: str, found: SearchResults, retrained: StoredRun | None, config: TuneConfig, tracker: Tracker
) -> None:
    """Print the closing table, the verdict, and the next command."""
    best = _best_first(found).head(_SHOWN)
    varied = list(found.best)[:_COLUMNS]
    rows = [
        [f"trial {row['trial']}{' (defaults)' if row['defaults'] else ''}", f"{row['val_macro_ap']:.3f}"]
        + [_rounded(row[key]) for key in varied]
        for _, row in best.iterrows()
    ]
    table("The best trials, by val macro AP", ["trial", "val macro AP", *varied], rows)
    say(found.sentence(), "green" if not found.best_is_defaults else "yellow")
    if retrained is not None and "test/macro_ap" in retrained.metrics:
        metrics = retrained.metrics
        say(
            f"The best settings, retrained, on test: macro AP {metrics['test/macro_ap']:.3f} "
            f"[{metrics['test/macro_ap_low']:.3f}, {metrics['test/macro_ap_high']:.3f}], run {retrained.run.id}."
        )
    say(f"All trials, figures and {BEST_FILE} are in run {run_id}. See it: {tracker.finished_hint(run_id)}")
    say(f"Train with the best settings: {_train_command(config)}")


def _rounded(text: str) -> str:
    """Return a number rounded to three digits; the file has all of them."""
    with contextlib.suppress(ValueError):
        return f"{float(text):.3g}" if "." in text or "e" in text else text
    return text


def best_file(config: TuneConfig) -> Path:
    """Return the path of the best settings on this machine."""
    name = search_name(config)
    plain = re.sub(r"[^\w.-]+", "-", name)
    if plain.replace("-", " ") != name:  # another name may give the same file name
        plain += f"-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return config.data_folder / "tuned" / f"{plain}.yaml"


def _train_command(config: TuneConfig) -> str:
    """Return the command that trains with the best settings."""
    return next_command("train", {"dataset": config.dataset, "config": best_file(config)}, config.data_folder)
