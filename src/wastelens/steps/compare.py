"""``compare``: finished runs of one dataset, in pairs on the same photos, with the statistics of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wastelens.config_base import as_text
from wastelens.errors import ConfigError, RunError
from wastelens.steps.comparison_report import log_report, notes_on_code, say_report
from wastelens.steps.finished_runs import about_run
from wastelens.steps.run_results import result_of
from wastelens.studies.cells import POLICY_KEYS
from wastelens.studies.places import Place
from wastelens.studies.report import StudyContents
from wastelens.studies.results import Result, cells_frame, comparisons_frame, curves_frame
from wastelens.studies.words import SEVERAL
from wastelens.study_config import CompareConfig
from wastelens.tracking import StoredRun, Tracker

# Where things lie, what makes replicates of one arm, and what follows from another setting.
_NO_SETTING = ("dataset", "data_folder", "resume", "max_problem_share", "seed", "fold")
_NAMED = 3  # settings spelled out in the name of an arm


@dataclass(frozen=True)
class Compared:
    """A run to compare: what the store has of it, what it wrote of itself, and its settings as text."""

    stored: StoredRun
    about: Mapping[str, Any]
    settings: Mapping[str, str]

    @property
    def id(self) -> str:
        """The run's id."""
        return self.stored.run.id

    @property
    def replicate(self) -> tuple[int, int]:
        """Fold and seed."""
        return int(self.about["config"]["fold"]), int(self.about["config"]["seed"])


def run(config: CompareConfig, tracker: Tracker) -> StudyContents:
    """Compare finished ``train`` runs; those that differ in seed and fold alone are one arm.

    Raises:
        ConfigError: fewer than two runs.
        RunError: a run is not finished, or none of ``train``; or they are of different datasets or mappings, have all
            the same settings, or share no fold.
    """
    if len(config.run_ids) < 2:
        raise ConfigError("compare needs two runs or more: run_ids=RUN_ID,RUN_ID")
    runs = [_finished_run(tracker, run_id) for run_id in config.run_ids]
    _check_same_dataset(runs)
    arms = _arms(runs)
    factor, names = _named(arms)
    places, notes = _places(factor, dict(zip(names, arms, strict=True)))
    materials = tuple(runs[0].about["materials"])
    results = [result_of(one.stored, place, materials) for one, place in places]
    contents = _contents(config, runs, factor, names, results, notes)
    with tracker.start(f"compare {len(runs)} runs") as tracked:
        tracked.log_parameters({"run_ids": ",".join(config.run_ids), "seed": config.seed})
        tags = {"step": "compare", "dataset": runs[0].about["dataset"]}
        tracked.set_tags({**tags, "dataset_digest": runs[0].about["dataset_digest"], "compares": factor})
        log_report(tracked, contents)
    say_report(contents, tracked.id, tracker)
    return contents


def _finished_run(tracker: Tracker, run_id: str) -> Compared:
    stored = tracker.stored(run_id)
    about = about_run(stored)
    if about.get("step") != "train":
        raise RunError(f"Run {run_id} is no run of train, and has no predictions to compare. Leave it out.")
    if stored.status != "FINISHED":
        raise RunError(f"Run {run_id} is not finished ({stored.status}). Wait, resume it, or leave it out.")
    return Compared(stored, about, _settings(about["config"]))


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """All that makes an arm, as text; what is not used does not count."""
    settings = {key: value for key, value in _flat(config).items() if key not in _NO_SETTING}
    if settings["pretrained"] != "none":  # each seed starts from an encoder of its own
        settings["pretrained"] = "auto"
    if settings["augment"] == "false":
        settings = {key: value for key, value in settings.items() if not key.startswith(POLICY_KEYS)}
    return settings


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and their values as text."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat.update(_flat(value, f"{name}.") if isinstance(value, Mapping) else {name: as_text(value)})
    return flat


def _check_same_dataset(runs: Sequence[Compared]) -> None:
    """Numbers on other photos, or of other labels, say nothing about each other."""
    kinds = {str(one.about["dataset_digest"]): one for one in reversed(runs)}
    if len(kinds) > 1:
        described = [
            f"run {one.id} is of {one.about['dataset']} (digest {digest[:8]}, mapping "
            f"{one.stored.tags.get('mapping', 'unknown')})"
            for digest, one in reversed(kinds.items())
        ]
        raise RunError(f"These runs are not of one dataset: {'; '.join(described)}. Compare runs of one digest.")


