"""Find copies that offline augmentation made: turned by some degrees, cropped, sheared, in other light, mirrored.

A perceptual hash survives none of these. So photos that look alike at a coarse glance, by their colours or by a small
thumbnail, are aligned: local features (SIFT; Lowe 2004) propose an affine warp (RANSAC), which is refined on the detail
(ECC; Evangelidis & Psarakis 2008). Under the warp, a copy shows the same detail everywhere: in each block of the photo,
both correlate. Two photos of one object, or of one kind of object on the same ground, agree in parts only.

Measured on 1,156 photos of TACO and 2,079 of TrashNet (one object on a white board): see ``bench/results.md``.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wastelens.data.duplicates.search import connected_groups
from wastelens.data.photos.shrink import area_average, chunks
from wastelens.system.arrays import BoolArray, Float32Array, FloatArray, IntArray, PhotoArray
from wastelens.system.machine import worker_count

_SIDE_PX = 128  # photos are compared at this size: copies of 64 px are found as well as those of 160 px
_CHUNK_PHOTOS = 256
_CHUNK_PAIRS = 256
_NEIGHBOURS = 8  # candidates per photo, by each of the two coarse measures
_FEATURES = 80  # per photo, the strongest
_CONTRAST, _EDGE = 0.02, 15.0  # SIFT's thresholds: lower than its defaults, for plain objects on plain boards
_NEAREST_TO_NEXT = 0.85  # a match has to be this much nearer than the second nearest (Lowe's ratio)
_FEWEST_MATCHES = 5
_STRAY_PX = 2.0  # a match fits a warp that maps it this close
_SCALE, _STRETCH = 2.5, 1.5  # largest change of size, and of one axis against the other
_BLOCKS = 8  # a photo has 8 × 8 blocks
_FEWEST_BLOCKS = 6
_TEXTURE_GREY_LEVELS = 1.5  # blocks with less detail show noise, and count for nothing
_WORTH_REFINING = 0.15  # lowest median correlation of blocks before refinement; copies start above it
_AGREEMENT = 0.86  # of three blocks in four; copies nearly always reach it, photos of one object hardly ever
_OVERLAP = 0.6  # smallest share of the photo that the other one covers
# A fixed camera shows the same ground behind different objects. So where photos are aligned as they are, nearly all
# blocks must agree.
_UNMOVED = 0.015  # mean shift of the corners, as a share of the side
_UNMOVED_PERCENTILE, _MOVED_PERCENTILE = 5, 25
_MIRROR = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()  # of a SIFT descriptor's bins


class _Features(NamedTuple):
    """A photo's local features.

    Attributes:
        places: in pixels, float32 (features, 2).
        descriptors: their roots (RootSIFT; Arandjelović & Zisserman 2012), unit vectors
            times 255, uint8 (features, 128).
    """

    places: Float32Array
    descriptors: npt.NDArray[np.uint8]


def warped_copies(photos: PhotoArray, known: IntArray) -> IntArray:
    """Return pairs of photos of which one is an augmented copy of the other, or both are of a third.

    Photos that ``known`` pairs link already are not compared. The result does not depend on the photos' order.

    photos: uint8 0–255 RGB (photos, side, side, 3); may be a memory map. known: int64 (pairs, 2). Returns int64
    (pairs, 2), i < j, sorted.
    """
    from threadpoolctl import threadpool_limits

    if len(photos) < 2:
        return np.empty((0, 2), np.int64)
    coarse = _Coarse.of(photos)
    linked = connected_groups(len(photos), known)
    pairs = coarse.neighbours()
    pairs = coarse.directed(pairs[linked[pairs[:, 0]] != linked[pairs[:, 1]]])
    # The products of two photos' features are small: BLAS with threads of its own takes ten times as long.
    with threadpool_limits(1), ThreadPoolExecutor(worker_count("auto")) as pool:
        used = np.unique(pairs)
        features = dict(zip(used.tolist(), pool.map(partial(_features_at, photos), used.tolist()), strict=True))
        same = list(pool.map(lambda pair: _is_copy(photos, features, *pair), pairs.tolist(), chunksize=_CHUNK_PAIRS))
    found = np.sort(pairs[np.array(same, dtype=np.bool_)], axis=1)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


@dataclass(frozen=True)
class _Coarse:
    """The look of photos at a glance.

    Attributes:
        colours: root of the histogram of colours and ranks of brightness, unit vectors, float32 (photos, bins). It
            survives every warp, and light that changes all colours alike.
        thumbnails: 6 × 6 RGB less its mean, unit vectors, float32 (photos, 6, 6, 3). It survives any light.
    """

    colours: Float32Array
    thumbnails: Float32Array

    @classmethod
    def of(cls, photos: PhotoArray) -> _Coarse:
        """Compute both measures of all photos."""
        colours, thumbnails = [], []
        for rows in chunks(len(photos), photos.shape[1]):
            chunk = np.asarray(photos[rows])
            colours.append(_colours(area_average(chunk, 40)))
            small = area_average(chunk, 6)
            thumbnails.append(_unit(small - small.mean(axis=(1, 2), keepdims=True)))
        return cls(np.concatenate(colours), np.concatenate(thumbnails))

    def neighbours(self) -> IntArray:
        """Return the pairs of photos of which one is among the other's nearest; int64 (pairs, 2), i < j, sorted."""
        photos = len(self.colours)
        codes = [np.empty(0, np.int64)]
        for start in range(0, photos, _CHUNK_PHOTOS):
            rows = np.arange(start, min(start + _CHUNK_PHOTOS, photos))
            for similarity in (self.colours[rows] @ self.colours.T, self._turned(rows)):
                similarity[np.arange(len(rows)), rows] = -np.inf
                nearest = _nearest(similarity)
                first, second = np.repeat(rows, nearest.shape[1]), nearest.ravel()
                codes.append(np.minimum(first, second) * photos + np.maximum(first, second))
        return np.column_stack(np.divmod(np.unique(np.concatenate(codes)), photos))

    def _turned(self, rows: IntArray) -> Float32Array:
        """Return the similarity of some thumbnails, in the best of 8 orientations, with all; (rows, photos)."""
        flat = self.thumbnails.reshape(len(self.thumbnails), -1).T
        best: Float32Array = np.full((len(rows), flat.shape[1]), -1, np.float32)
        for mirrored in (self.thumbnails[rows], self.thumbnails[rows][:, :, ::-1]):
            for quarter in range(4):
                turned = np.rot90(mirrored, quarter, axes=(1, 2)).reshape(len(rows), -1)
                np.maximum(best, turned @ flat, out=best)
        return best

    def directed(self, pairs: IntArray) -> IntArray:
        """Put the photo first whose colours sort first, so that the direction does not depend on the photos' order."""
        swap = np.array([self.colours[j].tobytes() < self.colours[i].tobytes() for i, j in pairs], dtype=np.bool_)
        return np.where(swap[:, None], pairs[:, ::-1], pairs)


