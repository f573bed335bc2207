"""The feature cache: what a frozen backbone makes of each photo, computed once, on disk; survives being killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from wastelens.data.batches.pipeline import TrainingBatches
from wastelens.data.batches.views import AugmentedViews
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import NonFiniteLossError
from wastelens.system import interrupts
from wastelens.system.console import say
from wastelens.system.digests import file_digest
from wastelens.system.disk import reserve
from wastelens.system.locks import in_turn

Features = npt.NDArray[np.float32]

BATCH_PHOTOS = 64
KEPT = 4
LAYOUT = 1  # of the files: another number, and what was computed before is computed anew
# Keys of a network's config that change nothing of what it computes with given weights while it is frozen.
_WITHOUT_EFFECT = re.compile(r"trainable|seed|compile_config|.*_(initializer|regularizer|constraint)")
_OURS = re.compile(r"([0-9a-f]{32})\.(npy|json|partial\.npy|partial\.jsonl)(\.new)?")


class Rows(Protocol):
    """Photos of which rows can be asked for: an array, a memory-mapped one, ``AugmentedViews``."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> npt.NDArray[np.uint8]: ...


def cached_features(
    features_model: Any,
    photos: Rows,
    *,
    folder: Path,
    key: Mapping[str, str | int | float],
    progress: Callable[[int], None] = lambda count: None,
) -> Features:
    """The features of all photos, float32 (photos, *feature shape), memory-mapped for reading; computed if need be.

    A finished file of this key is taken as it is once its shape and its digest are found right; a corrupt one is
    computed anew. A killed run goes on from its last whole batch. Of other keys only the newest files are kept, four
    in all with this one (see :func:`prune`). Processes that share a folder compute one after another; where the
    system has no file locks, do not share it.

    Args:
        features_model: photos 0–255 (batch, side, side, 3) → features, frozen, of a fixed feature shape.
        photos: row i of the features is of row i; with ``AugmentedViews``, as those count their rows.
        folder: where the files go.
        key: all that the features depend on: digests of photos, architecture and weights, dtype policy, and with
            views their ``key``.
        progress: called with the number of photos newly in place.

    Raises:
        NonFiniteLossError: features that are not finite; names the row.
        OSError: the disk is too full, found before anything is computed.
    """
    shape = (len(photos), *features_model.output_shape[1:])
    if not len(photos):
        return np.empty(shape, dtype=np.float32)  # a file of no bytes cannot be mapped
    files = _Files(folder, _digest_of(key), shape)
    found = files.finished()
    if found is None:
        with in_turn(folder, lambda: say(f"Another process is computing features in {folder}; waiting for it.")):
            found = files.finished()  # another process may have computed it meanwhile
            if found is None:
                prune(folder, keep=KEPT - 1, spare=files.digest)
                return _computed(files, features_model, photos, progress)
    progress(len(photos))
    return found


def prune(folder: Path, *, keep: int, spare: str = "") -> None:
    """Remove a folder's feature files but for the ``keep`` last used ones; those of the digest ``spare`` count apart.

    Half-computed ones go like finished ones. Other files are left alone. A file that a process has mapped stays
    readable for it on Linux and macOS; Windows refuses to remove it, which is passed over.
    """
    used: dict[str, float] = {}
    ours = [(path, match[1]) for path in folder.iterdir() if (match := _OURS.fullmatch(path.name))]
    for path, digest in ours:
        used[digest] = max(used.get(digest, 0), path.stat().st_mtime)
    kept = sorted(used.keys() - {spare}, key=lambda digest: used[digest], reverse=True)[:keep]
    for path, digest in ours:
        if digest not in (*kept, spare):
            with contextlib.suppress(OSError):
                path.unlink()


