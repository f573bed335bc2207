"""Load photos without labels from a folder: decode them once into a cache, and leave out val and test photos."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.data.batches.photo_rows import PhotoRows
from wastelens.data.duplicates.correlation import confirmed_pairs
from wastelens.data.duplicates.perceptual_hash import Hashes, perceptual_hashes
from wastelens.data.duplicates.search import near_duplicate_pairs
from wastelens.data.photos.cache import PhotoCache, PhotoSource, earlier_photos
from wastelens.data.photos.files import PHOTO_SUFFIXES, files_below
from wastelens.data.prepared.dataset import draft
from wastelens.errors import DatasetError
from wastelens.system.arrays import BoolArray, IndexArray, PhotoArray

MAX_MEGAPIXELS = 200.0  # larger photos are not decoded
UNLABELLED_CACHE = ".unlabelled"  # beside the prepared datasets
NEAR_DUPLICATE = "near-duplicate of a val or test photo"
_INDEX = "index.json"
_CHUNK_PHOTOS = 256
# If a folder holds many copies of one picture, pairs grow with the square of this: 8 million at most.
_COMPARED_AT_ONCE = 4096


@dataclass(frozen=True)
class FoundPhotos:
    """The contents of a folder; paths are below it, with forward slashes."""

    names: list[str]  # of the photos, sorted
    unreadable: list[tuple[str, str]]  # folders: path, reason


@dataclass(frozen=True)
class Unlabelled:
    """Photos without labels, all decoded; rows of unusable photos are undefined."""

    photos: PhotoArray  # memory-mapped
    rows: IndexArray  # of the photos to learn from, (usable,), ascending
    names: list[str]  # the file of each of ``photos``, below the folder, with forward slashes
    problems: pd.DataFrame  # the files (or unreadable folders) left out: ``file``, ``reason``
    unusable: int  # number of photos that could not be decoded
    near_duplicates: int  # number of near-duplicates of val or test photos
    repeats: int  # number of photos equal to an earlier one, pixel by pixel
    digest: str  # of the usable photos' pixels, in order


@dataclass(frozen=True)
class DecodedFolder:
    """A folder's photos in a cache; rows of photos with a problem are undefined."""

    photos: PhotoArray  # memory-mapped
    problems: list[str]  # of each photo; "" if there is none
    folder: Path  # of the cache


@dataclass(frozen=True)
class _Chosen:
    """The rows of the photos to learn from, and why other decoded photos were left out: row → reason."""

    rows: IndexArray
    near: dict[int, str]
    repeats: dict[int, str]
    digest: str


def find_photos(folder: Path) -> FoundPhotos:
    """Find every file below a folder that has the suffix of a photo, in upper or lower case.

    Hidden files and folders are ignored. Symbolic links to folders are followed; circular links end.

    Raises:
        DatasetError: there is no such folder, it cannot be read, or it has no photos.
    """
    if not os.path.isdir(folder):
        raise DatasetError(f"unlabelled='{folder}' is not a folder. Give a folder of photos.")
    names: list[str] = []
    others = 0
    unreadable: list[tuple[str, str]] = []
    for path, error in files_below(folder):
        name = path.relative_to(folder).as_posix()
        if error is not None:
            unreadable.append((name, f"a folder that cannot be read ({error.strerror})"))
        elif path.suffix.lower() in PHOTO_SUFFIXES:
            names.append(name)
        else:
            others += 1
    if unreadable and unreadable[0][0] == ".":
        raise DatasetError(f"unlabelled='{folder}' is {unreadable[0][1]}. Make it readable.")
    if not names:
        content = f"{others:,} other files" if others else "it is empty"
        raise DatasetError(f"unlabelled='{folder}' has no photos in it or below it ({content}). Add photos.")
    return FoundPhotos(sorted(names), unreadable)


