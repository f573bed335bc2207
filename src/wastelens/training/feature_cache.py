"""The feature cache: a frozen backbone's features of each photo, computed once, on disk; survives being killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np

from wastelens.data.batches.augment import AugmentedViews
from wastelens.data.batches.pipeline import TrainingBatches
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import NonFiniteLossError
from wastelens.system import interrupts
from wastelens.system.arrays import Array, Float32Array, IndexArray, PhotoArray
from wastelens.system.console import say
from wastelens.system.digests import file_digest
from wastelens.system.files import in_turn, reserve

BATCH_PHOTOS = 64
PASS_PIXELS = BATCH_PHOTOS * 260**2  # at most, in one pass of the network: its first maps take a kilobyte a pixel
KEPT = 4
LAYOUT = 1  # version of the files: a new number makes all features be computed again
# Keys of a network's config that do not affect what it computes, given its weights, while it is frozen.
_WITHOUT_EFFECT = re.compile(r"trainable|seed|compile_config|.*_(initializer|regularizer|constraint)")
_OURS = re.compile(r"([0-9a-f]{32})\.(npy|json|partial\.npy|partial\.jsonl)(\.new)?")


def cached_features(
    features_model: Any,
    photos: PhotoArray | AugmentedViews,
    *,
    folder: Path,
    key: Mapping[str, str | int | float],
    progress: Callable[[int], None] = lambda count: None,
) -> Float32Array:
    """Return the features of all photos, float32 (photos, *feature shape), memory-mapped; compute them if necessary.

    A finished file of this key is used once its shape and digest are verified; a corrupt one is computed again. A
    killed run continues after its last complete batch. Of other keys, only the last used files are kept, four in all
    with this one (see :func:`prune`). Processes that share a folder compute one after another; do not share it where
    the system has no file locks.

    Args:
        features_model: photos 0–255 (batch, side, side, 3) → features, frozen, of a fixed feature shape.
        photos: row i of the features belongs to row i; ``AugmentedViews`` count their rows themselves.
        folder: of the files.
        key: everything the features depend on: digests of photos, architecture and weights, dtype policy, and the
            ``key`` of views.
        progress: called with the number of photos newly finished.

    Raises:
        NonFiniteLossError: features that are not finite; the message names the row.
        OSError: the disk is too full, which is found before anything is computed.
    """
    shape = (len(photos), *features_model.output_shape[1:])
    if not len(photos):
        return np.empty(shape, dtype=np.float32)  # an empty file cannot be mapped
    text = json.dumps({"layout": LAYOUT, "key": dict(key)}, sort_keys=True)
    files = _Files(folder, blake2b(text.encode(), digest_size=16).hexdigest(), shape)
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
    """Remove a folder's feature files, except the ``keep`` last used and, besides, those of the digest ``spare``.

    Half-computed files go like finished ones; other files stay. A file that a process has mapped stays readable for it
    on Linux and macOS; Windows refuses to remove it, which is ignored.
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


class _Files:
    """The files of one key: a finished ``.npy`` with a ``.json`` about it, or a partial array with a journal.

    The journal has a line for each finished batch, the digest of its bytes, so that data lost or damaged in a crash of
    the machine are detected.
    """

    def __init__(self, folder: Path, digest: str, shape: tuple[int, ...]) -> None:
        self.digest = digest
        self.shape = shape
        self.array, self.about = folder / f"{digest}.npy", folder / f"{digest}.json"
        self.partial, self.journal = folder / f"{digest}.partial.npy", folder / f"{digest}.partial.jsonl"

    def finished(self) -> Float32Array | None:
        """Return the finished array, or None if it is missing or has changed since it was finished."""
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
            features: Float32Array = np.load(self.array, mmap_mode="r")
            if self._fits(features) and file_digest(self.array) == about["file"]:
                os.utime(self.array)  # the last used files are kept
                return features
        except (OSError, ValueError, EOFError, KeyError, TypeError):
            pass
        return None

    def finish(self) -> Float32Array:
        """Give the complete array its final name, after writing the file about it, which holds for these bytes only."""
        text = json.dumps({"file": file_digest(self.partial), "shape": self.shape})
        aside = self.about.with_name(self.about.name + ".new")
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, self.about)
        os.replace(self.partial, self.array)
        self.journal.unlink()
        return np.asanyarray(np.load(self.array, mmap_mode="r"))

    def open_partial(self) -> tuple[Float32Array, int]:
        """Return the array to fill, with its disk space reserved, and the number of rows already in place."""
        features = None
        with contextlib.suppress(OSError, ValueError, EOFError):
            features = np.load(self.partial, mmap_mode="r+")  # extends a truncated file to its full length
        if features is None or not self._fits(features):
            features = np.lib.format.open_memmap(self.partial, mode="w+", dtype=np.float32, shape=self.shape)
        try:
            reserve(self.partial)
        except OSError:
            del features
            self.remove_partial()
            raise
        return features, self._rows_in_place(features)

    def _fits(self, features: Array) -> bool:
        return features.shape == self.shape and features.dtype == np.float32

    def _rows_in_place(self, features: Float32Array) -> int:
        """Count the rows of the leading batches that match the journal, and drop the rest of the journal."""
        lines = self.journal.read_text(encoding="utf-8").splitlines() if self.journal.exists() else []
        good = 0
        while good < len(lines) and lines[good] == _bytes_digest(features[good * BATCH_PHOTOS :][:BATCH_PHOTOS]):
            good += 1
        self.journal.write_text("".join(line + "\n" for line in lines[:good]), encoding="utf-8")
        return min(good * BATCH_PHOTOS, len(features))

    def remove_partial(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)


