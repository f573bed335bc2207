"""Optimizers. The training loop sets the learning rate step by step, from the schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from wastelens.config.kinds import OPTIMIZERS, OptimizerConfig
from wastelens.system import borrowed


@OPTIMIZERS.register("adam")
class Adam(OptimizerConfig):
    """Adam (Kingma & Ba 2015)."""

    kind: Literal["adam"]

    def build(self) -> Any:
        """Return Keras' Adam."""
        import keras

        return keras.optimizers.Adam(**self.clipping)


@OPTIMIZERS.register("adamw")
class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"]
    weight_decay: float = Field(
        ge=0, description="fraction of each weight subtracted per step, times the learning rate"
    )

    def build(self) -> Any:
        """Return AdamW with a fused update."""
        return fused_adamw(self.weight_decay, **self.clipping)


@OPTIMIZERS.register("sgd")
class Sgd(OptimizerConfig):
    """Gradient descent with Nesterov momentum."""

    kind: Literal["sgd"]
    momentum: float = Field(ge=0, lt=1, description="fraction of the previous update carried over")

    def build(self) -> Any:
        """Return Keras' SGD."""
        import keras

        return keras.optimizers.SGD(momentum=self.momentum, nesterov=True, **self.clipping)


def fused_adamw(weight_decay: float, **options: Any) -> Any:
    """Return Keras' AdamW (Loshchilov & Hutter 2019) with TensorFlow's fused kernel for the same update.

    Both compute w ← w − α m / (√v + ε) with α = rate · √(1 − β₂ᵗ) / (1 − β₁ᵗ); Keras op by op.
    """
    import keras
    import tensorflow as tf

    class FusedAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Update one variable; all are TensorFlow's, as Keras passes them."""
            step = tf.cast(self.iterations.value + 1, tf.float32)
            momentum, velocity = borrowed.adam_slots(self, variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=momentum.value.handle,
                v=velocity.value.handle,
                beta1_power=tf.pow(tf.constant(self.beta_1, tf.float32), step),
                beta2_power=tf.pow(tf.constant(self.beta_2, tf.float32), step),
                lr=tf.cast(learning_rate, tf.float32),
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=tf.cast(gradient, tf.float32),
            )

    return FusedAdamW(weight_decay=weight_decay, **options)


def careful(optimizer: Any, rates: Sequence[float], average: float) -> Any:
    """Return an optimizer with its own learning rate for each variable, and a running average of the weights.

    Scaled gradients would not do: Adam divides their scale out again.

    Args:
        optimizer: whose kind and settings are taken over.
        rates: factor of the learning rate of each variable that it will be built with, in order; weight decay, which
            is times the learning rate, follows it.
        average: m of the average w̄ ← m w̄ + (1 − m) w after each step, which starts at the first step's weights
            (Polyak & Juditsky 1992); 0: none.
    """

    class Careful(type(optimizer)):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Update one variable; all are TensorFlow's, as Keras passes them."""
            rate = learning_rate * rates[borrowed.variable_index(self, variable)]
            if decay:
                variable.assign_sub(variable * (decay * rate))
            super().update_step(gradient, variable, rate)

    settings = optimizer.get_config()
    # Keras' own weight decay knows one rate only. AdamW insists on a number.
    decay, none = settings["weight_decay"] or 0.0, 0.0 if settings["weight_decay"] is not None else None
    averaging = {"use_ema": average > 0, "ema_momentum": average} if average else {}
    return Careful.from_config({**settings, "weight_decay": none, **averaging})
