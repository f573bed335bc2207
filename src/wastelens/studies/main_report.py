"""The page of a main job: every model beside its floor and controls, the one that was chosen, and what explains it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wastelens.evaluation.verdict import Verdict
from wastelens.experiment.comparison import Compared, best_of
from wastelens.experiment.finished_runs import BEST_BY
from wastelens.figures import study as figures
from wastelens.studies.markdown_text import line_start, one_line, table_text
from wastelens.studies.page import page_of
from wastelens.studies.report_tables import ReportTable
from wastelens.tracking.tracker import Run, run_note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ["model", "verdict", "test macro AP [95 %]", "gain over the strongest control [95 %]", "strongest control"]
_COLUMNS += ["floor", "val macro AP", "macro F1", "minutes", "run"]
_NOTE = (
    "The model is chosen on val; test is looked at once. The floor is what the best constant answer scores on test. "
    "Controls do not look at the litter: a model may not have looked at it either, unless the whole interval of its "
    "gain over the strongest control lies above zero."
)


@dataclass(frozen=True)
class MainJob:
    """The results of a main job.

    Attributes:
        dataset: in words.
        compared: the models.
        clusters: the finding on clusters, a sentence.
        explanations: the findings on the chosen model's explanations, sentences; none where it is not explained.
        page: the address of the page of explanations.
        report: the address of this report.
        command: to use the model.
    """

    dataset: str
    compared: Sequence[Compared]
    clusters: str
    explanations: Sequence[str]
    page: str
    report: str
    command: str

    @property
    def best(self) -> Compared:
        """The model that is best on val."""
        return best_of(list(self.compared))

    @property
    def sentence(self) -> str:
        """Which model was chosen, and why."""
        trained = self.best.trained
        why = f"best of {len(self.compared)} models on val (macro AP {trained.verdict.metrics()[BEST_BY]:.3f})"
        return f"{self.best.short_name} is the {why}. {trained.verdict.sentence}"


def log_main_report(tracked: Run, job: MainJob) -> None:
    """Log the page, and the description of the run."""
    tracked.log_text(html(job), "report.html")
    links = [
        f"[All models]({job.report})",
        *([f"[photo by photo, where it looks]({job.page})"] if job.explanations else []),
    ]
    note = [f"**{job.sentence}**", " · ".join(links), *job.explanations, job.clusters]
    tracked.set_tags(run_note(tracked.id, *note, command=job.command))


def html(job: MainJob) -> str:
    """Return the report as one page that requests nothing."""
    verdict = job.best.trained.verdict
    kind = "doubt" if verdict.collapse.collapsed else ("helps" if verdict.above_controls else "hurts")
    title = f"Main job on {job.dataset}"
    return page_of("\n\n".join(_written(job, title)) + "\n", title, kind, {"forest-gain": figures.svg(_gains(job))})


def _written(job: MainJob, title: str) -> Iterator[str]:
    yield f"# {line_start(title)}"
    yield line_start(job.sentence)
    yield "## Models: test macro AP over the strongest control"
    yield "![Test macro AP of each model minus that of the strongest control, with 95 % intervals](forest-gain)"
    yield table_text(ReportTable("Models", _COLUMNS, [_row(one) for one in job.compared], _marks(job)))
    yield f"*{_NOTE}*"
    if added := [one for one in job.compared if one.trained.verdict.start]:
        yield "## What training added to pretrained features"
        yield "\n".join(f"- {one_line(f'{one.short_name}: {_start(one.trained.verdict)}')}" for one in added)
    yield "## Where the chosen model looks"
    yield "\n".join(f"- {one_line(text)}" for text in job.explanations) or "It was not explained."
    if job.explanations:
        yield one_line(f"Photo by photo: {job.page}")
    yield "## Clusters"
    yield line_start(job.clusters)
    yield "## Use the model"
    yield f"```sh\n{job.command}\n```"


def _start(verdict: Verdict) -> str:
    return verdict.start.sentence if verdict.start else ""


def _row(one: Compared) -> list[str]:
    verdict = one.trained.verdict
    low, high = verdict.test.macro_ap_interval
    metrics = verdict.metrics()
    return [
        one.short_name,
        verdict.word,
        f"{verdict.test.macro_ap:.3f} [{low:.3f}, {high:.3f}]",
        _gain(verdict),
        f"{verdict.strongest_control_macro_ap:.3f} ({verdict.strongest_control})",
        f"{verdict.floors.macro_ap:.3f}",
        f"{metrics[BEST_BY]:.3f}",
        f"{metrics['test/macro_f1']:.3f}",
        f"{one.minutes:.1f}",
        one.trained.run_id[:8],
    ]


def _gain(verdict: Verdict) -> str:
    gain = verdict.gain
    return f"{gain.estimate:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def _marks(job: MainJob) -> frozenset[tuple[int, int]]:
    """Return the cell in bold: the name of the chosen model."""
    return frozenset({(list(job.compared).index(job.best), 0)})


def _gains(job: MainJob) -> Figure:
    """Draw each model's gain over the strongest control."""
    verdicts = [one.trained.verdict for one in job.compared]
    lines = [
        figures.ForestLine(
            name=one.short_name,
            difference=one.trained.verdict.gain.estimate,
            low=one.trained.verdict.gain.low,
            high=one.trained.verdict.gain.high,
            verdict="helps" if one.trained.verdict.above_controls else "",
            numbers=f"{_gain(one.trained.verdict)} {one.trained.verdict.word}",
            pooled=one is job.best,
        )
        for one in job.compared
    ]
    ends = np.array([[one.gain.estimate, one.gain.low, one.gain.high] for one in verdicts], np.float64)
    return figures.forest("forest-gain", lines, ("control", "model"), figures.forest_reach(ends))
