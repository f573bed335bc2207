"""Insertion and deletion: how the probability changes as a map's pixels are restored or blurred.

Petsiuk, Das & Saenko 2018, "RISE: Randomized Input Sampling for Explanation of Black-box Models", §4.2. They delete
to grey; a hole with sharp edges is evidence of its own, so here pixels change between the photo and a blurred copy.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from wastelens.system.arrays import Float32Array, IndexArray, PhotoArray

BLUR_SHARE = 0.1


def softened(photo: PhotoArray) -> Float32Array:
    """Blur a photo (side, side, 3) by a Gaussian, a tenth of the side wide; returns float32, 0–255.

    The litter disappears; light and colour of the scene remain.
    """
    blurred = cv2.GaussianBlur(photo.astype(np.float32), (0, 0), sigmaX=BLUR_SHARE * len(photo))
    return np.clip(np.asarray(blurred, dtype=np.float32), 0, 255)  # the kernel's weights round


def perturbed(photo: PhotoArray, blurred: Float32Array, evidence: Float32Array, steps: int) -> Float32Array:
    """Return the stages of insertion and deletion, whose probabilities ``areas`` takes.

    Args:
        photo: uint8 (side, side, 3).
        blurred: its softened copy, (side, side, 3).
        evidence: (side, side); a pixel against the material ranks below a neutral one. Ties rank in a fixed random
            order: in the order of rows, a constant map would wipe the photo from the top.
        steps: number of steps in which pixels change, at least 1.

    Returns:
        float32 (2 * steps, side, side, 3), 0–255: the photo, the blurred photo, the deletion after 1 … steps - 1
        steps, the insertion likewise.

    Raises:
        ValueError: no step, sizes that do not match, or evidence that is not a number.
    """
    if steps < 1 or not photo.shape == blurred.shape == (*evidence.shape, 3) or np.isnan(evidence).any():
        raise ValueError(f"{steps} steps from {photo.shape} to {blurred.shape} by evidence of {evidence.shape}")
    rank = np.repeat(_ranks(evidence)[..., None], 3, axis=2)
    stages = np.empty((2 * steps, *photo.shape), dtype=np.float32)
    stages[0], stages[1] = photo, blurred
    for step in range(1, steps):
        is_changed = rank < round(step * evidence.size / steps)
        stages[1 + step] = np.where(is_changed, stages[1], stages[0])
        stages[steps + step] = np.where(is_changed, stages[0], stages[1])
    return stages


def _ranks(evidence: Float32Array) -> IndexArray:
    """Rank the pixels, from 0 for the most evidence: (side, side)."""
    shuffled = _shuffled(evidence.size)
    rank = np.empty(evidence.size, dtype=np.intp)
    rank[shuffled[np.argsort(-evidence.ravel()[shuffled], kind="stable")]] = np.arange(evidence.size)
    return rank.reshape(evidence.shape)


@lru_cache(maxsize=4)
def _shuffled(pixels: int) -> IndexArray:
    return np.random.default_rng(0).permutation(pixels)


def areas(probabilities: npt.ArrayLike) -> tuple[float, float]:
    """Return insertion and deletion: the areas under the probability against the share of pixels changed, 0 to 1.

    Insertion (higher is better) is while the blurred photo gets its pixels back, deletion (lower is better) while the
    photo's pixels are blurred, both those with the most evidence first. They are computed by the trapezoid rule from
    the probability of each stage of ``perturbed``, (2 * steps,).

    Raises:
        ValueError: an odd number of stages, or fewer than two.
    """
    stages = np.asarray(probabilities, dtype=np.float64)
    if stages.ndim != 1 or len(stages) < 2 or len(stages) % 2:
        raise ValueError(f"probabilities of {stages.shape} stages; two for each step are needed")
    steps = len(stages) // 2
    photo, blurred, deletion, insertion = *stages[:2], stages[2 : steps + 1], stages[steps + 1 :]
    between = (photo + blurred) / 2
    return float((between + insertion.sum()) / steps), float((between + deletion.sum()) / steps)
