"""Careful fine-tuning: every step equals the one computed by hand, and a killed run resumes to the same result."""

from __future__ import annotations

import numpy as np
import pytest
from tests.factories import config

from wastelens.models.freezing import freeze, layer_rates
from wastelens.training.checkpoint import Progress
from wastelens.training.loop import TrainingLoop, arrays_of, compiled
from wastelens.training.optimizers import careful

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

STARTS = ([1.0, -2.0], [[0.5, 3.0]])
RATES = (0.1, 1.0)
AVERAGE = 0.7


def adam_by_hand(start, gradients, rate, decay):
    """Return the weights after each step of AdamW (Loshchilov & Hutter 2019, Algorithm 2), with Keras' defaults."""
    weight, m, v = np.array(start), 0.0, 0.0
    after = []
    for t, gradient in enumerate(gradients, 1):
        weight = weight * (1 - decay * rate)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        corrected = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - corrected * m / (np.sqrt(v) + 1e-7)
        after.append(weight)
    return after


def sgd_by_hand(start, gradients, rate, decay):
    weight, velocity, after = np.array(start), 0.0, []
    for gradient in gradients:
        velocity = 0.9 * velocity - rate * gradient
        weight = weight + 0.9 * velocity - rate * gradient
        after.append(weight)
    return after


@pytest.mark.parametrize(
    ("kind", "by_hand", "decay"), [("adam", adam_by_hand, 0), ("adamw", adam_by_hand, 0.1), ("sgd", sgd_by_hand, 0)]
)
def test_each_variable_has_its_own_rate(keras, kind, by_hand, decay):
    settings = f"optimizer.kind={kind} optimizer.clip_norm=0" + (" optimizer.weight_decay=0.1" if decay else "")
    optimizer = careful(config("train", settings).optimizer.build(), RATES, AVERAGE)
    optimizer.learning_rate = 0.05
    variables = [keras.Variable(np.array(start, "float32")) for start in STARTS]
    optimizer.build(variables)
    rng = np.random.default_rng(0)
    gradients = [[rng.normal(size=np.shape(start)) for start in STARTS] for _ in range(5)]
    for of_step in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(one, "float32") for one in of_step], variables)
    after = [by_hand(start, [one[k] for one in gradients], 0.05 * RATES[k], decay) for k, start in enumerate(STARTS)]
    for variable, steps in zip(variables, after, strict=True):
        np.testing.assert_allclose(variable.numpy(), steps[-1], rtol=2e-5)
    optimizer.finalize_variable_values(variables)
    for variable, steps in zip(variables, after, strict=True):
        mean = steps[0]
        for step in steps[1:]:
            mean = AVERAGE * mean + (1 - AVERAGE) * step
        np.testing.assert_allclose(variable.numpy(), mean, rtol=2e-5)


def small_network(keras):
    """Return three blocks, with batch normalisation in the second, and a head."""
    x = photos = keras.Input((4,))
    for block in range(3):
        x = keras.layers.Dense(5, activation="relu", name=f"block{block}_dense")(x)
        x = keras.layers.BatchNormalization(name="block1_norm")(x) if block == 1 else x
    return keras.Model(photos, keras.layers.Dense(2, name="logits")(x))


def test_rates_fall_from_block_to_block(keras):
    rates = layer_rates(small_network(keras), 0.5)
    assert rates == {
        **{"block0_dense": 0.125, "block1_dense": 0.25, "block1_norm": 0.25, "block2_dense": 0.5, "logits": 1.0}
    }
    assert set(layer_rates(small_network(keras), 1.0).values()) == {1.0}


def test_frozen_normalisation_neither_learns_nor_moves(keras):
    network = small_network(keras)
    freeze(network, 0.0, normalisation=True)
    norm = network.get_layer("block1_norm")
    before = norm.get_weights()
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (8, 4)).astype("float32")
    np.testing.assert_allclose(network(x, training=True), network(x, training=False), rtol=1e-6)
    compiled(network, keras.optimizers.SGD(0.1), "mse").train_on_batch(x, np.ones((8, 2), "float32"))
    for ours, theirs in zip(norm.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    freeze(network, 0.0)
    assert norm.trainable


class Batches:
    """Two batches an epoch, which follow from its number."""

    def __len__(self):
        return 2

    def epoch(self, epoch):
        for step in range(2):
            rng = np.random.default_rng([epoch, step])
            yield rng.normal(size=(6, 4)).astype("float32"), rng.normal(size=(6, 2)).astype("float32")


class Keeper:
    """Keeps every epoch's checkpoint."""

    def __init__(self):
        self.kept = []

    def batch_done(self, epoch):
        pass

    def epoch_done(self, epoch, metrics, progress, checkpoint):
        self.kept.append(checkpoint())


def averaged_training(keras, values, resume_from=None):
    """Train with averaged weights; return the network, its checkpoints, and the weights that were measured."""
    network = small_network(keras)
    network.set_weights([np.random.default_rng(1).uniform(0.1, 1, w.shape) for w in network.get_weights()])
    freeze(network, 0.0, normalisation=True)
    rates = [0.5] * len(network.trainable_variables)
    compiled(network, careful(keras.optimizers.Adam(), rates, AVERAGE), "mse")
    keeper, measured = Keeper(), []

    def measure():
        measured.append(arrays_of(network.trainable_variables))
        return values[len(measured) - 1 + (resume_from.progress.epochs_done if resume_from else 0)], {}

    limits = config("train", "fit.epochs=4").fit
    loop = TrainingLoop(network, Batches(), limits, lambda epoch: 0.05, measure, keeper, "")
    loop.run(Progress(), resume_from)
    return network, keeper.kept, measured


def same(ones, others):
    for one, other in zip(ones, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_val_is_measured_on_the_averaged_weights_and_the_best_of_them_are_kept(keras):
    network, kept, measured = averaged_training(keras, [0.1, 0.4, 0.3, 0.2])
    same(arrays_of(network.trainable_variables), measured[1])
    for checkpoint, average in zip(kept, measured, strict=True):
        slots = [array for array in checkpoint.optimizer if array.shape == average[0].shape]
        assert any(np.allclose(slot, average[0]) for slot in slots)  # they are in the checkpoint
        assert not np.allclose(checkpoint.network[0], average[0])  # but training goes on from the last step's


@pytest.mark.parametrize("killed_after", [1, 3])
def test_a_resumed_training_with_averaged_weights_ends_as_an_undisturbed_one(keras, killed_after):
    values = [0.1, 0.4, 0.3, 0.5]
    network, kept, _ = averaged_training(keras, values)
    again, resumed, _ = averaged_training(keras, values, kept[killed_after - 1])
    assert [one.progress for one in resumed] == [one.progress for one in kept[killed_after:]]
    same(arrays_of(again.trainable_variables), arrays_of(network.trainable_variables))
    same(resumed[-1].network, kept[-1].network)
    same(resumed[-1].optimizer, kept[-1].optimizer)
