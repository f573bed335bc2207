"""The stack against its machines one by one, and training that is stopped and taken up again."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from tests.factories import config, train_machine, train_stack

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from wastelens.errors import ConfigError
from wastelens.models import dbn, rbm
from wastelens.models.dbn import DeepBeliefNetwork, LayerwiseTraining, layer_seed
from wastelens.models.rbm import RestrictedBoltzmannMachine

SEED = 5


def learner(settings=""):
    return config("pretrain", f"learner.epochs=2 learner.batch_size=16 {settings}", method="dbn").learner


def rows(count=50, components=12):
    rng = np.random.default_rng(0)
    kinds = rng.random((4, components))
    return np.clip(kinds[rng.integers(0, 4, count)] + rng.normal(0, 0.1, (count, components)), 0, 1).astype(np.float32)


def stack(units=(6, 5, 4), visible="bernoulli", data=None, settings="learner.learning_rate=0.02"):
    data = rows() if data is None else data
    return train_stack(DeepBeliefNetwork(units, visible), data, learner(settings), seed=SEED)


def test_stack_is_its_layers_trained_by_hand():
    network, seen = stack(), rows()
    for layer, units in enumerate((6, 5, 4)):
        config, seed = learner("learner.learning_rate=0.02"), layer_seed(SEED, layer)
        machine, _ = train_machine(RestrictedBoltzmannMachine(units), seen, config, seed=seed)
        assert network.machines[layer].kernel_ == pytest.approx(machine.kernel_, abs=1e-5)
        seen = machine.transform(seen)
    assert network.transform(rows()) == pytest.approx(seen, abs=1e-5)
    for machine in reversed(network.machines):
        seen = machine.down(seen)
    assert network.reconstruct(rows()) == pytest.approx(seen, abs=1e-5)


def test_one_machine_is_a_stack_of_one():
    network = stack((6,))
    machine, _ = train_machine(RestrictedBoltzmannMachine(6), rows(), learner("learner.learning_rate=0.02"), seed=SEED)
    assert network.transform(rows()) == pytest.approx(machine.transform(rows()), abs=1e-6)
    one, other = (m.sample(rows(), 2, np.random.default_rng(0)) for m in (network, machine))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_dense_weights_give_the_stacks_activations(visible):
    network = stack(visible=visible)
    lowest = network.machines[0]
    x = (rows() - lowest.visible_mean_) / lowest.visible_scale_
    for kernel, bias in network.dense_weights():
        x = 1 / (1 + np.exp(-(x @ kernel + bias)))
    assert network.transform(rows()) == pytest.approx(x, abs=1e-5)
    assert lowest.visible_mean_.any() == (visible == "gaussian")


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_arrays_round_trip(visible, tmp_path):
    network = stack(visible=visible)
    np.savez(tmp_path / "dbn.npz", **network.weights())
    with np.load(tmp_path / "dbn.npz") as arrays:
        again = DeepBeliefNetwork(network.hidden_units, visible)
        for layer, machine in enumerate(again.machines):
            machine.set_weights({name: arrays[f"{layer}_{name}"] for name in rbm.ARRAYS})
    assert [m.visible for m in again.machines] == [visible, "bernoulli", "bernoulli"]
    assert np.array_equal(again.reconstruct(rows()), network.reconstruct(rows()))


@pytest.mark.parametrize("stop_after", range(1, 7))
def test_resumed_training_equals_uninterrupted(stop_after):
    """Stopped within a layer, between two, and at the end."""
    expected = stack(settings="learner.persistent=true")
    stopped = LayerwiseTraining(DeepBeliefNetwork((6, 5, 4)), rows(), learner("learner.persistent=true"), SEED)
    for _ in range(stop_after):
        stopped.epoch()
    network = DeepBeliefNetwork((6, 5, 4))
    resumed = LayerwiseTraining(network, rows(), learner("learner.persistent=true"), SEED)
    resumed.restore([array.copy() for array in stopped.state()])
    assert resumed.layer == stopped.layer == stop_after // 2
    for _ in range(6 - stop_after):
        assert not resumed.finished
        resumed.epoch()
    assert resumed.finished
    for name, array in network.weights().items():
        assert array == pytest.approx(expected.weights()[name], abs=1e-5)


def test_state_before_the_first_epoch_is_a_fresh_start():
    training = LayerwiseTraining(DeepBeliefNetwork((6,)), rows(), learner(), SEED)
    other = LayerwiseTraining(DeepBeliefNetwork((6,)), rows(), learner(), SEED)
    other.restore(training.state())
    assert other.epoch() == training.epoch()


def test_layers_are_trained_one_after_another_for_all_their_epochs():
    training, heard = LayerwiseTraining(DeepBeliefNetwork((6, 5)), rows(), learner(), SEED), []
    while not training.finished:
        heard.append((training.layer, training.epoch()))
    assert [layer for layer, _ in heard] == [0, 0, 1, 1]
    assert all(metrics["reconstruction_error"] > 0 for _, metrics in heard)


def test_training_again_forgets_the_old_weights():
    network = stack()
    old = network.weights()
    train_stack(network, rows(), learner("learner.learning_rate=0.02"), seed=SEED)
    for name, array in network.weights().items():
        assert array == pytest.approx(old[name], abs=1e-6)


def mapped_files(folder):
    """Count the files of a folder that this process has mapped, with a name or without."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="counts the process's mapped files in /proc")
def test_large_activations_go_to_a_file_that_leaves_nothing_behind(tmp_path, monkeypatch):
    in_memory = stack()
    monkeypatch.setattr(dbn, "CHUNK_BYTES", 100)
    network = DeepBeliefNetwork((6, 5, 4))
    training = LayerwiseTraining(network, rows(), learner("learner.learning_rate=0.02"), SEED, folder=tmp_path)
    for epoch in range(6):
        training.epoch()
        if epoch == 2:  # the first of the second layer
            assert mapped_files(tmp_path) > 0, "the activations were kept in memory"
    del training
    gc.collect()
    assert mapped_files(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []
    assert network.machines[2].kernel_ == pytest.approx(in_memory.machines[2].kernel_, abs=1e-5)


def test_chunks_of_rows_change_nothing(monkeypatch):
    network = stack()
    whole = network.transform(rows()), network.reconstruct(rows())
    monkeypatch.setattr(rbm, "CHUNK_BYTES", 7 * 4 * 12)
    assert network.transform(rows()) == pytest.approx(whole[0], abs=1e-5)
    assert network.reconstruct(rows()) == pytest.approx(whole[1], abs=1e-5)


def test_samples_are_the_top_machines_taken_down():
    network = stack()
    low, middle, top = network.machines
    walked = top.sample(middle.transform(low.transform(rows())), 3, np.random.default_rng(1))
    drawn = network.sample(rows(), 3, np.random.default_rng(1))
    assert drawn == pytest.approx(low.down(middle.down(walked)), abs=1e-6)
    assert drawn.shape == rows().shape
    assert 0 <= drawn.min() <= drawn.max() <= 1


def test_photos_as_pixels():
    photos = (rows() * 255).astype(np.uint8).reshape(50, 2, 2, 3)
    network = stack(data=photos)
    flat = photos.reshape(50, 12).astype(np.float32) / 255
    assert network.transform(photos) == pytest.approx(stack(data=flat).transform(flat), abs=1e-5)


@pytest.mark.parametrize("units", [(), (5, 0)])
def test_a_stack_without_units_is_refused(units):
    with pytest.raises(ConfigError, match="hidden_units is"):
        LayerwiseTraining(DeepBeliefNetwork(units), rows(), learner(), seed=0)
