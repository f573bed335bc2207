"""``study``: a grid of trainings, compared in pairs, and one verdict that a sceptic can follow."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from wastelens.config.study import StudyConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.errors import InputError, StoreUnreachable
from wastelens.experiment.train_one import check_weights
from wastelens.preparing.relabel import datasets_of_levels
from wastelens.studies.cell_work import tasks_of, train_cells
from wastelens.studies.cells import Cell, check_factors, plan_cells
from wastelens.studies.claims import Claims, Standing
from wastelens.studies.comparison_report import log_report, notes_on_code, say_report
from wastelens.studies.history import key_of, log_plans, name_of, plans_before
from wastelens.studies.report import StudyContents
from wastelens.studies.results import FAILED, MISSING, Result, cells_frame, comparisons_frame, curves_frame
from wastelens.studies.run_results import result_of
from wastelens.system.console import say, warn
from wastelens.system.next_command import next_command
from wastelens.tracking.patient import PatientTracker
from wastelens.tracking.tracker import Run, Tracker, to_json

WAITING = "unlogged"
FEWEST_GROUPS = 6  # simulated: with two or three, a verdict is never reached
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Studied:
    """What a study has found: its run, and what the report is made of."""

    run_id: str
    contents: StudyContents


def run(config: StudyConfig, tracker: Tracker) -> Studied:
    """Train every cell of the grid that nobody has trained, compare, and report.

    Raises:
        InputError: there is no such prepared dataset, the grid asks for what does not exist, or the study of this
            name is on another preparation of the dataset, of other factors or of other settings.
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
    _say_plan(config, dataset, cells)
    patient = PatientTracker(tracker, config.data_folder / WAITING)
    key = key_of(config, dataset)
    with patient.giving_up_soon(), patient.start_shared(key, key) as shared:
        patient.log_waiting()
        _describe(shared, config, dataset, cells)
        log_plans(shared, [*before, config])
        ledger = patient.ledger(f"claims of {dataset.name} {dataset.digest}")
        claims = Claims(patient, ledger, [one.digest for one in datasets.values()], config.worker_timeout_s)
        with claims.alive():
            standing = train_cells(cells, claims, patient, shared.id)
        earlier = [cell for plan in before for cell in _planned(plan, datasets)]
        contents = _patiently(patient, lambda: _contents(config, dataset, cells, earlier, standing, claims))
        _patiently(patient, lambda: log_report(shared, contents))
    say_report(contents, shared.id, tracker)
    return Studied(shared.id, contents)


def _planned(plan: StudyConfig, datasets: Mapping[str, PreparedDataset]) -> list[Cell]:
    """The cells of an earlier plan; none where it can no longer be made, as its model's file is gone."""
    try:
        return plan_cells(plan, datasets)
    except InputError:
        return []


def _patiently(patient: PatientTracker, work: Callable[[], Answer]) -> Answer:
    """Do something that needs the store, however long that is away; it is begun anew when the store is back."""
    while True:
        try:
            return work()
        except StoreUnreachable:
            patient.wait_until_reachable()


def _say_plan(config: StudyConfig, dataset: PreparedDataset, cells: Sequence[Cell]) -> None:
    folds = sorted({cell.place.fold for cell in cells})
    factors = " × ".join(f"{factor.name}={'|'.join(factor.levels)}" for factor in config.parsed_factors)
    trained_on = "the one split" if folds == [0] else f"folds {', '.join(str(fold) for fold in folds)}"
    say(
        f"{len(cells)} cells: {', '.join(config.models)} × {factors} × {config.seeds} seeds × {trained_on}; "
        f"{_steps(cells)} training steps each."
    )
    groups = {group for fold in folds for group in dataset.split(fold).test.groups}
    if len(groups) < FEWEST_GROUPS:
        warn(
            f"The test photos are of {len(groups)} groups ({dataset.manifest['split']['rule']}): so few hardly ever "
            "decide anything. Prepare with folds=4 or so, and every group is tested."
        )
    if config.seeds == 1:
        warn("One seed tells nothing of other trainings: the verdict will be undecided. Use seeds=3 or more.")


def _describe(shared: Run, config: StudyConfig, dataset: PreparedDataset, cells: Sequence[Cell]) -> None:
    """Log what the study is about; of a study that is extended, the tags ``used.…`` say the latest."""
    shared.log_parameters(
        {
            "dataset": config.dataset,
            "models": ",".join(config.models),
            **{f"factor.{factor.name}": "|".join(factor.levels) for factor in config.parsed_factors},
            "seeds": config.seeds,
            "seed": config.seed,
            "folds": ",".join(str(fold) for fold in sorted({cell.place.fold for cell in cells})),
            "steps_per_cell": _steps(cells),
        }
    )
    shared.set_tags(
        {
            "step": "study",
            "study_key": key_of(config, dataset),
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "mapping": Path(dataset.manifest["settings"]["materials"]).stem,
            "compares": config.parsed_factors[0].name,
        }
    )


