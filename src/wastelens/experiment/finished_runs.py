"""Finished runs that others start from: described, found, checked against the dataset, and their networks read."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from wastelens.config.base import Config
from wastelens.config.cluster import ClusterConfig
from wastelens.config.networks import NETWORKS, NetworkConfig, learners_for
from wastelens.config.pretrain import PretrainConfig
from wastelens.config.train import TrainConfig
from wastelens.data.annotations.sources import NAMED
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError
from wastelens.models.export import read_exported, read_network
from wastelens.system.console import next_command
from wastelens.system.decision_rule import DecisionRule, read_rule
from wastelens.system.text import reason_of
from wastelens.tracking.tracker import Run, StoredRun, Tracker, to_json

CONFIG_ARTIFACT = "config.json"
ENCODER = "encoder/encoder.keras"
EXPORT = ("export/architecture.json", "export/model.weights.h5")
DECISION_RULE = "export/decision_rule.json"
BEST_BY = "val/macro_ap"


@dataclass(frozen=True)
class FinishedRun:
    """A finished run that fits a dataset.

    Attributes:
        id: of the run.
        stored: the run.
        step: that made it.
        config: its settings, as the step wrote them.
        image_side_px: of the photos that its network takes.
        materials: number of them.
    """

    id: str
    stored: StoredRun
    step: str
    config: Mapping[str, Any]
    image_side_px: int
    materials: int


def unusual(config: PretrainConfig | TrainConfig | ClusterConfig) -> list[str]:
    """Return the words of a run's name on its seed, fold and dataset, unless these are the first or built in."""
    name = Path(config.dataset).resolve().name
    return [
        *([f"seed {config.seed}"] if config.seed else []),
        *([f"fold {config.fold}"] if config.fold else []),
        *([] if name in NAMED else [f"@{name}"]),
    ]


def without_dataset(name: str) -> str:
    """Return a run's name without the dataset, such as ``probe @96px`` for ``probe @96px @demo``."""
    return re.sub(r" @(?!\d+px( |$)).*$", "", name)


def describe_run(
    tracked: Run, step: str, config: Config, dataset: PreparedDataset, more: Mapping[str, object] | None = None
) -> None:
    """Write what :func:`about_run` reads: step, settings, and the dataset that later runs must share."""
    about = {"step": step, "config": config.model_dump(mode="json"), **usable_with(dataset), **(more or {})}
    tracked.log_text(to_json(about), CONFIG_ARTIFACT)
    tracked.set_tags({"step": step, "dataset": dataset.name, "dataset_digest": dataset.digest})


def usable_with(dataset: PreparedDataset) -> dict[str, Any]:
    """Return the facts about a dataset that must be the same where a run's network is used as where it was made."""
    return {
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "image_side_px": dataset.side_px,
        "materials": list(dataset.materials),
    }


class _Settings(BaseModel):
    """The settings that others read from a description."""

    fold: int
    seed: int
    model: str = ""
    method: str = ""
    network: dict[str, Any] = {}


class _About(BaseModel):
    """The part of a description that others rely on; anyone who can write to the store can change it."""

    step: str
    config: _Settings
    dataset: str
    dataset_digest: str
    image_side_px: int = Field(gt=0)
    materials: list[str] = Field(min_length=1)
    unlabelled_digest: str = ""


def about_run(stored: StoredRun) -> dict[str, Any]:
    """Return the description that a run's step wrote at the start; empty if there is none, or one in another form."""
    with tempfile.TemporaryDirectory() as folder:
        file = stored.run.download(CONFIG_ARTIFACT, Path(folder))
        try:
            about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file else {}
            _About.model_validate(about, strict=True)
        except (ValueError, RecursionError):  # damaged, or of another origin: not a run to start from
            return {}
    return about


def find_run(
    tracker: Tracker, run_id: str, dataset: PreparedDataset, fold: int | None, steps: Sequence[str]
) -> FinishedRun:
    """Find a finished run of one of these steps, on this dataset and fold (None: any fold).

    Its network takes the dataset ``at_side`` of the run.

    Raises:
        RunError: no such run; a deleted, unfinished or failed one; one of another step; or one on larger photos,
            other materials or another split: it may have seen photos that are test photos here.
    """
    stored = tracker.stored(run_id)
    about = about_run(stored)
    if about.get("step") not in steps:
        raise RunError(f"Run {run_id} has no network to use here. Give the id of a run of: {', '.join(steps)}.")
    if stored.status != "FINISHED":
        raise RunError(
            f"Run {run_id} is not finished (its status is {stored.status}). Wait, resume it, or run it again."
        )
    here = usable_with(dataset)
    if about["materials"] != here["materials"]:
        raise RunError(
            f"Run {run_id} is of a dataset with other materials ({', '.join(about['materials'])}; here "
            f"{', '.join(here['materials'])}). Run it again on this dataset."
        )
    if about["dataset_digest"] != here["dataset_digest"]:
        raise RunError(
            f"Run {run_id} was trained on another preparation ({about['dataset']}; here {here['dataset']}): it may "
            "have seen photos that are test photos here. Run it on this one; for more photos, use unlabelled=FOLDER."
        )
    if about["image_side_px"] > here["image_side_px"]:
        raise RunError(
            f"Run {run_id} was trained on photos of {about['image_side_px']} px, but here they are shrunk to "
            f"{here['image_side_px']} px. Set image_side_px={about['image_side_px']}, or run it again."
        )
    trained_fold = about["config"]["fold"]
    if fold is not None and trained_fold != fold:
        raise RunError(
            f"Run {run_id} was trained on fold={trained_fold}, which may include test photos of fold={fold}. Give "
            "another run."
        )
    return FinishedRun(run_id, stored, about["step"], about["config"], about["image_side_px"], len(about["materials"]))


