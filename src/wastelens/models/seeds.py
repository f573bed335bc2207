"""Seeds for a network's layers: as many as it asks for, all of one number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def layer_seeds(seed: int) -> Iterator[int]:
    """An endless run of seeds, no two layers alike."""
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(2**31))
