"""``python -m bench.study_intervals``: how often intervals of simulated studies cover the true effect on macro AP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
from tests.simulated_studies import MATERIALS, Regime, drawn

from wastelens.evaluation.bootstrap import interval, multiplicities
from wastelens.evaluation.evaluate import paired_difference
from wastelens.evaluation.metrics import macro_average_precision, mean_of_defined
from wastelens.evaluation.paired import MACRO_AP, Pair, compare

STUDIES, RESAMPLES = 2000, 100
OTHER_STUDIES, AT_ONCE = 10_000, 500
TRAININGS = {"by_training": 0.5, "by_group": 0.1}
GROUPS = {"by_training": 0.02, "by_group": 0.6}
BOTH = {"by_training": 0.3, "by_group": 0.4}
REGIMES = [
    Regime("trainings differ, 1 fold, 3 seeds", **TRAININGS),
    Regime("trainings differ, 1 fold, 5 seeds", seeds=5, **TRAININGS),
    Regime("trainings differ, 3 folds, 3 seeds", folds=3, **TRAININGS),
    Regime("groups differ, 1 fold, 3 seeds", **GROUPS),
    Regime("groups differ, 3 folds, 3 seeds", folds=3, **GROUPS),
    Regime("both, 30 groups, 3 folds, 5 seeds", groups=30, folds=3, seeds=5, **BOTH),
    Regime("both, 1 fold, 5 seeds", seeds=5, **BOTH),
    Regime("photos suit one training only, 3 folds, 3 seeds", folds=3, own_noise=1.5, by_training=0.1, by_group=0.2),
    Regime("both, 11 groups, 4 folds, 3 seeds", groups=11, folds=4, mean_size=12, **BOTH),
    Regime("groups differ, 11 groups, 4 folds, 3 seeds", groups=11, folds=4, mean_size=12, **GROUPS),
    Regime("both, 8 groups, 1 fold, 3 seeds", groups=8, mean_size=15, **BOTH),
    Regime("both, 1 fold, 1 seed", seeds=1, **BOTH),
]

Bounds = tuple[float, float]


def ours(pairs: list[Pair], rng: np.random.Generator) -> tuple[Bounds, bool]:
    """Return the interval of :func:`wastelens.evaluation.paired.compare`, and whether its verdict is not undecided."""
    differences = compare({"model": pairs}, MATERIALS, rng, RESAMPLES)
    found = next(each for each in differences if each.metric == MACRO_AP)
    return (found.low, found.high), found.verdict != "undecided"


def joint_bootstrap(pairs: list[Pair], rng: np.random.Generator) -> Bounds:
    """Return percentiles of the mean, with groups and, in each fold, seeds drawn with replacement."""
    names = np.unique(np.concatenate([pair.first.groups for pair in pairs]))
    counts = multiplicities(len(names), RESAMPLES, rng)
    folds = []
    for fold in sorted({pair.fold for pair in pairs}):
        of_fold = [pair for pair in pairs if pair.fold == fold]
        weights = counts[:, np.searchsorted(names, of_fold[0].first.groups)]
        resampled = np.stack([_resampled(pair, weights) for pair in of_fold])
        seeds = rng.integers(len(of_fold), size=(len(of_fold), RESAMPLES))
        folds.append(np.take_along_axis(resampled, seeds, axis=0).mean(axis=0))
    return interval(mean_of_defined(np.stack(folds, axis=-1)))


def _resampled(pair: Pair, weights: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    first, second = (
        macro_average_precision(run.labels, run.probabilities, weights) for run in (pair.first, pair.second)
    )
    return second - first


def one_seed(pairs: list[Pair], rng: np.random.Generator) -> Bounds:
    """Return the interval of the first pair alone, with photos drawn as if they were independent."""
    first, second = pairs[0].first, pairs[0].second
    found = paired_difference(first.labels, second.probabilities, first.probabilities, rng, RESAMPLES)
    return found.low, found.high


def generator(regime: Regime, purpose: int) -> np.random.Generator:
    """Return random numbers that differ between regimes."""
    return np.random.default_rng([purpose, *regime.name.encode()])


@cache
def true_effect(regime: Regime) -> float:
    """Return the mean difference of many other studies."""
    rng = generator(regime, 1)
    return float(np.mean([drawn(regime, AT_ONCE, rng).effects() for _ in range(OTHER_STUDIES // AT_ONCE)]))


def simulated(regime: Regime, rng: np.random.Generator) -> Iterator[list[Pair]]:
    """Yield the pairs of each study."""
    for _ in range(STUDIES // AT_ONCE):
        studies = drawn(regime, AT_ONCE, rng)
        yield from (studies.pairs(study)["model 0"] for study in range(AT_ONCE))


def coverage_percent(regime: Regime, bounds: Callable[[list[Pair], np.random.Generator], Bounds]) -> float:
    """Return the percentage of studies whose interval covers the true effect."""
    truth, rng = true_effect(regime), generator(regime, 2)
    within = [low <= truth <= high for low, high in (bounds(pairs, rng) for pairs in simulated(regime, rng))]
    return 100 * float(np.mean(within))


def main() -> None:
    """Print the table that results.md quotes."""
    print(
        f"| {STUDIES:,} studies each, 24 groups if not said | ours | joint bootstrap | one run each | false verdicts |"
    )
    print("|---|---|---|---|---|")
    for regime in REGIMES:
        known = replace(regime, effect=0.4)
        shares = [
            coverage_percent(known, bounds) for bounds in (lambda *study: ours(*study)[0], joint_bootstrap, one_seed)
        ]
        rng = generator(regime, 3)
        wrong = 100 * float(np.mean([ours(pairs, rng)[1] for pairs in simulated(regime, rng)]))
        print(f"| {regime.name} | {' | '.join(f'{share:.1f} %' for share in shares)} | {wrong:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
