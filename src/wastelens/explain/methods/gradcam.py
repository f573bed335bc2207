"""Class activation maps: at which places of a layer's map the network finds what speaks for a material."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.explain.methods.evidence import Evidence, Index, Photos, without_sum
from wastelens.models.freezing import logits_tensor

GRADCAM, GRADCAM_PLUS_PLUS = "gradcam", "gradcam_plus_plus"
_EPSILON = 1e-7
_MASKED_PHOTOS = 64  # at once


class GradientMaps:
    """Grad-CAM or Grad-CAM++ of one layer: one forward pass serves all materials and photos of a batch.

    Grad-CAM (Selvaraju et al. 2017, eq. 1–2): relu(Σₖ αₖ Aₖ), αₖ the mean over places of ∂logit/∂Aₖ.
    Grad-CAM++ (Chattopadhay et al. 2018, eq. 9–19): αₖ weighs the places by second and third derivatives of exp(logit),
    which for a logit are powers of its gradient. The factor exp(logit), the same at every place, is left out.
    """

    def __init__(self, model: Any, layer: str, variant: str = GRADCAM) -> None:
        self._maps = _compiled(model, layer, _gradcam if variant == GRADCAM else _gradcam_plus_plus)

    def __call__(self, photos: Photos, pairs: Index) -> Evidence:
        maps = np.asarray(self._maps(photos.astype(np.float32)))
        return without_sum(maps[pairs[:, 0], pairs[:, 1]])


def _compiled(model: Any, layer: str, rule: Any) -> Any:
    """Photos float32 (n, side, side, 3) → maps float32 (n, materials, height, width)."""
    import keras
    import tensorflow as tf

    both = keras.Model(model.input, [model.get_layer(layer).output, logits_tensor(model)])
    materials = model.output.shape[-1]
    side_px = model.input.shape[1]

    @tf.function(input_signature=[tf.TensorSpec((None, side_px, side_px, 3), tf.float32)])  # type: ignore[untyped-decorator]
    def maps(photos: Any) -> Any:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(photos)
            activations, logits = both(photos, training=False)
            of_material = [logits[:, material] for material in range(materials)]
        slopes = [tape.gradient(one, activations) for one in of_material]
        places = tf.cast(activations, tf.float32)
        return tf.stack([rule(places, tf.cast(slope, tf.float32)) for slope in slopes], axis=1)

    return maps


def _gradcam(activations: Any, slopes: Any) -> Any:
    import tensorflow as tf

    weights = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * activations, axis=-1))


def _gradcam_plus_plus(activations: Any, slopes: Any) -> Any:
    import tensorflow as tf

    def or_one(x: Any) -> Any:
        return tf.where(x == 0, tf.ones_like(x), x)

    total = tf.reduce_sum(activations, axis=(1, 2), keepdims=True)
    # slopes² / (2 slopes² + slopes³ total), without powers that a small slope would lose
    alphas = tf.where(slopes == 0, tf.zeros_like(slopes), 1 / or_one(2 + slopes * total))
    alphas /= or_one(tf.reduce_sum(alphas, axis=(1, 2), keepdims=True))
    weights = tf.reduce_sum(tf.nn.relu(slopes) * alphas, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * activations, axis=-1))


class ScoreCam:
    """Score-CAM (Wang et al. 2020, alg. 1), which needs no gradient: each channel masks the photo, and is weighed by
    the probability that the rest still gives, less that of a black photo; one pass serves all materials.

    The paper then takes the softmax of the channels' weights, which makes those that lower the probability count for it
    too; here they count against it. Of many channels, those that differ most from place to place are tried ("Faster
    Score-CAM").

    Args:
        channels: channels to try, at most.
    """

    def __init__(self, model: Any, layer: str, *, channels: int) -> None:
        import keras

        self._both = keras.Model(model.input, [model.get_layer(layer).output, model.output])
        self._model = model
        self._channels = channels
        black = np.zeros((1, *model.input.shape[1:]), dtype=np.float32)
        self._of_black = np.asarray(model.predict_on_batch(black), dtype=np.float32)

    def __call__(self, photos: Photos, pairs: Index) -> Evidence:
        activations, _ = (np.asarray(one, dtype=np.float32) for one in self._both.predict_on_batch(photos))
        maps = [self._maps(photo, one) for photo, one in zip(photos, activations, strict=True)]
        return without_sum(np.stack(maps)[pairs[:, 0], pairs[:, 1]])

    def _maps(self, photo: Photos, activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Maps of one photo, float32 (materials, height, width); activations: (height, width, channels)."""
        order = np.argsort(-activations.std(axis=(0, 1)), kind="stable")[: self._channels]
        chosen = activations[..., order]
        weights = np.concatenate(
            [
                self._probabilities(photo, chosen[..., start : start + _MASKED_PHOTOS])
                for start in range(0, chosen.shape[-1], _MASKED_PHOTOS)
            ]
        )
        weights -= self._of_black
        return np.asarray(np.maximum(np.einsum("hwc,cm->mhw", chosen, weights), 0), dtype=np.float32)

    def _probabilities(self, photo: Photos, activations: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(channels, materials): what the photo says where each of some channels lets it through."""
        masks = np.stack([_mask(channel, photo.shape[0]) for channel in np.moveaxis(activations, -1, 0)])
        return np.asarray(self._model.predict_on_batch(masks[..., None] * photo.astype(np.float32)), dtype=np.float32)


def _mask(channel: npt.NDArray[np.float32], side_px: int) -> npt.NDArray[np.float32]:
    """A channel (height, width) over the photo, from 0 to 1."""
    import cv2

    large = cv2.resize(channel, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    return np.asarray((large - large.min()) / (np.ptp(large) + _EPSILON), dtype=np.float32)