def _steps(cells: Sequence[Cell]) -> str:
    """Training steps of a cell; from the fewest to the most where the epochs are what is varied."""
    limits = [(cell.config.fit, cell.config.fine_tune.epochs) for cell in cells]
    steps = [(fit.epochs + more) * fit.steps_per_epoch for fit, more in limits if fit.steps_per_epoch != "auto"]
    return f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"


def _contents(
    config: StudyConfig,
    dataset: PreparedDataset,
    cells: Sequence[Cell],
    earlier: Sequence[Cell],
    standing: Standing,
    claims: Claims,
) -> StudyContents:
    """The cells that were asked for now, and those of earlier calls that are finished: one study, one table."""
    asked = {cell.key for cell in cells}
    others = list({cell.key: cell for cell in earlier if cell.key not in asked}.values())
    known = claims.standing([task for cell in others for task in tasks_of(cell)])
    merged = replace(standing, done={**known.done, **standing.done})
    reported = [*cells, *(cell for cell in others if cell.key in known.done)]
    results = _results(reported, merged, dataset.materials)
    factor = config.parsed_factors[0]
    arms = list(dict.fromkeys([*factor.levels, *(cell.place.arm for cell in reported)]))
    return StudyContents(
        title=f"Study {name_of(config)} of {dataset.name}",
        factor=factor.name,
        first=factor.levels[0],
        cells=cells_frame(results, dataset.materials),
        comparisons=comparisons_frame(
            results, arms, dataset.materials, seed=config.seed, resamples=config.bootstrap_resamples
        ),
        curves=curves_frame(results),
        settings=_settings(config, dataset, reported),
        materials=dataset.materials,
        notes=notes_on_code(results),
    )


def _results(cells: Sequence[Cell], standing: Standing, materials: Sequence[str]) -> list[Result]:
    """What each cell has come to; the minutes of a pretraining are divided among the cells that share it."""
    sharing = Counter(cell.encoder_key for cell in cells)
    results = []
    for cell in cells:
        encoder = standing.done.get(cell.encoder_key)
        minutes = encoder.metrics.get("minutes", 0.0) / sharing[cell.encoder_key] if encoder else 0.0
        if stored := standing.done.get(cell.key):
            results.append(result_of(stored, cell.place, materials, minutes))
        elif cell.key in standing.failed or cell.encoder_key in standing.failed:
            results.append(Result(cell.place, FAILED, standing.failed.get(cell.key, "")))
        else:
            results.append(Result(cell.place, MISSING))
    return results


def command_of(config: StudyConfig) -> str:
    """What to type for this study."""
    said: dict[str, object] = {
        "dataset": config.dataset,
        "preset": config.preset,
        "study": config.study,
        "models": ",".join(config.models),
        "factors": ", ".join(config.factors),
        "seeds": config.seeds,
        "seed": config.seed,
        "folds": config.folds if config.folds == "auto" else ",".join(str(fold) for fold in config.folds),
        "set": f"train={json.dumps(config.train, separators=(',', ':'))}" if config.train else "",
    }
    return next_command("study", said, config.data_folder)


def _settings(config: StudyConfig, dataset: PreparedDataset, cells: Sequence[Cell]) -> dict[str, str]:
    """What the study was made with, for the report."""
    folds = sorted({cell.place.fold for cell in cells})
    return {
        "dataset": f"{dataset.name}, digest {dataset.digest[:16]}",
        "photos": f"{dataset.manifest['counts']['photos']:,} of {dataset.manifest['cache']['image_side_px']} px",
        "groups of photos": f"{dataset.manifest['split']['groups']} ({dataset.manifest['split']['rule']})",
        "mapping": str(dataset.manifest["settings"]["materials"]),
        "factors": "; ".join(config.factors),
        "models": ", ".join(dict.fromkeys(cell.place.model for cell in cells)),
        "seeds": ", ".join(str(seed) for seed in sorted({cell.place.seed for cell in cells})),
        "folds": ", ".join(str(fold) for fold in folds),
        "training": f"{_steps(cells)} steps of {cells[0].config.fit.batch_size} photos a cell",
        "changes to conf/train.yaml": to_json(config.train).strip() if config.train else "none",
        "resamples": f"{config.bootstrap_resamples:,} of groups of photos",
        "command": command_of(config),
    }
