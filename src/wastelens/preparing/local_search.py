"""A good split of many groups: iterative stratification of whole groups, then a local search.

Iterative stratification follows Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label data". The
local search then lowers the largest share difference by moving and swapping groups, from several starting points.
"""

from __future__ import annotations

import numpy as np

from wastelens.preparing.group_counts import TIE, largest_difference
from wastelens.system.arrays import FloatArray, IndexArray, IntArray

_CANDIDATES = 12_000
_SIZE_WEIGHT = 0.01  # val and test each 5 points too large cost 0.2 points of largest difference


class LocalSearch:
    """Iterative stratification of groups, then moves and swaps of groups that lower the largest share difference.

    Groups with the same counts are interchangeable, so the search works on the number of groups of each kind in each
    part. Photos split one by one have at most 2**materials kinds, however many photos there are.
    """

    def __init__(
        self,
        sums: IntArray,
        shares: list[float],
        limits: list[tuple[int, int]],
        rng: np.random.Generator,
        fixed: IntArray | None = None,
    ) -> None:
        """Store the problem.

        sums: photos and positives, int64 (groups, 1 + materials). shares, limits: for each part, the wanted share
        of the photos, and the smallest and largest number it may hold. fixed: sums of a further part that no group
        enters or leaves, (1 + materials,), which counts in the differences.
        """
        self.sums, self.shares, self.rng, self.fixed = sums, np.array(shares, dtype=np.float64), rng, fixed
        self.low, self.high = np.array(limits, dtype=np.int64).T
        self.kinds, self.kind_of = np.unique(sums, axis=0, return_inverse=True)
        self.photos = int(sums[:, 0].sum())
        self.wanted = self.shares / self.shares.sum()

    def run(self) -> IndexArray:
        """Return the part of each group, int (groups,), of the best state found from several starting points."""
        start = np.zeros((len(self.kinds), len(self.shares)), np.int64)
        np.add.at(start, (self.kind_of, self._stratify()), 1)
        best, best_energy = self._descend(start)
        for _ in range(40 if len(self.sums) <= 60 else 2):
            state, energy = self._descend(self._shake(best))
            if energy < best_energy - TIE:
                best, best_energy = state, energy
        return self._assign(best)

    def _assign(self, state: IntArray) -> IndexArray:
        """Assign the groups of each kind at random to the parts, in the numbers of `state` (kinds, parts)."""
        side = np.empty(len(self.sums), np.intp)
        shuffled = self.rng.permutation(len(self.sums))
        by_kind = shuffled[np.argsort(self.kind_of[shuffled], kind="stable")]
        parts = np.tile(np.arange(state.shape[1]), len(state))
        side[by_kind] = np.repeat(parts, state.ravel())
        return side

    def _stratify(self) -> IndexArray:
        """Stratify iteratively: take the rarest material first and give its groups to the part that lacks it most."""
        side = np.full(len(self.sums), -1, np.intp)
        room = self.high.tolist()
        lacking = np.outer(self.wanted, self.sums.sum(axis=0)).T.tolist()  # (1 + materials, parts)
        order = self.rng.permutation(len(self.sums))
        order = order[np.argsort(-self.sums[order, 0], kind="stable")]  # large groups are the hardest to place
        left = order
        while len(left):
            remaining = self.sums[left, 1:].sum(axis=0)
            column = 1 + int(np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin())
            chosen = left[self.sums[left, column] > 0] if remaining.any() else left
            if not remaining.any():
                column = 0
            for group in chosen.tolist():
                side[group] = self._neediest(self.sums[group].tolist(), column, lacking, room)
            left = left[side[left] < 0]
        return side

    @staticmethod
    def _neediest(group: list[int], column: int, lacking: list[list[float]], room: list[int]) -> int:
        """Return the part that lacks most of the material, then of photos, and deduct the group from its needs."""
        fits = [p for p in range(len(room)) if room[p] >= group[0]] or [int(np.argmax(room))]
        part = max(fits, key=lambda p: (lacking[column][p], lacking[0][p]))
        room[part] -= group[0]
        for row, amount in zip(lacking, group, strict=True):
            row[part] -= amount
        return part

    def _shake(self, state: IntArray) -> IntArray:
        """Return a copy with about a tenth of the groups moved to random parts."""
        shaken = state.copy()
        moves = max(2, len(self.sums) // 10) if len(self.sums) <= 5_000 else 50
        for _ in range(moves):
            kind, source = _draw_filled(shaken, self.rng)
            shaken[kind, source] -= 1
            shaken[kind, self.rng.integers(state.shape[1])] += 1
        return shaken

    def _descend(self, state: IntArray, steps: int = 1_000, patience: int = 10) -> tuple[IntArray, float]:
        """Apply the best candidate as long as it lowers the energy; returns the state and its energy."""
        state = state.copy()
        parts: IntArray = state.T @ self.kinds
        energy = float(self._energy(parts[None])[0])
        idle = 0
        for _ in range(steps):
            changes, exhaustive = self._candidates(state)
            if not len(changes):
                break
            energies = self._energy(parts[None] + self._effects(changes, len(parts)))
            best = int(energies.argmin())
            if energies[best] < energy - TIE:
                kind_a, source, kind_b, target = changes[best]
                _apply(state, kind_a, source, target)
                if kind_b >= 0:
                    _apply(state, kind_b, target, source)
                parts, energy, idle = state.T @ self.kinds, float(energies[best]), 0
                continue
            idle += 1
            if exhaustive or idle >= patience:
                break
        return state, energy

    def _candidates(self, state: IntArray) -> tuple[IntArray, bool]:
        """Return changes to try, (candidates, 4), and whether they are all possible ones.

        Moves are (kind, source, -1, target), swaps (kind, source, other kind, target).
        """
        kind, source = np.nonzero(state)
        parts = state.shape[1]
        moves = [np.column_stack([kind, source, np.full(len(kind), -1), np.full(len(kind), t)]) for t in range(parts)]
        every_move = np.concatenate(moves)
        every_move = every_move[every_move[:, 1] != every_move[:, 3]]
        whole = len(kind) ** 2 <= _CANDIDATES
        if whole:
            a, b = (grid.ravel() for grid in np.indices((len(kind), len(kind))))
        else:
            a, b = self.rng.integers(len(kind), size=(2, _CANDIDATES))
        if len(every_move) > _CANDIDATES:
            every_move = every_move[self.rng.choice(len(every_move), _CANDIDATES, replace=False)]
        keep = (source[a] < source[b]) & (kind[a] != kind[b])
        if not whole:
            keep = (source[a] != source[b]) & (kind[a] != kind[b])
        swaps = np.column_stack([kind[a], source[a], kind[b], source[b]])[keep]
        return np.concatenate([every_move, swaps]), whole

    def _effects(self, changes: IntArray, parts: int) -> IntArray:
        """Return the change of the parts' sums by each candidate, int64 (candidates, parts, 1 + materials)."""
        kind_a, source, kind_b, target = changes.T
        net = self.kinds[kind_a] - np.where(kind_b[:, None] >= 0, self.kinds[kind_b], 0)
        effect = np.zeros((len(changes), parts, self.kinds.shape[1]), np.int64)
        rows = np.arange(len(changes))
        effect[rows, source] -= net
        effect[rows, target] += net
        return effect

    def _energy(self, parts: IntArray) -> FloatArray:
        """Return the largest share difference, plus large penalties for sizes out of bounds and missing materials.

        parts: (states, parts, 1 + materials) → (states,).
        """
        size = parts[..., 0]
        outside = np.maximum(self.low - size, 0) + np.maximum(size - self.high, 0)
        missing = (parts[..., 1:] < 1).sum(axis=(1, 2))
        if self.fixed is not None:
            fixed = np.broadcast_to(self.fixed, (len(parts), 1, parts.shape[2]))
            parts = np.concatenate([parts, fixed], axis=1)
        difference = largest_difference(parts)
        # A small weight on the mean difference leads across plateaus of the largest one.
        shares = parts[..., 1:] / np.maximum(parts[..., :1], 1)
        mean = np.ptp(shares, axis=1).mean(axis=-1)
        off = np.abs(size / self.photos - self.wanted).sum(axis=1)
        broken = 1e3 * outside.sum(axis=1) / self.photos + 10.0 * missing
        energy: FloatArray = broken + difference + 1e-3 * mean + _SIZE_WEIGHT * off
        return energy


def _apply(state: IntArray, kind: int, source: int, target: int) -> None:
    state[kind, source] -= 1
    state[kind, target] += 1


def _draw_filled(state: IntArray, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a kind and a part with a probability proportional to the groups there."""
    flat = int(np.searchsorted(state.cumsum(), rng.integers(state.sum()), side="right"))
    kind, part = divmod(flat, int(state.shape[1]))
    return kind, part
