"""``compare``: finished runs of one dataset, in pairs on the same photos, with the statistics of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wastelens.config.study import CompareConfig
from wastelens.errors import ConfigError, RunError
from wastelens.studies.compared_runs import Compared, check_same_dataset, finished_run, newest, sorted_into_arms
from wastelens.studies.comparison_report import log_report, notes_on_code, say_report
from wastelens.studies.places import Place
from wastelens.studies.report import StudyContents
from wastelens.studies.results import Result, cells_frame, comparisons_frame, curves_frame
from wastelens.studies.run_results import result_of
from wastelens.studies.words import SEVERAL
from wastelens.system.next_command import next_command
from wastelens.tracking.tracker import Tracker

# Beginnings of settings → the setting that they follow from: they are told only where that one is the same.
_FOLLOW_FROM = {
    "network.": "model",
    "augmentation.transforms": "augment_policy",
    "pretraining.": "mixed_precision",
}
_LENGTH = ("fit.batch_size", "fit.epochs", "fit.steps_per_epoch", "fine_tune.epochs")  # how long a training is
_PASS = ("balanced", "labels_percent")  # how long an epoch is, where it is one pass over the training rows
_UNSET = "unset"
_NAMED = 3  # settings spelled out in the name of an arm
_LONGEST_VALUE = 40  # characters, in that name
_PAIRED_BY_ORDER = "The runs of a fold are paired in their order, not by seed: their seeds differ."


def run(config: CompareConfig, tracker: Tracker) -> StudyContents:
    """Compare finished ``train`` runs; those that differ in seed and fold alone are one arm.

    Raises:
        ConfigError: fewer than two runs.
        RunError: a run is not finished, or none of ``train``; or they are of different datasets or mappings, have all
            the same settings, or share no fold.
    """
    if len(config.run_ids) < 2:
        raise ConfigError("compare needs two runs or more: run_ids=RUN_ID,RUN_ID")
    runs = [finished_run(tracker, run_id) for run_id in config.run_ids]
    check_same_dataset(runs)
    kept, left_out = newest(runs, tracker)
    arms = sorted_into_arms(kept)
    differing = _differing(arms)
    factor, names = _named(arms, differing)
    partners = _partners(dict(zip(names, arms, strict=True)))
    notes = [*_notes_on_settings(arms, differing), *left_out, *_notes_on_pairs(arms, partners)]
    contents = _contents(config, runs, factor, names, _results(factor, names, arms, partners), notes)
    with tracker.start(f"compare {len(runs)} runs") as tracked:
        tracked.log_parameters({"run_ids": ",".join(config.run_ids), "seed": config.seed})
        tags = {"step": "compare", "dataset": runs[0].about["dataset"]}
        tracked.set_tags({**tags, "dataset_digest": runs[0].about["dataset_digest"], "compares": factor})
        log_report(tracked, contents)
    say_report(contents, tracked.id, tracker)
    return contents


def _differing(arms: Sequence[Sequence[Compared]]) -> list[str]:
    """The settings that arms differ in, the model first; what follows from another one is not among them."""
    settings = [arm[0].settings for arm in arms]
    keys = sorted({key for one in settings for key in one})
    found = [key for key in keys if _differs(key, settings)]
    # Where nothing else does, settings that another version did not know tell the arms apart.
    found = found or [key for key in keys if not all(key in one for one in settings)]
    return sorted(found, key=lambda key: key != "model")


def _differs(key: str, settings: Sequence[Mapping[str, str]]) -> bool:
    """Whether arms that have a setting have other values of it, though what it follows from is the same."""
    leader = next((leader for beginning, leader in _FOLLOW_FROM.items() if key.startswith(beginning)), "")
    values: dict[str | None, set[str]] = {}
    for one in settings:
        if key in one:
            values.setdefault(one.get(leader), set()).add(one[key])
    return any(len(of_leader) > 1 for of_leader in values.values())


def _named(arms: Sequence[Sequence[Compared]], differing: Sequence[str]) -> tuple[str, list[str]]:
    """What is compared, and each arm's level of it: one setting where only one differs, or the settings that do."""
    settings = [arm[0].settings for arm in arms]
    if len(differing) == 1:
        factor, names = differing[0], [one.get(differing[0], _UNSET) for one in settings]
    else:
        factor, names = SEVERAL, [_name(one, differing) for one in settings]
    return factor, [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def _name(settings: Mapping[str, str], differing: Sequence[str]) -> str:
    """``dbn augment=true fit.epochs=9 and 2 more``."""
    said = [f"{'' if key == 'model' else f'{key}='}{_short(settings[key])}" for key in differing if key in settings]
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return " ".join(said[:_NAMED]) + more


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"


def _notes_on_settings(arms: Sequence[Sequence[Compared]], differing: Sequence[str]) -> list[str]:
    """All that differs, where names may not say it; and that a difference may be one of how long was trained."""
    settings = [arm[0].settings for arm in arms]
    notes = []
    if len(differing) > 1:
        values = "; ".join(f"{key}={'|'.join(one.get(key, _UNSET) for one in settings)}" for key in differing)
        notes.append(f"The arms, in their order, differ in {len(differing)} settings: {values}.")
    passes = any(one.get("fit.steps_per_epoch") == "auto" for one in settings)
    if length := [key for key in differing if key in _LENGTH or (passes and key in _PASS)]:
        notes.append(f"The arms are not trained equally long ({', '.join(length)}): a difference may be due to that.")
    return notes


def _partners(arms: Mapping[str, Sequence[Compared]]) -> dict[str, int]:
    """Run of another arm → seed of the first arm's run that it is paired with; a run without one is not there.

    Raises:
        RunError: the arms share no fold.
    """
    folds = {name: {one.fold for one in arm} for name, arm in arms.items()}
    if not set.intersection(*folds.values()):
        described = "; ".join(f"{name} has {sorted(of_arm)}" for name, of_arm in folds.items())
        raise RunError(
            f"No fold is shared by all settings, so no two runs share their test photos: {described}. Add runs."
        )
    first, *others = arms.values()
    partners: dict[str, int] = {}
    for arm in others:
        for fold in {one.fold for one in arm}:
            partners |= _partners_in_fold(*([one for one in of if one.fold == fold] for of in (first, arm)))
    return partners


def _partners_in_fold(first: Sequence[Compared], other: Sequence[Compared]) -> dict[str, int]:
    """By seed; in their order where no seed is shared."""
    seeds = [one.seed for one in first]
    shared = {one.id: one.seed for one in other if one.seed in seeds}
    return shared or {one.id: seed for one, seed in zip(other, seeds, strict=False)}


def _notes_on_pairs(arms: Sequence[Sequence[Compared]], partners: Mapping[str, int]) -> list[str]:
    """That runs are paired in their order, and which are in no pair."""
    first, *rest = arms
    others = [one for arm in rest for one in arm]
    paired = [one for one in others if one.id in partners]
    places = {(one.fold, partners[one.id]) for one in paired}
    alone = [one for one in first if (one.fold, one.seed) not in places]
    alone += [one for one in others if one.id not in partners]
    named = ", ".join(f"{one.id} (seed {one.seed}, fold {one.fold})" for one in alone)
    by_order = any(partners[one.id] != one.seed for one in paired)
    return [
        *([_PAIRED_BY_ORDER] if by_order else []),
        *([f"In the tables, but in no difference, as no other arm has a run to pair with: {named}."] if alone else []),
    ]


def _results(
    factor: str, names: Sequence[str], arms: Sequence[Sequence[Compared]], partners: Mapping[str, int]
) -> list[Result]:
    """What the runs have come to, each in its place."""
    everyone = [(name, one) for name, arm in zip(names, arms, strict=True) for one in arm]
    models = {one.settings["model"] for _, one in everyone}
    model = Path(models.pop()).stem if len(models) == 1 else "the runs"
    materials = tuple(arms[0][0].about["materials"])
    results = [
        result_of(one.stored, Place(model, {factor: name}, one.seed, one.fold), materials) for name, one in everyone
    ]
    return [replace(one, paired_seed=partners.get(one.run_id)) for one in results]


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
            "command": next_command("compare", {"run_ids": ",".join(config.run_ids)}),
        },
        materials=materials,
        notes=[*notes, *notes_on_code(results)],
    )
