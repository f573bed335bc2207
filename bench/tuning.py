"""``python -m bench.tuning``: epochs saved by pruning at equal trials, and cost of storing trials, on the sample."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from wastelens.cli import prepare_environment

SEEDS, TRIALS, EPOCHS = 3, 12, 27
SETTINGS = f"train.fit.epochs={EPOCHS} train.fit.patience_epochs={EPOCHS} train.bootstrap_resamples=100"
IDLE_TRIALS, IDLE_EPOCHS = 20, 30  # a trial of 30 s, at a second an epoch


def main() -> None:
    """Measure both in a temporary folder, and print the tables of results.md."""
    prepare_environment()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _prepare()
        print("| seed | epochs, hyperband | epochs, none | ratio | best val macro AP, hyperband | none | difference |")
        print("|---|---|---|---|---|---|---|")
        for seed in range(SEEDS):
            pruned, whole = (_tuned(seed, pruner) for pruner in ("hyperband", "none"))
            epochs = f"{pruned[0]} | {whole[0]} | {pruned[0] / whole[0]:.2f}"
            best = f"{pruned[1]:.3f} | {whole[1]:.3f} | {pruned[1] - whole[1]:+.3f}"
            print(f"| {seed} | {epochs} | {best} |", flush=True)
        cost_s = _cost_per_trial_s()
        print(f"\nStorage and tracking: {cost_s:.2f} s per trial of {IDLE_EPOCHS} epochs, {cost_s / 30:.1%} of 30 s.")


def _prepare() -> None:
    from tests.memory_tracking import MemoryTracker

    from wastelens.config.files import load_config
    from wastelens.steps import prepare

    prepare.run(load_config("prepare", parameters={"dataset": "sample", "image_side_px": "64"}), MemoryTracker())


def _tuned(seed: int, pruner: str, trials: int = TRIALS, settings: str = SETTINGS) -> tuple[int, float]:
    """Return the epochs of all trials together, and the best val macro AP."""
    from wastelens.config.files import load_config
    from wastelens.steps import tune
    from wastelens.tracking.mlflow_tracker import MlflowTracker

    asked = {"dataset": "sample", "trials": str(trials), "pruner": pruner, "retrain": "false", "seed": str(seed)}
    config: Any = load_config(
        "tune", parameters={**asked, "study": f"{pruner} {seed} {trials}"}, settings=f"{settings} train.seed={seed}"
    )
    found = tune.run(config, MlflowTracker()).found
    return int(found.table["epochs"].sum()), found.best_value


def _cost_per_trial_s() -> float:
    """Return the seconds per trial without training: the cost of its storage, run and sampler."""
    from wastelens.experiment import fitting
    from wastelens.training.checkpoint import Progress
    from wastelens.tuning.searching import Search

    def idle(self: Any, checkpoint: object) -> tuple[None, Progress]:
        for epoch in range(1, IDLE_EPOCHS + 1):
            metrics = {"loss": 0.5, "val/loss": 0.5, "val/macro_ap": epoch / 100, "learning_rate": 0.001}
            self.tracked.log_metrics(metrics, step=epoch)
            self.after_epoch(epoch, epoch / 100)
        return None, Progress(epochs_done=IDLE_EPOCHS, best_epoch=IDLE_EPOCHS, best_value=IDLE_EPOCHS / 100)

    with (
        mock.patch.object(fitting.Fitting, "run", idle),
        mock.patch("wastelens.tuning.trial_training.ready_to_train", _no_network),
        mock.patch("wastelens.tuning.trial_training.forget_networks"),
    ):
        _tuned(0, "none", trials=1)  # libraries and databases are opened once per search
        taken: list[float] = []
        with mock.patch.object(Search, "run", _timed(Search.run, taken)):  # its report is drawn once
            _tuned(0, "hyperband", trials=IDLE_TRIALS)
        return sum(taken) / IDLE_TRIALS


def _timed(function: Callable[..., None], taken: list[float]) -> Callable[..., None]:
    def timed(*arguments: Any) -> None:
        started = time.perf_counter()
        function(*arguments)
        taken.append(time.perf_counter() - started)

    return timed


def _no_network(config: Any, *_: object) -> Any:
    from wastelens.experiment.fitting import Start

    return Start(config, None, {}, None)


if __name__ == "__main__":
    main()
