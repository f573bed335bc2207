"""``study``: a grid of trainings, compared in pairs, with one verdict that a sceptic can follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wastelens.config.engine import is_elsewhere
from wastelens.config.study import StudyConfig
from wastelens.data.prepared.copies import place_of
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.engine.engine import opened
from wastelens.errors import InputError
from wastelens.experiment.train_one import check_weights
from wastelens.preparing.relabel import datasets_of_levels
from wastelens.studies.cell_training import train_cells, trainings_of
from wastelens.studies.cells import Cell, check_factors, plan_cells
from wastelens.studies.contents import StudyContents, study_contents
from wastelens.studies.plan import describe, log_plans, plans_before, say_plan, study_key
from wastelens.studies.report import log_report, say_report
from wastelens.system.files import alone_in
from wastelens.tracking.tracker import Tracker, start_or_continue


@dataclass(frozen=True)
class Studied:
    """The outcome of a study: its run, and the contents of its report."""

    run_id: str
    contents: StudyContents


def run(config: StudyConfig, tracker: Tracker) -> Studied:
    """Train every cell of the grid that is not trained yet, compare, and report.

    Raises:
        InputError: an unknown dataset, an impossible grid, a study of this name with another preparation of the
            dataset, other factors or other settings, or an engine that cannot be used.
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
    places = {one.digest: place_of(one) for one in datasets.values()}
    key = study_key(config, dataset)
    if is_elsewhere(config.engine):
        tracker.check_shared(config.engine)
    with (
        alone_in(config.data_folder / "running" / key, "study"),
        opened(config.engine, retries=config.retries) as engine,
        start_or_continue(tracker, key, {"step": "study", "study_key": key}) as shared,
    ):
        describe(shared, config, dataset, cells)
        log_plans(shared, [*before, config])
        standing = train_cells(trainings_of(cells, places), engine, tracker, shared.id)
        earlier = [cell for plan in before for cell in _planned(plan, datasets)]
        contents = study_contents(config, dataset, cells, earlier, standing, tracker)
        log_report(shared, contents)
    say_report(contents, shared.id, tracker)
    return Studied(shared.id, contents)


def _planned(plan: StudyConfig, datasets: Mapping[str, PreparedDataset]) -> list[Cell]:
    """Return the cells of an earlier plan; none where it can no longer be made, as its model's file is gone."""
    try:
        return plan_cells(plan, datasets)
    except InputError:
        return []
