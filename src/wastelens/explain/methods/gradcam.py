"""Grad-CAM and Grad-CAM++: the places of a layer's map whose activations raise a material's logit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from wastelens.config.explanation_methods import METHODS, MethodConfig, MethodInputs
from wastelens.explain.methods.evidence import Evidence, without_sum
from wastelens.models.answers import EVIDENCE, FEATURES, Answers, answering, has_own_map
from wastelens.models.features import features_tensor, in_equal_batches
from wastelens.models.freezing import logits_tensor
from wastelens.models.onnx_network import PROBABILITIES
from wastelens.system.arrays import IndexArray, PhotoArray


@METHODS.register("gradcam")
class GradCamConfig(MethodConfig):
    """Grad-CAM, which has no settings of its own."""

    title: ClassVar[str] = "Grad-CAM"
    draws_layer: ClassVar[bool] = True
    in_auto: ClassVar[bool] = True

    def build(self, network: Any, inputs: MethodInputs) -> GradientMaps:
        """Return the method, ready for this network."""
        return GradientMaps(network, inputs.layer, gradcam)


@METHODS.register("gradcam_plus_plus")
class GradCamPlusPlusConfig(MethodConfig):
    """Grad-CAM++, which has no settings of its own."""

    title: ClassVar[str] = "Grad-CAM++"
    draws_layer: ClassVar[bool] = True

    def build(self, network: Any, inputs: MethodInputs) -> GradientMaps:
        """Return the method, ready for this network."""
        return GradientMaps(network, inputs.layer, gradcam_plus_plus)


class GradientMaps:
    """Maps of one layer of a flat model by a rule: one forward pass serves all materials and photos of a batch.

    Args:
        rule: activations and gradients, float32 (n, height, width, channels) → maps, float32 (n, height, width).
    """

    def __init__(self, model: Any, layer: str, rule: Callable[[Any, Any], Any]) -> None:
        self._maps = _compiled(model, layer, rule)

    def __call__(self, photos: PhotoArray, pairs: IndexArray) -> Evidence:
        maps = np.asarray(self._maps(photos.astype(np.float32)))
        return without_sum(maps[pairs[:, 0], pairs[:, 1]])


def _compiled(model: Any, layer: str, rule: Callable[[Any, Any], Any]) -> Any:
    """Compile photos float32 (n, side, side, 3) → maps float32 (n, materials, height, width)."""
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
        gradients = [tape.gradient(logit, activations) for logit in of_material]
        activations = tf.cast(activations, tf.float32)
        return tf.stack([rule(activations, tf.cast(gradient, tf.float32)) for gradient in gradients], axis=1)

    return maps


def answers_by_keras(model: Any, layer: str | None, batch_size: int) -> Callable[[PhotoArray], Answers]:
    """Return a function of photos, uint8 (n, side, side, 3), to a classifier's answers, in one pass.

    The maps are the network's own, or else of Grad-CAM at a layer; None: no maps. The gradient goes back to the layer
    only, not through the network below it.
    """
    import keras
    import tensorflow as tf

    if has_own_map(model):
        outputs = answering(model)

        def own_answers(photos: Any) -> tuple[Any, ...]:
            found = outputs(tf.cast(photos, model.input.dtype), training=False)
            return tuple(tf.cast(found[name], tf.float32) for name in (PROBABILITIES, FEATURES, EVIDENCE))

        own = in_equal_batches(own_answers, model.input_shape[1:], batch_size)
        return lambda photos: Answers(*own(photos))
    maps = [model.get_layer(layer).output] if layer else []
    inner = keras.Model(model.input, [model.output, features_tensor(model), logits_tensor(model), *maps])

    def answers(photos: Any) -> tuple[Any, ...]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            pixels = tf.cast(photos, model.input.dtype)
            tape.watch(pixels)
            probabilities, features, logits, *activations = inner(pixels, training=False)
            strongest = tf.reduce_max(logits, axis=1)
        gradients = [tf.cast(tape.gradient(strongest, one), tf.float32) for one in activations]
        found = [gradcam(tf.cast(one, tf.float32), by) for one, by in zip(activations, gradients, strict=True)]
        return (tf.cast(probabilities, tf.float32), tf.cast(features, tf.float32), *found)

    call = in_equal_batches(answers, model.input_shape[1:], batch_size)
    return lambda photos: Answers(*call(photos))


def gradcam(activations: Any, gradients: Any) -> Any:
    """Apply Grad-CAM: relu(Σₖ αₖ Aₖ), αₖ the mean over places of ∂logit/∂Aₖ (Selvaraju et al. 2017, eq. 1–2)."""
    import tensorflow as tf

    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * activations, axis=-1))


def gradcam_plus_plus(activations: Any, gradients: Any) -> Any:
    """Apply Grad-CAM++ (Chattopadhay et al. 2018, eq. 9–19).

    αₖ weighs the places by second and third derivatives of exp(logit), which for a logit are powers of its gradient.
    The factor exp(logit), the same at every place, is left out.
    """
    import tensorflow as tf

    def or_one(x: Any) -> Any:
        return tf.where(x == 0, tf.ones_like(x), x)

    total = tf.reduce_sum(activations, axis=(1, 2), keepdims=True)
    # gradients² / (2 gradients² + gradients³ total), without powers in which a small gradient would vanish
    alphas = tf.where(gradients == 0, tf.zeros_like(gradients), 1 / or_one(2 + gradients * total))
    alphas /= or_one(tf.reduce_sum(alphas, axis=(1, 2), keepdims=True))
    weights = tf.reduce_sum(tf.nn.relu(gradients) * alphas, axis=(1, 2), keepdims=True)
    return tf.nn.relu(tf.reduce_sum(weights * activations, axis=-1))
