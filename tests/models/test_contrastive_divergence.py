"""Training against exact gradients and likelihoods, which tiny machines allow."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
from tests.factories import config, train_machine
from tests.models.test_rbm import all_states, exact_probabilities, machine

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from wastelens.errors import DatasetError, NonFiniteLossError
from wastelens.models import rbm
from wastelens.models.contrastive_divergence import ContrastiveDivergence, _Draws
from wastelens.models.rbm import RestrictedBoltzmannMachine

PLAIN = "learner.momentum=0 learner.weight_decay=0 learner.sparsity_target=0"
ALL = "learner.persistent=true learner.sparsity_target=0.2 learner.sample_visible=true learner.gibbs_steps=2"


def learner(**settings):
    text = " ".join(f"learner.{name}={value}" for name, value in settings.items())
    return config("pretrain", f"{PLAIN} learner.epochs=3 learner.batch_size=16 {text}", method="rbm").learner


def rows(count=50, components=12, seed=0):
    """Return binary rows of four kinds with a little noise."""
    rng = np.random.default_rng(seed)
    kinds = rng.random((4, components)) < 0.5
    flips = rng.random((count, components)) < 0.05
    return (kinds[rng.integers(0, 4, count)] ^ flips).astype(np.float32)


def trained(data, hidden=5, seed=0, visible="bernoulli", **settings):
    return train_machine(RestrictedBoltzmannMachine(hidden, visible), data, learner(**settings), seed=seed)[0]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_step(m, data, copies, **settings):
    """Return the change of kernel, visible and hidden bias by one batch of many copies, at learning rate 1."""
    before = [array.copy() for array in (m.kernel_, m.visible_bias_, m.hidden_bias_)]
    batch = np.tile(data, (copies, 1))
    settings = {"learning_rate": 1, "batch_size": len(batch), **settings}
    ContrastiveDivergence(m, learner(**settings), seed=1).epoch(batch, 0)
    after = (m.kernel_, m.visible_bias_, m.hidden_bias_)
    return [new - old for new, old in zip(after, before, strict=True)]


def enumerated_cd1(m, data):
    """Return the expected gradient of CD-1 with visible means: all hidden states, each with its probability."""
    kernel, visible, hidden = np.zeros_like(m.kernel_), np.zeros_like(m.visible_bias_), np.zeros_like(m.hidden_bias_)
    for v in data:
        p = sigmoid(v @ m.kernel_ + m.hidden_bias_)
        for h in all_states(m.hidden_units):
            chance = np.prod(np.where(h == 1, p, 1 - p)) / len(data)
            v1 = m.kernel_ @ h + m.visible_bias_
            v1 = v1 if m.visible == "gaussian" else sigmoid(v1)
            p1 = sigmoid(v1 @ m.kernel_ + m.hidden_bias_)
            kernel += chance * (np.outer(v, p) - np.outer(v1, p1))
            visible += chance * (v - v1)
            hidden += chance * (p - p1)
    return kernel, visible, hidden


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_one_step_is_the_enumerated_cd1_gradient(visible):
    m = machine(visible, components=3, hidden=2)
    v = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]], np.float32)
    expected = enumerated_cd1(m, v)
    found = one_step(m, v * m.visible_scale_ + m.visible_mean_, copies=20_000)
    assert np.abs(expected[0]).max() > 0.1
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=0.01)


def test_many_gibbs_steps_give_the_gradient_of_the_likelihood():
    m = machine(components=3, hidden=2, spread=0)
    m.kernel_ = np.array([[2, 0], [2, 1], [0, 2]], np.float32)
    m.visible_bias_, m.hidden_bias_ = -m.kernel_.sum(axis=1) / 2, -m.kernel_.sum(axis=0) / 2
    v, states = np.ones((1, 3), np.float32), all_states(3)
    of_data = v.T @ sigmoid(v @ m.kernel_ + m.hidden_bias_)
    p = exact_probabilities(m)
    of_model = (states * p[:, None]).T @ sigmoid(states @ m.kernel_ + m.hidden_bias_)
    visible = v.mean(axis=0) - p @ states
    short, _, _ = one_step(copy.deepcopy(m), v, copies=40_000, gibbs_steps=1, sample_visible="true")
    found = one_step(m, v, copies=40_000, gibbs_steps=30, sample_visible="true")
    assert np.abs(short - (of_data - of_model)).max() > 0.05, "one step that is as good would prove little"
    assert found[0] == pytest.approx(of_data - of_model, abs=0.015)
    assert found[1] == pytest.approx(visible, abs=0.015)


def test_trained_on_samples_of_a_machine_comes_near_its_likelihood():
    truth = machine(components=6, hidden=2, spread=0)
    truth.kernel_ = np.array([[3, 3, 3, -3, 0, 0], [0, 0, 3, -3, 3, 3]], np.float32).T
    truth.visible_bias_, truth.hidden_bias_ = -truth.kernel_.sum(axis=1) / 2, np.array([-2, -1], np.float32)
    states, p = all_states(6), exact_probabilities(truth)
    data = states[np.random.default_rng(0).choice(len(p), 2000, p=p)]
    learnt = trained(
        data, hidden=3, persistent="true", sample_visible="true", learning_rate=0.05, epochs=200, batch_size=50
    )
    index = (data @ 2 ** np.arange(5, -1, -1)).astype(int)
    reached, true = (np.log(exact_probabilities(m))[index].mean() for m in (learnt, truth))
    means = data.mean(axis=0)
    independent = (data * np.log(means) + (1 - data) * np.log(1 - means)).sum(axis=1).mean()
    assert true - independent > 0.15, "a machine whose components are independent would prove little"
    assert reached > true - 0.04


def test_same_seed_same_weights_and_another_seed_others():
    one, two, three = (trained(rows(), seed=seed) for seed in (0, 0, 1))
    assert one.kernel_ == pytest.approx(two.kernel_, abs=1e-6)
    assert not np.allclose(one.kernel_, three.kernel_, atol=1e-3)


def test_every_epoch_has_its_own_randomness():
    data, kernels = rows(), []
    for epoch in (0, 1, 1):
        m = machine(components=12, hidden=5)
        ContrastiveDivergence(m, learner(), seed=0).epoch(data, epoch)
        kernels.append(m.kernel_)
    assert not np.allclose(kernels[0], kernels[1], atol=1e-4)
    assert kernels[1] == pytest.approx(kernels[2], abs=1e-6)


def test_no_random_numbers_are_drawn_twice():
    import tensorflow as tf

    p = tf.fill([8, 8], 0.5)
    drawn = []
    for key, batch in ((1, 0), (1, 1), (2, 0)):
        draws = _Draws(tf, tf.constant(key, tf.int64), tf.constant(batch), gibbs_steps=2)
        drawn += [draws.binary(p).numpy().tobytes() for _ in range(6)]  # the most that two Gibbs steps take
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize(
    "settings", ["", "learner.momentum=0.5 learner.weight_decay=0.01", f"{ALL} learner.momentum=0.5"]
)
def test_resumed_training_equals_uninterrupted(settings):
    data = rows()
    how = config("pretrain", f"{PLAIN} learner.batch_size=16 {settings}", method="rbm").learner
    whole, first, second = (RestrictedBoltzmannMachine(5) for _ in range(3))
    undisturbed, stopped, resumed = (ContrastiveDivergence(m, how, seed=3) for m in (whole, first, second))
    for epoch in range(4):
        expected = undisturbed.epoch(data, epoch)
    for epoch in range(2):
        stopped.epoch(data, epoch)
    resumed.restore([array.copy() for array in stopped.state()])
    assert resumed.epochs_done == 2
    for epoch in range(2, 4):
        found = resumed.epoch(data, epoch)
    assert found == pytest.approx(expected)
    for one, other in zip(resumed.state(), undisturbed.state(), strict=True):
        assert one == pytest.approx(other, abs=1e-6)


class Watched:
    """An array that records the longest slice taken of it."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.longest = data, data.shape, data.dtype, 0

    def __getitem__(self, rows):
        found = self.data[rows]
        self.longest = max(self.longest, len(found))
        return found