def load_unlabelled(
    folder: Path,
    *,
    cache_folder: Path,
    side_px: int,
    max_problem_share: float,
    workers: int,
    forbidden: PhotoArray | PhotoRows,
    near_duplicate_distance: int,
    progress: Callable[[int], None] = lambda count: None,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> Unlabelled:
    """Decode a folder's photos once, and choose those to learn from.

    Left out, each with a reason, are photos that cannot be decoded, near-duplicates of ``forbidden`` photos (also
    rotated or mirrored ones), and all but the first by name of photos that are equal pixel by pixel at this size.

    The pixels are kept below ``cache_folder``, in a folder for this folder and side. They are reused as a whole while
    no file is added, removed or changed; otherwise, those of unchanged photos are. An interrupted run resumes.
    Nothing is written elsewhere. Memory holds about a kilobyte per photo, and no pixels.

    Args:
        folder: folder of photos, at any depth.
        cache_folder: folder for caches; may be shared with other folders, sides and processes.
        side_px: side of the square that every photo fills, in pixels, at least 8.
        max_problem_share: largest share of photos that may be unusable, 0 to 1.
        workers: number of decoding threads.
        forbidden: val and test photos, uint8 (m, side, side, 3).
        near_duplicate_distance: number of bits of the perceptual hash that may differ, 0 to 15.
        progress: called with the number of photos newly in place.
        max_megapixels: larger photos are not decoded.

    Raises:
        DatasetError: there is no folder or no photo, too many photos are unusable, none is left, or another process
            is decoding the same folder.
    """
    if forbidden.shape[1:] != (side_px, side_px, 3):
        raise ValueError(f"forbidden photos are {forbidden.shape[1:]}, not of side {side_px}")
    found = find_photos(folder)
    like = PhotoCache(Path(), side_px, max_megapixels)
    cached = decode_folder(folder, found.names, cache_folder, like, workers, progress)
    unusable = {row: problem for row, problem in enumerate(cached.problems) if problem}
    _check_problem_share(folder, found.names, unusable, max_problem_share, cached.folder)
    chosen = _choose(cached, found.names, forbidden, near_duplicate_distance)
    if not len(chosen.rows):
        raise DatasetError(
            f"unlabelled='{folder}': all {len(chosen.near):,} usable photos in it are near-duplicates of val or test "
            "photos, so none can be learnt from. Give a folder with other photos."
        )
    left_out = sorted({**unusable, **chosen.near, **chosen.repeats}.items())
    problems = [*found.unreadable, *((found.names[row], reason) for row, reason in left_out)]
    printable = [(_printable(name), _printable(reason)) for name, reason in problems]
    return Unlabelled(
        photos=cached.photos,
        rows=chosen.rows,
        names=found.names,
        problems=pd.DataFrame(printable, columns=["file", "reason"], dtype=str),
        unusable=len(unusable),
        near_duplicates=len(chosen.near),
        repeats=len(chosen.repeats),
        digest=chosen.digest,
    )


def _printable(text: str) -> str:
    """Escape bytes that are not valid text, which file names may hold but no file can be written with, and newlines."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\n", "\\n").replace("\r", "\\r")


def _check_problem_share(
    folder: Path, names: list[str], unusable: dict[int, str], allowed: float, cache_folder: Path
) -> None:
    if len(unusable) <= allowed * len(names) and len(unusable) < len(names):
        return
    first, reason = next(iter(unusable.items()))
    raise DatasetError(
        f"unlabelled='{folder}': {len(unusable):,} of {len(names):,} photos ({len(unusable) / len(names):.1%}) cannot "
        f"be used, more than max_problem_share={allowed:g}, the first {_printable(names[first])}: {reason}. "
        f"{cache_folder / _INDEX} lists them under 'problems'. Remove or fix them, or raise max_problem_share."
    )


def decode_folder(
    folder: Path,
    names: list[str],
    cache_folder: Path,
    like: PhotoCache,
    workers: int,
    progress: Callable[[int], None] = lambda count: None,
) -> DecodedFolder:
    """Return a folder's photos from the cache that `load_unlabelled` uses, decoding them into it if needed.

    Arguments are as for :func:`load_unlabelled`; ``names`` are the photos' paths below the folder, with forward
    slashes, sorted, and ``like`` is a cache with the wanted side and limit of megapixels.

    Raises:
        DatasetError: another process is decoding the same folder.
    """
    path = folder.resolve()
    name = "".join(letter if letter.isalnum() else "_" for letter in path.name)[:40]
    digest = blake2b(os.fsencode(path), digest_size=6).hexdigest()
    place = cache_folder.resolve() / f"{name}_{like.side_px}px_{digest}"
    sources = [PhotoSource(name, folder / name) for name in names]
    found = PhotoCache(place, like.side_px, like.max_megapixels).unchanged(sources)
    # A photo that could not be read is tried again.
    if found is not None and not any(entry.problem.startswith("cannot be read") for entry in found[1]):
        progress(len(names))
        photos, entries = found
    else:
        with draft(place) as unfinished:
            cache = PhotoCache(unfinished, like.side_px, like.max_megapixels)
            earlier = earlier_photos(place, like.side_px)
            entries = cache.fill(sources, workers=workers, earlier=earlier, progress=progress)
            # Keep every row, also those of unusable photos: dropping rows would copy all the others.
            photos = cache.finish(np.arange(len(names), dtype=np.intp))
            bad = {name: entry.problem for name, entry in zip(names, entries, strict=True) if entry.problem}
            index = {"folder": str(path), "problems": bad}
            (unfinished / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return DecodedFolder(photos, [entry.problem for entry in entries], place)


def _choose(cached: DecodedFolder, names: list[str], forbidden: PhotoArray | PhotoRows, max_distance: int) -> _Chosen:
    """Choose the first of each set of equal photos, unless it is a near-duplicate of ``forbidden`` photos."""
    decoded = np.array([row for row, problem in enumerate(cached.problems) if not problem], dtype=np.intp)
    photos = PhotoRows([(cached.photos, decoded)])
    digests, hashes = _fingerprints(photos)
    _, first, same_as = np.unique(digests, return_index=True, return_inverse=True)
    is_near = near_duplicates_of(photos, hashes, first, forbidden, max_distance)[same_as]
    is_first = first[same_as] == np.arange(len(decoded))
    kept = is_first & ~is_near
    near = {int(decoded[k]): NEAR_DUPLICATE for k in np.flatnonzero(is_near)}
    repeats = {
        int(decoded[k]): f"the same photo as {names[decoded[first[same_as[k]]]]}"
        for k in np.flatnonzero(~is_first & ~is_near)
    }
    digest = blake2b("".join(digests[kept].tolist()).encode(), digest_size=16).hexdigest()
    return _Chosen(decoded[kept], near, repeats, digest)


def _fingerprints(photos: PhotoRows) -> tuple[npt.NDArray[np.str_], Hashes]:
    """Compute each photo's hexadecimal digest, (photos,), and perceptual hashes, uint64 (photos, 8), in one pass."""
    digests: list[str] = []
    hashes = [np.empty((0, 8), np.uint64)]
    for start in range(0, len(photos), _CHUNK_PHOTOS):
        chunk = photos[start : start + _CHUNK_PHOTOS]
        digests.extend(blake2b(photo.data, digest_size=16).hexdigest() for photo in chunk)
        hashes.append(perceptual_hashes(chunk))
    return np.array(digests, dtype=str), np.concatenate(hashes)


def near_duplicates_of(
    photos: PhotoRows, hashes: Hashes, which: IndexArray, forbidden: PhotoArray | PhotoRows, max_distance: int
) -> BoolArray:
    """Return whether each of these photos is a near-duplicate of a forbidden one, bool (which,).

    hashes: of all photos, uint64 (photos, 8), from ``perceptual_hashes``; which: rows of photos and hashes.
    """
    near = np.zeros(len(which), dtype=np.bool_)
    forbidden_hashes = perceptual_hashes(cast(PhotoArray, forbidden))  # which uses its chunks and shape only
    for start in range(0, len(which), _COMPARED_AT_ONCE):
        part = which[start : start + _COMPARED_AT_ONCE]
        pairs = near_duplicate_pairs(np.concatenate([hashes[part], forbidden_hashes]), max_distance)
        across = pairs[(pairs[:, 0] < len(part)) & (pairs[:, 1] >= len(part))]
        both = PhotoRows([(photos, part), (forbidden, np.arange(len(forbidden)))])
        confirmed = confirmed_pairs(cast(PhotoArray, both), across)
        near[start + confirmed[:, 0]] = True
    return near
