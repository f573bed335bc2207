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
from wastelens.evaluation.label_quality import label_quality, times_chance
from wastelens.experiment.out_of_fold import answers_out_of_fold
from wastelens.system.arrays import BoolArray, FloatArray
from wastelens.training import probe

FLIPPED = 0.05
LOOKED_AT = 0.1
SEEDS = 5
SCORINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def flipped(dataset: PreparedDataset, rng: np.random.Generator) -> tuple[PreparedDataset, BoolArray]:
    """Return the dataset, in memory, with 5 % of its labels flipped, and which are, (photos, materials)."""
    labels = dataset.frame[list(dataset.materials)].to_numpy(copy=True)
    wrong = np.zeros(labels.shape, np.bool_)
    wrong.flat[rng.permutation(labels.size)[: round(FLIPPED * labels.size)]] = True
    columns = dict(zip(dataset.materials, np.where(wrong, 1 - labels, labels).T, strict=True))
    return replace(dataset, frame=dataset.frame.assign(**columns)), wrong


def interval(values: list[float]) -> str:
    """Return the mean of several plantings, and the interval that holds 95 % of such means (Student's t)."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.2f} [{np.mean(values) - half:.2f}, {np.mean(values) + half:.2f}]"


def by_photo(quality: FloatArray, wrong: BoolArray) -> float:
    """Return the same of a list of photos, each as doubtful as its most doubtful label."""
    return times_chance(quality.min(axis=1), wrong.any(axis=1), LOOKED_AT)


def main(folder: str, strength: str = "") -> None:
    """Print the figures quoted in results.md."""
    prepare_environment()
    if strength:
        probe.STRENGTHS = (float(strength),)
    dataset = load_prepared(Path(folder))
    config = train_config_of([("the command line", {"dataset": folder})])
    found: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        planted, wrong = flipped(dataset, np.random.default_rng(seed))
        answers = answers_out_of_fold(config, planted).probabilities
        given_labels = planted.frame[list(planted.materials)].to_numpy(dtype=np.uint8)
        for scoring in SCORINGS:
            quality = label_quality(given_labels, answers, scoring)
            found.setdefault(f"{scoring}, labels", []).append(times_chance(quality, wrong, LOOKED_AT))
            found.setdefault(f"{scoring}, photos", []).append(by_photo(quality, wrong))
        print(seed, {name: round(values[-1], 2) for name, values in found.items()}, flush=True)
    for name, values in found.items():
        print(f"{dataset.name}, {name}: {interval(values)} × a random order ({len(values)} plantings)")


if __name__ == "__main__":
    main(*sys.argv[1:])
