"""The report of ``tune``: the plan, the table of trials, figures, and the best settings as a config file."""

from __future__ import annotations

import contextlib
import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from wastelens.config.base import flatten
from wastelens.config.tune import COMPLETE, TuneConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError, StoreUnreachable
from wastelens.figures import tuning as figures
from wastelens.system.console import next_command, say, table, warn
from wastelens.tracking.tracker import Run, StoredRun, Tracker, to_json
from wastelens.tuning.database import holds_password
from wastelens.tuning.identity import search_name
from wastelens.tuning.results import SearchResults, config_file, importances
from wastelens.tuning.space import Space
from wastelens.tuning.trials import TrialStore

BEST_FILE = "best.yaml"
_SHOWN, _COLUMNS = 5, 6


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
    name = search_name(config)
    file = best_file(config)
    text = config_file(found, name, config.model, config.train, train_command(config))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    shared.log_text(text, BEST_FILE)
    shared.log_table(found.table, "trials.csv")
    shared.log_metrics(found.metrics())
    shared.set_tags({"verdict": found.sentence()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # repeated for every parameter: few trials are inaccurate
        known = importances(store)
    drawn = {
        "optimisation_history": figures.optimisation_history(found.table),
        "slices": figures.slices(found.table, space.parameters),
        "parallel_coordinates": figures.parallel_coordinates(found.table, space.parameters),
        "learning_rates": figures.learning_rates(_curves(found, tracker)),
        **({"parameter_importances": figures.parameter_importances(known)} if known else {}),
    }
    for title, figure in drawn.items():
        shared.log_figure(figure, f"figures/{title}.png")


def _curves(found: SearchResults, tracker: Tracker) -> Mapping[str, list[dict[str, float]]]:
    """Return the learning rates of the best and worst complete trials and the defaults; these can coincide."""
    ordered = _best_first(found)
    chosen = {"best": ordered.head(1), "worst": ordered.tail(1), "defaults": ordered[ordered["defaults"]]}
    named: dict[int, list[str]] = {}
    for what, rows in chosen.items():
        for number in rows.index:
            named.setdefault(number, []).append(what)
    curves = {}
    for number, names in named.items():
        row = ordered.loc[number]
        name = f"{', '.join(names)}: trial {row['trial']}, val_macro_ap {row['val_macro_ap']:.3f}"
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


def _short(text: str) -> str:
    """Return a number rounded to three digits; the file has all of them."""
    with contextlib.suppress(ValueError):
        return f"{float(text):.3g}" if "." in text or "e" in text else text
    return text


def say_report(
    run_id: str, found: SearchResults, retrained: StoredRun | None, config: TuneConfig, tracker: Tracker
) -> None:
    """Print the closing table, the verdict, and the next command."""
    best = _best_first(found).head(_SHOWN)
    varied = list(found.best)[:_COLUMNS]
    rows = [
        [f"trial {row['trial']}{' (defaults)' if row['defaults'] else ''}", f"{row['val_macro_ap']:.3f}"]
        + [_short(row[key]) for key in varied]
        for _, row in best.iterrows()
    ]
    table("The best trials, by val_macro_ap", ["trial", "val_macro_ap", *varied], rows)
    say(found.sentence(), "green" if not found.best_is_defaults else "yellow")
    if retrained is not None and "test_macro_ap" in retrained.metrics:
        metrics = retrained.metrics
        say(
            f"The best settings, retrained, on test: macro AP {metrics['test_macro_ap']:.3f} "
            f"[{metrics['test_macro_ap_low']:.3f}, {metrics['test_macro_ap_high']:.3f}], run {retrained.run.id}."
        )
    say(f"All trials, figures and {BEST_FILE} are in run {run_id}. See it: {tracker.finished_hint()}")
    say(f"Train with the best settings: {train_command(config)}")


def best_file(config: TuneConfig) -> Path:
    """Return the path of the best settings on this machine."""
    name = search_name(config)
    plain = re.sub(r"[^\w.-]+", "-", name)
    if plain.replace("-", " ") != name:  # another name may give the same file name
        plain += f"-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    return config.data_folder / "tuned" / f"{plain}.yaml"


def train_command(config: TuneConfig) -> str:
    """Return the command that trains with the best settings."""
    return next_command("train", {"dataset": config.dataset, "config": best_file(config)}, config.data_folder)
