"""Multi-label losses on logits: every material is a yes-or-no question of its own.

To add one, write a class like those below, and its values into ``conf/loss/<kind>.yaml``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from wastelens.config.kinds import LOSSES, LossConfig


@LOSSES.register("bce")
class BinaryCrossEntropy(LossConfig):
    """−y log p − (1 − y) log(1 − p), from logits without overflow, as −log p = log(1 + e^−x)."""

    kind: Literal["bce"]

    def __call__(self, labels: Any, logits: Any) -> Any:
        """Return the loss."""
        from keras import ops

        return ops.mean(_cross_entropy(labels, logits))


@LOSSES.register("focal")
class FocalLoss(LossConfig):
    """(1 − p_t)^γ · cross entropy, p_t the probability of the truth: easy examples weigh less (Lin et al. 2017)."""

    kind: Literal["focal"]
    gamma: float = Field(ge=0, description="how strongly easy examples are down-weighted; 0: binary cross-entropy")

    def __call__(self, labels: Any, logits: Any) -> Any:
        """Return the loss."""
        from keras import ops

        # 1 − p_t is the probability of the wrong answer: the sigmoid of the logit turned against the truth.
        wrong = ops.sigmoid(logits * (1.0 - 2.0 * labels))
        return ops.mean(_power(wrong, self.gamma) * _cross_entropy(labels, logits))


@LOSSES.register("asymmetric")
class AsymmetricLoss(LossConfig):
    """Focal loss that focuses harder on negatives, and ignores those below ``clip`` (Ridnik et al. 2021, eq. 7)."""

    kind: Literal["asymmetric"]
    gamma_positive: float = Field(ge=0, description="focusing on materials that are present")
    gamma_negative: float = Field(ge=0, description="focusing on materials that are absent")
    clip: float = Field(ge=0, lt=1, description="absent materials below this probability do not contribute")

    def __call__(self, labels: Any, logits: Any) -> Any:
        """Return the loss."""
        from keras import ops

        absent = ops.sigmoid(-logits)
        kept = ops.minimum(absent + self.clip, 1.0)  # 1 − max(p − clip, 0)
        positive = labels * _power(absent, self.gamma_positive) * ops.softplus(-logits)
        # Without a clip the logarithm has no floor to keep it finite: then it comes from the logits.
        surprise = -ops.log(kept) if self.clip > 0 else ops.softplus(logits)
        negative = (1.0 - labels) * _power(1.0 - kept, self.gamma_negative) * surprise
        return ops.mean(positive + negative)


def _cross_entropy(labels: Any, logits: Any) -> Any:
    from keras import ops

    return labels * ops.softplus(-logits) + (1.0 - labels) * ops.softplus(logits)


def _power(base: Any, exponent: float) -> Any:
    """Return base^exponent for bases in [0, 1], with a gradient that stays finite at 0."""
    from keras import ops

    return 1.0 if exponent == 0 else ops.power(ops.maximum(base, 1e-7), exponent)
