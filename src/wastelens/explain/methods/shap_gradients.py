"""SHAP values of pixels by expected gradients, for every network."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from wastelens.config.explanation_methods import METHODS, MethodConfig, MethodInputs
from wastelens.errors import ConfigError
from wastelens.explain.methods.evidence import Evidence
from wastelens.models.features import photos_at_once
from wastelens.models.freezing import logits_tensor
from wastelens.system.arrays import Float32Array, FloatArray, IndexArray, PhotoArray

_PASS_PHOTOS = 64


@METHODS.register("shap")
class ExpectedGradientsConfig(MethodConfig):
    """Settings of SHAP by expected gradients: ``conf/explain/shap.yaml``."""

    title: ClassVar[str] = "SHAP (expected gradients)"
    signed: ClassVar[bool] = True
    in_auto: ClassVar[bool] = True

    samples: int = Field(ge=1)
    background_photos: int = Field(ge=1)

    @model_validator(mode="after")
    def _even_samples(self) -> ExpectedGradientsConfig:
        if self.samples % self.background_photos:
            multiple = self.background_photos * -(-self.samples // self.background_photos)
            raise ValueError(
                f"samples={self.samples} is no multiple of background_photos={self.background_photos}, but each "
                f"background photo is drawn equally often; give samples={multiple}"
            )
        return self

    def check(self, training_photos: int, dataset: str) -> None:
        """Raise ConfigError if the dataset has too few training photos for the background."""
        if self.background_photos > training_photos:
            raise ConfigError(
                f"shap.background_photos={self.background_photos}, but {dataset} has {training_photos} training "
                f"photos. Give {training_photos} or less."
            )

    def build(self, network: Any, inputs: MethodInputs) -> ExpectedGradients:
        """Return the method, ready for this network."""
        background = inputs.training_photos(self.background_photos)
        return ExpectedGradients(network, background, samples=self.samples, seed=inputs.seed)


class ExpectedGradients:
    """How much each pixel adds to a material's logit, compared with background photos.

    φ = E[(x − b) · ∂logit/∂x at b + α (x − b)], b among the background photos and α uniform in [0, 1] (Erion et al.
    2021, eq. 4; the SHAP of shap's GradientExplainer). Draws are even: every background photo as often as the others,
    and α in equal steps. So a linear network's values are exact, weight · (x − mean background), and sums come closer
    to logit(x) − mean logit(b) than those of equally many random draws.

    Args:
        model: flat, as a network's ``build`` makes it.
        background: uint8 (background photos, side, side, 3).
        samples: gradients per pair; a multiple of the background photos.
        seed: of the draws, which are the same for every photo, so that photos can be compared.
    """

    def __init__(self, model: Any, background: PhotoArray, *, samples: int, seed: int) -> None:
        import keras

        self._background = background.astype(np.float32)
        self._network = keras.Model(model.input, logits_tensor(model))
        self._gradients = _compiled(self._network)
        self._expected = self._logits(background).mean(axis=0)
        repeats = -(-samples // len(background))
        self._rows = np.tile(np.arange(len(background)), repeats)
        self._alphas = _even_alphas(len(background), repeats, np.random.default_rng([seed, samples]))

    def __call__(self, photos: PhotoArray, pairs: IndexArray) -> Evidence:
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

    def _values(self, photo: Float32Array, materials: npt.NDArray[np.int32]) -> Float32Array:
        """Return a photo's SHAP values for some materials, float32 (materials, side, side, 3), in logits."""
        total = np.zeros((len(materials), *photo.shape), dtype=np.float32)
        size = photos_at_once(self._network, _PASS_PHOTOS)
        for start in range(0, len(self._rows), size):
            rows, alphas = (of[start : start + size] for of in (self._rows, self._alphas))
            differences = photo - self._background[rows]
            between = self._background[rows] + alphas[:, None, None, None].astype(np.float32) * differences
            gradients = np.asarray(self._gradients(between, materials))
            total += np.einsum("mnhwc,nhwc->mhwc", gradients, differences)
        total /= len(self._rows)
        return total

    def _logits(self, photos: PhotoArray) -> FloatArray:
        size = photos_at_once(self._network, _PASS_PHOTOS)
        pieces = [photos[start : start + size] for start in range(0, len(photos), size)]
        return np.concatenate([np.asarray(self._network.predict_on_batch(one), dtype=np.float64) for one in pieces])


def _even_alphas(background: int, repeats: int, rng: np.random.Generator) -> FloatArray:
    """Divide [0, 1] into equal steps, such that each background photo has one α in each of ``repeats`` equal parts.

    They are (repeats · background,): the first α of each background photo, then the second of each, and so on.
    """
    within = (rng.permutation(background) + 0.5) / background
    return np.concatenate([(part + within) / repeats for part in range(repeats)])


def _compiled(network: Any) -> Any:
    """Compile photos float32 (n, side, side, 3) and materials (m,) → ∂logit/∂pixel, float32 (m, n, side, side, 3).

    One forward pass serves all materials; each has a backward pass of its own.
    """
    import tensorflow as tf

    side_px = network.input.shape[1]
    photos_spec = tf.TensorSpec((None, side_px, side_px, 3), tf.float32)

    @tf.function(input_signature=[photos_spec, tf.TensorSpec((None,), tf.int32)])  # type: ignore[untyped-decorator]
    def gradients(photos: Any, materials: Any) -> Any:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(photos)
            logits = network(photos, training=False)

        def of_material(material: Any) -> Any:
            chosen = tf.one_hot(tf.fill((tf.shape(photos)[0],), material), tf.shape(logits)[1], dtype=logits.dtype)
            return tape.gradient(logits, photos, output_gradients=chosen)

        return tf.map_fn(of_material, materials, fn_output_signature=tf.float32, parallel_iterations=1)

    return gradients
