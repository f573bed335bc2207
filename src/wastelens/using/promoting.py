"""Carry out promotions in a registry of models: aliases, tags and descriptions; by a decision, or by hand."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from wastelens.errors import RunError
from wastelens.studies.compared_runs import ComparedRun
from wastelens.tracking.tracker import ModelVersion, Registry, logged_text
from wastelens.using.promotion_decision import CHALLENGER, CHAMPION, Decision

REPLACED = "replaced_version"  # tag of a champion: the version that had the alias before it; 0: none


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
        "test/macro_ap",
        "test/macro_ap_low",
        "test/macro_ap_high",
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
        **{key.replace("/", "_"): stored.metrics[key] for key in metrics if key in stored.metrics},
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
