"""The contents of a report: the results of a study or comparison, as tables and texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from wastelens.config.study import StudyConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.studies.cell_training import Standing, finished_runs
from wastelens.studies.cells import Cell
from wastelens.studies.plan import command_of, steps_text, study_name
from wastelens.studies.results import FAILED, MISSING, Result, cells_frame, comparisons_frame, curves_frame, result_of
from wastelens.tracking.tracker import Tracker, to_json


@dataclass(frozen=True)
class StudyContents:
    """Everything that the report of a study or comparison shows.

    Attributes:
        title: of the report.
        factor: the setting compared, such as ``augment``.
        first: the level that the others are compared with.
        cells: a row per planned training (study.csv). Columns: model, arm (the compared factor's level, text), stratum
            (the other factors' levels, text, may be empty), seed, fold, one for each factor; then status (finished,
            failed, missing), run_id, test_macro_ap with _low and _high, test_macro_f1, test_ap_<material>,
            val_macro_ap, floor_macro_ap, strongest_control, strongest_control_macro_ap, gain_over_controls and
            gain_over_controls_low, collapsed, above_controls, below_strongest_control, best_epoch, minutes,
            pretraining_minutes (this cell's share, so that they add up), git_commit. NaN where it has not finished.
        comparisons: a row per stratum, second level, model and metric (comparisons.csv): stratum, first, second, then
            the columns of `wastelens.evaluation.paired.COLUMNS` (training_known: false where each fold has
            only one seed), and without_collapsed_pairs, _difference, _low and _high on the rows of macro_ap.
            p_adjusted is corrected over all rows of a metric.
        curves: a row per cell and epoch: model, arm, stratum, seed, fold, epoch, loss, val_loss (nats), val_macro_ap.
        settings: of the study, as text: dataset, seeds, folds, command.
        materials: of the dataset, in its order.
        notes: warnings, a sentence each.
    """

    title: str
    factor: str
    first: str
    cells: pd.DataFrame
    comparisons: pd.DataFrame
    curves: pd.DataFrame
    settings: Mapping[str, str]
    materials: tuple[str, ...]
    notes: Sequence[str] = ()

    @property
    def arms(self) -> list[str]:
        """The compared levels, starting with `first`."""
        return list(dict.fromkeys([self.first, *self.comparisons["second"], *self.cells["arm"]]))

    @property
    def has_strata(self) -> bool:
        """Whether factors other than the compared one vary."""
        return bool(self.cells["stratum"].nunique() > 1)


def study_contents(
    config: StudyConfig,
    dataset: PreparedDataset,
    cells: Sequence[Cell],
    earlier: Sequence[Cell],
    standing: Standing,
    tracker: Tracker,
) -> StudyContents:
    """Collect the cells requested now, of this standing, and the finished ones of earlier plans: one table."""
    asked = {cell.key for cell in cells}
    others = list({cell.key: cell for cell in earlier if cell.key not in asked}.values())
    keys = [key for cell in others for key in (cell.key, cell.encoder_key) if key]
    known = finished_runs(keys, list({cell.dataset_digest for cell in others}), tracker)
    reported = [*cells, *(cell for cell in others if cell.key in known)]
    results = _results(reported, Standing({**known, **standing.done}, standing.failed), dataset.materials)
    factor = config.parsed_factors[0]
    arms = list(dict.fromkeys([*factor.levels, *(cell.place.arm for cell in reported)]))
    return StudyContents(
        title=f"Study {study_name(config)} of {dataset.name}",
        factor=factor.name,
        first=factor.levels[0],
        cells=cells_frame(results, dataset.materials),
        comparisons=comparisons_frame(
            results, arms, dataset.materials, seed=config.seed, resamples=config.bootstrap_resamples
        ),
        curves=curves_frame(results),
        settings={
            "dataset": f"{dataset.name}, digest {dataset.digest[:16]}",
            "photos": f"{dataset.manifest['counts']['photos']:,} of {dataset.manifest['cache']['image_side_px']} px",
            "groups of photos": f"{dataset.manifest['split']['groups']} ({dataset.manifest['split']['rule']})",
            "mapping": str(dataset.manifest["settings"]["materials"]),
            "factors": "; ".join(config.factors),
            "models": ", ".join(dict.fromkeys(cell.place.model for cell in reported)),
            "seeds": ", ".join(str(seed) for seed in sorted({cell.place.seed for cell in reported})),
            "folds": ", ".join(str(fold) for fold in sorted({cell.place.fold for cell in reported})),
            "training": f"{steps_text(reported)} steps of {reported[0].config.fit.batch_size} photos per cell",
            "changes to conf/train.yaml": to_json(config.train).strip() if config.train else "none",
            "resamples": f"{config.bootstrap_resamples:,} of groups of photos",
            "command": command_of(config),
        },
        materials=dataset.materials,
        notes=notes_on_code(results),
    )


def _results(cells: Sequence[Cell], standing: Standing, materials: Sequence[str]) -> list[Result]:
    """Return the result of each cell; the minutes of a pretraining are divided among the cells that share it."""
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


def notes_on_code(results: Sequence[Result]) -> list[str]:
    """Note where runs were made by several versions of the code, or by uncommitted changes."""
    commits = {result.tags["git_commit"] for result in results if "git_commit" in result.tags}
    notes = []
    if len(commits) > 1:
        notes.append(f"The runs were made by {len(commits)} versions of the code: see git_commit in study.csv.")
    if any(commit.endswith("-dirty") for commit in commits):
        notes.append("Some runs were made by code with uncommitted changes.")
    return notes
