"""Draw what runs reach by the minute: val macro AP after each epoch, against the time since the run began.

    python -m bench.quality FILE.png NAME=RUN_ID NAME=RUN_ID …

A run of another store than the one that MLFLOW_TRACKING_URI names is given as RUN_ID@STORE.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
from matplotlib.figure import Figure

MS_PER_MINUTE = 60_000


def main(file: Path, named: dict[str, str]) -> None:
    """Draw the runs, and print their last points."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for name, run_id in named.items():
        minutes, values = _curve(run_id)
        (line,) = axes.plot(minutes, values, marker="o", markersize=7 if len(values) == 1 else 4, linewidth=1.5)
        axes.annotate(name, (minutes[-1], values[-1]), (6, 4), textcoords="offset points", color=line.get_color())
        print(f"{name}: {values[-1]:.3f} after {minutes[-1]:.1f} minutes")
    axes.margins(y=0.12)
    axes.set_xlim(left=0, right=1.25 * axes.get_xlim()[1])
    axes.set_xlabel("minutes since the training began, on two cores")
    axes.set_ylabel("val macro AP")
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def _curve(run_id: str) -> tuple[list[float], list[float]]:
    """Return the minutes and values of each epoch; a later value of the same epoch is of the weights that were kept."""
    run_id, _, store = run_id.partition("@")
    client = mlflow.MlflowClient(store or None)
    began = client.get_run(run_id).info.start_time
    first = {one.step: one for one in reversed(client.get_metric_history(run_id, "val/macro_ap"))}
    epochs = sorted(first.values(), key=lambda one: one.step)
    return [(one.timestamp - began) / MS_PER_MINUTE for one in epochs], [one.value for one in epochs]


if __name__ == "__main__":
    main(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]))
