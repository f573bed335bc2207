"""Runs to compare: checked against each other, sorted into arms by their settings, and paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wastelens.config.study import CompareConfig
from wastelens.errors import RunError, StoreUnreachable
from wastelens.experiment.finished_runs import about_run
from wastelens.experiment.fitting import WEIGHTS_DIGEST
from wastelens.studies.cells import settings_in_effect
from wastelens.studies.contents import StudyContents, notes_on_code
from wastelens.studies.findings import SEVERAL
from wastelens.studies.results import Place, cells_frame, comparisons_frame, curves_frame, result_of
from wastelens.system.console import next_command
from wastelens.tracking.tracker import StoredRun, Tracker

_REPLICATES = ("seed", "fold")  # runs that differ only in these are one arm
# Prefix of settings → the setting that they follow from: they are listed only where that one is equal.
_FOLLOW_FROM = {"network.": "model", "augmentation.transforms": "augment_policy", "pretraining.": "mixed_precision"}
_LENGTH = ("fit.batch_size", "fit.epochs", "fit.steps_per_epoch", "fine_tune.epochs")  # set the length of a training
_PASS = ("balanced", "labels_percent")  # set the length of an epoch that is one pass over the training rows
_UNSET = "unset"
_NAMED = 3  # settings spelled out in the name of an arm
_LONGEST_VALUE = 40  # characters, in that name
_PAIRED_BY_ORDER = "The runs of a fold are paired in order, not by seed: their seeds differ."


@dataclass(frozen=True)
class ComparedRun:
    """A run to compare: as stored, its own description, and its settings, dotted key → text."""

    stored: StoredRun
    about: Mapping[str, Any]
    settings: Mapping[str, str]
    id: str
    seed: int
    fold: int


Arms = Sequence[Sequence[ComparedRun]]


def finished_run(tracker: Tracker, run_id: str, instead: str = "leave it out") -> ComparedRun:
    """Return a finished run of ``train``; instead: what else to do about a run that is none.

    Raises:
        RunError: it is unfinished, unknown, or a run of another step.
    """
    stored = tracker.stored(run_id)
    about = about_run(stored)
    if about.get("step") != "train":
        raise RunError(
            f"Run {run_id} is not a run of train, so it has no predictions to compare. {instead.capitalize()}."
        )
    if stored.status != "FINISHED":
        raise RunError(f"Run {run_id} is not finished ({stored.status}). Wait, resume it, or {instead}.")
    config = about["config"]
    try:
        # The side that the network has, which that of an encoder, or of smaller photos, may have decided.
        settings = _settings({**config, "image_side_px": about["image_side_px"]}, tracker)
    except (AttributeError, LookupError, TypeError, ValueError):
        fix = instead.capitalize()
        raise RunError(f"Run {run_id} has settings in another form than this version's. {fix}.") from None
    return ComparedRun(stored, about, settings, run_id, config["seed"], config["fold"])


def _settings(config: Mapping[str, Any], tracker: Tracker) -> dict[str, str]:
    """Return the settings that define an arm, as text; settings without effect do not count.

    An encoder counts by its settings, not by the run that made it: each seed starts from its own encoder.
    """
    pretrained = config.get("pretrained", "none")
    encoder = config if pretrained == "auto" else _encoder(tracker, pretrained) if pretrained != "none" else {}
    if encoder:
        learnt = {key: encoder[key] for key in ("method", "learner") if key in encoder}
        config = {
            **config,
            "pretrained": "auto",
            "unlabelled": encoder.get("unlabelled", ""),
            "network": {**config["network"], **learnt},
            "pretraining": {"mixed_precision": encoder.get("mixed_precision", False)},
        }
    return {key: value for key, value in settings_in_effect(config).items() if key not in _REPLICATES}


def _encoder(tracker: Tracker, run_id: str) -> Mapping[str, Any]:
    """Return the settings of a run of ``pretrain``; empty where the run is gone."""
    try:
        about = about_run(tracker.stored(run_id))
    except StoreUnreachable:
        raise
    except RunError:
        return {}
    return dict(about["config"]) if about.get("step") == "pretrain" else {}


def repetitions(run: ComparedRun, tracker: Tracker) -> list[ComparedRun]:
    """Return a run and the finished ones of its dataset that differ from it in seed or fold alone, by fold and seed.

    Of several with the same seed and fold, take the run itself, or else the newest.
    """
    alike = {"step": "train", "dataset_digest": str(run.about["dataset_digest"]), "model": run.settings["model"]}
    found = {(run.fold, run.seed): run}
    for stored in tracker.finished(alike):
        try:
            other = finished_run(tracker, stored.run.id)
        except StoreUnreachable:
            raise
        except RunError:  # of an earlier version
            continue
        if same_settings(other, run):
            found.setdefault((other.fold, other.seed), other)
    return [found[place] for place in sorted(found)]


def same_settings(one: ComparedRun, other: ComparedRun) -> bool:
    """Return whether two runs differ in seed and fold alone; a file of weights counts by its content."""
    weights = [run.stored.tags.get(WEIGHTS_DIGEST, "") for run in (one, other)]
    return one.settings == other.settings and weights[0] == weights[1]


def comparison_contents(config: CompareConfig, runs: Sequence[ComparedRun], tracker: Tracker) -> StudyContents:
    """Sort the runs into arms by their settings, pair them, and return the contents of the comparison's report.

    Raises:
        RunError: the runs have different datasets or mappings, all have the same settings, or share no fold.
    """
    _check_same_dataset(runs)
    kept, left_out = _newest(runs, tracker)
    arms = _sorted_into_arms(kept)
    differing = _differing_settings(arms)
    factor, names = _name_arms(arms, differing)
    partners = seeds_of_partners(dict(zip(names, arms, strict=True)))
    about = runs[0].about
    materials = tuple(about["materials"])
    models = {arm[0].settings["model"] for arm in arms}
    model = Path(models.pop()).stem if len(models) == 1 else "the runs"
    results = [
        replace(
            result_of(one.stored, Place(model, {factor: name}, one.seed, one.fold), materials),
            paired_seed=partners.get(one.id),
        )
        for name, arm in zip(names, arms, strict=True)
        for one in arm
    ]
    notes = [*_notes_on_settings(arms, differing), *left_out, *_notes_on_pairs(arms, partners)]
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
            "photos": f"of {' and '.join(map(str, sorted({one.about['image_side_px'] for one in runs})))} px",
            "runs": ", ".join(config.run_ids),
            "resamples": f"{config.bootstrap_resamples:,} of groups of photos",
            "command": next_command("compare", {"run_ids": ",".join(config.run_ids)}),
        },
        materials=materials,
        notes=[*notes, *notes_on_code(results)],
    )


def _check_same_dataset(runs: Sequence[ComparedRun]) -> None:
    """Refuse runs on different photos or labels: their numbers say nothing about each other."""
    kinds = {str(one.about["dataset_digest"]): one for one in reversed(runs)}
    if len(kinds) > 1:
        described = [
            f"run {one.id} is on {one.about['dataset']} (digest {digest[:8]}, mapping "
            f"{one.stored.tags.get('mapping', 'unknown')})"
            for digest, one in reversed(kinds.items())
        ]
        raise RunError(f"These runs are not on one dataset: {'; '.join(described)}. Compare runs with the same digest.")


def _newest(runs: Sequence[ComparedRun], tracker: Tracker) -> tuple[list[ComparedRun], list[str]]:
    """Return only the newest of runs with the same settings, seed and fold, and a note on the others."""
    same: dict[tuple[Any, ...], list[ComparedRun]] = {}
    for one in runs:
        same.setdefault((*sorted(one.settings.items()), one.fold, one.seed), []).append(one)
    if len(same) == len(runs):
        return list(runs), []
    of_dataset = tracker.finished({"step": "train", "dataset_digest": str(runs[0].about["dataset_digest"])})
    order = {one.run.id: number for number, one in enumerate(of_dataset)}  # the newest first
    kept = {min(alike, key=lambda one: order.get(one.id, len(order))).id for alike in same.values()}
    left_out = ", ".join(one.id for one in runs if one.id not in kept)
    note = f"Left out, as a newer run has the same settings, seed and fold: {left_out}."
    return [one for one in runs if one.id in kept], [note]


def _sorted_into_arms(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Return the runs of each configuration by fold and seed, starting with the first run's configuration."""
    arms: dict[tuple[tuple[str, str], ...], list[ComparedRun]] = {}
    for one in runs:
        arms.setdefault(tuple(sorted(one.settings.items())), []).append(one)
    if len(arms) < 2:
        raise RunError(
            "These runs differ only in seed and fold: there is nothing to compare. Add a run with another setting."
        )
    return [sorted(arm, key=lambda one: (one.fold, one.seed)) for arm in arms.values()]


