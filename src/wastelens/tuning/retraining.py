"""The best settings of a search, trained once more and evaluated on test."""

from __future__ import annotations

from pathlib import Path

from wastelens.config.tune import TuneConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.studies.cell_work import train_cells
from wastelens.studies.cells import cell_of
from wastelens.studies.claims import Claims
from wastelens.studies.results import Place
from wastelens.system.console import say, warn
from wastelens.tracking.patient import PatientTracker
from wastelens.tracking.tracker import Run, StoredRun, Tracker
from wastelens.tuning.results import SearchResults
from wastelens.tuning.space import Space
from wastelens.tuning.trials import search_name

WAITING = "unlogged"
RETRAINED_METRICS = ("test_macro_ap", "test_macro_ap_low", "test_macro_ap_high", "gain_over_controls")


def retrain_best(
    config: TuneConfig, space: Space, found: SearchResults, dataset: PreparedDataset, tracker: Tracker, shared: Run
) -> StoredRun | None:
    """Train the best settings once more and evaluate them on test, unless that is done; only one worker does it.

    Returns:
        None where the training failed.
    """
    best = space.settings(found.best)
    place = Place(Path(config.model).stem, {"tuned": search_name(config)}, best.seed, best.fold)
    cell = cell_of(place, best, dataset)
    patient = PatientTracker(tracker, config.data_folder / WAITING)
    ledger = patient.ledger(f"claims of {dataset.name} {dataset.digest}")
    claims = Claims(patient, ledger, [dataset.digest], config.worker_timeout_s)
    say("Retraining the best settings, to evaluate them on test:")
    with claims.alive():
        standing = train_cells([cell], claims, patient, shared.id, telling=False)
    done = standing.done.get(cell.key)
    if done is None:
        warn("The best settings could not be retrained: see the run above.")
        return None
    shared.set_tags({"retrained_run": done.run.id})
    shared.log_metrics({name: done.metrics[name] for name in RETRAINED_METRICS if name in done.metrics})
    return done
