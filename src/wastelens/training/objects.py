"""Teach a network by outlines where litter is and what it is from close up; by labels, how much that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import NetworkConfig
from wastelens.data.annotations.coverage import ObjectCells, object_cells
from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import LabelTable, TestTable, TrainTable
from wastelens.errors import ConfigError, NonFiniteLossError
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.evaluation.object_evidence import ObjectEvidence, measure_evidence
from wastelens.models.features import predict_in_batches
from wastelens.models.layers import LOGITS
from wastelens.models.networks.objects import (
    CLOSE_UP,
    FEATURES,
    LITTER,
    LITTER_MAP,
    MATERIALS,
    PLACES,
    SHARPNESS,
    WINDOWS,
    ObjectsConfig,
    windows_at,
)
from wastelens.system import interrupts
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IndexArray, PhotoArray
from wastelens.system.console import Bar, progress_bar, say
from wastelens.training.phases import SolvedPhase
from wastelens.training.probe import Probe, group_folds
from wastelens.training.ridge import STRENGTHS, Moments, best_strength, ridge, total
from wastelens.training.stacking import fit_stacked

CHUNK_PHOTOS = 8
Linear = tuple[FloatArray, FloatArray]  # kernel (features, targets) and bias (targets,)


def check_outlines(dataset: PreparedDataset, fold: int) -> None:
    """Check, before a run is opened, that some training photo has an outline or a box.

    Raises:
        ConfigError: none has.
        PreparedDatasetError: the dataset was prepared by a version that kept no outlines.
    """
    outlines = dataset.outlines()
    if not any(outlines.of(name) for name in dataset.split(fold).train.file_names):
        raise _no_outlines(dataset)


def _no_outlines(dataset: PreparedDataset) -> ConfigError:
    return ConfigError(
        f"None of the training photos of {dataset.folder} has an outline or a box, which model=objects learns from. "
        "Use model=probe, which learns from labels alone, or prepare photos whose objects are annotated."
    )


@dataclass(frozen=True)
class CloseUps:
    """Views of photos, from close up where other photos' outlines lead to, and of the whole.

    Attributes:
        whole: features of the whole photos, float32 (photos, features).
        windows: top, left, bottom and right of each close-up, as shares of the side, float32 (photos, windows, 4).
        vectors: features of each close-up, float16 (photos, windows, features): half the memory.
    """

    whole: Float32Array
    windows: Float32Array
    vectors: npt.NDArray[np.float16]


@dataclass(frozen=True)
class ObjectsPhase(SolvedPhase):
    """Ridge regressions: of litter on cells, of materials on close-ups, of labels on photos; the last two are stacked.

    What outlines taught is better on the photos that taught it than on new ones. So training photos are looked at by
    regressions on the outlines of other groups of photos (stacking, Wolpert 1992).

    Attributes:
        model: the whole network; ``network`` is its last layer, and ``inputs`` are filled in for each photo looked at.
        sides: of the close-ups, in pixels.
        photos: of the dataset, uint8 (photos, side, side, 3).
        dataset: has the outlines.
        litter: the maps of litter, float32 (photos, rows, columns), filled in for photos that did not teach.
        places: the places looked at, float32 (photos, places, 2), filled in likewise.
    """

    model: Any
    sides: Sequence[int]
    photos: PhotoArray
    dataset: PreparedDataset
    litter: Float32Array
    places: Float32Array

    def solved_layers(self) -> list[Any]:
        return [layer for layer in self.model.layers if layer.name in (*LITTER, MATERIALS, LOGITS)]

    def learn(self) -> Float32Array:
        index, first = np.unique(self.rows.photo_index, return_index=True)
        table = self.rows.take(first)
        folds = group_folds(table.groups, self.seed)
        objects = self.objects(table)
        taught = photos_that_teach(objects, table)
        if not len(objects.photo):  # of the share of the photos whose labels are used, or of those of a part
            raise _no_outlines(self.dataset)
        say_what_teaches(objects, taught)
        teaching = [np.flatnonzero(taught & (folds == fold)) for fold in range(int(folds.max()) + 1)]
        seekers = self._seekers(objects, index, teaching)
        seen = self._close_ups(seekers, index, folds)
        namer, answers = named(seen, objects, table, folds, teaching)
        self._set_litter(*seekers[-1])
        self.model.get_layer(MATERIALS).set_weights(list(namer))
        self.inputs[index] = np.concatenate([seen.whole, answers], axis=1)
        self.look(np.setdiff1d(np.arange(len(self.photos)), index))
        return np.asarray(self.inputs[self.rows.photo_index], dtype=np.float32)

    def solve(self, features: Float32Array, progress: Callable[[], None]) -> Probe:
        probe = fit_stacked(features, self.rows.labels, self.rows.groups, seed=self.seed)
        progress()
        return probe

    def steps(self, epochs_done: int) -> int:
        return 0 if epochs_done else 1

    def resumed(self) -> None:
        """Look at all photos; what trained on them is lost, so that training photos are seen by the final layers."""
        self.look(np.arange(len(self.photos)))

    def objects(self, table: LabelTable) -> ObjectCells:
        """Return the annotated objects of a table's photos on the cells of the map of litter."""
        outlines, shape = self.dataset.outlines(), self.model.get_layer(LITTER_MAP).output.shape[1:3]
        with progress_bar("Outlines", len(table)) as bar:
            return object_cells(outlines, table.file_names, table.materials, shape, bar.advance)

    def look(self, index: IndexArray) -> None:
        """Fill in the inputs of the last layer for these photos, and where the network looked."""
        import keras

        outputs = {name: self.model.get_layer(name).output for name in (FEATURES, LITTER_MAP, PLACES)}
        network = keras.Model(self.model.input, outputs)
        with progress_bar("Close-ups", len(index)) as bar:
            for part, found in self._chunks(index, network, bar):
                self.inputs[index[part]], self.places[index[part]] = found[FEATURES], found[PLACES]
                self.litter[index[part]] = found[LITTER_MAP][..., 0]

    def evidence_on(self, test: TestTable) -> ObjectEvidence:
        """Measure where the network looks in test photos, and what it would answer if it looked elsewhere."""
        index = test.photo_index
        close_up, side_px = self.model.get_layer(CLOSE_UP), self.model.input.shape[1]
        kernel, bias = self.model.get_layer(MATERIALS).get_weights()

        def answer(places: Float32Array) -> FloatArray:
            features = np.array(self.inputs[index])
            with progress_bar("Close-ups of other places", len(index)) as bar:
                for part, photos in self._parts(index, bar):
                    windows = windows_at(places[part], self.sides, side_px, np)
                    vectors = np.asarray(close_up.predict_on_batch([photos, windows]))
                    features[part, -len(bias) :] = answers_of(vectors, kernel, bias)
            return predict_in_batches(self.network, features, np.arange(len(features))).astype(np.float64)

        objects, litter, places = self.objects(test), self.litter[index], self.places[index]
        return measure_evidence(objects, litter, places, self.predict(test), answer, test, seed=self.seed)

    def _chunks(self, index: IndexArray, network: Any, bar: Bar) -> Iterator[tuple[slice, dict[str, Float32Array]]]:
        """Yield parts of an index of photos, and the outputs of a network for each, by name."""
        for part, photos in self._parts(index, bar):
            found = network.predict_on_batch(photos)
            yield part, {name: np.asarray(one, dtype=np.float32) for name, one in found.items()}

    def _parts(self, index: IndexArray, bar: Bar) -> Iterator[tuple[slice, PhotoArray]]:
        for start in range(0, len(index), CHUNK_PHOTOS):
            part = slice(start, start + CHUNK_PHOTOS)
            yield part, np.asarray(self.photos[index[part]])
            bar.advance(len(index[part]))
            interrupts.check()

    def _seekers(self, objects: ObjectCells, index: IndexArray, teaching: list[IndexArray]) -> list[Linear]:
        """Fit litter on cells: for each fold, on the others; last, on all."""
        import keras

        litter = objects.litter()
        names = [layer.name for layer in self.model.layers if layer.name in LITTER]
        network = keras.Model(self.model.input, {name: self.model.get_layer(name).input for name in names})
        moments: list[Moments | None] = []
        with progress_bar("Cells with litter", sum(map(len, teaching))) as bar:
            for photos in teaching:
                found = [
                    _of_cells([cells[name] for name in names], litter[photos[part]])
                    for part, cells in self._chunks(index[photos], network, bar)
                ]
                moments.append(total(found) if found else None)
        return _by_fold(moments, best_strength([one for one in moments if one is not None]))

    def _set_litter(self, kernel: FloatArray, bias: FloatArray) -> None:
        """Set the layers whose sum is the map of litter."""
        start = 0
        for layer in self.model.layers:
            if layer.name in LITTER:
                end = start + layer.kernel.shape[2]
                layer.set_weights([kernel[None, None, start:end], bias if start == 0 else np.zeros_like(bias)])
                start = end

    def _close_ups(self, seekers: list[Linear], index: IndexArray, folds: IndexArray) -> CloseUps:
        """Look at each fold's photos where the others' outlines lead to."""
        import keras

        whole, vectors = self.model.get_layer(FEATURES).input[0], self.model.get_layer(MATERIALS).input
        outputs = {"whole": whole, "vectors": vectors, WINDOWS: self.model.get_layer(WINDOWS).output}
        network = keras.Model(self.model.input, outputs)
        seen = CloseUps(
            np.empty((len(index), whole.shape[1]), np.float32),
            np.empty((len(index), vectors.shape[1], 4), np.float32),
            np.empty((len(index), *vectors.shape[1:]), np.float16),
        )
        with progress_bar("Close-ups to learn from", len(index)) as bar:
            for fold, seeker in enumerate(seekers[:-1]):
                self._set_litter(*seeker)
                held_out = np.flatnonzero(folds == fold)
                for part, found in self._chunks(index[held_out], network, bar):
                    rows = held_out[part]
                    seen.whole[rows], seen.vectors[rows] = found["whole"], found["vectors"]
                    seen.windows[rows] = found[WINDOWS] / self.model.input.shape[1]
        return seen