def test_pixels_from_a_file_in_chunks_equal_floats_in_memory(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 2, 2, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    monkeypatch.setattr(rbm, "CHUNK_BYTES", 40 * 4 * 12)
    watched = Watched(np.load(tmp_path / "pixels.npy", mmap_mode="r"))
    from_file = trained(watched)
    in_memory = trained(pixels.reshape(100, 12).astype(np.float32) / 255)
    assert watched.longest <= 40
    assert from_file.kernel_ == pytest.approx(in_memory.kernel_, abs=1e-6)
    monkeypatch.undo()
    one_chunk = trained(pixels)
    assert not np.allclose(one_chunk.kernel_, in_memory.kernel_, atol=1e-7), "the chunks were not in use"


def test_every_row_is_seen_once_also_in_the_last_short_batch():
    """Without the hidden units, the visible bias follows each batch's residual: missed rows would show."""
    data = np.zeros((5, 3), np.float32)
    data[2] = 1
    m = machine(components=3, hidden=2, spread=0)
    ContrastiveDivergence(m, learner(batch_size=2, learning_rate=1e-4), seed=0).epoch(data, 0)
    share = m.visible_bias_ / 1e-4 + 3 * 0.5  # three batches, each less the 0.5 of the model
    assert share == pytest.approx(share[0])
    assert min(abs(share[0] - 1 / 2), abs(share[0] - 1)) < 0.01  # in a batch of two, or alone in the last


def test_reconstruction_error_is_the_mean_square_and_falls():
    data = rows(200)
    _, errors = train_machine(RestrictedBoltzmannMachine(8), data, learner(learning_rate=0.2, epochs=20), seed=0)
    p = data.mean(axis=0)
    assert errors[0] == pytest.approx((p * (1 - p)).mean(), rel=0.05)  # what the means alone leave
    assert errors[-1] < 0.6 * errors[0]


def test_persistent_chain_continues_and_is_part_of_the_state():
    m = RestrictedBoltzmannMachine(5)
    training = ContrastiveDivergence(m, learner(persistent="true"), seed=0)
    training.epoch(rows(), 0)
    first = training.state()[-1]
    training.epoch(rows(), 1)
    second = training.state()[-1]
    assert first.shape == (16, 5)
    assert set(np.unique(second)) <= {0, 1}
    assert not np.array_equal(first, second)


def test_chain_does_not_start_at_the_data():
    """Opposite data, same chain: the negative half of the persistent gradient is the same."""
    steps = []
    for value in (0.0, 1.0):
        m = machine(components=3, hidden=2, seed=2)
        data = np.full((8, 3), value, np.float32)
        steps.append(one_step(m, data, 1, persistent="true")[1] - value)
    assert steps[0] == pytest.approx(steps[1], abs=1e-6)


def test_sparsity_target_moves_the_mean_activity():
    data = rows(200)
    means = [
        trained(data, hidden=10, sparsity_target=target, sparsity_cost=2, learning_rate=0.1, epochs=30)
        .transform(data)
        .mean()
        for target in (0, 0.1, 0.8)
    ]
    assert means[1] == pytest.approx(0.1, abs=0.07)
    assert means[2] == pytest.approx(0.8, abs=0.1)
    assert abs(means[0] - 0.1) > abs(means[1] - 0.1)


def test_weight_decay_is_that_of_every_batch():
    """With nothing to learn in an epoch of 40 batches, the decay doubles at momentum 0.5, as in Hinton's formula."""
    data = np.full((40, 3), 0.5, np.float32)
    for momentum, strength in ((0, 1), (0.5, 2)):
        m = machine(components=3, hidden=2, spread=0)
        m.kernel_ = np.full((3, 2), 1e-3, np.float32)
        ContrastiveDivergence(
            m, learner(batch_size=1, learning_rate=1e-3, weight_decay=10, momentum=momentum), seed=0
        ).epoch(data, 0)
        assert m.kernel_.mean() == pytest.approx(1e-3 * (1 - strength * 1e-2) ** 40, rel=0.01)


def test_momentum_adds_up_velocities():
    """Two batches of the same rows: after the second the biases have moved by the gradient 1 + 1 + momentum times."""
    data = np.ones((8, 3), np.float32)
    m = machine(components=3, hidden=2, spread=0)
    ContrastiveDivergence(m, learner(batch_size=4, learning_rate=1e-4, momentum=0.5), seed=0).epoch(data, 0)
    assert m.visible_bias_ == pytest.approx(np.full(3, 2.5 * 0.5 * 1e-4), rel=1e-3)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_bfloat16_learns_as_much(visible):
    data = rows(200)
    rate = 0.1 if visible == "bernoulli" else 0.01
    scores = []
    for mixed in (False, True):
        config = learner(learning_rate=rate, epochs=20)
        m, _ = train_machine(RestrictedBoltzmannMachine(8, visible), data, config, seed=0, mixed_precision=mixed)
        assert m.kernel_.dtype == np.float32
        scores.append(m.pseudo_likelihood(np.tile(data, (20, 1)), np.random.default_rng(0)).mean())
    assert scores[1] == pytest.approx(scores[0], rel=0.05)


def test_gaussian_units_learn():
    data = rows(200) * 40 - 7
    fresh, learnt = (trained(data, visible="gaussian", learning_rate=0.02, epochs=n, hidden=8) for n in (1, 60))
    error = [np.square(m.down(m.transform(data)) - data).mean() for m in (fresh, learnt)]
    assert error[1] < 0.5 * error[0]


def test_weights_that_run_away_name_the_epoch_and_the_fix():
    data = np.random.default_rng(0).normal(0, 1, (200, 12)).astype(np.float32)
    with pytest.raises(NonFiniteLossError, match=r"after epoch \d+: set a learner.learning_rate below 1000"):
        trained(data, visible="gaussian", learning_rate=1000, epochs=50)


def test_bad_data_are_refused_before_training():
    with pytest.raises(DatasetError, match=r"from 0 to 2"):
        trained(rows() * 2)
    with pytest.raises(DatasetError, match=r"from 0 to 2"):
        ContrastiveDivergence(RestrictedBoltzmannMachine(3), learner(), seed=0).epoch(rows() * 2, 0)
