"""Whether a map depends on what the model has learnt: its rank correlation with the map of random weights.

Adebayo et al. 2018, "Sanity checks for saliency maps", NeurIPS: a map that stays the same when the weights are drawn
anew shows the photo (its edges, its middle) and not the model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rank_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rank correlation of all cells of two maps of one shape, -1 to 1; NaN where one is constant.

    Near 0 the map depends on the weights; near 1 it ignores them.

    Raises:
        ValueError: different shapes.
    """
    from scipy.stats import rankdata

    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape:
        raise ValueError(f"maps of {first.shape} and {second.shape} cells cannot be compared")
    ranks = [rankdata(cells.ravel()) - (cells.size + 1) / 2 for cells in (first, second)]
    spread = np.sqrt(float(ranks[0] @ ranks[0]) * float(ranks[1] @ ranks[1]))
    if not spread > 0:
        return float("nan")
    return float(ranks[0] @ ranks[1] / spread)
