"""Teach a network by outlines where the litter is, and by labels how much that evidence counts beside the photo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wastelens.data.annotations.coverage import ObjectCells, object_cells
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import LabelTable, TestTable, TrainTable
from wastelens.errors import ConfigError, NonFiniteLossError
from wastelens.evaluation.object_evidence import ObjectEvidence, measure_evidence
from wastelens.models.features import predict_in_batches
from wastelens.models.layers import LOGITS
from wastelens.models.networks.objects import ATTENTION, LITTER, MATERIALS
from wastelens.system import interrupts
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IndexArray
from wastelens.system.console import progress_bar, say
from wastelens.training.phases import SolvedPhase
from wastelens.training.probe import Probe, group_folds
from wastelens.training.ridge import Moments, best_strength, ridge, total
from wastelens.training.stacking import fit_stacked

CHUNK_PHOTOS = 32


def check_outlines(dataset: PreparedDataset, fold: int) -> None:
    """Check, before a run is opened, that some training photo has an outline or a box.

    Raises:
        ConfigError: none has.
        PreparedDatasetError: the dataset was prepared by a version that kept no outlines.
    """
    outlines = dataset.outlines()
    if not any(outlines.of(name) for name in dataset.split(fold).train.file_names):
        raise ConfigError(
            f"None of the training photos of {dataset.folder} has an outline or a box, which model=objects learns "
            "from. Use model=probe, which learns from labels alone, or prepare photos whose objects are annotated."
        )


@dataclass(frozen=True)
class ObjectsPhase(SolvedPhase):
    """Evidence by ridge regression on outlines, then a ridge regression on labels, stacked with the evidence.

    Attributes:
        features: the same network up to the input of its last layer.
        look: the same network up to its attention.
        given: the same network with its attention as a second input.
        dataset: has the outlines.
    """

    solved: ClassVar[tuple[str, ...]] = (LITTER, MATERIALS, LOGITS)
    features: Any
    look: Any
    given: Any
    dataset: PreparedDataset

    def learn(self) -> Float32Array:
        """Fit the evidence on all training photos; return features in which each photo's evidence is of other photos.

        Evidence on the photos that taught it is better than on new ones: a probe that learnt from such features would
        trust it too much (stacking, Wolpert 1992).
        """
        objects = self.objects(self.rows)
        folds = group_folds(self.rows.groups, self.seed)
        moments = self._moments(objects, folds)
        strength = best_strength([one for one in moments if one is not None])
        index = self.rows.photo_index
        features = np.empty((len(index), self.features.output_shape[-1]), dtype=np.float32)
        for fold in range(len(moments)):
            others = [one for number, one in enumerate(moments) if number != fold and one is not None]
            if others:
                self._set_evidence(*ridge(total(others), strength))
            held_out = np.flatnonzero(folds == fold)
            features[held_out] = predict_in_batches(self.features, self.inputs, index[held_out])
            interrupts.check()
        self._set_evidence(*ridge(total(one for one in moments if one is not None), strength))
        return features

    def solve(self, features: Float32Array, progress: Callable[[], None]) -> Probe:
        probe = fit_stacked(features, self.rows.labels, self.rows.groups, seed=self.seed)
        progress()
        return probe

    def steps(self, epochs_done: int) -> int:
        return 0 if epochs_done else 1

    def objects(self, table: LabelTable) -> ObjectCells:
        """Return the annotated objects of a table's photos on the cells of the map."""
        shape = self.network.input_shape[1:3]
        outlines = self.dataset.outlines()
        with progress_bar("Outlines", len(table)) as bar:
            return object_cells(outlines, table.file_names, table.materials, shape, bar.advance)

    def _moments(self, objects: ObjectCells, folds: IndexArray) -> list[Moments | None]:
        """Sum up cells and their soft labels, by fold; None for a fold without outlines."""
        taught = photos_that_teach(objects, self.rows)
        _say_what_teaches(objects, taught)
        labels = objects.soft_labels(len(self.rows.materials))
        found: list[Moments | None] = [None] * (int(folds.max()) + 1)
        for fold in range(len(found)):
            chosen = np.flatnonzero(taught & (folds == fold))
            for start in range(0, len(chosen), CHUNK_PHOTOS):
                rows = chosen[start : start + CHUNK_PHOTOS]
                cells = np.asarray(self.inputs[self.rows.photo_index[rows]])
                part = Moments.of(cells.reshape(-1, cells.shape[-1]), labels[rows].reshape(-1, labels.shape[-1]))
                if not np.isfinite(part.xx).all():
                    raise NonFiniteLossError("A feature of the cells is not finite. Give other weights.")
                found[fold] = part if (so_far := found[fold]) is None else so_far + part
                interrupts.check()
        return found

    def _set_evidence(self, kernel: FloatArray, bias: FloatArray) -> None:
        for name, channels in ((MATERIALS, slice(0, -1)), (LITTER, slice(-1, None))):
            self.network.get_layer(name).set_weights([kernel[None, None, :, channels], bias[channels]])

    def evidence_on(self, test: TestTable) -> ObjectEvidence:
        """Measure where the evidence is on test photos, and what the network would answer if it looked elsewhere."""
        index = test.photo_index
        litter = predict_in_batches(self.look, self.inputs, index)[..., 0]

        def answer(attention: Float32Array) -> FloatArray:
            pieces = []
            for start in range(0, len(index), CHUNK_PHOTOS):
                cells = np.asarray(self.inputs[index[start : start + CHUNK_PHOTOS]])
                given = [cells, attention[start : start + CHUNK_PHOTOS, ..., None]]
                pieces.append(np.asarray(self.given.predict_on_batch(given), dtype=np.float64))
            return np.concatenate(pieces)

        return measure_evidence(self.objects(test), litter, answer, test, seed=self.seed)


def photos_that_teach(objects: ObjectCells, rows: LabelTable) -> BoolArray:
    """Return which rows teach by outlines: those with some, and those that show no litter: (rows,)."""
    taught = np.asarray(rows.labels.sum(axis=1) == 0, dtype=np.bool_)
    taught[objects.photo] = True
    return taught


def _say_what_teaches(objects: ObjectCells, taught: BoolArray) -> None:
    count = len(objects.photo)
    if objects.boxes:
        all_of = "All" if objects.boxes == count else f"{objects.boxes:,} of the"
        say(f"{all_of} {count:,} objects have boxes, not outlines: they teach less exactly where the litter is.")
    if not taught.all():
        say(f"{np.count_nonzero(~taught):,} of {len(taught):,} training photos have no outlines: their labels teach.")


def objects_phase(
    network: Any, model: Any, inputs: Any, rows: TrainTable, dataset: PreparedDataset, seed: int
) -> ObjectsPhase:
    """Return the phase of a network whose backbone is frozen.

    Args:
        network: from the backbone's map to probabilities, sharing its layers with ``model``.
        model: the whole.
        inputs: the map of each photo of the cache, float32 (photos, rows, columns, channels).
        rows: the training rows; a photo that is repeated teaches as often.
        dataset: has the outlines.
        seed: of the folds.
    """
    import keras

    cells, attention = model.get_layer(LITTER).input, model.get_layer(ATTENTION).output
    return ObjectsPhase(
        network,
        inputs,
        rows,
        seed,
        features=keras.Model(cells, model.get_layer(LOGITS).input),
        look=keras.Model(cells, attention),
        given=keras.Model([cells, attention], model.output),
        dataset=dataset,
    )
