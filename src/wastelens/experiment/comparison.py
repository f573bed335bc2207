"""The results of several models on one dataset: a table, and the best of them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from wastelens.evaluation.verdict import Verdict
from wastelens.experiment.finished_runs import BEST_BY, without_dataset
from wastelens.experiment.train_one import Trained
from wastelens.system.console import say, table, warn


@dataclass(frozen=True)
class Compared:
    """One row of the table."""

    trained: Trained
    minutes: float

    @property
    def short_name(self) -> str:
        """The run's name without the dataset, which all rows share."""
        return without_dataset(self.trained.name)


def comparison_frame(compared: list[Compared]) -> pd.DataFrame:
    """Return a row per model run: macro AP with its interval, macro F1, floors, the strongest control, minutes."""
    rows = []
    for one in compared:
        verdict = one.trained.verdict
        metrics = verdict.metrics()
        scores = ("test/macro_ap", "test/macro_ap_low", "test/macro_ap_high", "test/macro_f1")
        rows.append(
            {
                "run": one.trained.name,
                "run_id": one.trained.run_id,
                **{name.replace("/", "_"): metrics[name] for name in (*scores, "floor/macro_ap", "floor/macro_f1")},
                "strongest_control": verdict.strongest_control,
                "strongest_control_macro_ap": verdict.strongest_control_macro_ap,
                "collapsed": verdict.collapse.collapsed,
                "above_controls": verdict.above_controls,
                "verdict": verdict.word,
                "minutes": one.minutes,
            }
        )
    return pd.DataFrame(rows)


def best_of(compared: list[Compared]) -> Compared:
    """Return the model that is best on val; a collapsed one only if all are."""

    def merit(one: Compared) -> tuple[bool, float]:
        verdict = one.trained.verdict
        return not verdict.collapse.collapsed, verdict.metrics()[BEST_BY]

    return max(compared, key=merit)


def report(compared: list[Compared]) -> None:
    """Print the table, and each model's verdict."""
    best = best_of(compared).trained.run_id
    names = [one.short_name for one in compared]
    rows = [
        [
            f"{'* ' if row.run_id == best else ''}{name}",
            f"{row.test_macro_ap:.3f} [{row.test_macro_ap_low:.3f}, {row.test_macro_ap_high:.3f}]",
            f"{row.floor_macro_ap:.3f}",
            f"{row.strongest_control_macro_ap:.3f} ({row.strongest_control})",
            f"{row.test_macro_f1:.3f}",
            f"{row.floor_macro_f1:.3f}",
            f"{row.minutes:.1f}",
        ]
        for row, name in zip(comparison_frame(compared).itertuples(index=False), names, strict=True)
    ]
    columns = ["model", "test macro AP [95 %]", "floor", "best control", "macro F1", "its floor", "minutes"]
    table("Results (*: the best on val)", columns, rows)
    for one in compared:
        verdict = one.trained.verdict
        say(f"{one.short_name}: {verdict.sentence}", "green" if verdict.above_controls else "yellow")
        tell_of_start(verdict)


def tell_of_start(verdict: Verdict) -> None:
    """Print what training added to what the network started from, as a warning where it made it worse."""
    if verdict.start is not None:
        (warn if verdict.start.network_is_worse else say)(verdict.start.sentence)
