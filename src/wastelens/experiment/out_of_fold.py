"""Answers for every photo of a dataset, each by a model that has seen neither it nor its group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wastelens.config.train import TrainConfig
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import LabelTable, TrainTable, ValTable
from wastelens.errors import ConfigError
from wastelens.experiment.start_control import Unwatched
from wastelens.models.backend import load_backend, precision
from wastelens.system.arrays import Arrays, FloatArray, IndexArray
from wastelens.training.objects import check_outlines
from wastelens.training.phases import Phase, check_freezing, fine_tuning_phase, first_phase
from wastelens.training.probe import group_folds


@dataclass(frozen=True)
class Part:
    """A part of the photos that is held out, and the rows that a model learns and chooses from meanwhile."""

    train: TrainTable
    val: ValTable
    held_out: LabelTable


@dataclass(frozen=True)
class OutOfFold:
    """Answers out of fold, and the networks that gave them.

    Attributes:
        probabilities: float64 (photos, materials); row i is photo i of the cache.
        part: of each photo, (photos,).
        network: photos (batch, side, side, 3) in 0–255 → probabilities.
        weights: of the network, for each part.
    """

    probabilities: FloatArray
    part: IndexArray
    network: Any
    weights: list[Arrays]

    def use(self, part: int) -> Any:
        """Return the network with the weights of a part; they stay until the next call."""
        self.network.set_weights(self.weights[part])
        return self.network


def parts_of(dataset: PreparedDataset, seed: int) -> list[Part]:
    """Return the parts: the test photos of each prepared fold, or where there are no folds, parts of whole groups."""
    frame = dataset.corrected(np.zeros(len(dataset.frame), np.bool_))

    def part(train: IndexArray, val: IndexArray, held_out: IndexArray) -> Part:
        tables = [frame.iloc[np.sort(rows)].reset_index(drop=True) for rows in (train, val, held_out)]
        materials = dataset.materials
        return Part(TrainTable(tables[0], materials), ValTable(tables[1], materials), LabelTable(tables[2], materials))

    if folds := int(dataset.manifest["split"]["folds"]):
        splits = [dataset.split(fold) for fold in range(1, folds + 1)]
        return [part(one.train.photo_index, one.val.photo_index, one.test.photo_index) for one in splits]
    fold_of = group_folds(frame["group"].tolist(), seed)
    parts = int(fold_of.max()) + 1
    return [
        part(*(np.flatnonzero(chosen) for chosen in (~(held_out | val), val, held_out)))
        for number in range(parts)
        for held_out, val in [(fold_of == number, fold_of == (number + 1) % parts)]
    ]


def answers_out_of_fold(
    config: TrainConfig, dataset: PreparedDataset, done: Callable[[], None] = lambda: None
) -> OutOfFold:
    """Train a model for each part on the other photos, and return its answers for the part.

    Every photo teaches once, as it is: repeats of rare materials would make these more probable than they are. A head
    that is solved at once needs no val, so that its val photos teach too.

    Args:
        config: of the training.
        dataset: whose photos, at the model's side, are answered for; its corrected labels teach.
        done: called after each part.

    Raises:
        NonFiniteLossError: training diverged.
    """
    load_backend()
    answers = np.full((len(dataset.frame), len(dataset.materials)), np.nan)
    part_of, weights = np.zeros(len(dataset.frame), np.intp), list[Arrays]()
    network = None
    for number, part in enumerate(parts_of(dataset, config.seed)):
        network = _built(config, dataset)
        phase = _fitted(config, dataset, network, part)
        answers[part.held_out.photo_index] = phase.predict(part.held_out)
        part_of[part.held_out.photo_index] = number
        weights.append(network.get_weights())
        done()
    return OutOfFold(answers, part_of, network, weights)


def check_out_of_fold(config: TrainConfig, dataset: PreparedDataset) -> None:
    """Check, before a run is opened, that models can be trained for each part.

    Raises:
        ConfigError: weights are not available, there are no outlines to learn from, or the model starts from a
            pretrained encoder, which may have seen the photos that are held out.
    """
    if config.pretrained != "none":
        raise ConfigError(
            f"pretrained={config.pretrained}: the encoder may have seen the photos that are held out. Use a model "
            'without one, such as model=probe, or set="train.pretrained=none".'
        )
    if config.network.learns_from_outlines:
        check_outlines(dataset, 0)
    groups, needed = dataset.frame["group"].nunique(), 3 if _needs_val(config) else 2
    if groups < needed:
        raise ConfigError(
            f"The photos of {dataset.name} are of {groups} group{'' if groups == 1 else 's'} "
            f"({dataset.manifest['split']['rule']}), but {config.model} needs {needed}, so that no photo's own group "
            "teaches. Prepare it with another group_by."
        )
    load_backend()
    config.network.check_weights(config.weights)
    check_freezing(_built(config, dataset), config)


def _needs_val(config: TrainConfig) -> bool:
    """Return whether val chooses weights: not where a head is solved at once, and nothing is fine-tuned."""
    solved = config.solves_head or config.network.learns_from_outlines
    return not solved or config.fine_tune.epochs > 0


def _built(config: TrainConfig, dataset: PreparedDataset) -> Any:
    """Return the network with its initial weights."""
    with precision(config.mixed_precision):
        network = config.network.build(image_side_px=dataset.side_px, outputs=len(dataset.materials), seed=config.seed)
    if config.network.takes_weights:
        config.network.load_weights(network, config.weights)
    return network


def _fitted(config: TrainConfig, dataset: PreparedDataset, network: Any, part: Part) -> Phase:
    """Return the last phase, fitted."""
    both = pd.concat([part.train.frame, part.val.frame], ignore_index=True)
    rows = TrainTable(both, part.train.materials) if not _needs_val(config) else part.train
    phase = first_phase(network, config, dataset, rows)
    progress = phase.fit(part.val, config, Unwatched())
    if config.fine_tune.epochs:
        phase = fine_tuning_phase(network, config, dataset, part.train)
        phase.fit(part.val, config, Unwatched(), progress)
    return phase
