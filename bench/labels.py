"""``python -m bench.labels DATASET [STRENGTH]``: of labels that are flipped at random, how many ``labels`` finds.

DATASET is a prepared folder. A flip changes one label, of one photo and one material; the list that is looked through
ranks all labels. With STRENGTH, the probe's is fixed instead of chosen, which takes an eighth of the time.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from wastelens.cli import prepare_environment
from wastelens.config.files import train_config_of
from wastelens.data.prepared.dataset import PreparedDataset, load_prepared
from wastelens.data.prepared.tables import LabelMatrix
from wastelens.evaluation.label_quality import label_quality, times_chance
from wastelens.experiment.out_of_fold import answers_out_of_fold
from wastelens.system.arrays import BoolArray, FloatArray
from wastelens.training import probe

FLIPPED = 0.05
LOOKED_AT = 0.1
SEEDS = 5


def flipped(dataset: PreparedDataset, rng: np.random.Generator) -> tuple[PreparedDataset, BoolArray]:
    """Return the dataset, in memory, with 5 % of its labels flipped, and which are, (photos, materials)."""
    labels = dataset.frame[list(dataset.materials)].to_numpy(copy=True)
    wrong = np.zeros(labels.shape, np.bool_)
    wrong.flat[rng.permutation(labels.size)[: round(FLIPPED * labels.size)]] = True
    columns = dict(zip(dataset.materials, np.where(wrong, 1 - labels, labels).T, strict=True))
    return replace(dataset, frame=dataset.frame.assign(**columns)), wrong


def in_lists(quality: FloatArray, labels: LabelMatrix, wrong: BoolArray) -> float:
    """Return the same where each material and kind of label is a list of its own: prevalence gives no order there."""
    found = 0.0
    for place, label in np.ndindex(labels.shape[1], 2):
        rows = labels[:, place] == label
        if wrong[rows, place].any():
            found += times_chance(quality[rows, place], wrong[rows, place], LOOKED_AT) * wrong[rows, place].sum()
    return float(found / wrong.sum())


def figures(labels: LabelMatrix, answers: FloatArray, wrong: BoolArray) -> dict[str, float]:
    """Return how many times as many flips as in random order are found, by list, and the shares found by kind."""
    quality = label_quality(labels, answers)
    prevalence = label_quality(labels, np.broadcast_to(labels.mean(axis=0), labels.shape))
    worst = quality.min(axis=1)
    photos = np.isin(np.arange(len(labels)), np.argsort(worst, kind="stable")[: round(LOOKED_AT * len(labels))])
    return {
        "× random, list of labels": times_chance(quality, wrong, LOOKED_AT),
        "× random, list of labels by prevalence alone": times_chance(prevalence, wrong, LOOKED_AT),
        "× random, a list for each material and kind": in_lists(quality, labels, wrong),
        "× random, list of photos": times_chance(worst, wrong.any(axis=1), LOOKED_AT),
        "× random, list of photos, at most": min(1.0, LOOKED_AT / wrong.any(axis=1).mean()) / LOOKED_AT,
        "share of the flips of photos looked at, list of photos": float(wrong[photos].sum() / wrong.sum()),
        **{
            f"share of the flips to {label} found, list of labels": times_chance(
                quality, wrong & (labels == label), LOOKED_AT
            )
            * LOOKED_AT
            for label in (0, 1)
        },
    }


def interval(values: list[float]) -> str:
    """Return the mean of several plantings, and the interval that holds 95 % of such means (Student's t)."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} [{np.mean(values) - half:.2f}, {np.mean(values) + half:.2f}]"


def main(folder: str, strength: str = "") -> None:
    """Print the figures quoted in results.md."""
    prepare_environment()
    if strength:
        probe.STRENGTHS = (float(strength),)
    config = train_config_of([("the command line", {"dataset": folder})])
    dataset = load_prepared(Path(folder)).at_side(config.seen_side_px)
    found: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        planted, wrong = flipped(dataset, np.random.default_rng(seed))
        answers = answers_out_of_fold(config, planted).probabilities
        given_labels = planted.frame[list(planted.materials)].to_numpy(dtype=np.uint8)
        for name, value in figures(given_labels, answers, wrong).items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        print(f"{dataset.name}, {name}: {interval(values)} ({len(values)} plantings)")


if __name__ == "__main__":
    main(*sys.argv[1:])
