"""Predict photos in blocks: each is decoded while the network works, and written to a file of its own, once.

A killed run leaves the finished blocks; the next one computes the others. So memory holds a few batches of pixels and
the photos' names, whatever the number of photos.
"""

from __future__ import annotations

import functools
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from wastelens.config.predict import PredictConfig
from wastelens.data.photos.decode import BadPhotoError, decode
from wastelens.data.photos.exif import Taken, when_and_where
from wastelens.engine.engine import opened
from wastelens.engine.task import Engine, Task
from wastelens.errors import EngineError
from wastelens.explain.methods.gradcam import answers_by_keras
from wastelens.models.answers import EVIDENCE as EVIDENCE_MAP
from wastelens.models.answers import Answers, answers_by_onnx
from wastelens.models.features import spatial_layers
from wastelens.system import interrupts
from wastelens.system.arrays import BoolArray, Float32Array, PhotoArray
from wastelens.system.console import Bar, progress_bar
from wastelens.system.decision_rule import NO, UNSURE, YES
from wastelens.system.machine import worker_count
from wastelens.system.prefetch import prepared_ahead
from wastelens.using.chosen_model import BATCH_SIZE, ChosenModel, open_folder
from wastelens.using.peak import NOWHERE, peak_box
from wastelens.using.photo_list import PhotoFiles, PhotoList, Read

EVIDENCE = ("evidence_left", "evidence_top", "evidence_right", "evidence_bottom")
FAMILIARITY = ("distance", "familiarity")
EXIF = ("exif_time", "exif_latitude", "exif_longitude")
NOT_A_NUMBER = "the model's answer is not a number"
WORDS = {YES: "yes", NO: "no", UNSURE: "unsure"}
_DECIMALS = 6
_TEXTS = {"file", "problem", "exif_time", "evidence_material"}


@dataclass(frozen=True)
class Asked:
    """The question to a model: which answers besides probabilities, and on which photos."""

    evidence: bool
    exif: bool
    max_megapixels: float


class Predictor:
    """A model that answers in ONNX Runtime if its file gives all that is asked for, otherwise in Keras.

    Attributes:
        has_evidence: whether it makes maps of the evidence for the most probable material.
    """

    def __init__(self, model: ChosenModel, *, evidence: bool) -> None:
        self.model = model
        if model.onnx and (not evidence or EVIDENCE_MAP in model.onnx.outputs):
            self.has_evidence = evidence
            self._answers = answers_by_onnx(model.onnx, model.batch_size)
        else:
            layers = spatial_layers(model.network) if evidence else []
            self.has_evidence = bool(layers)
            self._answers = answers_by_keras(model.network, layers[-1] if layers else None, model.batch_size)

    def __call__(self, photos: PhotoArray) -> Answers:
        """Return the answers for photos, uint8 (n, side, side, 3)."""
        return self._answers(photos)


@dataclass(frozen=True)
class Block:
    """Photos to predict together, and the file for their rows."""

    files: PhotoFiles
    target: Path
    model_folder: Path
    model_digest: str
    asked: Asked
    workers: int