def _arms(runs: Sequence[Compared]) -> list[list[Compared]]:
    """The runs of each configuration, by fold and seed; the first run's configuration first."""
    arms: dict[tuple[tuple[str, str], ...], list[Compared]] = {}
    for one in runs:
        arms.setdefault(tuple(sorted(one.settings.items())), []).append(one)
    if len(arms) < 2:
        raise RunError(
            f"These {len(runs)} runs differ in nothing but seed and fold: there is nothing to compare. Add a run with "
            "another setting."
        )
    return [sorted(arm, key=lambda one: (*one.replicate, one.id)) for arm in arms.values()]


def _named(arms: Sequence[Sequence[Compared]]) -> tuple[str, list[str]]:
    """What is compared, and each arm's level of it: one setting where only one differs, or the settings that do."""
    settings = [arm[0].settings for arm in arms]
    common = [key for key in settings[0] if all(key in one for one in settings)]
    differing = [key for key in common if len({one[key] for one in settings}) > 1]
    if "model" in differing:  # what its file says follows from it
        differing = ["model", *(key for key in differing if key in ("augment", "balanced", "labels_percent"))]
    if len(differing) == 1:
        return differing[0], [one[differing[0]] for one in settings]
    shown = differing[:_NAMED]
    names = [" ".join(one[key] if key == "model" else f"{key}={one[key]}" for key in shown) for one in settings]
    return SEVERAL, [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def _places(factor: str, arms: Mapping[str, Sequence[Compared]]) -> tuple[list[tuple[Compared, Place]], list[str]]:
    """Each run's place; runs of a fold are paired by seed, or in their order where their seeds differ.

    Raises:
        RunError: the arms share no fold.
    """
    models = {one.settings["model"] for arm in arms.values() for one in arm}
    model = Path(models.pop()).stem if len(models) == 1 else "the runs"
    replicates = [[one.replicate for one in arm] for arm in arms.values()]
    if not set.intersection(*({fold for fold, _ in of_arm} for of_arm in replicates)):
        folds = [f"{name} has {sorted({fold for fold, _ in of})}" for name, of in zip(arms, replicates, strict=True)]
        raise RunError(
            f"No fold is shared by all settings, so no two runs share their test photos: {'; '.join(folds)}. Add runs."
        )
    by_seed = all(of_arm == replicates[0] and len(set(of_arm)) == len(of_arm) for of_arm in replicates)
    places = [
        (one, Place(model, {factor: name}, seed, fold))
        for name, arm in arms.items()
        for one, (fold, seed) in zip(arm, _replicates(arm, by_seed), strict=True)
    ]
    note = "The runs of a fold are paired in their order, not by seed: their seeds differ, or are there twice."
    return places, [] if by_seed else [note]


def _replicates(arm: Sequence[Compared], by_seed: bool) -> list[tuple[int, int]]:
    """Fold and seed of each run; instead of seeds that pair with none, their rank in the fold."""
    if by_seed:
        return [one.replicate for one in arm]
    folds = [one.replicate[0] for one in arm]
    return [(fold, folds[:number].count(fold)) for number, fold in enumerate(folds)]


def _contents(
    config: CompareConfig,
    runs: Sequence[Compared],
    factor: str,
    names: Sequence[str],
    results: Sequence[Result],
    notes: Sequence[str],
) -> StudyContents:
    about = runs[0].about
    materials = tuple(about["materials"])
    return StudyContents(
        title=f"Comparison of {len(runs)} runs on {about['dataset']}",
        factor=factor,
        first=names[0],
        cells=cells_frame(results, materials),
        comparisons=comparisons_frame(
            results, names, materials, seed=config.seed, resamples=config.bootstrap_resamples
        ),
        curves=curves_frame(results),
        settings={
            "dataset": f"{about['dataset']}, digest {str(about['dataset_digest'])[:16]}",
            "photos": f"of {about['image_side_px']} px",
            "runs": ", ".join(config.run_ids),
            "resamples": f"{config.bootstrap_resamples:,} of groups of photos",
            "command": f"mlflow run . -e compare --env-manager local -P run_ids={','.join(config.run_ids)}",
        },
        materials=materials,
        notes=[*notes, *notes_on_code(results)],
    )
