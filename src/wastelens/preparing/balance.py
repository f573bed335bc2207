"""Choose the rows that a network learns from: a split's training rows or a share of them, oversampled or not.

Oversampling repeats the fewest rows that give every material its share of the most common material's count. A photo
shows several materials, so repeating it for a rare one also repeats the common ones in it. Which photos to repeat is an
integer program over the distinct label combinations, solved to the optimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp

from wastelens.data.prepared.dataset import PreparedDataset
from wastelens.data.prepared.tables import TrainTable
from wastelens.errors import BalanceError
from wastelens.system.arrays import IndexArray, IntArray

_TARGET_STEPS = 10_000  # finer targets need coefficients beyond the solver's tolerance
_REPORT_STEPS = 1_000  # targets in messages are rounded down to a thousandth
_AUTO_ROWS = Fraction(6, 5)  # for a lower cap, 'auto' may use 1.2 times the rows of the uncapped optimum


@dataclass(frozen=True)
class Oversampled:
    """Training rows with rare materials' rows repeated."""

    table: TrainTable  # the rows in their original order, repeats next to each other
    rows_before: int
    rows_after: int  # the smallest number that meets the target within the cap
    most_copies: int  # of the most repeated photo
    max_copies: int  # the cap that was used
    share_of_commonest: dict[str, float]  # each material's count divided by that of the most common one, in `table`


@dataclass(frozen=True)
class _Combinations:
    """The distinct label combinations."""

    labels: IntArray  # the materials of each, 0 or 1, (combinations, materials)
    photos: IntArray  # number of photos of each, (combinations,)
    of_row: IndexArray  # the combination of each training row, (rows,)


def oversample(train: TrainTable, target: float = 0.7, max_copies: int | Literal["auto"] = "auto") -> Oversampled:
    """Repeat training rows until every material has at least `target` of the most common one's count.

    Minimise Σ x_c over the label combinations c, subject to n_c ≤ x_c ≤ max_copies · n_c and
    count_a ≥ target · count_b for all materials a, b, where count_a = Σ x_c over the c that show a. Every
    photo is kept, and the photos of one combination are repeated equally often, give or take one.

    Args:
        train: the training split, each photo once.
        target: in [0, 1]; rounded up to a ten-thousandth.
        max_copies: the most copies of one photo; 'auto' takes the smallest cap that needs at most 1.2 times the
            rows needed without a cap.

    Raises:
        BalanceError: a material has no photo, or the target cannot be met within the cap; the message names the
            cap and the target that can.
        TypeError: the table is not a training table. Repeating rows of val or test would falsify results.
    """
    if not isinstance(train, TrainTable):
        raise TypeError(f"oversample takes a TrainTable, not {type(train).__name__}")
    for material, count in zip(train.materials, train.labels.sum(axis=0, dtype=np.int64), strict=True):
        if not count:
            raise BalanceError(
                f"Material '{material}' is in no training photo, so repeating photos cannot balance it. "
                f"Map categories to '{material}', or change the split so that train has some."
            )
    labels, of_row, photos = np.unique(train.labels.astype(np.int64), axis=0, return_inverse=True, return_counts=True)
    combos = _Combinations(labels, photos.astype(np.int64), of_row)
    wanted = Fraction(math.ceil(Fraction(str(target)) * _TARGET_STEPS), _TARGET_STEPS)
    free = _solve(combos, wanted, cap=None)
    if free is None:
        reachable = _largest_target(combos, cap=None)
        raise BalanceError(
            f"Oversampling cannot raise every material to {target} times the most common one's count, because they "
            f"occur together. Use balance_target={reachable} or less."
        )
    cap, rows = _capped(combos, wanted, target, max_copies, free)
    copies = _copies(train, combos, rows)
    table = train.take(np.repeat(np.arange(len(train)), copies))
    counts = table.labels.sum(axis=0, dtype=np.int64)
    shares = dict(zip(train.materials, (counts / counts.max(initial=1)).tolist(), strict=True))
    return Oversampled(table, len(train), len(table), int(copies.max(initial=0)), cap, shares)


