"""``study``: a grid of trainings, compared in pairs, with one verdict that a sceptic can follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from wastelens.config.study import StudyConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import InputError, StoreUnreachable
from wastelens.experiment.train_one import check_weights
from wastelens.preparing.relabel import datasets_of_levels
from wastelens.studies.cell_work import train_cells
from wastelens.studies.cells import Cell, check_factors, plan_cells
from wastelens.studies.claims import Claims
from wastelens.studies.contents import StudyContents, study_contents
from wastelens.studies.plan import describe, log_plans, plans_before, say_plan, study_key
from wastelens.studies.report import log_report, say_report
from wastelens.tracking.patient import PatientTracker
from wastelens.tracking.tracker import Tracker

WAITING = "unlogged"
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Studied:
    """The outcome of a study: its run, and the contents of its report."""

    run_id: str
    contents: StudyContents


def run(config: StudyConfig, tracker: Tracker) -> Studied:
    """Train every cell of the grid that is not trained yet, compare, and report.

    Raises:
        InputError: an unknown dataset, an impossible grid, or a study of this name with another preparation of the
            dataset, other factors or other settings.
    """
    check_factors(config.parsed_factors)
    dataset = open_dataset(config.dataset, config.data_folder)
    datasets = datasets_of_levels(config.parsed_factors, dataset, config.data_folder)
    cells = plan_cells(config, datasets)
    check_weights(
        ((cell.place.model, cell.config) for cell in cells),
        'In a study: set="train.weights=none train.freeze=0", or leave {0} out: models=base,autoencoder,dbn',
    )
    before = plans_before(config, tracker, dataset)
    say_plan(config, dataset, cells)
    patient = PatientTracker(tracker, config.data_folder / WAITING)
    key = study_key(config, dataset)
    with patient.giving_up_soon(), patient.start_shared(key, key) as shared:
        patient.log_waiting()
        describe(shared, config, dataset, cells)
        log_plans(shared, [*before, config])
        ledger = patient.ledger(f"claims of {dataset.name} {dataset.digest}")
        claims = Claims(patient, ledger, [one.digest for one in datasets.values()], config.worker_timeout_s)
        with claims.alive():
            standing = train_cells(cells, claims, patient, shared.id)
        earlier = [cell for plan in before for cell in _planned(plan, datasets)]
        contents = _patiently(patient, lambda: study_contents(config, dataset, cells, earlier, standing, claims))
        _patiently(patient, lambda: log_report(shared, contents))
    say_report(contents, shared.id, tracker)
    return Studied(shared.id, contents)


def _planned(plan: StudyConfig, datasets: Mapping[str, PreparedDataset]) -> list[Cell]:
    """Return the cells of an earlier plan; none where it can no longer be made, as its model's file is gone."""
    try:
        return plan_cells(plan, datasets)
    except InputError:
        return []


def _patiently(patient: PatientTracker, work: Callable[[], Answer]) -> Answer:
    """Do work that needs the store; where the store is unreachable, wait until it is back and start again."""
    while True:
        try:
            return work()
        except StoreUnreachable:
            patient.wait_until_reachable()
