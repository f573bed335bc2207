"""Open the model that a setting ``model=`` means: a registered one, that of a run, or a folder."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wastelens.errors import RunError
from wastelens.models.answers import Answers, answers_by_onnx
from wastelens.models.backend import load_backend
from wastelens.models.card import CARD, TEST_PREDICTIONS, ModelCard, files_of
from wastelens.models.export import DECISION_RULE, ONNX, read_network
from wastelens.models.familiarity import FILE as FAMILIARITY
from wastelens.models.familiarity import Familiarity
from wastelens.models.features import compiled
from wastelens.models.onnx_network import OnnxNetwork
from wastelens.system.arrays import BoolArray, FloatArray, PhotoArray
from wastelens.system.decision_rule import DecisionRule, read_rule
from wastelens.system.digests import changed_file
from wastelens.system.plain_yaml import load_yaml
from wastelens.system.text import reason_of
from wastelens.tracking.tracker import Tracker

BATCH_SIZE = 32
_BATCH_PIXELS = BATCH_SIZE * 260**2  # larger photos are answered by fewer at once
_MLMODEL = "MLmodel"
_NETWORK = "network.keras"
_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
_LOGGED = re.compile(r"models:/m-[0-9a-f]{32}")
_RUN = re.compile(r"(?:runs:/)?(?P<run>[\w-]+)(?:/model)?/?")


@dataclass(frozen=True)
class TestPredictions:
    """The model's answers for the test photos of its own training, which training never saw.

    Attributes:
        groups: of the photos, (n,).
        labels: uint8 (n, materials).
        probabilities: float64 (n, materials), to nine decimals.
        decisions: bool (n, materials).
    """

    __test__ = False  # no test of pytest

    groups: list[str]
    labels: np.ndarray[Any, np.dtype[np.uint8]]
    probabilities: FloatArray
    decisions: BoolArray


@dataclass(frozen=True)
class ChosenModel:
    """A model that is ready for photos.

    Attributes:
        address: that finds this very model again: an alias is replaced by the version that it means now.
        title: for people.
        run_id: that trained it.
        card: its materials, thresholds and verdict.
        digest: of its card, with the digests of its files.
        folder: of its files, while it is open.
        onnx: its network in ONNX Runtime; None: it has none, and Keras answers.
    """

    address: str
    title: str
    run_id: str
    card: ModelCard
    digest: str
    folder: Path
    onnx: OnnxNetwork | None

    @property
    def materials(self) -> tuple[str, ...]:
        """Its materials, in the order of its answers."""
        return self.card.materials

    @property
    def thresholds(self) -> FloatArray:
        """From which calibrated probability the decision is yes, float64 (materials,)."""
        return np.array([self.card.thresholds[name] for name in self.materials])

    @cached_property
    def rule(self) -> DecisionRule:
        """The way from the network's probabilities to answers."""
        try:
            return read_rule(files_of(self.folder) / DECISION_RULE).of(self.materials)
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.title}: {DECISION_RULE} is damaged ({error}). Train the model again.") from None

    @property
    def is_proven(self) -> bool:
        """Whether it was above the controls on its own test, and not collapsed."""
        return self.card.above_controls and not self.card.collapsed

    @cached_property
    def network(self) -> Any:
        """Its network in Keras, photos in 0–255 → probabilities; loads TensorFlow."""
        load_backend()
        return _keras_network(files_of(self.folder) / _NETWORK, self.card, self.title)

    @cached_property
    def familiarity(self) -> Familiarity | None:
        """Its memory of its training photos; None for a model of an earlier version."""
        if FAMILIARITY not in self.card.files:
            return None
        try:
            return Familiarity.read(files_of(self.folder) / FAMILIARITY)
        except (KeyError, ValueError, OSError) as error:
            raise RunError(f"{self.title}: {FAMILIARITY} is damaged ({error}). Train the model again.") from None

    @property
    def batch_size(self) -> int:
        """How many photos to answer at once."""
        return max(1, min(BATCH_SIZE, _BATCH_PIXELS // self.card.image_side_px**2))

    @cached_property
    def answers(self) -> Callable[[PhotoArray], Answers]:
        """The network as a function of photos, uint8 (n, side, side, 3); its probabilities are not calibrated."""
        if self.onnx is not None:
            return answers_by_onnx(self.onnx, self.batch_size)
        probabilities = compiled(self.network, self.batch_size)
        return lambda photos: Answers(probabilities(photos))

    def test_predictions(self) -> TestPredictions:
        """Return its answers on its own test.

        Raises:
            RunError: the table lacks a column.
        """
        table = pd.read_csv(files_of(self.folder) / TEST_PREDICTIONS, dtype={"group": str}, keep_default_na=False)
        try:
            labels, probabilities, decisions = (
                table[[f"{kind}_{name}" for name in self.materials]].to_numpy()
                for kind in ("label", "probability", "decision")
            )
            return TestPredictions(
                table["group"].tolist(), labels.astype(np.uint8), probabilities.astype(np.float64), decisions == 1
            )
        except (KeyError, ValueError) as error:
            raise RunError(f"{self.title}: {TEST_PREDICTIONS} is damaged ({error}). Train the model again.") from None


@contextlib.contextmanager
def open_model(tracker: Tracker, model: str) -> Iterator[ChosenModel]:
    """Open a model for the block, after its files' digests have been compared with those on its card.

    Args:
        tracker: of the store that addresses other than folders are looked up in.
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/RUN_ID/model``, a run id, or a folder.

    Raises:
        StoreUnreachable: MLflow's server does not answer.
        RunError: no such model, alias, version, run or folder; a run that has no model of materials; a model of another
            version; a file that is not the one that was logged.
    """
    with tempfile.TemporaryDirectory() as temporary:
        address, title, folder = _found(tracker, model, Path(temporary))
        yield _opened(address, title, folder)


def open_folder(folder: Path) -> ChosenModel:
    """Open the model in a folder, as :func:`open_model` does."""
    return _opened(str(folder), f"the model in {folder}", folder)


def _opened(address: str, title: str, folder: Path) -> ChosenModel:
    about = _about(folder, title)
    card = _card(about, title)
    _check_files(folder, card, title)
    onnx = _onnx_network(files_of(folder) / ONNX, card, title) if ONNX in card.files else None
    digest = blake2b(card.model_dump_json().encode(), digest_size=16).hexdigest()
    model = ChosenModel(address, title, str(about.get("run_id", "")), card, digest, folder, onnx)
    _ = model.familiarity, model.rule, onnx or model.network  # what is broken is told now
    return model


def _found(tracker: Tracker, model: str, temporary: Path) -> tuple[str, str, Path]:
    """Return a model's lasting address, its title, and the folder of its files."""
    if registered := _REGISTERED.fullmatch(model):
        name, alias, version = (registered[group] or "" for group in ("name", "alias", "version"))
        number = tracker.registry_of(name).find(alias, version).number
        address = f"models:/{name}/{number}"
        called = f" ({alias})" if alias else ""
        return address, f"{name} version {number}{called}", tracker.download_model(address, temporary)
    if _LOGGED.fullmatch(model):
        return model, f"logged model {model.removeprefix('models:/')}", tracker.download_model(model, temporary)
    if model.startswith("models:"):
        raise RunError(f"model={model} names no version. Give models:/NAME@ALIAS or models:/NAME/VERSION.")
    for place in (Path(model), Path(model) / "model"):
        if (place / _MLMODEL).is_file():
            return str(place.resolve()), f"the model in {place}", place
    run = _RUN.fullmatch(model)
    if Path(model).is_dir() or not run:
        there = "has no file MLmodel" if Path(model).is_dir() else "is no folder, run id or address of a model"
        raise RunError(
            f"model={model} {there}. Give a train run's id, or a folder that a model was downloaded to: "
            "mlflow artifacts download --run-id RUN_ID --artifact-path model --dst-path FOLDER"
        )
    _check_run(tracker, run["run"])
    address = f"runs:/{run['run']}/model"
    return address, f"run {run['run']}", tracker.download_model(address, temporary)


def _check_run(tracker: Tracker, run_id: str) -> None:
    """Raise RunError unless a run is a finished one that logged a model of materials."""
    stored = tracker.stored(run_id)
    step = stored.tags.get("step", "")
    if step == "main" and "best_run" in stored.tags:
        raise RunError(
            f"Run {run_id} is of the main job, which trained several models. Give its best: {stored.tags['best_run']}."
        )
    if step != "train":
        what = f"of {step}" if step else "of no step that trains"
        raise RunError(f"Run {run_id} is {what}: it has no model of materials. Give the id of a train run.")
    if stored.status != "FINISHED":
        raise RunError(
            f"Run {run_id} is not finished (its status is {stored.status}). Wait, resume it, or run it again."
        )


def _about(folder: Path, title: str) -> dict[str, Any]:
    """Return what MLflow's file about a model says."""
    try:
        about = load_yaml(folder / _MLMODEL)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{title}: its file {_MLMODEL} cannot be read ({error}). Download it or train it again."
        ) from None
    return about if isinstance(about, dict) else {}


def _card(about: dict[str, Any], title: str) -> ModelCard:
    """Return the card of a model of materials."""
    card = (about.get("metadata") or {}).get(CARD)
    if isinstance(card, dict) and set(card) == {"files"}:
        raise RunError(f"{title} is an encoder without materials. Give the id of a train run.")
    try:
        checked = ModelCard.model_validate(card)
    except ValueError:
        raise RunError(
            f"{title} was made by another version of Wastelens, or by something else. Train it again."
        ) from None
    if set(checked.thresholds) != set(checked.materials):
        raise RunError(f"{title} lacks the threshold of a material. Train it again.")
    return checked


def _check_files(folder: Path, card: ModelCard, title: str) -> None:
    """Compare a model's files with the digests on its card."""
    for name in (_NETWORK, TEST_PREDICTIONS, DECISION_RULE):
        if name not in card.files:
            raise RunError(f"{title} was made by another version of Wastelens: no {name}. Train it again.")
    if problem := changed_file(files_of(folder), card.files):
        raise RunError(f"{title}: {problem}. Do not use it: get the model again from where it was trained.")


def _onnx_network(file: Path, card: ModelCard, title: str) -> OnnxNetwork:
    """Read a network for ONNX Runtime, and check it likewise."""
    try:
        network = OnnxNetwork(file)
    except Exception as error:  # of ONNX Runtime
        raise RunError(f"{title}: {ONNX} cannot be read ({reason_of(error)}). Train it again.") from None
    shapes = network.image_side_px, network.outputs[network.main_output]
    if shapes != (card.image_side_px, (None, len(card.materials))):
        raise RunError(f"{title}: its network maps photos of {shapes[0]} px to {shapes[1]}. Train it again.")
    return network


def _keras_network(file: Path, card: ModelCard, title: str) -> Any:
    """Read a network and check that it takes such photos and answers for these materials."""
    side, outputs = card.image_side_px, len(card.materials)
    try:
        network = read_network(file)
    except Exception as error:  # Keras raises all kinds of exceptions for broken files
        raise RunError(f"{title}: the network cannot be read ({reason_of(error)}). Train it again.") from None
    if (network.input_shape, network.output_shape) != ((None, side, side, 3), (None, outputs)):
        raise RunError(f"{title}: its network maps {network.input_shape} to {network.output_shape}. Train it again.")
    return network