def _differing_settings(arms: Arms) -> list[str]:
    """Return the settings in which arms differ, the model first; not those that follow from another setting."""
    settings = [arm[0].settings for arm in arms]
    keys = sorted({key for one in settings for key in one})
    found = [key for key in keys if _differs(key, settings)]
    # Where nothing else differs, settings that another version did not know tell the arms apart.
    found = found or [key for key in keys if not all(key in one for one in settings)]
    return sorted(found, key=lambda key: key != "model")


def _differs(key: str, settings: Sequence[Mapping[str, str]]) -> bool:
    """Return whether arms with a setting have different values of it while the setting it follows from is equal."""
    leader = next((leader for beginning, leader in _FOLLOW_FROM.items() if key.startswith(beginning)), "")
    values: dict[str | None, set[str]] = {}
    for one in settings:
        if key in one:
            values.setdefault(one.get(leader), set()).add(one[key])
    return any(len(of_leader) > 1 for of_leader in values.values())


def _name_arms(arms: Arms, differing: Sequence[str]) -> tuple[str, list[str]]:
    """Return the compared factor and each arm's level of it: the one setting that differs, or all of them."""
    settings = [arm[0].settings for arm in arms]
    if len(differing) == 1:
        factor, names = differing[0], [one.get(differing[0], _UNSET) for one in settings]
    else:
        factor, names = SEVERAL, [_name(one, differing) for one in settings]
    return factor, [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]