def predict(photos: PhotoList, predictor: Predictor, folder: Path, config: PredictConfig) -> list[Path]:
    """Predict all photos that a folder has no finished block of; return the blocks' files, in order.

    Raises:
        EngineError: no engine, or a worker that does not see the photos or the folder.
        RunError: a worker cannot open the model.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(photos), config.block_photos)
    targets = [folder / f"block_{number:06}.parquet" for number in range(len(starts))]
    with (
        opened(config.engine, retries=config.retries) as engine,
        progress_bar(f"Predicting {photos.title}", len(photos)) as bar,
    ):
        place = predictor.model.folder if engine.is_local else _shared_copy(predictor.model.folder, folder)
        asked = Asked(predictor.has_evidence, config.exif, config.max_megapixels)
        workers = worker_count(config.workers) if engine.is_local else 1
        meter = _Meter(bar, len(photos))
        tasks = []
        for start, target in zip(starts, targets, strict=True):
            files = photos.files.part(start, start + config.block_photos)
            if target.exists():  # it was renamed when it was whole
                meter.advance(len(files.names), now=False)
                continue
            block = Block(files, target, place, predictor.model.digest, asked, workers)
            local = (predictor, meter.advance) if engine.is_local else ()
            tasks.append(Task(f"{target.stem} of {folder}", _predict_block, (block, *local)))
        if tasks:
            _check_seen(engine, [folder, photos.files.place])
            _run(engine, tasks, folder, None if engine.is_local else meter)
    return targets


def _run(engine: Engine, tasks: Sequence[Task], folder: Path, meter: _Meter | None) -> None:
    engine.stop_others(f" of {folder}", {task.key for task in tasks})
    for task in tasks:
        engine.start(task)
    for done in engine.finished():
        if done.error is not None:
            raise done.error
        if meter:
            meter.advance(done.result)


def _check_seen(engine: Engine, places: Sequence[Path]) -> None:
    for place in places:
        for worker, sees in engine.send(os.path.exists, place).items():
            if sees is not True:
                raise EngineError(
                    f"The worker {worker} does not see {place}. The workers of predict need the photos and the output "
                    "on a shared drive; or use engine=processes:N."
                )


def _shared_copy(model: Path, folder: Path) -> Path:
    """Copy a model's folder beside the blocks, where workers see it."""
    copy = folder / "model"
    if not copy.exists():
        shutil.copytree(model, folder / "model.part", dirs_exist_ok=True)
        os.replace(folder / "model.part", copy)
    return copy


class _Meter:
    """Shows how many photos are done, how many in a second, and how long the others will take."""

    def __init__(self, bar: Bar, total: int) -> None:
        self._bar, self._total = bar, total
        self._done = self._before = 0
        self._began_s = time.monotonic()

    def advance(self, photos: int, *, now: bool = True) -> None:
        self._done += photos
        self._before += 0 if now else photos
        self._bar.advance(photos)
        rate = (self._done - self._before) / max(time.monotonic() - self._began_s, 1e-6)
        left_s = (self._total - self._done) / rate if rate else 0.0
        left = f"{left_s:.0f} s" if left_s < 100 else f"{left_s / 60:.0f} min"
        if rate:
            self._bar.show(f"{self._done:,} of {self._total:,} photos, {rate:.1f} photos/s, {left} left")


@functools.lru_cache(1)
def _predictor_in(folder: Path, digest: str, evidence: bool) -> Predictor:
    """Open a model on a worker; ``digest`` tells models of one folder apart."""
    return Predictor(open_folder(folder), evidence=evidence)


def _predict_block(
    block: Block, predictor: Predictor | None = None, told: Callable[[int], None] = lambda count: None
) -> int:
    """Predict a block, write its rows to its file at once, and return their number."""
    predictor = predictor or _predictor_in(block.model_folder, block.model_digest, block.asked.evidence)
    frames = []
    with warnings.catch_warnings(), block.files.opened() as read:
        # Pillow warns of broken files, whose problem is reported anyway. Set here, as threads share the filters.
        warnings.simplefilter("ignore")
        for decoded in _decoded(block, read, predictor.model.card.image_side_px):
            interrupts.check()
            frames.append(_rows(decoded, predictor, block.asked))
            told(len(decoded.names))
    write_block(pd.concat(frames, ignore_index=True), block.target)
    return len(block.files.names)


@dataclass(frozen=True)
class _Decoded:
    """A batch of photos: those with a problem are black."""

    names: Sequence[str]
    pixels: PhotoArray
    taken: list[Taken]
    problems: list[str]