def _nearest(similarity: Float32Array) -> IntArray:
    count = min(_NEIGHBOURS, similarity.shape[1] - 1)
    nearest: IntArray = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    return nearest


def _unit(vectors: FloatArray | Float32Array) -> Float32Array:
    """Scale each photo's values to length 1; all zeros stay."""
    axes = tuple(range(1, vectors.ndim))
    lengths = np.sqrt(np.square(vectors).sum(axis=axes, keepdims=True))
    return np.asarray(vectors / np.maximum(lengths, 1e-6), dtype=np.float32)


def _colours(small: Float32Array) -> Float32Array:
    """Return the colour vectors of small photos, float32 0–255 (photos, side, side, 3) → (photos, 4 × 8 × 8)."""
    pixels = small.reshape(len(small), -1, 3)
    red, green, blue = np.moveaxis(pixels, -1, 0)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    rank = np.argsort(np.argsort(grey, axis=1, kind="stable"), axis=1) / grey.shape[1]
    total = red + green + blue + 30.0  # the constant keeps dark pixels, whose colour is noise, near grey
    parts = (rank, 2 * (red - green) / total + 0.5, 1.43 * (blue - (red + green) / 2) / total + 0.5)
    sides = (4, 8, 8)
    cells = [np.clip(part * side, 0, side - 1).astype(np.int64) for part, side in zip(parts, sides, strict=True)]
    cell = (cells[0] * 8 + cells[1]) * 8 + cells[2] + np.arange(len(small))[:, None] * 256
    counts = np.bincount(cell.ravel(), minlength=len(small) * 256).reshape(len(small), *sides).astype(np.float32)
    for axis in (2, 3):  # neighbouring colours count a little
        counts = counts + 0.5 * (_shifted(counts, axis, 1) + _shifted(counts, axis, -1))
    return _unit(np.sqrt(counts.reshape(len(small), -1)))