def _capped(
    combos: _Combinations, wanted: Fraction, target: float, max_copies: int | Literal["auto"], free: IntArray
) -> tuple[int, IntArray]:
    """Return the cap to use, and the rows of each combination under it."""
    at_most = int((-(-free // combos.photos)).max(initial=1))  # copies of a photo without a cap
    if max_copies == "auto":
        return _smallest_cap(combos, wanted, at_most, most_rows=math.floor(_AUTO_ROWS * int(free.sum())))
    rows = _solve(combos, wanted, max_copies)
    if rows is None:
        needed, _ = _smallest_cap(combos, wanted, at_most)
        raise BalanceError(
            f"balance_target={target} cannot be met with at most {max_copies} copies of a photo. "
            f"Use max_copies={needed} or more, or target {_largest_target(combos, max_copies)} or less."
        )
    return max_copies, rows


def _smallest_cap(
    combos: _Combinations, target: Fraction, at_most: int, most_rows: float = math.inf
) -> tuple[int, IntArray]:
    """Return the smallest cap with a solution of at most `most_rows` rows, and that solution; `at_most` has one."""
    low, high = 1, at_most
    while low < high:  # bisect by linear relaxation, which is fast and never too pessimistic …
        middle = (low + high) // 2
        works = _fewest_rows_bound(combos, target, middle) <= most_rows
        low, high = (low, middle) if works else (middle + 1, high)
    for cap in range(low, at_most + 1):  # … so that few integer programs are left to solve
        rows = _solve(combos, target, cap)
        if rows is not None and rows.sum() <= most_rows:
            return cap, rows
    raise AssertionError(f"no solution under the cap of {at_most} copies, although one was found before")


def _largest_target(combos: _Combinations, cap: int | None) -> float:
    """Return the largest target, in thousandths, that has a solution under the cap."""
    low, high = 0, _REPORT_STEPS  # target 0 always has a solution: every photo once
    while low < high:
        middle = (low + high + 1) // 2
        works = _fewest_rows_bound(combos, Fraction(middle, _REPORT_STEPS), cap) < math.inf
        low, high = (middle, high) if works else (low, middle - 1)
    while _solve(combos, Fraction(low, _REPORT_STEPS), cap) is None:
        low -= 1
    return low / _REPORT_STEPS


def _fewest_rows_bound(combos: _Combinations, target: Fraction, cap: int | None) -> float:
    """Return a lower bound of the rows needed, by linear relaxation; infinite if the target cannot be met."""
    result = _solve_program(combos, target, cap, whole=False)
    return math.inf if result.x is None else float(result.fun) * (1 - 1e-9)


def _solve(combos: _Combinations, target: Fraction, cap: int | None) -> IntArray | None:
    """Return the fewest rows of each combination, int64 (combinations,); None if the target cannot be met."""
    result = _solve_program(combos, target, cap, whole=True)
    if result.x is None:
        return None
    rows: IntArray = np.rint(result.x).astype(np.int64)
    # The solver has a floating-point tolerance, so check that the solution holds in whole numbers.
    too_many = cap is not None and bool((rows > cap * combos.photos).any())
    missed = bool((_weights(combos.labels, target) @ rows < 0).any())
    if too_many or missed or bool((rows < combos.photos).any()):
        raise BalanceError(f"The solver missed balance_target={float(target)}. Use a target with fewer decimals.")
    return rows


def _solve_program(combos: _Combinations, target: Fraction, cap: int | None, whole: bool) -> OptimizeResult:
    """Minimise the rows of the combinations, as an integer program or its linear relaxation."""
    return milp(
        np.ones(len(combos.photos)),
        integrality=np.full(len(combos.photos), int(whole)),
        bounds=Bounds(combos.photos, np.inf if cap is None else cap * combos.photos),
        constraints=LinearConstraint(_weights(combos.labels, target), lb=0),
        options={"mip_rel_gap": 0},
    )


def _weights(labels: IntArray, target: Fraction) -> IntArray:
    """Return integer rows w such that w · x ≥ 0 means count_a ≥ target · count_b, int64 (pairs, combinations)."""
    materials = labels.shape[1]
    pairs = [(a, b) for a in range(materials) for b in range(materials) if a != b]
    rows = [target.denominator * labels[:, a] - target.numerator * labels[:, b] for a, b in pairs]
    return np.array(rows, dtype=np.int64).reshape(len(pairs), len(labels))


def _copies(train: TrainTable, combos: _Combinations, rows: IntArray) -> IntArray:
    """Return the copies of each training row, int64 (photos,); the first file names get the remainder."""
    copies = (rows // combos.photos)[combos.of_row]
    extra = rows % combos.photos
    by_name = np.argsort(np.array(train.file_names), kind="stable")
    for combination in np.flatnonzero(extra):
        members = by_name[combos.of_row[by_name] == combination]
        copies[members[: extra[combination]]] += 1
    return copies


def training_rows(
    dataset: PreparedDataset,
    *,
    fold: int,
    balanced: bool,
    balance_target: float | Literal["auto"],
    labels_percent: float,
    seed: int,
) -> TrainTable:
    """Return the training rows of a fold; with less than all labels, draw the share by the seed and balance it.

    Args:
        dataset, fold: the prepared dataset; 0 for its main split, K for the K-th split of cross-validation.
        balanced: whether to repeat the rows of rare materials.
        balance_target: share of the most common material's count that each material must reach; auto: as prepared.
        labels_percent, seed: share of the training photos whose labels are used, in %; seed of the draw.

    Raises:
        BalanceError: these labels cannot be balanced to the target.
        ConfigError: the dataset was prepared without that fold.
    """
    settings = dataset.manifest["settings"]
    target = settings["balance_target"] if balance_target == "auto" else balance_target
    if balanced and labels_percent >= 100 and target == settings["balance_target"]:
        return dataset.balanced_train(fold)
    train = dataset.learning(fold).train
    share = train if labels_percent >= 100 else labelled_share(train, labels_percent, seed)
    if not balanced:
        return share
    try:
        return oversample(share, target, settings["max_copies"]).table
    except BalanceError as error:
        if share is train:
            raise
        raise BalanceError(
            f"{len(share)} photos (labels_percent={labels_percent:g}) cannot be balanced: {error} Or use more labels, "
            "or balanced=false."
        ) from None


def labelled_share(train: TrainTable, percent: float, seed: int) -> TrainTable:
    """Keep this share of the training photos, at least one; with 100 %, all of them in their order.

    The draw depends on the seed and is nested: a larger share contains every smaller one. The first photos drawn show
    every material that occurs, the rarest first, so that no share lacks a material by bad luck.
    """
    count = math.ceil(len(train) * percent / 100)
    return train.take(np.sort(_drawing_order(train, np.random.default_rng([seed, 10]))[:count]))


def _drawing_order(train: TrainTable, rng: np.random.Generator) -> IndexArray:
    """Shuffle the rows, then move one row of each material to the front, the rarest material first."""
    drawn = rng.permutation(len(train))
    labels = train.labels[drawn].astype(bool)
    present = np.flatnonzero(labels.any(axis=0))
    rarest_first = present[np.argsort(labels[:, present].sum(axis=0), kind="stable")]
    first = list(dict.fromkeys(int(labels[:, material].argmax()) for material in rarest_first))
    return drawn[[*first, *np.setdiff1d(np.arange(len(drawn)), first)]]
