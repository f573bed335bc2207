"""Whether a run's model becomes the champion: by a paired comparison with the present one on the same photos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wastelens.config.promote import PromoteConfig
from wastelens.errors import RunError, StoreUnreachable
from wastelens.evaluation.paired import MACRO_AP, Difference, Pair, compare
from wastelens.studies.compared_runs import ComparedRun, finished_run, repetitions, same_settings, seeds_of_partners
from wastelens.studies.results import stored_predictions
from wastelens.tracking.tracker import ModelVersion, Tracker

CHAMPION, CHALLENGER = "champion", "challenger"
_ELSEWHERE = "Train it on the champion's dataset, or compare both by evaluate on one labelled set."

_DATA = {
    "dataset": "it is of another dataset",
    "materials": "it is of other materials",
    "mapping": "it is of another mapping from labels to materials",
}


class _Incomparable(RunError):  # noqa: N818  a reason, told as part of a decision
    """A run cannot be compared with the champion; the message says why, and what to do."""


@dataclass(frozen=True)
class Decision:
    """Whether a run's model becomes the champion.

    Attributes:
        alias: champion or challenger.
        reason: one sentence.
        champion: the version that was the champion, if any.
        difference: macro AP, the model's minus that champion's; None where they were not compared.
    """

    alias: str
    reason: str
    champion: ModelVersion | None = None
    difference: Difference | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The difference, its interval, and how much it rests on."""
        if self.difference is None:
            return {}
        numbers = (
            "difference",
            "low",
            "high",
            "first_mean",
            "second_mean",
            "pairs",
            "seeds",
            "folds",
            "photos",
            "groups",
        )
        names = {"first_mean": "champion_macro_ap", "second_mean": "macro_ap", "low": "difference_low"}
        names |= {"high": "difference_high"}
        found = {names.get(name, name): float(getattr(self.difference, name)) for name in numbers}
        return {name: value for name, value in found.items() if not math.isnan(value)}


def decide(candidate: ComparedRun, champion: ModelVersion | None, config: PromoteConfig, tracker: Tracker) -> Decision:
    """Decide whether a run's model becomes the champion.

    It does if it has not collapsed, lies above the controls, and if the 95 % interval of its difference to the present
    champion in macro AP, on the same photos, over the seeds and folds that both were trained with, lies above
    -margin. With one seed per fold, two models that differ in nothing are told apart in a third of all cases (see
    :func:`compare`), so that alone does not suffice.
    """
    said = candidate.stored.tags.get("verdict", "its run has no verdict.")
    if not is_proven(candidate.stored.tags):
        return Decision(CHALLENGER, f"It is not proven, so it cannot be the champion: {said}", champion)
    if champion is None:
        return Decision(CHAMPION, f"It is the first champion: {said}")
    try:
        difference = _difference(candidate, _run_of(champion, tracker), config, tracker)
    except _Incomparable as error:
        return Decision(
            CHALLENGER, f"It cannot be compared with the champion, version {champion.number}: {error}", champion
        )
    alias, reason = _verdict(difference, config)
    return Decision(alias, reason.format(f"the champion, version {champion.number}"), champion, difference)


def is_proven(tags: Mapping[str, str]) -> bool:
    """Return whether a model has not collapsed and lies above the controls, by the tags of its run or version."""
    return tags.get("collapsed") == "false" and tags.get("above_controls") == "true"


def _run_of(champion: ModelVersion, tracker: Tracker) -> ComparedRun:
    """Return the run of the champion."""
    if not champion.run_id:
        raise _Incomparable("it was registered without a run.")
    try:
        return finished_run(tracker, champion.run_id, "choose by hand")
    except StoreUnreachable:
        raise
    except RunError as error:
        raise _Incomparable(str(error)) from None


