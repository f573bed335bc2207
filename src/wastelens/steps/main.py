"""``main``: the whole job under one parent run, with a closing table of the results."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pandas as pd

from wastelens.config.cluster import ClusterConfig
from wastelens.config.explain import ExplainConfig
from wastelens.config.main import MainConfig
from wastelens.config.train import TrainConfig
from wastelens.errors import ConfigError
from wastelens.experiment.finished_runs import BEST_BY
from wastelens.experiment.train_one import Trained, check_weights
from wastelens.steps import cluster, explain, prepare, train
from wastelens.system.console import say, table, warn
from wastelens.tracking.tracker import Run, Tracker


@dataclass(frozen=True)
class Compared:
    """One row of the closing table."""

    trained: Trained
    minutes: float


def run(config: MainConfig, tracker: Tracker) -> list[Compared]:
    """Prepare; pretrain and train every model; compare them; cluster an encoder's features; explain the best model."""
    prepare.raw_data(config.prepare)
    check_weights(
        config.models.items(),
        'In the main job: set="models.{0}.weights=none", or leave the model out: set="models.{0}=null"',
    )
    with tracker.start("main", system_metrics=False) as tracked:
        tracked.set_tags({"step": "main"})
        tracked.log_parameters({"dataset": config.prepare.dataset, "seed": config.train.seed})
        prepared = prepare.run(config.prepare, tracker)
        tracked.set_tags({"dataset": prepared.dataset.name, "dataset_digest": prepared.dataset.digest})
        cluster.check(config.cluster, tracker, prepared.dataset)
        explain.check(config.explain, tracker, prepared.dataset, config.train.fold)
        compared = [_train(one, tracker) for one in config.models.values()]
        tracked.log_table(comparison_frame(compared), "comparison.csv")
        _log_best(tracked, compared)
        clustered = cluster.run(_clustering(config, compared), tracker)
        explained = _explain(_explaining(config, compared), tracker)
    _report(compared, tracker)
    say(clustered.sentence)
    if explained:
        for sentence in explained.summary.sentences():
            say(sentence)
        say(f"Where it looks: {explain.ARTIFACTS}/index.html among the artifacts of run {explained.run_id}.")
    say(f"See the runs: {tracker.finished_hint()}", "bold")
    return compared


def _train(config: TrainConfig, tracker: Tracker) -> Compared:
    started = time.monotonic()
    trained = train.run(config, tracker)
    return Compared(trained, (time.monotonic() - started) / 60)


def _clustering(config: MainConfig, compared: list[Compared]) -> ClusterConfig:
    """Return settings that cluster the features of the first pretrained encoder; without one, only the controls."""
    encoders = [one.trained.pretrained_run for one in compared if one.trained.pretrained_run]
    run_id = config.cluster.run_id or next(iter(encoders), "")
    return config.cluster.model_copy(update={"run_id": run_id})


def comparison_frame(compared: list[Compared]) -> pd.DataFrame:
    """Return a row per model run: macro AP with its interval, macro F1, floors, the strongest control, minutes."""
    rows = []
    for one in compared:
        metrics = one.trained.verdict.metrics()
        rows.append(
            {
                "run": one.trained.name,
                "run_id": one.trained.run_id,
                "test_macro_ap": metrics["test_macro_ap"],
                "test_macro_ap_low": metrics["test_macro_ap_low"],
                "test_macro_ap_high": metrics["test_macro_ap_high"],
                "test_macro_f1": metrics["test_macro_f1"],
                "floor_macro_ap": metrics["floor_macro_ap"],
                "floor_macro_f1": metrics["floor_macro_f1"],
                "strongest_control": one.trained.verdict.strongest_control,
                "strongest_control_macro_ap": one.trained.verdict.strongest_control_macro_ap,
                "collapsed": one.trained.verdict.collapse.collapsed,
                "above_controls": one.trained.verdict.above_controls,
                "minutes": one.minutes,
            }
        )
    return pd.DataFrame(rows)


def _explaining(config: MainConfig, compared: list[Compared]) -> ExplainConfig:
    run_id = config.explain.run_id or _best(compared).trained.run_id
    return config.explain.model_copy(update={"run_id": run_id})


def _explain(config: ExplainConfig, tracker: Tracker) -> explain.Explanations | None:
    """Explain the best model if the methods fit it: a misfit is no reason to lose the whole job."""
    try:
        return explain.run(config, tracker)
    except ConfigError as error:
        warn(f"Run {config.run_id} is not explained. {error}")
        return None


def _best(compared: list[Compared]) -> Compared:
    """Return the model that is best on val; a collapsed one only if all are."""

    def merit(one: Compared) -> tuple[bool, float]:
        verdict = one.trained.verdict
        return not verdict.collapse.collapsed, verdict.metrics()[BEST_BY]

    return max(compared, key=merit)


def _log_best(tracked: Run, compared: list[Compared]) -> None:
    """Give the parent the numbers of the run that is best on val, so that it sorts beside its children."""
    best = _best(compared)
    tracked.log_metrics(best.trained.verdict.metrics())
    tracked.set_tags({"best_run": best.trained.run_id, **best.trained.verdict.tags()})


def _report(compared: list[Compared], tracker: Tracker) -> None:
    frame = comparison_frame(compared)
    rows = [
        [
            str(row.run),
            f"{row.test_macro_ap:.3f} [{row.test_macro_ap_low:.3f}, {row.test_macro_ap_high:.3f}]",
            f"{row.floor_macro_ap:.3f}",
            f"{row.strongest_control_macro_ap:.3f} ({row.strongest_control})",
            f"{row.test_macro_f1:.3f}",
            f"{row.floor_macro_f1:.3f}",
            f"{row.minutes:.1f}",
        ]
        for row in frame.itertuples(index=False)
    ]
    columns = ["model", "test macro AP [95 %]", "floor", "best control", "macro F1", "floor", "minutes"]
    table("Results", columns, rows)
    for one in compared:
        say(
            f"{one.trained.name}: {one.trained.verdict.sentence}",
            "green" if one.trained.verdict.above_controls else "yellow",
        )
