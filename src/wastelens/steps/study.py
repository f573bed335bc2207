"""``study``: a grid of trainings, compared in pairs, and one verdict that a sceptic can follow."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wastelens.console import say
from wastelens.data.opening import open_dataset
from wastelens.data.prepared import PreparedDataset
from wastelens.errors import ConfigError, RunError, StoreUnreachable
from wastelens.models.backend import load_backend
from wastelens.models.weights import check_weights_available
from wastelens.network_config import TransferConfig
from wastelens.patient_tracking import PatientTracker
from wastelens.steps.cell_work import train_cells
from wastelens.steps.claims import Claims, Standing
from wastelens.steps.comparison_report import log_report, notes_on_code, say_report
from wastelens.steps.relabelling import datasets_of_levels
from wastelens.steps.run_results import result_of
from wastelens.studies.cells import Cell, check_factors, plan_cells
from wastelens.studies.report import StudyContents
from wastelens.studies.results import (
    FAILED,
    MISSING,
    Result,
    cells_frame,
    comparisons_frame,
    curves_frame,
)
from wastelens.study_config import StudyConfig
from wastelens.tracking import Run, Tracker, to_json

WAITING = "unlogged"
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
            name is on another preparation of the dataset.
    """
    check_factors(config.parsed_factors)
    dataset = open_dataset(config.dataset, config.data_folder)
    datasets = datasets_of_levels(config.parsed_factors, dataset, config.data_folder)
    cells = plan_cells(config, datasets)
    _check_weights(cells)
    _check_same_dataset(config, tracker, dataset)
    _say_plan(config, cells)
    patient = PatientTracker(tracker, config.data_folder / WAITING)
    name = f"study {_name(config)} of {dataset.name}"
    with patient.giving_up_soon(), patient.start_shared(name, _key(config, dataset)) as shared:
        patient.log_waiting()
        _describe(shared, config, dataset, cells)
        digests = [one.digest for one in datasets.values()]
        ledger = patient.ledger(f"claims of {dataset.name} {dataset.digest}")
        claims = Claims(patient, ledger, digests, config.worker_timeout_s)
        with claims.alive():
            standing = train_cells(cells, claims, patient, shared.id)
        contents = _patiently(patient, lambda: _contents(config, dataset, cells, standing))
        _patiently(patient, lambda: log_report(shared, contents))
    say_report(contents, shared.id, tracker)
    return Studied(shared.id, contents)


def _name(config: StudyConfig) -> str:
    return config.study or Path(config.preset).stem


def _key(config: StudyConfig, dataset: PreparedDataset) -> str:
    return f"study {_name(config)} of {dataset.name}"


def _patiently(patient: PatientTracker, work: Callable[[], Answer]) -> Answer:
    """Do something that needs the store, however long that is away; it is begun anew when the store is back."""
    while True:
        try:
            return work()
        except StoreUnreachable:
            patient.wait_until_reachable()


def _check_weights(cells: Sequence[Cell]) -> None:
    """Before hours of work, not after them."""
    for model, config in {cell.place.model: cell.config for cell in cells}.items():
        if isinstance(config.network, TransferConfig):
            load_backend()
            try:
                check_weights_available(config.network.backbone, config.weights)
            except ConfigError as error:
                ways = f'set="train.weights=none train.freeze=0", or leave {model} out: models=base,autoencoder,dbn'
                raise ConfigError(f"{error} In a study: {ways}") from None


def _check_same_dataset(config: StudyConfig, tracker: Tracker, dataset: PreparedDataset) -> None:
    """A study goes on only with the photos that it began with.

    Raises:
        RunError: its cells are of another preparation.
    """
    for study in tracker.found({"step": "study", "study_key": _key(config, dataset)}):
        begun_with = study.tags.get("dataset_digest", "")
        if begun_with != dataset.digest:
            raise RunError(
                f"The study '{_name(config)}' has cells of {dataset.name} as it was prepared before (digest "
                f"{begun_with[:8]}; now {dataset.digest[:8]}). Prepare it as it was then, or start a new study: "
                "study=NAME."
            )


def _say_plan(config: StudyConfig, cells: Sequence[Cell]) -> None:
    folds = sorted({cell.place.fold for cell in cells})
    factors = " × ".join(f"{factor.name}={'|'.join(factor.levels)}" for factor in config.parsed_factors)
    trained_on = "the one split" if folds == [0] else f"folds {', '.join(str(fold) for fold in folds)}"
    say(
        f"{len(cells)} cells: {', '.join(config.models)} × {factors} × {config.seeds} seeds × {trained_on}; "
        f"{_steps(cells)} training steps each."
    )


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
            "study_key": _key(config, dataset),
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "mapping": Path(dataset.manifest["settings"]["materials"]).stem,
            "compares": config.parsed_factors[0].name,
        }
    )
    shared.log_text(to_json(config.model_dump(mode="json")), "study.json")


def _steps(cells: Sequence[Cell]) -> str:
    """Training steps of a cell; from the fewest to the most where the epochs are what is varied."""
    limits = [(cell.config.fit, cell.config.fine_tune.epochs) for cell in cells]
    steps = [(fit.epochs + more) * fit.steps_per_epoch for fit, more in limits if fit.steps_per_epoch != "auto"]
    return f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"


def _contents(
    config: StudyConfig, dataset: PreparedDataset, cells: Sequence[Cell], standing: Standing
) -> StudyContents:
    results = _results(cells, standing, dataset.materials)
    factor = config.parsed_factors[0]
    return StudyContents(
        title=f"Study {_name(config)} of {dataset.name}",
        factor=factor.name,
        first=factor.levels[0],
        cells=cells_frame(results, dataset.materials),
        comparisons=comparisons_frame(
            results, factor.levels, dataset.materials, seed=config.seed, resamples=config.bootstrap_resamples
        ),
        curves=curves_frame(results),
        settings=_settings(config, dataset, cells),
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
    words = [f"-P {shlex.quote(f'{name}={value}')}" for name, value in said.items() if value != ""]
    return f"mlflow run . -e study --env-manager local {' '.join(words)}"


def _settings(config: StudyConfig, dataset: PreparedDataset, cells: Sequence[Cell]) -> dict[str, str]:
    """What the study was made with, for the report."""
    folds = sorted({cell.place.fold for cell in cells})
    return {
        "dataset": f"{dataset.name}, digest {dataset.digest[:16]}",
        "photos": f"{dataset.manifest['counts']['photos']:,} of {dataset.manifest['cache']['image_side_px']} px",
        "groups of photos": f"{dataset.manifest['split']['groups']} ({dataset.manifest['split']['rule']})",
        "mapping": str(dataset.manifest["settings"]["materials"]),
        "factors": "; ".join(config.factors),
        "models": ", ".join(config.models),
        "seeds": ", ".join(str(seed) for seed in sorted({cell.place.seed for cell in cells})),
        "folds": ", ".join(str(fold) for fold in folds),
        "training": f"{_steps(cells)} steps of {cells[0].config.fit.batch_size} photos a cell",
        "changes to conf/train.yaml": to_json(config.train).strip() if config.train else "none",
        "resamples": f"{config.bootstrap_resamples:,} of groups of photos",
        "command": command_of(config),
    }