def _difference(candidate: ComparedRun, holder: ComparedRun, config: PromoteConfig, tracker: Tracker) -> Difference:
    """Compare the settings of two runs by all their trainings that share fold and seed (or order within the fold)."""
    if differs := _what_differs(candidate, holder):
        raise _Incomparable(f"{differs}. {_ELSEWHERE}")
    if same_settings(candidate, holder):
        raise _Incomparable(
            f"both have the same settings, and differ only in seed or fold ({candidate.seed} and {candidate.fold}; the "
            f"champion's {holder.seed} and {holder.fold}), so what separates them is luck. Change a setting."
        )
    arms = {CHAMPION: repetitions(holder, tracker), CHALLENGER: repetitions(candidate, tracker)}
    try:
        partners = seeds_of_partners(arms)
    except RunError:
        folds = " and ".join(f"{name} {sorted({one.fold for one in arm})}" for name, arm in arms.items())
        raise _Incomparable(
            f"they were tested on other photos, those of other folds: {folds}. Train both on one."
        ) from None
    materials = list(candidate.about["materials"])
    pairs = _pairs(arms[CHAMPION], arms[CHALLENGER], partners, materials)
    found = compare({"both": pairs}, materials, np.random.default_rng([config.seed, 30]), config.bootstrap_resamples)
    return next(one for one in found if one.metric == MACRO_AP)


def _what_differs(candidate: ComparedRun, holder: ComparedRun) -> str:
    """Return in what the datasets of two runs differ; "" where both have the same photos, labels and split."""
    if candidate.about["dataset_digest"] == holder.about["dataset_digest"]:
        return ""
    for what, said in _DATA.items():
        mine, other = (_shown({**run.stored.tags, **run.about}.get(what)) for run in (candidate, holder))
        if mine != other:
            return f"{said} ({mine}; the champion's: {other})"
    return f"{candidate.about['dataset']} was prepared again in between, so that photos, labels or split differ"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _pairs(
    first: Sequence[ComparedRun], second: Sequence[ComparedRun], partners: Mapping[str, int], materials: Sequence[str]
) -> list[Pair]:
    """Read the predictions of the runs that are partners."""
    champions = {(one.fold, one.seed): one for one in first}
    pairs = []
    for one in second:
        if one.id not in partners:
            continue
        other = champions[one.fold, partners[one.id]]
        try:
            pair = Pair(other.seed, one.fold, *(stored_predictions(run.stored, materials) for run in (other, one)))
        except StoreUnreachable:
            raise
        except (RunError, ValueError) as error:
            raise _Incomparable(f"{str(error).rstrip('.')}. {_ELSEWHERE}") from None
        if (pair.first.labels != pair.second.labels).any():
            raise _Incomparable(f"the labels of their test photos differ (runs {other.id}, {one.id}). {_ELSEWHERE}")
        pairs.append(pair)
    return pairs


def _verdict(difference: Difference, config: PromoteConfig) -> tuple[str, str]:
    """Return the alias and the reason, with ``{0}`` for the champion."""
    seeds = (
        f"{difference.seeds} seed{'s' * (difference.seeds > 1)}, {difference.folds} fold{'s' * (difference.folds > 1)}"
    )
    numbers = (
        f"macro AP {difference.second_mean:.3f} against {difference.first_mean:.3f}, {difference.difference:+.3f} "
        f"[{difference.low:+.3f}, {difference.high:+.3f}], over {seeds}, {difference.photos} photos in "
        f"{difference.groups} groups"
    )
    if math.isnan(difference.low):
        return CHALLENGER, (
            f"It cannot be told from {{0}}: macro AP {difference.second_mean:.3f} against {difference.first_mean:.3f} "
            f"on {difference.photos} photos in {difference.groups} groups, too few for an interval, or with the same "
            "answers. Test on photos of more groups."
        )
    if difference.low <= -config.margin:
        said = "is worse than" if difference.high < 0 else "does not beat"
        beyond = f"may be worse than {{0}} by more than {config.margin:g}" if config.margin else f"{said} {{0}}"
        return CHALLENGER, f"It {beyond}: {numbers}{'' if difference.training_known else '; seeds were not compared'}."
    better = "beats {0}" if difference.low > 0 else f"is not worse than {{0}} by more than {config.margin:g}"
    if difference.training_known:
        return CHAMPION, f"It {better}: {numbers}."
    if config.accept_single_seed:
        return CHAMPION, f"It {better}: {numbers}; seeds were not compared, so a lucky one may be the cause."
    return CHALLENGER, (
        f"It {better} on these photos, but seeds were not compared, and a lucky one may be the cause: {numbers}. Train "
        "both with the same two or three seeds, and promote it again; or let photos alone decide with "
        "accept_single_seed=true."
    )
