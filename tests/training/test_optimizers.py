"""The fused AdamW takes the very steps of Keras' own."""

from __future__ import annotations

import numpy as np
import pytest

from wastelens.training.optimizers import fused_adamw

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.mark.parametrize("options", [{}, {"global_clipnorm": 0.5}])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_steps_are_those_of_keras(keras, options, weight_decay):
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=shape).astype("float32") for shape in ((4, 3), (3,), (2, 2, 5))]
    gradients = [[rng.normal(size=start.shape).astype("float32") for start in starts] for _ in range(6)]
    ends = []
    for optimizer in (
        keras.optimizers.AdamW(weight_decay=weight_decay, **options),
        fused_adamw(weight_decay, **options),
    ):
        variables = [keras.Variable(start) for start in starts]
        optimizer.build(variables)
        for step, of_step in enumerate(gradients):
            optimizer.learning_rate = 0.1 / (step + 1)
            optimizer.apply([keras.ops.convert_to_tensor(one) for one in of_step], variables)
        ends.append([variable.numpy() for variable in [*variables, *optimizer.variables]])
    assert len(ends[0]) == len(ends[1])
    for ours, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6)
    assert np.abs(ends[1][0] - starts[0]).max() > 0.1
