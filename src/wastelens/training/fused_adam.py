"""AdamW whose update is one pass over the weights: Keras' own makes several, which costs as much as the gradients."""

from __future__ import annotations

from typing import Any


def fused_adamw(weight_decay: float, **options: Any) -> Any:
    """Keras' AdamW (Loshchilov & Hutter 2019) with TensorFlow's fused kernel for the same update.

    Both compute w ← w − α m / (√v + ε) with α = rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ); Keras op by op.
    """
    import keras
    import tensorflow as tf

    class FusedAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """One variable's step; TensorFlow's variables, as Keras hands them on."""
            step = tf.cast(self.iterations.value + 1, tf.float32)
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=tf.pow(tf.constant(self.beta_1, tf.float32), step),
                beta2_power=tf.pow(tf.constant(self.beta_2, tf.float32), step),
                lr=tf.cast(learning_rate, tf.float32),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=tf.cast(gradient, tf.float32),
            )

    return FusedAdamW(weight_decay=weight_decay, **options)
