"""The stages of ``prepare`` that compute: cache the photos, balance the training rows, score the controls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from wastelens.config.prepare import PrepareConfig
from wastelens.data.annotations.labels import IMPOSSIBLE_SIZE, AnnotatedPhotos, problem_frame, problem_row
from wastelens.data.photos.cache import CacheEntry, EarlierPhotos, PhotoSource
from wastelens.data.photos.shards import ShardedCache, open_photos
from wastelens.data.prepared.dataset import SplitTables
from wastelens.engine.task import Engine
from wastelens.errors import BalanceError, DatasetError, EngineError
from wastelens.evaluation.controls import Controls, score_controls
from wastelens.preparing.balance import Oversampled, oversample
from wastelens.system.arrays import PhotoArray
from wastelens.system.console import progress_bar
from wastelens.system.machine import worker_count

FIRST_PROBLEMS_SHOWN = 3


@dataclass(frozen=True)
class CachedPhotos:
    """The usable photos, uint8 (photos, side, side, 3), memory-mapped; row i of ``labels`` describes ``photos[i]``.

    ``objects`` are those on the usable photos; ``problems`` is problems.csv, including the photos that were left out.
    """

    labels: pd.DataFrame
    objects: pd.DataFrame
    photos: npt.NDArray[np.uint8]
    problems: pd.DataFrame
    left_out: int
    cache: dict[str, Any]


def check_seen(draft: Path, sources: list[PhotoSource], engine: Engine) -> None:
    """Check that all workers see the folder to write and the photos to read.

    Raises:
        EngineError: one does not.
    """
    for place in (draft.absolute(), sources[0].path.parent):
        for worker, sees in engine.send(os.path.isdir, place).items():
            if sees is not True:
                raise EngineError(
                    f"The worker {worker} does not see {place}. The workers of prepare need data_folder and the raw "
                    "photos on a shared drive; or use engine=processes:N."
                )


def cache_photos(
    annotated: AnnotatedPhotos,
    sources: list[PhotoSource],
    cache: ShardedCache,
    config: PrepareConfig,
    engine: Engine,
    *,
    earlier: EarlierPhotos | None,
    progress: Callable[[int], None],
) -> CachedPhotos:
    """Decode all photos into the cache; leave out the unusable ones, or raise DatasetError if they are too many."""
    labels = annotated.labels
    workers = worker_count(config.workers) if engine.is_local else 1  # each worker decodes a shard
    entries = cache.fill(sources, engine=engine, workers=workers, earlier=earlier, progress=progress)
    zero_sized = int(annotated.problems["problem"].str.contains(IMPOSSIBLE_SIZE, regex=False).sum())
    _check_problem_share(entries, zero_sized, config.max_problem_share)
    keep = np.array([row for row, entry in enumerate(entries) if not entry.problem], dtype=np.intp)
    entry = cache.finish(keep)
    photos = open_photos(cache.folder, entry)
    problems = problem_frame(
        [*annotated.problems.itertuples(index=False, name=None), *_photo_problems(labels, entries)]
    )
    kept = labels.iloc[keep].reset_index(drop=True)
    objects = annotated.objects[annotated.objects["file_name"].isin(kept["file_name"])].reset_index(drop=True)
    return CachedPhotos(kept, objects, photos, problems, len(labels) - len(kept) + zero_sized, entry)


def _check_problem_share(entries: list[CacheEntry], zero_sized: int, allowed: float) -> None:
    reasons = pd.Series([entry.problem for entry in entries if entry.problem] + [IMPOSSIBLE_SIZE] * zero_sized)
    total = len(entries) + zero_sized
    if len(reasons) <= allowed * total and len(reasons) < total:
        return
    counts = reasons.value_counts()
    named = "; ".join(f"{count:,} {reason}" for reason, count in counts.head(FIRST_PROBLEMS_SHOWN).items())
    raise DatasetError(
        f"{len(reasons):,} of {total:,} photos ({len(reasons) / total:.1%}) cannot be used, more than "
        f"max_problem_share={allowed:g}: {named}. Complete the photos, or raise max_problem_share."
    )


def _photo_problems(labels: pd.DataFrame, entries: list[CacheEntry]) -> list[tuple[str, ...]]:
    told = zip(labels["file_name"], labels["source_file"], entries, strict=True)
    return [problem_row(flat, file, f"photo left out: {entry.problem}") for flat, file, entry in told if entry.problem]


def balance(tables: list[SplitTables], config: PrepareConfig) -> list[Oversampled]:
    """Repeat training rows of rare materials, no more than needed, for the main split, then for each fold."""
    balanced = []
    for fold, of_split in enumerate(tables):
        try:
            balanced.append(oversample(of_split.train, config.balance_target, config.max_copies))
        except BalanceError as error:
            raise BalanceError(f"Fold {fold}: {error}" if fold else str(error)) from None
    return balanced


def score_all_controls(tables: list[SplitTables], photos: PhotoArray, seed: int) -> list[Controls]:
    """Score the controls, which predict without looking at the litter, for the main split and for each fold."""
    scored = []
    with progress_bar("Scoring controls", len(tables)) as bar:
        for one in tables:
            others = {"val": one.val, "test": one.test}
            scored.append(score_controls(one.train, others, photos=photos, seed=seed))
            bar.advance()
    return scored