def best_model(tracker: Tracker, dataset: PreparedDataset) -> str:
    """Return the id of the dataset's finished ``train`` run that is best on val; a collapsed one only if all are.

    Raises:
        RunError: there is none.
    """
    runs = tracker.finished({"step": "train", "dataset_digest": dataset.digest})
    scored = [one for one in runs if BEST_BY in one.metrics]
    if not scored:
        command = next_command("train", {"dataset": dataset.folder})
        raise RunError(
            f"There is no finished train run on the current preparation of {dataset.name}. Train one first: {command}"
        )
    return max(scored, key=lambda one: (one.tags.get("collapsed") != "true", one.metrics[BEST_BY])).run.id


def with_learner_of(network: NetworkConfig, found: FinishedRun) -> NetworkConfig:
    """Return the network with the encoder of a pretrain run: same method, same layers; a probe takes any encoder.

    Raises:
        RunError: the network takes other encoders (Boltzmann machines for a model of autoencoders, or the reverse),
            or the settings are of another version.
    """
    try:
        pretraining = PretrainConfig.model_validate(found.config)
    except ValueError:
        raise RunError(f"Run {found.id} is of another version of Wastelens. Run pretrain again.") from None
    encoder = {"method": pretraining.method, "learner": pretraining.learner}
    if network.probes_encoders:
        pooling = network.model_dump()["pooling"]
        return NETWORKS["encoder_probe"].model_validate({"kind": "encoder_probe", "pooling": pooling, **encoder})
    if pretraining.learner.network_kind != network.kind:
        raise RunError(
            f"Run {found.id} is of method={pretraining.method} ({pretraining.learner.kind}), but this model takes: "
            f"{', '.join(learners_for(network.kind))}."
        )
    return network.model_copy(update=encoder)


def network_of(found: FinishedRun) -> Any:
    """Return the run's network: the encoder of a pretrain run, photos in 0–255 → code; all of a train run's.

    Raises:
        RunError: it is missing, cannot be read, or is not a network for such photos.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = [ENCODER] if found.step == "pretrain" else EXPORT
        files = [_file(found.stored.run, name, folder) for name in names]
        try:
            network = read_network(*files) if found.step == "pretrain" else read_exported(*files)
            _check_shapes(network, found)
        except Exception as error:  # Keras raises all kinds of exceptions for damaged files
            raise RunError(
                f"The network of run {found.id} cannot be read ({reason_of(error)}). Run it again."
            ) from None
    return network


def rule_of(found: FinishedRun) -> DecisionRule:
    """Return what becomes of the probabilities of a train run's network; earlier versions had only thresholds.

    Raises:
        RunError: it cannot be read, or there are no thresholds either.
    """
    metrics = found.stored.metrics
    thresholds = {
        name.removeprefix("threshold/"): one for name, one in metrics.items() if name.startswith("threshold/")
    }
    with tempfile.TemporaryDirectory() as folder:
        file = found.stored.run.download(DECISION_RULE, Path(folder))
        if file is None and thresholds:
            return DecisionRule(thresholds)
        try:
            return read_rule(file or _file(found.stored.run, DECISION_RULE, folder))
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{DECISION_RULE} of run {found.id} is damaged ({error}). Train it again.") from None


def _check_shapes(network: Any, found: FinishedRun) -> None:
    """Raise ValueError unless a network takes the run's photos and, in a train run, answers for its materials."""
    side = found.image_side_px
    if tuple(network.input_shape) != (None, side, side, 3):
        raise ValueError(f"it takes {network.input_shape}, not photos of {side} px")
    if found.step == "train" and tuple(network.output_shape) != (None, found.materials):
        raise ValueError(f"it answers with {network.output_shape}, not for {found.materials} materials")


def _file(run: Run, path: str, folder: str) -> Path:
    file = run.download(path, Path(folder))
    if file is None:
        raise RunError(f"Run {run.id} has no {path}: it was deleted, or the store is unreachable. Run it again.")
    return file
