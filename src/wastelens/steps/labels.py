"""``labels``: which annotations look wrong, by models that have not seen the photo, and a page to go through them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wastelens.config.base import as_text, flatten
from wastelens.config.files import load_config, train_config_of
from wastelens.config.labels import LabelsConfig
from wastelens.config.parameters import parameters_of
from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.opening import open_dataset
from wastelens.experiment.finished_runs import describe_run
from wastelens.experiment.out_of_fold import OutOfFold, answers_out_of_fold, check_out_of_fold, parts_of
from wastelens.explain.doubts import DoubtExaminer
from wastelens.explain.page.doubts import DoubtsPage, header_of
from wastelens.preparing.doubtful_labels import DoubtfulLabels, doubtful_labels
from wastelens.system.console import next_command, progress_bar, say
from wastelens.tracking.tracker import Run, Tracker, run_note

ARTIFACTS = "labels"


@dataclass(frozen=True)
class LabelDoubts:
    """The doubts about a dataset, and the run that has the list and the page."""

    run_id: str
    found: DoubtfulLabels


def run(config: LabelsConfig, tracker: Tracker) -> LabelDoubts:
    """Answer for every photo out of fold, rank its labels, and log the list and a page to go through.

    Raises:
        InputError: there is no such prepared dataset or model, or its weights are not available.
        NonFiniteLossError: a training diverged.
    """
    dataset = open_dataset(config.dataset, config.data_folder)
    training = _training(config)
    dataset = dataset.at_side(training.seen_side_px)
    check_out_of_fold(training, dataset)
    with tracker.start(f"labels of {dataset.name} by {Path(config.model).stem}") as tracked:
        tracked.log_parameters(flatten(config))
        describe_run(tracked, "labels", training, dataset)
        parts = len(parts_of(dataset, config.seed))
        with progress_bar("Parts held out", parts) as bar:
            answers = answers_out_of_fold(training, dataset, bar.advance)
        found = doubtful_labels(dataset, answers.probabilities)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            _write_page(folder, tracked.id, config, dataset, answers, found)
            tracked.replace_folder(folder, ARTIFACTS)
        _log(tracked, config, dataset, found)
    for sentence in found.sentences():
        say(sentence)
    say(
        f"The page: {ARTIFACTS}/index.html in the artifacts of the run. See it: {tracker.finished_hint(tracked.id)} "
        f"Then: {_next(config, dataset)}",
        "green",
    )
    return LabelDoubts(tracked.id, found)


def _training(config: LabelsConfig) -> TrainConfig:
    """Return the settings of the models."""
    own = {
        "model": config.model,
        "dataset": config.dataset,
        "data_folder": str(config.data_folder),
        "seed": config.seed,
    }
    return train_config_of([("the section train", dict(config.train)), ("labels", own)])


def _write_page(
    folder: Path, run_id: str, config: LabelsConfig, dataset: PreparedDataset, answers: OutOfFold, found: DoubtfulLabels
) -> None:
    """Examine the most doubtful labels, by the network that did not see their photo, and write the page."""
    shown = found.most_doubtful(config.shown)
    examiner = DoubtExaminer(answers.network, dataset, config.batch_size, with_evidence=config.evidence)
    page = DoubtsPage(dataset.materials)
    part_of = answers.part[shown["row"]]
    with progress_bar("Doubtful labels", len(shown)) as bar:
        for part in sorted(set(part_of.tolist())):
            answers.use(part)
            of_part = shown[part_of == part]
            for place, doubt in zip(of_part.index, examiner.examine(of_part), strict=True):
                row = int(doubt.about["row"])
                page.add(place, doubt, found.probabilities[row], found.labels[row], found.notes(row))
                bar.advance()
    page.write(folder, header_of(found, dataset, run_id, examiner, len(shown)))


def _log(tracked: Run, config: LabelsConfig, dataset: PreparedDataset, found: DoubtfulLabels) -> None:
    for name, table in found.tables().items():
        tracked.log_table(table, f"{ARTIFACTS}/{name}")
    tracked.log_metrics(found.metrics())
    sentences = found.sentences()
    about = run_note(tracked.id, f"**{sentences[0]}**", *sentences[1:], command=_next(config, dataset))
    tracked.set_tags({"model": config.model, "verdict": " ".join(sentences), **about})


def _next(config: LabelsConfig, dataset: PreparedDataset) -> str:
    """Return the command that applies what the page writes."""
    settings, usual = dataset.manifest["settings"], load_config("prepare").model_dump(mode="json")
    own = {"name": f"{dataset.name}-corrected"[:64], "corrections": "corrections.csv"}
    unusual = {
        name: value
        for name, value in settings.items()
        if name in usual and name not in (*own, "data_folder", "workers") and value != usual[name]
    }
    named = [parameter.name for parameter in parameters_of("prepare")]
    given = {name: as_text(value) for name, value in unusual.items() if name in named}
    others = " ".join(f"{name}={json.dumps(value)}" for name, value in unusual.items() if name not in named)
    return next_command("prepare", {**given, **own, "set": others}, config.data_folder)