def _name(settings: Mapping[str, str], differing: Sequence[str]) -> str:
    """Return ``dbn augment=true fit.epochs=9 and 2 more``."""
    said = [f"{'' if key == 'model' else f'{key}='}{_short(settings[key])}" for key in differing if key in settings]
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return " ".join(said[:_NAMED]) + more


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"


def _notes_on_settings(arms: Arms, differing: Sequence[str]) -> list[str]:
    """Note all that differs where names may not show it, and where arms are not trained equally long."""
    settings = [arm[0].settings for arm in arms]
    notes = []
    if len(differing) > 1:
        values = "; ".join(f"{key}={'|'.join(one.get(key, _UNSET) for one in settings)}" for key in differing)
        notes.append(f"The arms, in order, differ in {len(differing)} settings: {values}.")
    passes = any(one.get("fit.steps_per_epoch") == "auto" for one in settings)
    if length := [key for key in differing if key in _LENGTH or (passes and key in _PASS)]:
        notes.append(f"The arms are not trained equally long ({', '.join(length)}): a difference may be due to that.")
    return notes


def seeds_of_partners(arms: Mapping[str, Sequence[ComparedRun]]) -> dict[str, int]:
    """Return run id → seed of the first arm's run that it is paired with, for the other arms' paired runs.

    Runs of a fold are paired by seed; in their order where they share no seed.
    """
    folds = {name: {one.fold for one in arm} for name, arm in arms.items()}
    if not set.intersection(*folds.values()):
        described = "; ".join(f"{name} has {sorted(of_arm)}" for name, of_arm in folds.items())
        raise RunError(
            f"No fold is shared by all settings, so no two runs have the same test photos: {described}. Add runs."
        )
    first, *others = arms.values()
    partners: dict[str, int] = {}
    for arm in others:
        for fold in {one.fold for one in arm}:
            seeds = [one.seed for one in first if one.fold == fold]
            here = [one for one in arm if one.fold == fold]
            shared = {one.id: one.seed for one in here if one.seed in seeds}
            partners |= shared or {one.id: seed for one, seed in zip(here, seeds, strict=False)}
    return partners


def _notes_on_pairs(arms: Arms, partners: Mapping[str, int]) -> list[str]:
    """Note where runs are paired in their order, and which are in no pair."""
    first, *rest = arms
    others = [one for arm in rest for one in arm]
    paired = [one for one in others if one.id in partners]
    places = {(one.fold, partners[one.id]) for one in paired}
    alone = [one for one in first if (one.fold, one.seed) not in places]
    alone += [one for one in others if one.id not in partners]
    notes = [_PAIRED_BY_ORDER] if any(partners[one.id] != one.seed for one in paired) else []
    if alone:
        named = ", ".join(f"{one.id} (seed {one.seed}, fold {one.fold})" for one in alone)
        notes.append(f"In the tables but in no difference, as no other arm has a run to pair with: {named}.")
    return notes
