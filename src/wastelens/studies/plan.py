"""The plan of a study: announced, logged with its run, and compared with earlier plans of the same study."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wastelens.config.study import StudyConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError
from wastelens.studies.cells import Cell
from wastelens.system.console import next_command, say, warn
from wastelens.tracking.tracker import Run, StoredRun, Tracker, to_json

PLANS = "study.json"
FEWEST_GROUPS = 6  # simulated: with two or three groups, a verdict is never reached


def study_name(config: StudyConfig) -> str:
    """Return the name of the study: given, or that of its preset."""
    return config.study or Path(config.preset).stem


def study_key(config: StudyConfig, dataset: PreparedDataset) -> str:
    """Return the key by which all processes recognise the study."""
    return f"study {study_name(config)} of {dataset.name}"


def plans_before(config: StudyConfig, tracker: Tracker, dataset: PreparedDataset) -> list[StudyConfig]:
    """Return the earlier plans of the study of this name; none where it is new.

    Raises:
        RunError: its cells have another preparation of the dataset, other factors or other settings.
    """
    plans: list[StudyConfig] = []
    for study in tracker.found({"step": "study", "study_key": study_key(config, dataset)}):
        if (digest := study.tags.get("dataset_digest", "")) != dataset.digest:
            raise RunError(
                f"The study '{study_name(config)}' has cells of an earlier preparation of {dataset.name} (digest "
                f"{digest[:8]}; now {dataset.digest[:8]}). Prepare it with the earlier settings, or start a new study: "
                "study=NAME."
            )
        for plan in _plans(study, config):
            if (differing := _differing(plan, config)) is not None:
                raise RunError(
                    f"The study '{study_name(config)}' of {dataset.name} has {differing}. Their cells do not belong in "
                    "one table: give this study another name: study=NAME."
                )
            plans.append(plan)
    return plans


def log_plans(shared: Run, plans: Sequence[StudyConfig]) -> None:
    """Log all plans of the study in its run, each once, the latest last."""
    dumped = [plan.model_dump(mode="json") for plan in plans]
    shared.log_text(to_json([plan for number, plan in enumerate(dumped) if plan not in dumped[number + 1 :]]), PLANS)


def say_plan(config: StudyConfig, dataset: PreparedDataset, cells: Sequence[Cell]) -> None:
    """Announce the grid, and warn where it is too small to decide anything."""
    folds = sorted({cell.place.fold for cell in cells})
    factors = " × ".join(f"{factor.name}={'|'.join(factor.levels)}" for factor in config.parsed_factors)
    trained_on = "the one split" if folds == [0] else f"folds {', '.join(str(fold) for fold in folds)}"
    say(
        f"{len(cells)} cells: {', '.join(config.models)} × {factors} × {config.seeds} seeds × {trained_on}; "
        f"{steps_text(cells)} training steps each."
    )
    groups = {group for fold in folds for group in dataset.split(fold).test.groups}
    if len(groups) < FEWEST_GROUPS:
        warn(
            f"The test photos are of {len(groups)} groups ({dataset.manifest['split']['rule']}), which is rarely "
            "enough to decide anything. Prepare with folds=4 or so, so that every group is tested."
        )
    if config.seeds == 1:
        warn(
            "One seed does not show how results vary between trainings: the verdict will be undecided. "
            "Use seeds=3 or more."
        )


def describe(shared: Run, config: StudyConfig, dataset: PreparedDataset, cells: Sequence[Cell]) -> None:
    """Log the factors and cells of the study; for a study that is extended, the tags ``used.…`` hold the latest."""
    shared.log_parameters(
        {
            "dataset": config.dataset,
            "models": ",".join(config.models),
            **{f"factor.{factor.name}": "|".join(factor.levels) for factor in config.parsed_factors},
            "seeds": config.seeds,
            "seed": config.seed,
            "folds": ",".join(str(fold) for fold in sorted({cell.place.fold for cell in cells})),
            "steps_per_cell": steps_text(cells),
        }
    )
    shared.set_tags(
        {
            "step": "study",
            "study_key": study_key(config, dataset),
            "dataset": dataset.name,
            "dataset_digest": dataset.digest,
            "mapping": Path(dataset.manifest["settings"]["materials"]).stem,
            "compares": config.parsed_factors[0].name,
        }
    )


def steps_text(cells: Sequence[Cell]) -> str:
    """Return the training steps of a cell; the range where the epochs vary."""
    limits = [(cell.config.fit, cell.config.fine_tune.epochs) for cell in cells]
    steps = [(fit.epochs + more) * fit.steps_per_epoch for fit, more in limits if fit.steps_per_epoch != "auto"]
    return f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"


def command_of(config: StudyConfig) -> str:
    """Return the command that runs this study."""
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


def _plans(study: StoredRun, config: StudyConfig) -> list[StudyConfig]:
    """Return the plans logged in a study's run; none where they are missing or of another version.

    Settings that plans of earlier versions lack, which do not change a training, are those of ``config``.
    """
    now = config.model_dump(mode="json")
    with tempfile.TemporaryDirectory() as folder:
        file = study.run.download(PLANS, Path(folder))
        try:
            found: Any = json.loads(file.read_text(encoding="utf-8")) if file else []
            return [StudyConfig.model_validate({key: plan.get(key, now[key]) for key in now}) for plan in found]
        except (ValueError, AttributeError):
            return []


def _differing(before: StudyConfig, now: StudyConfig) -> str | None:
    """Describe how two plans differ in the settings that all cells of a study must share; None where they do not."""
    names_before, names_now = ([factor.name for factor in plan.parsed_factors] for plan in (before, now))
    if names_before[0] != names_now[0] or set(names_before) != set(names_now):
        return f"factors={', '.join(before.factors)}, not {', '.join(now.factors)}"
    if before.parsed_factors[0].levels[0] != now.parsed_factors[0].levels[0]:
        return f"differences from {before.factors[0].partition('|')[0]}, not from {now.factors[0].partition('|')[0]}"
    if before.train != now.train:
        return f"train={_short(before.train)}, not {_short(now.train)}"
    return None


def _short(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, separators=(",", ":")) if tree else "as shipped"