def _shifted(counts: Float32Array, axis: int, step: int) -> Float32Array:
    moved = np.roll(counts, step, axis=axis)
    edge = [slice(None)] * counts.ndim
    edge[axis] = slice(0, 1) if step > 0 else slice(-1, None)
    moved[tuple(edge)] = 0
    return moved


def _grey(photo: PhotoArray) -> PhotoArray:
    """Return a photo in grey at the size of comparison, uint8 (128, 128)."""
    import cv2

    shrinks = photo.shape[0] >= _SIDE_PX
    sized = cv2.resize(
        np.asarray(photo), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return np.asarray(cv2.cvtColor(sized, cv2.COLOR_RGB2GRAY))


def _features_at(photos: PhotoArray, row: int) -> _Features:
    import cv2

    sift = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=_CONTRAST, edgeThreshold=_EDGE)
    points, descriptors = sift.detectAndCompute(_grey(photos[row]), None)
    if descriptors is None:
        return _Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8))
    places = np.array([point.pt for point in points[:_FEATURES]], np.float32)
    return _Features(places, np.rint(255 * _unit(np.sqrt(descriptors[:_FEATURES]))).astype(np.uint8))


def _is_copy(photos: PhotoArray, features: dict[int, _Features], first: int, second: int) -> bool:
    """Return whether some affine warp of the first photo shows the detail of the second one."""
    matches = [_matches(features[first], features[second], mirrored=mirrored) for mirrored in (False, True)]
    warp = _proposed(*max(matches, key=lambda one: len(one[0])))
    return warp is not None and _agree(_detail(_grey(photos[first])), _detail(_grey(photos[second])), warp)


def _matches(first: _Features, second: _Features, *, mirrored: bool) -> tuple[Float32Array, Float32Array]:
    """Return the places of features that match both ways, (matches, 2) each.

    mirrored: whether to compare the first photo's mirror image.
    """
    nothing = np.empty((0, 2), np.float32)
    if min(len(first.places), len(second.places)) < _FEWEST_MATCHES:
        return nothing, nothing
    mine = first.descriptors[:, _MIRROR] if mirrored else first.descriptors
    similarity = (mine.astype(np.float32) @ second.descriptors.astype(np.float32).T) / 255**2
    rows = np.arange(len(similarity))
    nearest = similarity.argmax(axis=1)
    mutual = similarity.argmax(axis=0)[nearest] == rows
    next_best = np.partition(similarity, -2, axis=1)[:, -2]
    # Distances of unit vectors: squared, 2 less twice their product.
    distinct = 1 - similarity[rows, nearest] < _NEAREST_TO_NEXT**2 * (1 - next_best)
    kept = mutual & distinct
    return first.places[kept], second.places[nearest[kept]]


def _detail(grey: PhotoArray) -> Float32Array:
    """Return a photo's detail, without its light and its finest noise, float32 (128, 128)."""
    import cv2

    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    return np.asarray(smooth - cv2.GaussianBlur(smooth, (0, 0), 0.0375 * _SIDE_PX))


