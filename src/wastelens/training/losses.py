"""Multi-label losses on logits: each material is a yes-or-no question of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wastelens.config.losses import LossConfig

Loss = Callable[[Any, Any], Any]


def build_loss(config: LossConfig) -> Loss:
    """The loss (labels, logits) → scalar, the mean over photos and materials, in nats."""
    if config.name == "focal":
        return lambda labels, logits: focal_loss(labels, logits, config.focal_gamma)
    if config.name == "asymmetric":
        return lambda labels, logits: asymmetric_loss(
            labels,
            logits,
            gamma_positive=config.asymmetric_gamma_positive,
            gamma_negative=config.asymmetric_gamma_negative,
            clip=config.asymmetric_clip,
        )
    return binary_cross_entropy


def binary_cross_entropy(labels: Any, logits: Any) -> Any:
    """−y log p − (1 − y) log(1 − p), from logits without overflow, as −log p = log(1 + e^−x)."""
    from keras import ops

    return ops.mean(_cross_entropy(labels, logits))


def _cross_entropy(labels: Any, logits: Any) -> Any:
    from keras import ops

    return labels * ops.softplus(-logits) + (1.0 - labels) * ops.softplus(logits)


def focal_loss(labels: Any, logits: Any, gamma: float) -> Any:
    """(1 − p_t)^γ · cross entropy, p_t the probability of the truth: easy answers weigh less (Lin et al. 2017)."""
    from keras import ops

    # 1 − p_t is the probability of the wrong answer: the sigmoid of the logit turned against the truth.
    wrong = ops.sigmoid(logits * (1.0 - 2.0 * labels))
    return ops.mean(_power(wrong, gamma) * _cross_entropy(labels, logits))


def asymmetric_loss(labels: Any, logits: Any, *, gamma_positive: float, gamma_negative: float, clip: float) -> Any:
    """Asymmetric loss (Ridnik et al. 2021, eq. 7): negatives focus harder, and those below ``clip`` count nothing."""
    from keras import ops

    absent = ops.sigmoid(-logits)
    kept = ops.minimum(absent + clip, 1.0)  # 1 − max(p − clip, 0)
    positive = labels * _power(absent, gamma_positive) * ops.softplus(-logits)
    # Without a clip the logarithm has no floor to keep it finite: then it comes from the logits.
    surprise = -ops.log(kept) if clip > 0 else ops.softplus(logits)
    negative = (1.0 - labels) * _power(1.0 - kept, gamma_negative) * surprise
    return ops.mean(positive + negative)


def _power(base: Any, exponent: float) -> Any:
    """base^exponent for bases in [0, 1], with a gradient that stays finite at 0."""
    from keras import ops

    return 1.0 if exponent == 0 else ops.power(ops.maximum(base, 1e-7), exponent)
