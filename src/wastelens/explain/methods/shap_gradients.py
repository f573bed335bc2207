"""SHAP values of pixels by expected gradients: for every network that has gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.explain.methods.evidence import Evidence, Index, Photos
from wastelens.models.freezing import logits_tensor

_PASS_PHOTOS = 64


class ExpectedGradients:
    """What each pixel adds to a material's logit, against photos that stand for "nothing in particular".

    φ = E[(x − b) · ∂logit/∂x at b + α (x − b)], b among the background photos and α uniform in [0, 1] (Erion et al.
    2021, eq. 4; the SHAP of shap's GradientExplainer). Drawn evenly: every background photo as often as the others, and
    all α in equal steps, so that a linear network's values are exact, weight · (x − mean background), and sums come
    closer to logit(x) − mean logit(b) than those of as many draws at random.

    Args:
        model: flat, as ``models.registry`` makes it.
        background: uint8 (background photos, side, side, 3).
        samples: gradients a pair; a multiple of the background photos.
        seed: of the draws; the same for every photo, so that photos are compared alike.
    """

    def __init__(self, model: Any, background: Photos, *, samples: int, seed: int) -> None:
        import keras

        self._background = background.astype(np.float32)
        self._network = keras.Model(model.input, logits_tensor(model))
        self._slopes = _compiled(self._network)
        self._expected = self._logits(background).mean(axis=0)
        repeats = -(-samples // len(background))
        self._rows = np.tile(np.arange(len(background)), repeats)
        self._alphas = _even_alphas(len(background), repeats, np.random.default_rng([seed, samples]))

    def __call__(self, photos: Photos, pairs: Index) -> Evidence:
        logits = self._logits(photos)
        maps = np.empty((len(pairs), *photos.shape[1:3]), dtype=np.float32)
        errors = np.empty(len(pairs))
        for photo in np.unique(pairs[:, 0]):
            rows = np.flatnonzero(pairs[:, 0] == photo)
            materials = pairs[rows, 1]
            values = self._values(photos[photo].astype(np.float32), materials.astype(np.int32))
            maps[rows] = values.sum(axis=-1)
            explained = logits[photo, materials] - self._expected[materials]
            errors[rows] = abs(values.sum(axis=(1, 2, 3), dtype=np.float64) - explained)
        return Evidence(maps, errors)

    def _values(self, photo: npt.NDArray[np.float32], materials: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """SHAP values of some materials, float32 (materials, side, side, 3), in logits."""
        total = np.zeros((len(materials), *photo.shape), dtype=np.float32)
        for start in range(0, len(self._rows), _PASS_PHOTOS):
            rows, alphas = (of[start : start + _PASS_PHOTOS] for of in (self._rows, self._alphas))
            differences = photo - self._background[rows]
            between = self._background[rows] + alphas[:, None, None, None].astype(np.float32) * differences
            slopes = np.asarray(self._slopes(between, materials))
            total += np.einsum("mnhwc,nhwc->mhwc", slopes, differences)
        total /= len(self._rows)
        return total

    def _logits(self, photos: Photos) -> npt.NDArray[np.float64]:
        pieces = [photos[start : start + _PASS_PHOTOS] for start in range(0, len(photos), _PASS_PHOTOS)]
        return np.concatenate([np.asarray(self._network.predict_on_batch(one), dtype=np.float64) for one in pieces])


def _even_alphas(background: int, repeats: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """All of [0, 1] in equal steps, dealt so that each background photo has one α in each of ``repeats`` equal parts.

    float64 (repeats · background,): the first of each background photo, then the second of each …
    """
    within = (rng.permutation(background) + 0.5) / background
    return np.concatenate([(part + within) / repeats for part in range(repeats)])


def _compiled(network: Any) -> Any:
    """Photos float32 (n, side, side, 3) and materials (m,) → ∂logit/∂pixel, float32 (m, n, side, side, 3).

    One forward pass serves all materials; each has a backward pass of its own.
    """
    import tensorflow as tf

    side_px = network.input.shape[1]
    photos_spec = tf.TensorSpec((None, side_px, side_px, 3), tf.float32)

    @tf.function(input_signature=[photos_spec, tf.TensorSpec((None,), tf.int32)])  # type: ignore[untyped-decorator]
    def slopes(photos: Any, materials: Any) -> Any:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(photos)
            logits = network(photos, training=False)

        def of_material(material: Any) -> Any:
            chosen = tf.one_hot(tf.fill((tf.shape(photos)[0],), material), tf.shape(logits)[1], dtype=logits.dtype)
            return tape.gradient(logits, photos, output_gradients=chosen)

        return tf.map_fn(of_material, materials, fn_output_signature=tf.float32, parallel_iterations=1)

    return slopes
