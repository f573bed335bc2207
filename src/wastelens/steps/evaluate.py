"""``evaluate``: judge a finished model on other photos with labels, and answer whether it holds there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wastelens.config.base import flatten
from wastelens.config.evaluate import EvaluateConfig
from wastelens.errors import ConfigError
from wastelens.figures.evaluation import drop_figure
from wastelens.figures.verdict import verdict_figures
from wastelens.system.arrays import FloatArray
from wastelens.system.console import progress_bar, say, table, warn
from wastelens.tracking.tracker import Run, Tracker, run_note
from wastelens.using.chosen_model import BATCH_SIZE, ChosenModel, open_model
from wastelens.using.judging import Judgement, judge_elsewhere
from wastelens.using.labelled_set import LabelledSet, labelled_set
from wastelens.using.output import unlike_sentence


@dataclass(frozen=True)
class Evaluated:
    """The judgement, and the run that holds it."""

    run_id: str
    judgement: Judgement


def run(config: EvaluateConfig, tracker: Tracker) -> Evaluated:
    """Judge a model on a labelled set, log the evidence, and say whether it holds there.

    Raises:
        InputError: the model or the dataset cannot be used: there is none, or it has no labels, none of the model's
            materials, or was prepared at a smaller side.
    """
    if not config.model:
        raise ConfigError("No model is given. Give model=: a train run's id, or models:/NAME@ALIAS.")
    with open_model(tracker, config.model) as model:
        if not model.is_proven:
            warn(f"The model is unproven by its own test: {model.card.verdict}")
        found = labelled_set(config, model.card)
        probabilities, unlike = _answers(model, found)
        judgement = judge_elsewhere(model, found, probabilities, seed=config.seed, resamples=config.bootstrap_resamples)
        tags = {"step": "evaluate", "dataset": found.name, "dataset_digest": found.digest}
        with tracker.start(f"evaluate {found.name}", tags=tags) as tracked:
            tracked.log_parameters(flatten(config))
            tracked.set_tags({"evaluated_model": model.address, "evaluated_run": model.run_id})
            _log(tracked, judgement, found, unlike)
    _report(judgement, found)
    if doubt := unlike_sentence(unlike):
        warn(doubt)
    say(f"Run {tracked.id} has the evidence. See it: {tracker.finished_hint(tracked.id)}")
    say(judgement.answer, "green" if judgement.holds == "yes" else "yellow")
    return Evaluated(tracked.id, judgement)


def _answers(model: ChosenModel, found: LabelledSet) -> tuple[FloatArray, float]:
    """Return the network's probabilities for all photos, float64 (photos, materials), not calibrated; and a p-value.

    It says how probable photos as unfamiliar as these are among those like the model's test; NaN: it cannot be told.
    """
    rows, answers, distances = found.table.photo_index, [], []
    with progress_bar("Judging photos", len(rows)) as bar:
        for start in range(0, len(rows), BATCH_SIZE):
            piece = rows[start : start + BATCH_SIZE]
            answer = model.answers(np.asarray(found.photos[piece]))
            answers.append(answer.probabilities)
            if model.familiarity and answer.features is not None:
                distances.append(model.familiarity.distances(answer.features))
            bar.advance(len(piece))
    known = model.familiarity and distances
    unlike = model.familiarity.p_of(np.concatenate(distances)) if model.familiarity and known else math.nan
    return np.concatenate(answers).astype(np.float64), unlike


def _log(tracked: Run, judgement: Judgement, found: LabelledSet, unlike: float) -> None:
    """Log metrics, tags, tables and figures."""
    notes = [one for one in (*found.notes, *judgement.notes, unlike_sentence(unlike)) if one]
    tracked.log_table(judgement.predictions, "predictions.csv")
    if len(found.left_out):
        tracked.log_table(found.left_out, "left_out.csv")
    caption = f"The model on {found.name}: {len(found.table):,} photos"
    if judgement.verdict:
        tracked.log_metrics(judgement.verdict.metrics())
        tracked.set_tags(judgement.verdict.tags())
        for name, frame in judgement.verdict.tables().items():
            tracked.log_table(frame, name)
        for name, figure in verdict_figures(judgement.verdict).items():
            tracked.log_figure(figure, f"figures/{name}.png", caption)
    if judgement.drop:
        tracked.log_metrics(judgement.drop.metrics())
        tracked.log_table(judgement.drop.table, "materials.csv")
        tracked.log_figure(drop_figure(judgement.drop.table, found.name), "figures/own_test.png", caption)
    tracked.log_metrics({"unlike_p": unlike} if math.isfinite(unlike) else {})
    tracked.log_metrics({"photos": len(found.table), "photos/left_out": len(found.left_out)})
    about = run_note(tracked.id, f"**{judgement.answer}**", *notes)
    tracked.set_tags({"holds": judgement.holds, "answer": judgement.answer, **about})


def _report(judgement: Judgement, found: LabelledSet) -> None:
    """Print the numbers and the notes."""
    if judgement.drop:
        rows = [
            [
                str(row.material),
                f"{row.photos} of {len(found.table)}",
                f"{row.ap:.3f} [{row.ap_low:.3f}, {row.ap_high:.3f}]",
                f"{row.prevalence:.3f}",
                f"{row.own_ap:.3f} [{row.own_ap_low:.3f}, {row.own_ap_high:.3f}]",
                f"{row.difference:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]",
                f"{row.f1:.2f} ({row.own_f1:.2f})",
            ]
            for row in judgement.drop.table.itertuples(index=False)
        ]
        columns = ["material", "photos", "AP", "floor", "AP on own test", "difference", "F1 (own)"]
        table(
            f"{found.name}, and the model's own test with materials as frequent as here (in brackets: 95 %)",
            columns,
            rows,
        )
    if judgement.verdict:
        say(judgement.verdict.sentence)
        say(judgement.verdict.calibration.sentence)
    for note in (*found.notes, *judgement.notes):
        say(note)
