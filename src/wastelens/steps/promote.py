"""``promote``: register a run's model, and decide by a paired comparison whether it becomes the champion."""

from __future__ import annotations

from collections.abc import Mapping

from wastelens.config.base import flatten
from wastelens.config.promote import PromoteConfig
from wastelens.errors import ConfigError
from wastelens.studies.compared_runs import finished_run
from wastelens.system.console import next_command, say, warn
from wastelens.tracking.tracker import Registry, Tracker
from wastelens.using.promoting import REPLACED, Promotion, carry_out, choose, roll_back, unchanged
from wastelens.using.promotion_decision import CHALLENGER, CHAMPION, decide, is_proven


def run(config: PromoteConfig, tracker: Tracker) -> Promotion:
    """Register a run's model as champion or challenger; or move the alias champion to another version.

    Raises:
        ConfigError: no name, or nothing to do.
        RunError: no such run, version or model; a run without a model; or MLflow's registry cannot be used.
    """
    if not config.name:
        raise ConfigError("promote needs the name of the registered model: name=litter")
    if not (config.run_id or config.version or config.rollback):
        raise ConfigError("promote needs run_id=RUN_ID, or rollback=true, or version=N")
    registry = tracker.registry_of(config.name)
    if config.run_id:
        promotion = _by_comparison(config, registry, tracker)
    else:
        promotion = choose(registry, config.version) if config.version else roll_back(registry)
        _log(promotion, config, {}, tracker)
    _say(promotion, registry)
    return promotion


def _by_comparison(config: PromoteConfig, registry: Registry, tracker: Tracker) -> Promotion:
    """Decide and carry it out; a run whose model is the champion stays it."""
    candidate = finished_run(tracker, config.run_id, "give the id of a finished train run")
    champion = registry.versions().get(registry.aliases().get(CHAMPION, 0))
    if champion and champion.run_id == candidate.id:
        promotion, metrics = unchanged(registry.name, champion), {}
    else:
        decision = decide(candidate, champion, config, tracker)
        number = registry.register(candidate.id)
        promotion, metrics = carry_out(registry, number, candidate, decision, config.margin), decision.metrics
    _log(promotion, config, metrics, tracker)
    return promotion


def _log(promotion: Promotion, config: PromoteConfig, metrics: Mapping[str, float], tracker: Tracker) -> None:
    """Log the decision as a run of its own."""
    tags = {"step": "promote", "registered_model": promotion.name, "version": promotion.number}
    with tracker.start(f"promote {promotion.name}", tags=tags) as tracked:
        tracked.log_parameters(flatten(config))
        tracked.log_metrics(metrics)
        tracked.set_tags({"decision": promotion.alias, "verdict": promotion.reason, "promotes_run": promotion.run_id})


def _say(promotion: Promotion, registry: Registry) -> None:
    """Print the decision, and what the alias champion now means."""
    say(promotion.reason, "green" if promotion.alias == CHAMPION else "yellow")
    name, version = promotion.name, registry.versions()[promotion.number]
    say(f"models:/{name}@{promotion.alias} is version {promotion.number} (run {promotion.run_id}).", "bold")
    if promotion.alias == CHAMPION and not is_proven(version.tags):
        warn(f"Version {promotion.number} is not proven: {version.tags.get('verdict', 'it has no verdict.')}")
    if promotion.alias == CHALLENGER:
        champion = registry.aliases().get(CHAMPION)
        say(f"models:/{name}@{CHAMPION} stays version {champion}." if champion else f"{name} has no champion.")
        by_hand = next_command("promote", {"name": name, "version": promotion.number})
        say(f"To make it the champion by hand, which its tags will say: {by_hand}")
    if int(version.tags.get(REPLACED) or 0) and promotion.alias == CHAMPION:
        say(f"To undo it: {next_command('promote', {'name': name, 'rollback': 'true'})}")
