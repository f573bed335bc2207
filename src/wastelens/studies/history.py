"""What a study of some name has been asked for before: it goes on with that, or refuses what does not go with it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wastelens.config.study import StudyConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError
from wastelens.tracking.tracker import Run, StoredRun, Tracker, to_json

PLANS = "study.json"


def name_of(config: StudyConfig) -> str:
    """What the study is called."""
    return config.study or Path(config.preset).stem


def key_of(config: StudyConfig, dataset: PreparedDataset) -> str:
    """What all processes know the study by."""
    return f"study {name_of(config)} of {dataset.name}"


def plans_before(config: StudyConfig, tracker: Tracker, dataset: PreparedDataset) -> list[StudyConfig]:
    """What the study of this name was asked for before; nothing where it is new.

    Raises:
        RunError: its cells are of another preparation of the dataset, of other factors or of other settings.
    """
    plans: list[StudyConfig] = []
    for study in tracker.found({"step": "study", "study_key": key_of(config, dataset)}):
        _check_same_dataset(config, study, dataset)
        for plan in _plans(study):
            if (differing := _differing(plan, config)) is not None:
                raise RunError(
                    f"The study '{name_of(config)}' of {dataset.name} has {differing}. Cells of both cannot be in one "
                    "table: give this study a name of its own: study=NAME."
                )
            plans.append(plan)
    return plans


def log_plans(shared: Run, plans: Sequence[StudyConfig]) -> None:
    """Remember what was asked for, each once, the latest last."""
    dumped = [plan.model_dump(mode="json") for plan in plans]
    shared.log_text(to_json([plan for number, plan in enumerate(dumped) if plan not in dumped[number + 1 :]]), PLANS)


def _check_same_dataset(config: StudyConfig, study: StoredRun, dataset: PreparedDataset) -> None:
    begun_with = study.tags.get("dataset_digest", "")
    if begun_with != dataset.digest:
        raise RunError(
            f"The study '{name_of(config)}' has cells of {dataset.name} as it was prepared before (digest "
            f"{begun_with[:8]}; now {dataset.digest[:8]}). Prepare it as it was then, or start a new study: "
            "study=NAME."
        )


def _plans(study: StoredRun) -> list[StudyConfig]:
    """What a study's run remembers; nothing where that is not to be had, or is of another version."""
    with tempfile.TemporaryDirectory() as folder:
        file = study.run.download(PLANS, Path(folder))
        try:
            found: Any = json.loads(file.read_text(encoding="utf-8")) if file else []
            return [StudyConfig.model_validate(plan) for plan in found]
        except ValueError:
            return []


def _differing(before: StudyConfig, now: StudyConfig) -> str | None:
    """What two plans have different that all cells of a study must share, for the user to read."""
    if before.parsed_factors[0].name != now.parsed_factors[0].name or _names(before) != _names(now):
        return f"factors={', '.join(before.factors)}, not {', '.join(now.factors)}"
    if before.parsed_factors[0].levels[0] != now.parsed_factors[0].levels[0]:
        return f"differences from {before.factors[0].partition('|')[0]}, not from {now.factors[0].partition('|')[0]}"
    if before.train != now.train:
        return f"train={_short(before.train)}, not {_short(now.train)}"
    return None


def _names(config: StudyConfig) -> set[str]:
    return {factor.name for factor in config.parsed_factors}


def _short(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, separators=(",", ":")) if tree else "as shipped"
