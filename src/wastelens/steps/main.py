"""``main``: the whole job under one parent run, with a closing table of the results."""

from __future__ import annotations

import time
from typing import Any

from wastelens.config.explain import ExplainConfig
from wastelens.config.main import MainConfig
from wastelens.errors import ConfigError
from wastelens.experiment.comparison import Compared, best_of, comparison_frame, report
from wastelens.experiment.train_one import check_weights
from wastelens.preparing.reading import raw_data
from wastelens.steps import cluster, explain, prepare, train
from wastelens.studies.main_report import MainJob, log_main_report
from wastelens.system.console import say, warn
from wastelens.tracking.tracker import Tracker

_DECISIVE = (
    "val/macro_ap",
    *(f"{name}{end}" for name in ("test/macro_ap", "gain_over_controls") for end in ("", "_low", "_high")),
    "test/macro_f1",
    "floor/macro_ap",
)


def run(config: MainConfig, tracker: Tracker) -> list[Compared]:
    """Prepare; pretrain and train every model; compare them; cluster an encoder's features; explain the best model."""
    raw_data(config.prepare)
    check_weights(
        config.models.items(),
        'In the main job: set="models.{0}.weights=none", or leave the model out: set="models.{0}=null"',
    )
    with tracker.start("main") as tracked:
        tracked.set_tags({"step": "main"})
        tracked.log_parameters({"dataset": config.prepare.dataset, "seed": config.train.seed})
        prepared = prepare.run(config.prepare, tracker)
        tracked.set_tags({"dataset": prepared.dataset.name, "dataset_digest": prepared.dataset.digest})
        config = _on(config, prepared.dataset.name) if config.prepare.name else config
        cluster.check(config.cluster, tracker, prepared.dataset)
        explain.check(config.explain, tracker, prepared.dataset, config.train.fold)
        compared = []
        for one in config.models.values():
            started = time.monotonic()
            trained = train.judged(one, tracker)
            compared.append(Compared(trained, (time.monotonic() - started) / 60))
        tracked.log_table(comparison_frame(compared), "comparison.csv")
        best = best_of(compared).trained
        # The parent gets the numbers that decide, of the best run.
        tracked.log_metrics({name: best.verdict.metrics()[name] for name in _DECISIVE})
        tracked.set_tags({"best_run": best.run_id, "best_model": best.name, **best.verdict.tags()})
        # The features of the first pretrained encoder; without one, only the controls are clustered.
        encoders = [one.trained.pretrained_run for one in compared if one.trained.pretrained_run]
        clustering = {"run_id": config.cluster.run_id or next(iter(encoders), "")}
        clustered = cluster.judged(config.cluster.model_copy(update=clustering), tracker)
        explained = _explain(_explaining(config, compared), tracker)
        job = MainJob(
            dataset=f"{prepared.dataset.name}: {len(prepared.dataset.frame):,} photos",
            compared=compared,
            clusters=clustered.sentence,
            explanations=explained.summary.sentences() if explained else (),
            page=tracker.address(explained.run_id, f"{explain.ARTIFACTS}/index.html") if explained else "",
            report=tracker.address(tracked.id, "report.html"),
            command=best.use_command(config.train.data_folder),
        )
        log_main_report(tracked, job)
    report(compared)
    for sentence in (clustered.sentence, *job.explanations):
        say(sentence)
    if explained:
        say(f"Where it looks: {job.page}")
    say(f"The report: {job.report}")
    say(f"See all runs: {tracker.finished_hint()}", "bold")
    say(f"Next: {job.command}")
    return compared


def _on(config: MainConfig, dataset: str) -> MainConfig:
    """Return the settings with this name of the prepared dataset for all steps that read it."""

    def named(section: Any) -> Any:
        return section.model_copy(update={"dataset": dataset})

    models = {name: named(one) for name, one in config.models.items()}
    sections = {name: named(getattr(config, name)) for name in ("train", "cluster", "explain")}
    return config.model_copy(update={"models": models, **sections})


def _explaining(config: MainConfig, compared: list[Compared]) -> ExplainConfig:
    run_id = config.explain.run_id or best_of(compared).trained.run_id
    return config.explain.model_copy(update={"run_id": run_id})


def _explain(config: ExplainConfig, tracker: Tracker) -> explain.Explanations | None:
    """Explain the best model if the methods fit it: a misfit is no reason to lose the whole job."""
    try:
        return explain.explained(config, tracker)
    except ConfigError as error:
        warn(f"Run {config.run_id} is not explained. {error}")
        return None
