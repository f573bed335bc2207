"""Which version of a registered model is the champion: decided by a paired comparison, or moved by hand."""

from __future__ import annotations

import getpass
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from wastelens.config.promote import PromoteConfig
from wastelens.errors import RunError, StoreUnreachable
from wastelens.evaluation.paired import MACRO_AP, Difference, Pair, compare
from wastelens.studies.compared_runs import ComparedRun, finished_run, repetitions, same_settings, seeds_of_partners
from wastelens.studies.results import stored_predictions
from wastelens.tracking.tracker import ModelVersion, Registry, Tracker, logged_text

CHAMPION, CHALLENGER = "champion", "challenger"
REPLACED = "replaced_version"  # tag of a champion: the version that had the alias before it; 0: none
_ELSEWHERE = "Train it on the champion's dataset, or compare both by evaluate on one labelled set."

_DATA = {
    "dataset": "it is of another dataset",
    "materials": "it is of other materials",
    "mapping": "it is of another mapping from labels to materials",
    "image_side_px": "it takes photos of another size in px",
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


@dataclass(frozen=True)
class Promotion:
    """A version of a registered model, its alias, and why it has it."""

    name: str
    number: int
    run_id: str
    alias: str
    reason: str


def unchanged(name: str, champion: ModelVersion) -> Promotion:
    """Return the promotion of what is the champion already."""
    return Promotion(name, champion.number, champion.run_id, CHAMPION, "It is the champion already.")


def carry_out(registry: Registry, number: int, candidate: ComparedRun, decision: Decision, margin: float) -> Promotion:
    """Write a decision into its version's tags, then move the alias: a kill meanwhile leaves the champion as it was."""
    before = decision.champion
    by = _who_and_when()
    tags = {
        **_facts(candidate),
        **by,
        "decision": decision.alias,
        "reason": decision.reason,
        **({"compared_with_version": before.number, "compared_with_run": before.run_id} if before else {}),
        "margin": margin,
        **decision.metrics,
        **({REPLACED: before.number if before else 0} if decision.alias == CHAMPION else {}),
    }
    registry.describe(number, tags, _description(decision, tags))
    if decision.alias == CHAMPION:
        _crown(registry, number)
        if before:
            _note(registry, before, {**by, "decision": "replaced"}, f"Replaced by version {number}")
    else:
        registry.point(CHALLENGER, number)
    return Promotion(registry.name, number, candidate.id, decision.alias, decision.reason)


def roll_back(registry: Registry) -> Promotion:
    """Give the alias champion back to the version that the champion replaced.

    Raises:
        RunError: there is no such model or champion, or it replaced none.
    """
    versions, present = _versions(registry), registry.aliases().get(CHAMPION, 0)
    replaced = int(versions[present].tags.get(REPLACED) or 0) if present in versions else 0
    if not replaced:
        fact = f"version {present} replaced no other" if present else "it has no champion"
        raise RunError(
            f"Model '{registry.name}' cannot be rolled back: {fact}. Choose one with version=N: {_listed(versions)}."
        )
    return _move(registry, versions, replaced, f"Version {present} was rolled back", {})


def choose(registry: Registry, number: int) -> Promotion:
    """Give the alias champion to a version, whatever the numbers; its tags then say so.

    Raises:
        RunError: there is no such model or version.
    """
    versions, present = _versions(registry), registry.aliases().get(CHAMPION, 0)
    if number == present:
        return unchanged(registry.name, versions[number])
    how = f"Chosen by hand instead of version {present}" if present else "Chosen by hand"
    return _move(registry, versions, number, how, {REPLACED: present})


def _move(
    registry: Registry, versions: Mapping[int, ModelVersion], number: int, how: str, tags: Mapping[str, object]
) -> Promotion:
    present = registry.aliases().get(CHAMPION, 0)
    if number not in versions:
        raise RunError(f"Model '{registry.name}' has no version {number}. Choose one of {_listed(versions)}.")
    by = _who_and_when()
    _note(registry, versions[number], {**by, **tags, "decision": "by hand", "reason": f"{how}."}, how)
    _crown(registry, number)
    if present in versions:
        _note(registry, versions[present], {**by, "decision": "replaced"}, f"Replaced by version {number}, by hand")
    return Promotion(registry.name, number, versions[number].run_id, CHAMPION, f"{how}, without a new comparison.")


def _crown(registry: Registry, number: int) -> None:
    registry.point(CHAMPION, number)
    if registry.aliases().get(CHALLENGER) == number:
        registry.drop(CHALLENGER)


def _versions(registry: Registry) -> dict[int, ModelVersion]:
    if versions := registry.versions():
        return versions
    raise RunError(f"There is no registered model '{registry.name}'. Register one: run_id=RUN_ID name={registry.name}")


def _listed(versions: Mapping[int, ModelVersion]) -> str:
    return ", ".join(map(str, versions))


def _note(registry: Registry, version: ModelVersion, tags: Mapping[str, object], line: str) -> None:
    """Set tags of a version, and add a line to its description."""
    dated = f"- {line} ({tags['decided_at']}, {tags['decided_by']})"
    registry.describe(version.number, tags, f"{version.description or ''}\n{dated}".strip())


def _who_and_when() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = "unknown"
    return {"decided_by": user, "decided_at": datetime.now(UTC).isoformat(timespec="seconds")}


def _facts(candidate: ComparedRun) -> dict[str, object]:
    """Return what a version's tags say about its run."""
    stored, about = candidate.stored, candidate.about
    tags = ("collapsed", "above_controls", "verdict", "mapping", "git_commit")
    metrics = (
        "test_macro_ap",
        "test_macro_ap_low",
        "test_macro_ap_high",
        "gain_over_controls",
        "gain_over_controls_low",
    )
    return {
        **{key: about[key] for key in ("dataset", "dataset_digest", "image_side_px")},
        "materials": ", ".join(about["materials"]),
        "model": candidate.settings["model"],
        "seed": candidate.seed,
        "fold": candidate.fold,
        **{key: stored.tags[key] for key in tags if key in stored.tags},
        **{key: stored.metrics[key] for key in metrics if key in stored.metrics},
    }


def _description(decision: Decision, tags: Mapping[str, object]) -> str:
    """Return a version's description, in markdown."""
    rows = [f"| {key} | {logged_text(value)} |" for key, value in tags.items() if key not in ("reason", "verdict")]
    return "\n".join(
        [
            f"**{decision.alias.capitalize()}**: {decision.reason}",
            "",
            f"Verdict of its run: {tags.get('verdict', 'none')}",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
        ]
    )