def _computed(
    files: _Files, features_model: Any, photos: PhotoArray | AugmentedViews, progress: Callable[[int], None]
) -> Float32Array:
    features, done = files.open_partial()
    pass_photos = photos_per_pass(features_model)
    progress(done)
    with files.journal.open("a", encoding="utf-8") as journal:
        for start in range(done, len(photos), BATCH_PHOTOS):
            end = min(start + BATCH_PHOTOS, len(photos))
            pieces = (photos[at : min(at + pass_photos, end)] for at in range(start, end, pass_photos))
            batch = np.concatenate([_predicted(features_model, piece) for piece in pieces])
            finite = np.isfinite(batch.reshape(len(batch), -1)).all(axis=1)
            if not finite.all():
                files.remove_partial()
                raise NonFiniteLossError(
                    f"The frozen layers' features of photo {start + int(np.argmin(finite))} (of {len(photos)}, from 0) "
                    "are not finite. Give other weights, or freeze=0."
                )
            features[start : start + len(batch)] = batch
            journal.write(_bytes_digest(batch) + "\n")
            journal.flush()
            progress(len(batch))
            interrupts.check()
    cast(Any, features).flush()
    del features  # Windows cannot rename a mapped file
    return files.finish()


def photos_per_pass(features_model: Any) -> int:
    """Return how many photos to compute at once: fewer where a network sees large ones."""
    maps = [layer.output.shape for layer in getattr(features_model, "layers", [])]
    largest = max((shape[1] * shape[2] for shape in maps if len(shape) == 4), default=1)
    return max(1, min(BATCH_PHOTOS, PASS_PIXELS // largest))


def _predicted(features_model: Any, photos: PhotoArray) -> Float32Array:
    return np.asarray(features_model.predict_on_batch(photos), dtype=np.float32)


def _bytes_digest(array: Float32Array) -> str:
    return blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


def architecture_digest(features_model: Any) -> str:
    """Return the BLAKE2b digest of a network's layers and their settings: 128 bits, in hexadecimal.

    Names count by place, because Keras numbers them across models; settings that only training or random weights use
    (initializers, seeds, ``trainable``) do not count.
    """
    architecture = _normalised(json.loads(features_model.to_json()), {})
    return blake2b(json.dumps(architecture, sort_keys=True).encode(), digest_size=16).hexdigest()


def _normalised(value: Any, places: dict[str, str], key: str = "") -> Any:
    """Return a network's JSON with each layer's name replaced by its place among the names, in order of appearance."""
    if key == "dtype":  # its name tells the precision
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
    """Return the BLAKE2b digest of all of a network's arrays in order, moving averages too: 128 bits, hexadecimal."""
    digest = blake2b(digest_size=16)
    for weight in features_model.weights:
        array = np.ascontiguousarray(weight.numpy())
        digest.update(f"{array.dtype.name} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class FeatureBatches(TrainingBatches):
    """The training photos' features in batches, in exactly the order of ``TrainingBatches``.

    With views, each row of the table uses another view every epoch, and all of them once in ``views`` epochs (epochs
    0 to views − 1, and so on), in its own order, which follows from (seed, epoch) alone.
    """

    def __init__(
        self, table: TrainTable, features: Any, *, batch_size: int, seed: int, views: AugmentedViews | None = None
    ) -> None:
        """Store the training rows, which may repeat photos, and their features.

        Args:
            features: float32 (photos, …) by ``photo_index``; with views float32 (views · photos, …) from
                ``cached_features``, or the views themselves: then batches are of photos, uint8.
            seed: of the order and of the choice of views.

        Raises:
            TypeError: not a TrainTable.
            ValueError: the table has photos that have no views, or the numbers of features and views differ.
        """
        super().__init__(table, cast(Any, features), batch_size=batch_size, policy=None, seed=seed)
        self._views = views
        if views is not None:
            views.rows_of(np.zeros_like(self._rows), self._rows)
            if len(features) != len(views):
                raise ValueError(f"there are {len(features)} rows of features for {len(views)} rows of views")

    def _batch(self, piece: IndexArray, epoch: int, number: int) -> Any:
        """Return features (batch, …) and labels float32 (batch, materials)."""
        rows = self._rows[piece]
        if self._views is not None:
            rows = self._views.rows_of(self._view_of_rows(epoch)[piece], rows)
        return np.asarray(self._photos[rows]), self._labels[piece]

    def _view_of_rows(self, epoch: int) -> IndexArray:
        """Return each row's view in an epoch: in each round of ``views`` epochs, a row uses all in random order."""
        assert self._views is not None
        turn, place = divmod(epoch, self._views.views)
        # The third number separates this stream from the order's, which is seeded by (seed, epoch).
        rng = np.random.default_rng([self._seed, turn, 1])
        orders = rng.permuted(np.tile(np.arange(self._views.views), (len(self._rows), 1)), axis=1)
        return np.asarray(orders[:, place], dtype=np.intp)
