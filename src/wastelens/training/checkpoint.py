"""Checkpoints: everything an interrupted training needs to go on as if nothing had happened."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wastelens.data.digests import file_digest

Arrays = list[npt.NDArray[Any]]
SLOTS = ("a", "b")


class ArtifactStore(Protocol):
    """Where checkpoints are kept: a run's artifacts."""

    def log_file(self, file: Path, folder: str = "") -> None: ...
    def download(self, path: str, into: Path) -> Path | None: ...


@dataclass(frozen=True)
class Progress:
    """How far training has come.

    Attributes:
        epochs_done: finished epochs.
        best_epoch: the epoch (from 1) with the best val_macro_ap so far; 0 before the first.
        best_value: its val_macro_ap.
    """

    epochs_done: int = 0
    best_epoch: int = 0
    best_value: float = float("-inf")


@dataclass(frozen=True)
class Checkpoint:
    """Progress with the arrays behind it: the network's, the optimizer's, and the best weights'."""

    progress: Progress
    network: Arrays
    optimizer: Arrays
    best: Arrays


def save_checkpoint(checkpoint: Checkpoint, store: ArtifactStore) -> None:
    """Write a checkpoint into one of two slots, by turns: a kill in mid-write spoils at most the newer one."""
    folder = f"checkpoint/{SLOTS[checkpoint.progress.epochs_done % 2]}"
    with tempfile.TemporaryDirectory() as temporary:
        arrays = Path(temporary) / "arrays.npz"
        np.savez(arrays, allow_pickle=False, **_named(checkpoint))
        state = Path(temporary) / "state.json"
        state.write_text(json.dumps({**asdict(checkpoint.progress), "arrays_digest": file_digest(arrays)}))
        store.log_file(arrays, folder)
        store.log_file(state, folder)


def _named(checkpoint: Checkpoint) -> dict[str, npt.NDArray[Any]]:
    kinds = {"network": checkpoint.network, "optimizer": checkpoint.optimizer, "best": checkpoint.best}
    return {f"{kind}_{number:04d}": array for kind, arrays in kinds.items() for number, array in enumerate(arrays)}


def load_checkpoint(store: ArtifactStore) -> Checkpoint | None:
    """The newest whole checkpoint, or None where there is none."""
    with tempfile.TemporaryDirectory() as temporary:
        found = [_load_slot(store, slot, Path(temporary)) for slot in SLOTS]
    whole = [checkpoint for checkpoint in found if checkpoint is not None]
    return max(whole, key=lambda checkpoint: checkpoint.progress.epochs_done, default=None)


def _load_slot(store: ArtifactStore, slot: str, temporary: Path) -> Checkpoint | None:
    folder = temporary / slot
    folder.mkdir()
    state_file = store.download(f"checkpoint/{slot}/state.json", folder)
    arrays_file = store.download(f"checkpoint/{slot}/arrays.npz", folder)
    if state_file is None or arrays_file is None:
        return None
    try:
        state = json.loads(state_file.read_text())
        digest = state.pop("arrays_digest")
        progress = Progress(**state)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if digest != file_digest(arrays_file):
        return None
    with np.load(arrays_file) as arrays:
        names = sorted(arrays.files)
        kinds = [[arrays[name] for name in names if name.startswith(kind)] for kind in ("network", "optimizer", "best")]
    return Checkpoint(progress, *kinds)
