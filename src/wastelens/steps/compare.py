"""``compare``: finished runs on one dataset, paired on the same photos, with the statistics of a study."""

from __future__ import annotations

from wastelens.config.study import CompareConfig
from wastelens.errors import ConfigError
from wastelens.studies.compared_runs import comparison_contents, finished_run
from wastelens.studies.contents import StudyContents
from wastelens.studies.report import log_report, say_report
from wastelens.tracking.tracker import Tracker


def run(config: CompareConfig, tracker: Tracker) -> StudyContents:
    """Compare finished ``train`` runs; those that differ only in seed and fold are one arm.

    Raises:
        ConfigError: fewer than two runs.
        RunError: a run is unfinished or not of ``train``; or the runs have different datasets or mappings, all have
            the same settings, or share no fold.
    """
    if len(config.run_ids) < 2:
        raise ConfigError("compare needs two runs or more: run_ids=RUN_ID,RUN_ID")
    runs = [finished_run(tracker, run_id) for run_id in config.run_ids]
    contents = comparison_contents(config, runs, tracker)
    with tracker.start(f"compare {len(runs)} runs") as tracked:
        tracked.log_parameters({"run_ids": ",".join(config.run_ids), "seed": config.seed})
        tags = {"step": "compare", "dataset": runs[0].about["dataset"]}
        tracked.set_tags({**tags, "dataset_digest": runs[0].about["dataset_digest"], "compares": contents.factor})
        log_report(tracked, contents)
    say_report(contents, tracked.id, tracker)
    return contents
