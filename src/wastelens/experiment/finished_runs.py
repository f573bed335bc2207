"""Finished runs that others start from: found, checked against the dataset, and their networks read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wastelens.config.networks import EncoderNetworkConfig
from wastelens.config.pretrain import PretrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.errors import RunError
from wastelens.system.next_command import next_command
from wastelens.tracking.tracker import Run, StoredRun, Tracker

CONFIG_ARTIFACT = "config.json"
ENCODER = "encoder/encoder.keras"
EXPORT = ("export/architecture.json", "export/model.weights.h5")
BEST_BY = "val_macro_ap"
_METHODS = {"autoencoder": ("dense_autoencoder", "conv_autoencoder"), "dbn": ("rbm", "dbn")}


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, fit for a dataset.

    Attributes:
        id: the run's.
        stored: the run.
        step: the step that made it.
        config: its settings, as the step wrote them.
    """

    id: str
    stored: StoredRun
    step: str
    config: Mapping[str, Any]


def usable_with(dataset: PreparedDataset) -> dict[str, Any]:
    """What must be the same where a run's network is used as where it was made."""
    return {
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "image_side_px": dataset.manifest["cache"]["image_side_px"],
        "materials": list(dataset.materials),
    }


def about_run(stored: StoredRun) -> dict[str, Any]:
    """What a run wrote of itself when it began; empty where it is none of a step that does."""
    with tempfile.TemporaryDirectory() as folder:
        file = stored.run.download(CONFIG_ARTIFACT, Path(folder))
        try:
            about = json.loads(file.read_text(encoding="utf-8")) if file else {}
        except ValueError:  # damaged, and so no run to start from
            return {}
    return about if isinstance(about, dict) else {}


def find_run(
    tracker: Tracker, run_id: str, dataset: PreparedDataset, fold: int | None, steps: Sequence[str]
) -> FinishedRun:
    """A finished run of one of some steps, on this dataset and fold (None: on any).

    Raises:
        RunError: no such run, a deleted, unfinished or failed one, one of another step, or one on photos of another
            size, other materials, or another split: what it has seen may be among the test photos here.
    """
    stored = tracker.stored(run_id)
    about = about_run(stored)
    if about.get("step") not in steps:
        raise RunError(f"Run {run_id} has no network to use here. Give the id of a run of: {', '.join(steps)}.")
    if stored.status != "FINISHED":
        raise RunError(
            f"Run {run_id} is not finished (its status is {stored.status}). Wait, resume it, or run it again."
        )
    _check_fit(run_id, about, usable_with(dataset))
    learnt_fold = about["config"]["fold"]
    if fold is not None and learnt_fold != fold:
        raise RunError(
            f"Run {run_id} learnt from fold={learnt_fold}, whose photos fold={fold} may test on. Give another run."
        )
    return FinishedRun(run_id, stored, about["step"], about["config"])


def best_model(tracker: Tracker, dataset: PreparedDataset) -> str:
    """The id of the dataset's finished ``train`` run that is best on val; a collapsed one only where all are.

    Raises:
        RunError: there is none.
    """
    runs = tracker.finished({"step": "train", "dataset_digest": dataset.digest})
    scored = [one for one in runs if BEST_BY in one.metrics]
    if not scored:
        command = next_command("train", {"dataset": dataset.folder})
        raise RunError(
            f"There is no finished model run of {dataset.name} as it is prepared now. Train one first: {command}"
        )
    return max(scored, key=lambda one: (one.tags.get("collapsed") != "true", one.metrics[BEST_BY])).run.id


def _check_fit(run_id: str, learnt: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if learnt["image_side_px"] != here["image_side_px"]:
        raise RunError(
            f"Run {run_id} learnt from photos of {learnt['image_side_px']} px, this dataset's have "
            f"{here['image_side_px']} px. Prepare with image_side_px={learnt['image_side_px']}, or run it again."
        )
    if learnt["materials"] != here["materials"]:
        raise RunError(
            f"Run {run_id} is of a dataset with other materials ({', '.join(learnt['materials'])}; here "
            f"{', '.join(here['materials'])}). Run it again on this dataset."
        )
    if learnt["dataset_digest"] != here["dataset_digest"]:
        raise RunError(
            f"Run {run_id} learnt from another preparation ({learnt['dataset']}; here {here['dataset']}): photos it "
            "has seen may be among the test photos here. Run it on this one; for more photos, use unlabelled=FOLDER."
        )


def with_learner_of(network: EncoderNetworkConfig, found: FinishedRun) -> EncoderNetworkConfig:
    """The network for an encoder that was learnt: its layers are those of that pretrain run.

    Raises:
        RunError: a stack of Boltzmann machines for a model of autoencoders, the other way round, or settings of
            another version.
    """
    try:
        learnt = PretrainConfig.model_validate(found.config)
    except ValueError:
        raise RunError(f"Run {found.id} is of another version of Wastelens. Run pretrain again.") from None
    if learnt.learner.kind not in _METHODS[network.kind]:
        raise RunError(
            f"Run {found.id} is of method={learnt.method} ({learnt.learner.kind}), but this model takes: "
            f"{', '.join(_METHODS[network.kind])}."
        )
    return network.model_copy(update={"method": learnt.method, "learner": learnt.learner})


def network_of(found: FinishedRun) -> Any:
    """The run's network: of a pretrain run the encoder, photos in 0–255 → code; of a train run the whole.

    Raises:
        RunError: it is not there, or cannot be read.
    """
    import keras

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            if found.step == "pretrain":
                return keras.saving.load_model(_file(found.stored.run, ENCODER, folder), compile=False)
            architecture, weights = (_file(found.stored.run, path, folder) for path in EXPORT)
            network = keras.models.model_from_json(architecture.read_text(encoding="utf-8"))
            network.load_weights(weights)
        except (ValueError, OSError, TypeError, KeyError) as error:
            reason = " ".join(str(error).split())[:120]
            raise RunError(f"The network of run {found.id} cannot be read ({reason}). Run it again.") from None
        return network


def _file(run: Run, path: str, folder: Path) -> Path:
    file = run.download(path, folder)
    if file is None:
        raise RunError(f"Run {run.id} has no {path}: it was removed, or the store cannot be reached.")
    return file
