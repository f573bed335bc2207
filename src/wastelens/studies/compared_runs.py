"""The runs that ``compare`` is given: checked against each other, and sorted into arms by their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wastelens.errors import RunError, StoreUnreachable
from wastelens.experiment.finished_runs import about_run
from wastelens.studies.cells import settings_in_effect
from wastelens.tracking.tracker import StoredRun, Tracker

_REPLICATES = ("seed", "fold")  # runs that differ in these alone are one arm


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
    def fold(self) -> int:
        """The fold that it was trained on."""
        return int(self.about["config"]["fold"])

    @property
    def seed(self) -> int:
        """Of the training."""
        return int(self.about["config"]["seed"])


def finished_run(tracker: Tracker, run_id: str) -> Compared:
    """A run of ``train`` that has finished.

    Raises:
        RunError: it has not, there is none of this id, or it is one of another step.
    """
    stored = tracker.stored(run_id)
    about = about_run(stored)
    if about.get("step") != "train":
        raise RunError(f"Run {run_id} is no run of train, and has no predictions to compare. Leave it out.")
    if stored.status != "FINISHED":
        raise RunError(f"Run {run_id} is not finished ({stored.status}). Wait, resume it, or leave it out.")
    return Compared(stored, about, _settings(about["config"], tracker))


def _settings(config: Mapping[str, Any], tracker: Tracker) -> dict[str, str]:
    """All that makes an arm, as text; what is not used does not count.

    Of an encoder its settings count, not which run made it: each seed starts from an encoder of its own. They are
    training's own where it pretrained by itself, and those of the run that ``pretrained`` names where it names one.
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
    """The settings of a run of ``pretrain``; empty where it is gone."""
    try:
        about = about_run(tracker.stored(run_id))
    except StoreUnreachable:
        raise
    except RunError:
        return {}
    return dict(about["config"]) if about.get("step") == "pretrain" else {}


def check_same_dataset(runs: Sequence[Compared]) -> None:
    """Numbers on other photos, or of other labels, say nothing about each other.

    Raises:
        RunError: these are of more than one dataset digest.
    """
    kinds = {str(one.about["dataset_digest"]): one for one in reversed(runs)}
    if len(kinds) > 1:
        described = [
            f"run {one.id} is of {one.about['dataset']} (digest {digest[:8]}, mapping "
            f"{one.stored.tags.get('mapping', 'unknown')})"
            for digest, one in reversed(kinds.items())
        ]
        raise RunError(f"These runs are not of one dataset: {'; '.join(described)}. Compare runs of one digest.")


def newest(runs: Sequence[Compared], tracker: Tracker) -> tuple[list[Compared], list[str]]:
    """The runs, of those of the same settings, seed and fold only the newest; and a note on the others."""
    same: dict[tuple[Any, ...], list[Compared]] = {}
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


def sorted_into_arms(runs: Sequence[Compared]) -> list[list[Compared]]:
    """The runs of each configuration, by fold and seed; the first run's configuration first.

    Raises:
        RunError: there is one configuration only.
    """
    arms: dict[tuple[tuple[str, str], ...], list[Compared]] = {}
    for one in runs:
        arms.setdefault(tuple(sorted(one.settings.items())), []).append(one)
    if len(arms) < 2:
        raise RunError(
            "These runs differ in nothing but seed and fold: there is nothing to compare. Add a run with another "
            "setting."
        )
    return [sorted(arm, key=lambda one: (one.fold, one.seed)) for arm in arms.values()]