@dataclass(frozen=True)
class _Files:
    """The files of one key: finished, ``.npy`` with a ``.json`` about it; before, a partial array with a journal.

    The journal has a line a batch in place: the digest of its bytes. So what a crash of the machine lost or spoiled
    is found out, too.
    """

    folder: Path
    digest: str
    shape: tuple[int, ...]

    @property
    def array(self) -> Path:
        return self.folder / f"{self.digest}.npy"

    @property
    def about(self) -> Path:
        return self.folder / f"{self.digest}.json"

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.digest}.partial.npy"

    @property
    def journal(self) -> Path:
        return self.folder / f"{self.digest}.partial.jsonl"

    def finished(self) -> Features | None:
        """The finished array, or None where it is not there, or not what was once finished."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            features: Features = np.load(self.array, mmap_mode="r")
            if not self._fits(features) or file_digest(self.array) != about["file"]:
                return None
            os.utime(self.array)  # the last used are kept
        except (OSError, ValueError, EOFError, KeyError, TypeError):
            return None
        return features

    def finish(self) -> Features:
        """Give the whole array its final name; the file about it comes first, and vouches for these bytes alone."""
        text = json.dumps({"file": file_digest(self.partial), "shape": self.shape})
        aside = self.about.with_name(self.about.name + ".new")
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, self.about)
        os.replace(self.partial, self.array)
        self.journal.unlink()
        return np.asanyarray(np.load(self.array, mmap_mode="r"))

    def open_partial(self) -> tuple[Features, int]:
        """The array to fill, its space taken on the disk, and how many of its rows are in place."""
        features = self._interrupted()
        if features is None:
            features = np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.float32, shape=self.shape)
        try:
            reserve(self.partial)
        except OSError:
            del features
            self.remove_partial()
            raise
        return features, self._rows_in_place(features)

    def _interrupted(self) -> Features | None:
        try:
            features: Features = np.load(self.partial, mmap_mode="r+")  # makes a cut file as long as it was
        except (OSError, ValueError, EOFError):
            return None
        return features if self._fits(features) else None

    def _fits(self, features: npt.NDArray[Any]) -> bool:
        return features.shape == self.shape and features.dtype == np.float32

    def _rows_in_place(self, features: Features) -> int:
        """Rows of the leading batches that are as the journal says; the rest of the journal is dropped."""
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []
        good = 0
        while good < len(lines) and lines[good] == _bytes_digest(features[good * BATCH_PHOTOS :][:BATCH_PHOTOS]):
            good += 1
        self.journal.write_text("".join(line + "\n" for line in lines[:good]), encoding="utf-8")
        return min(good * BATCH_PHOTOS, len(features))

    def remove_partial(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)


def _computed(files: _Files, features_model: Any, photos: Rows, progress: Callable[[int], None]) -> Features:
    features, done = files.open_partial()
    progress(done)
    with files.journal.open("a", encoding="utf-8") as journal:
        for start in range(done, len(photos), BATCH_PHOTOS):
            batch = np.asarray(features_model.predict_on_batch(photos[start : start + BATCH_PHOTOS]), dtype=np.float32)
            finite = np.isfinite(batch.reshape(len(batch), -1)).all(axis=1)
            if not finite.all():
                files.remove_partial()
                raise NonFiniteLossError(
                    f"The frozen layers' features of photo {start + int(np.argmin(finite))} (of {len(photos)}, from 0) "
                    "are not finite numbers. Give other weights, or freeze=0."
                )
            features[start : start + len(batch)] = batch
            journal.write(_bytes_digest(batch) + "\n")
            journal.flush()
            progress(len(batch))
            interrupts.check()
    cast(Any, features).flush()
    del features  # Windows renames no mapped file
    return files.finish()


def _digest_of(key: Mapping[str, Any]) -> str:
    text = json.dumps({"layout": LAYOUT, "key": dict(key)}, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _bytes_digest(array: Features) -> str:
    return blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


def architecture_digest(features_model: Any) -> str:
    """BLAKE2b of a network's layers and their settings, 128 bits, in hexadecimal.

    Names count by place, as Keras numbers them on from model to model; what only training or a random start would
    use (initializers, seeds, ``trainable``) does not count.
    """
    architecture = _normalised(json.loads(features_model.to_json()), {})
    return blake2b(json.dumps(architecture, sort_keys=True).encode(), digest_size=16).hexdigest()


def _normalised(value: Any, places: dict[str, str], key: str = "") -> Any:
    """A network's json with each layer's name replaced by its place among the names, in order of appearance."""
    if key == "dtype":  # its name says what is computed with
        return value
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if not _WITHOUT_EFFECT.fullmatch(name)}
        return {name: _normalised(inner, places, name) for name, inner in kept.items()}
    if isinstance(value, list):
        return [_normalised(inner, places, key) for inner in value]
    if isinstance(value, str) and key in ("name", "keras_history", "input_layers", "output_layers"):
        return places.setdefault(value, f"name {len(places)}")
    return value


def weights_digest(features_model: Any) -> str:
    """BLAKE2b of all of a network's arrays, moving averages too, in their order, 128 bits, in hexadecimal."""
    digest = blake2b(digest_size=16)
    for weight in features_model.weights:
        array = np.ascontiguousarray(weight.numpy())
        digest.update(f"{array.dtype.name} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class FeatureBatches(TrainingBatches):
    """The training photos' features in batches, in the very order in which ``TrainingBatches`` gives the photos.

    With views, each row of the table takes another view every epoch, and all of them once in ``views`` epochs (epochs
    0 to views − 1, and so on), in an order of its own; as everything here, by (seed, epoch) alone.
    """

    def __init__(
        self, table: TrainTable, features: Any, *, batch_size: int, seed: int, views: AugmentedViews | None = None
    ) -> None:
        """Store what is trained on.

        Args:
            table: the training rows; may repeat photos.
            features: float32 (photos, …) by ``photo_index``; with views float32 (views · photos, …), as
                ``cached_features`` gives for them, or the views themselves: then batches are of photos, uint8.
            batch_size: rows a batch.
            seed: of the order and of the views' choice.
            views: those the features were computed of.

        Raises:
            TypeError: no TrainTable.
            ValueError: the table has photos the views were not made of, or as many features as there are views are
                not there.
        """
        super().__init__(table, cast(Any, features), batch_size=batch_size, policy=None, seed=seed)
        self._views = views
        if views is not None:
            views.rows_of(np.zeros_like(self._rows), self._rows)
            if len(features) != len(views):
                raise ValueError(f"there are {len(features)} rows of features for {len(views)} rows of views")

    def _batch(self, piece: npt.NDArray[np.intp], epoch: int, number: int) -> Any:
        """Features (batch, …) and labels float32 (batch, materials)."""
        rows = self._rows[piece]
        if self._views is not None:
            rows = self._views.rows_of(self._view_of_rows(epoch)[piece], rows)
        return np.asarray(self._photos[rows]), self._labels[piece]

    def _view_of_rows(self, epoch: int) -> npt.NDArray[np.intp]:
        """Each row's view in an epoch: in each round of ``views`` epochs, a row goes through them in random order."""
        assert self._views is not None
        turn, place = divmod(epoch, self._views.views)
        # The third number keeps this stream apart from the order's, which is seeded by (seed, epoch).
        rng = np.random.default_rng([self._seed, turn, 1])
        orders = rng.permuted(np.tile(np.arange(self._views.views), (len(self._rows), 1)), axis=1)
        return np.asarray(orders[:, place], dtype=np.intp)
