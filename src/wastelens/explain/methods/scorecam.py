"""Score-CAM: the places of a layer's map that, when only they are let through, give a material's probability."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from wastelens.config.explanation_methods import METHODS, MethodConfig, MethodInputs
from wastelens.explain.methods.evidence import Evidence, without_sum
from wastelens.models.features import photos_at_once
from wastelens.system.arrays import Float32Array, IndexArray, PhotoArray

_EPSILON = 1e-7
_PASS_PHOTOS = 64  # masked photos per forward pass


@METHODS.register("scorecam")
class ScoreCamConfig(MethodConfig):
    """Settings of Score-CAM: ``conf/explain/scorecam.yaml``."""

    title: ClassVar[str] = "Score-CAM"
    draws_layer: ClassVar[bool] = True

    channels: int = Field(ge=1)

    def build(self, network: Any, inputs: MethodInputs) -> ScoreCam:
        """Return the method, ready for this network."""
        return ScoreCam(network, inputs.layer, channels=self.channels)


class ScoreCam:
    """Score-CAM (Wang et al. 2020, alg. 1), which needs no gradient.

    Each channel masks the photo and is weighted by the probability that the masked photo still gives, minus that of a
    black photo; one pass serves all materials.

    The paper then takes the softmax of the channels' weights, so that even channels that lower the probability count
    for it; here they count against it. Of many channels, only those that vary most from place to place are tried
    ("Faster Score-CAM"): at most ``channels``. The model must be flat, as a network's ``build`` makes it.
    """

    def __init__(self, model: Any, layer: str, *, channels: int) -> None:
        import keras

        self._both = keras.Model(model.input, [model.get_layer(layer).output, model.output])
        self._model = model
        self._channels = channels
        black = np.zeros((1, *model.input.shape[1:]), dtype=np.float32)
        self._of_black = np.asarray(model.predict_on_batch(black), dtype=np.float32)

    def __call__(self, photos: PhotoArray, pairs: IndexArray) -> Evidence:
        activations, _ = (np.asarray(one, dtype=np.float32) for one in self._both.predict_on_batch(photos))
        maps = [self._maps(photo, one) for photo, one in zip(photos, activations, strict=True)]
        return without_sum(np.stack(maps)[pairs[:, 0], pairs[:, 1]])

    def _maps(self, photo: PhotoArray, activations: Float32Array) -> Float32Array:
        """Return a photo's maps, float32 (materials, height, width); activations: (height, width, channels)."""
        order = np.argsort(-activations.std(axis=(0, 1)), kind="stable")[: self._channels]
        chosen = activations[..., order]
        size = photos_at_once(self._model, _PASS_PHOTOS)
        passes = [chosen[..., start : start + size] for start in range(0, chosen.shape[-1], size)]
        weights = np.concatenate([self._probabilities(photo, channels) for channels in passes]) - self._of_black
        return np.asarray(np.maximum(np.einsum("hwc,cm->mhw", chosen, weights), 0), dtype=np.float32)

    def _probabilities(self, photo: PhotoArray, activations: Float32Array) -> Float32Array:
        """Return the probabilities of the photo masked by each channel, (channels, materials)."""
        masks = np.stack([_mask(channel, photo.shape[0]) for channel in np.moveaxis(activations, -1, 0)])
        return np.asarray(self._model.predict_on_batch(masks[..., None] * photo.astype(np.float32)), dtype=np.float32)


def _mask(channel: Float32Array, side_px: int) -> Float32Array:
    """Stretch a channel (height, width) over the photo and scale it to 0–1."""
    import cv2

    large = cv2.resize(channel, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
    return np.asarray((large - large.min()) / (np.ptp(large) + _EPSILON), dtype=np.float32)
