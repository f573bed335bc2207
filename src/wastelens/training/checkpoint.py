"""Checkpoints: everything an interrupted training needs to continue as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wastelens.system.arrays import Arrays
from wastelens.system.digests import file_digest
from wastelens.tracking.tracker import Run

SLOTS = ("a", "b")
KINDS = ("network", "optimizer", "best")  # of arrays
CHECKPOINT_FOLDER = "checkpoint"
ARRAYS, STATE, METRICS = "arrays.npz", "state.json", "metrics.json"


@dataclass(frozen=True)
class Progress:
    """How far training has got.

    Attributes:
        epochs_done: finished epochs, of all phases together.
        best_epoch: the epoch (from 1) with the best value on val so far; 0 before the first.
        best_value: that value: val_macro_ap, or anything else where higher is better.
        phase: part of the training, from 0: fine-tuning is the second, a stack has one per layer.
        phase_began: finished epochs when the phase began.
    """

    epochs_done: int = 0
    best_epoch: int = 0
    best_value: float = float("-inf")
    phase: int = 0
    phase_began: int = 0

    def next_phase(self) -> Progress:
        """Return the start of the next phase; the best so far stays the best."""
        return replace(self, phase=self.phase + 1, phase_began=self.epochs_done)


@dataclass(frozen=True)
class Checkpoint:
    """Progress with its arrays: the network, the optimizer and the best weights.

    ``number`` counts a run's checkpoints from 0.
    """

    progress: Progress
    network: Arrays
    optimizer: Arrays
    best: Arrays
    number: int = 0


class CheckpointKeeper:
    """Saves a checkpoint after every epoch, but large networks less often: those take longer to write than to train.

    After a save of more than half a second, the next waits until saving has taken at most 5 % of the time.

    Args:
        store: the run whose artifacts hold the checkpoints.
        resumed: the checkpoint that this training continues from, if any.
        aside: a folder of this machine; what the store cannot take is written there.
    """

    SHARE_OF_TIME = 0.05
    CHEAP_S = 0.5

    def __init__(self, store: Run, resumed: Checkpoint | None, aside: Path) -> None:
        self._store = store
        self._next_at = 0.0
        self._number = resumed.number + 1 if resumed else 0
        self._aside = aside

    def offer(self, checkpoint: Callable[[], Checkpoint]) -> None:
        """Save the checkpoint that the function makes, unless the last one took too long too recently."""
        started = time.monotonic()
        if started < self._next_at:
            return
        save_checkpoint(replace(checkpoint(), number=self._number), self._store)
        self._number += 1
        ended = time.monotonic()
        if ended - started > self.CHEAP_S:
            self._next_at = ended + (ended - started) * (1 / self.SHARE_OF_TIME - 1)

    def put_aside(self, checkpoint: Checkpoint, logged: Mapping[str, object]) -> None:
        """Write an epoch that the store could not take to this machine's disk; logged: arguments of log_metrics."""
        self._aside.mkdir(parents=True, exist_ok=True)
        (self._aside / METRICS).write_text(json.dumps(logged, default=float), encoding="utf-8")
        write_checkpoint(replace(checkpoint, number=self._number), self._aside)


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> tuple[Path, Path]:
    """Write a checkpoint into a folder; return its files, of which the second vouches for the first."""
    arrays = folder / ARRAYS
    named = {f"{kind}_{at:04d}": array for kind in KINDS for at, array in enumerate(getattr(checkpoint, kind))}
    np.savez(arrays, allow_pickle=False, **named)
    state = folder / STATE
    about = {**asdict(checkpoint.progress), "number": checkpoint.number, "arrays_digest": file_digest(arrays)}
    state.write_text(json.dumps(about))
    return arrays, state


def save_checkpoint(checkpoint: Checkpoint, store: Run) -> None:
    """Write a checkpoint into one of two alternating slots: a kill while writing spoils at most the newer one."""
    folder = f"{CHECKPOINT_FOLDER}/{SLOTS[checkpoint.number % len(SLOTS)]}"
    with tempfile.TemporaryDirectory() as temporary:
        for file in write_checkpoint(checkpoint, Path(temporary)):
            store.log_file(file, folder)


def load_checkpoint(store: Run, aside: Path) -> Checkpoint | None:
    """Return the newest complete checkpoint of a run, or None.

    If it is the one that was put aside, it is logged first, with its epoch's metrics.
    """
    with tempfile.TemporaryDirectory() as temporary:
        found = [_downloaded(store, slot, Path(temporary)) for slot in SLOTS]
    newest = max((one for one in found if one is not None), key=lambda checkpoint: checkpoint.number, default=None)
    put_aside, logged = _read_checkpoint(aside), _read_logged(aside)
    if put_aside is not None and logged and (newest is None or put_aside.number > newest.number):
        newest = put_aside
        store.log_metrics(**logged)
        save_checkpoint(newest, store)
    shutil.rmtree(aside, ignore_errors=True)
    return newest


def _read_logged(aside: Path) -> dict[str, Any]:
    """Read the arguments of log_metrics that were put aside; none where they are missing or incomplete."""
    try:
        return dict(json.loads((aside / METRICS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _downloaded(store: Run, slot: str, temporary: Path) -> Checkpoint | None:
    folder = temporary / slot
    folder.mkdir()
    for name in (STATE, ARRAYS):
        if store.download(f"{CHECKPOINT_FOLDER}/{slot}/{name}", folder) is None:
            return None
    return _read_checkpoint(folder)


def _read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read what :func:`write_checkpoint` wrote, or return None where it is missing or incomplete."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        digest, number = state.pop("arrays_digest"), int(state.pop("number"))
        progress = Progress(**state)
        whole = digest == file_digest(folder / ARRAYS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not whole or not all(isinstance(value, int | float) for value in asdict(progress).values()):
        return None
    try:
        with np.load(folder / ARRAYS) as arrays:
            names = sorted(arrays.files)
            kinds = {kind: [arrays[name] for name in names if name.startswith(kind)] for kind in KINDS}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile):  # no archive of arrays, or pickles
        return None
    return Checkpoint(progress, **kinds, number=number)