def _proposed(places: Float32Array, others: Float32Array) -> Float32Array | None:
    """Return the warp from the second photo's places to the first's, (2, 3), on which most matches agree."""
    import cv2

    if len(places) < _FEWEST_MATCHES:
        return None
    proposed, fits = cv2.estimateAffine2D(
        places, others, method=cv2.RANSAC, ransacReprojThreshold=_STRAY_PX, maxIters=500, confidence=0.99
    )
    if proposed is None or fits.sum() < _FEWEST_MATCHES or not _is_plausible(proposed):
        return None
    return np.asarray(cv2.invertAffineTransform(proposed), dtype=np.float32)


def _is_plausible(warp: FloatArray | Float32Array) -> bool:
    large, small = np.linalg.svd(warp[:, :2], compute_uv=False) if np.isfinite(warp).all() else (np.inf, 0)
    return bool(1 / _SCALE <= small <= large <= _SCALE and large / small <= _STRETCH)


def _agree(first: Float32Array, second: Float32Array, warp: Float32Array) -> bool:
    """Return whether two photos' detail agrees under a warp, or under a better one near it."""
    import cv2

    blocks = _block_correlations(first, second, warp)
    if len(blocks) < _FEWEST_BLOCKS or np.median(blocks) < _WORTH_REFINING:
        return False
    if _is_enough(blocks, warp):
        return True
    steps = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    try:
        _, warp = cv2.findTransformECC(second, first, warp, cv2.MOTION_AFFINE, steps, None, 5)
    except cv2.error:  # it does not converge
        return False
    return _is_enough(_block_correlations(first, second, warp), warp)


def _is_enough(blocks: FloatArray, warp: Float32Array) -> bool:
    corners = np.array([[0, 0, 1], [0, _SIDE_PX, 1], [_SIDE_PX, 0, 1], [_SIDE_PX, _SIDE_PX, 1]], np.float32)
    shift = np.linalg.norm(corners @ warp.T - corners[:, :2], axis=1).mean()
    percentile = _UNMOVED_PERCENTILE if shift < _UNMOVED * _SIDE_PX else _MOVED_PERCENTILE
    return len(blocks) >= _FEWEST_BLOCKS and bool(np.percentile(blocks, percentile) >= _AGREEMENT)


def _block_correlations(first: Float32Array, second: Float32Array, warp: Float32Array) -> FloatArray:
    """Return the correlation of each block with texture in which the warped first photo covers the second.

    warp: from places of the second photo to those of the first, (2, 3). Returns float64 (blocks,), none if the warp is
    no plausible one or covers too little.
    """
    import cv2

    if not _is_plausible(warp):
        return np.empty(0)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(first, warp, second.shape[::-1], flags=how)
    covered = cv2.warpAffine(np.ones_like(first), warp, second.shape[::-1], flags=how) > 0.999
    if covered.mean() < _OVERLAP:
        return np.empty(0)
    a, b = _blocks(warped), _blocks(second)
    whole: BoolArray = _blocks(covered.astype(np.float32)).mean(axis=1) > 0.9
    a, b = (one - one.mean(axis=1, keepdims=True) for one in (a, b))
    spread = np.sqrt(np.square(a).mean(axis=1)), np.sqrt(np.square(b).mean(axis=1))
    kept = whole & (np.minimum(*spread) > _TEXTURE_GREY_LEVELS)
    correlation: FloatArray = (a * b).mean(axis=1)[kept] / (spread[0] * spread[1])[kept]
    return correlation.astype(np.float64)


def _blocks(picture: Float32Array) -> Float32Array:
    """Cut a picture (128, 128) into 8 × 8 blocks: (64, 256)."""
    side = _SIDE_PX // _BLOCKS
    cut = picture.reshape(_BLOCKS, side, _BLOCKS, side).swapaxes(1, 2)
    return cut.reshape(_BLOCKS * _BLOCKS, side * side)