def answers_of(vectors: npt.NDArray[np.floating], kernel: FloatArray, bias: FloatArray) -> Float32Array:
    """Return the smooth maximum of the estimates for close-ups (rows, windows, features): float32 (rows, materials)."""
    from scipy.special import logsumexp

    estimates = vectors.astype(np.float32) @ kernel.astype(np.float32) + bias.astype(np.float32)
    return np.asarray(logsumexp(SHARPNESS * estimates, axis=1) / SHARPNESS, dtype=np.float32)


def photos_that_teach(objects: ObjectCells, rows: LabelTable) -> BoolArray:
    """Return which rows teach by outlines: those with some, and those that show no litter: (rows,)."""
    taught = np.asarray(rows.labels.sum(axis=1) == 0, dtype=np.bool_)
    taught[objects.photo] = True
    return taught


def _of_cells(maps: list[Float32Array], litter: Float32Array) -> Moments:
    """Sum up every second cell of every second row, as maps of all scales see it: its neighbours are much alike."""
    _, height, width = litter.shape
    rows, columns = np.arange(0, height, 2), np.arange(0, width, 2)
    seen = []
    for one in maps:  # as the network enlarges them
        factor = -(-height // one.shape[1])
        seen.append(one[:, rows // factor][:, :, columns // factor])
    x = np.concatenate(seen, axis=-1)
    return _finite(Moments.of(x.reshape(-1, x.shape[-1]), litter[:, rows][:, :, columns].reshape(-1, 1)))


def named(
    seen: CloseUps, objects: ObjectCells, table: LabelTable, folds: IndexArray, teaching: list[IndexArray]
) -> tuple[Linear, Float32Array]:
    """Fit materials on close-ups, and choose the strength whose answers for held-out photos have the best macro AP.

    Most close-ups show nothing, so that the strength of the least squared error would be too strong.

    Returns:
        what all photos taught; and the answers for each photo by what other folds taught, float32 (photos, materials).
    """
    materials = len(table.materials)
    moments: list[Moments | None] = []
    for photos in teaching:
        labels = objects.in_windows(photos, seen.windows[photos], materials).reshape(-1, materials)
        vectors = seen.vectors[photos].reshape(-1, seen.vectors.shape[-1]).astype(np.float32)
        moments.append(_finite(Moments.of(vectors, labels)) if len(photos) else None)
    found = []
    for strength in STRENGTHS:
        namers = _by_fold(moments, strength)
        answers = np.empty((len(table), materials), np.float32)
        for fold, namer in enumerate(namers[:-1]):
            answers[folds == fold] = answers_of(seen.vectors[folds == fold], *namer)
        found.append((float(macro_average_precision(table.labels, answers)), namers[-1], answers))
        interrupts.check()
    _, namer, answers = max(found, key=lambda one: one[0])
    return namer, answers


def _by_fold(moments: list[Moments | None], strength: float) -> list[Linear]:
    """Fit a ridge regression for each fold on the others, and last on all; of a single fold that teaches, on it."""
    known = [one for one in moments if one is not None]
    others = [
        [one for other, one in enumerate(moments) if other != fold and one is not None] for fold in range(len(moments))
    ]
    return [ridge(total(some or known), strength) for some in [*others, known]]


def _finite(moments: Moments) -> Moments:
    if not np.isfinite(moments.xx).all():
        raise NonFiniteLossError("A feature of the cells or close-ups is not finite. Give other weights.")
    return moments


def say_what_teaches(objects: ObjectCells, taught: BoolArray) -> None:
    count = len(objects.photo)
    if objects.boxes:
        all_of = "All" if objects.boxes == count else f"{objects.boxes:,} of the"
        say(f"{all_of} {count:,} objects have boxes, not outlines: they teach less exactly where the litter is.")
    if not taught.all():
        say(f"{np.count_nonzero(~taught):,} of {len(taught):,} training photos have no outlines: their labels teach.")


def objects_phase(
    model: Any, network: NetworkConfig, rows: TrainTable, dataset: PreparedDataset, seed: int
) -> ObjectsPhase:
    """Return the phase of a network whose backbone is frozen.

    Args:
        model: the whole, from photos to probabilities.
        network: its settings, those of ``model=objects``.
        rows: the training rows; a photo that is repeated teaches the last layer as often.
        dataset: has the photos and outlines.
        seed: of the folds.
    """
    import keras

    assert isinstance(network, ObjectsConfig)
    features = model.get_layer(FEATURES).output
    count = len(dataset.photos)
    return ObjectsPhase(
        keras.Model(features, model.output),
        np.full((count, features.shape[1]), np.nan, np.float32),
        rows,
        seed,
        model=model,
        sides=network.sides(model.input.shape[1]),
        photos=dataset.photos,
        dataset=dataset,
        litter=np.zeros((count, *model.get_layer(LITTER_MAP).output.shape[1:3]), np.float32),
        places=np.zeros((count, *model.get_layer(PLACES).output.shape[1:]), np.float32),
    )