def _decoded(block: Block, read: Read, side_px: int) -> Iterator[_Decoded]:
    """Yield batches, decoded by threads while the caller works on earlier ones."""
    cv2.setNumThreads(1)  # photos are decoded in parallel; threads within each would only compete
    names = block.files.names

    def one(number: int) -> tuple[Any, Taken, str]:
        try:
            content = read(number)
            taken = when_and_where(content) if block.asked.exif else Taken()
            return decode(content, side_px, block.asked.max_megapixels).pixels_0_255, taken, ""
        except BadPhotoError as error:
            return np.zeros((side_px, side_px, 3), np.uint8), Taken(), str(error)

    with ThreadPoolExecutor(block.workers) as pool:

        def batch(number: int) -> _Decoded:
            rows = range(number * BATCH_SIZE, min((number + 1) * BATCH_SIZE, len(names)))
            pixels, taken, problems = zip(*pool.map(one, rows), strict=True)
            return _Decoded([names[row] for row in rows], np.stack(pixels), list(taken), list(problems))

        yield from prepared_ahead(batch, -(-len(names) // BATCH_SIZE))


def _rows(decoded: _Decoded, predictor: Predictor, asked: Asked) -> pd.DataFrame:
    """Return the rows of a batch."""
    model = predictor.model
    answers = predictor(decoded.pixels)
    probabilities = answers.probabilities
    finite: BoolArray = np.asarray(np.isfinite(probabilities).all(axis=1))
    problems = [
        problem or ("" if is_number else NOT_A_NUMBER)
        for problem, is_number in zip(decoded.problems, finite, strict=True)
    ]
    usable = np.array([not problem for problem in problems])
    numbers = np.full(probabilities.shape, np.nan)
    numbers[usable] = model.rule.calibrated(probabilities[usable])
    said = model.rule.answers(numbers)
    columns: dict[str, Any] = {"file": [_shown(name) for name in decoded.names]}
    for place, material in enumerate(model.materials):
        columns[f"probability_{material}"] = numbers[:, place].round(_DECIMALS)
    for place, material in enumerate(model.materials):
        columns[f"decision_{material}"] = [
            WORDS[answer] if is_usable else None for answer, is_usable in zip(said[:, place], usable, strict=True)
        ]
    columns |= _familiarity(model, answers, usable)
    if predictor.has_evidence and answers.maps is not None:
        columns |= _evidence(model, probabilities, usable, answers.maps)
    if asked.exif:
        columns |= dict(zip(EXIF, zip(*decoded.taken, strict=True), strict=True))
    return pd.DataFrame({**columns, "problem": problems})


def _familiarity(model: ChosenModel, answers: Answers, usable: BoolArray) -> dict[str, Any]:
    """Return the columns ``distance`` and ``familiarity``, empty for a model that does not know."""
    distances = np.full(len(usable), np.nan)
    if model.familiarity is None or answers.features is None:
        return dict.fromkeys(FAMILIARITY, distances)
    distances = np.where(usable, model.familiarity.distances(answers.features), np.nan)
    return dict(zip(FAMILIARITY, (distances, model.familiarity.shares(distances).round(_DECIMALS)), strict=True))


def _shown(name: str) -> str:
    """Return a file's name as text; bytes that are none are shown as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _evidence(model: ChosenModel, probabilities: Any, usable: Any, maps: Float32Array) -> dict[str, Any]:
    """Return the columns of the evidence; the maps are of the material most probable to the network, not calibrated."""
    numbers = np.where(usable[:, None], probabilities, np.nan)
    strongest = np.where(np.isfinite(numbers), numbers, -1.0).argmax(axis=1)
    boxes = [peak_box(one) if is_usable else NOWHERE for one, is_usable in zip(maps, usable, strict=True)]
    names = [
        model.materials[place] if np.isfinite(box[0]) else None for place, box in zip(strongest, boxes, strict=True)
    ]
    sides = np.array(boxes, dtype=np.float64).reshape(-1, 4).round(4)
    return {"evidence_material": names, **{side: sides[:, place] for place, side in enumerate(EVIDENCE)}}


def write_block(frame: pd.DataFrame, target: Path) -> None:
    """Write rows to a Parquet file that appears only when it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    names = [str(name) for name in frame]
    texts = {name for name in names if name.startswith("decision_")} | _TEXTS
    schema = pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in names])
    try:
        pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
