"""The machine's arithmetic against sums over all of its states, on machines small enough for that."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from sklearn.neural_network import BernoulliRBM

from wastelens.errors import ConfigError, DatasetError
from wastelens.models import rbm
from wastelens.models.rbm import RestrictedBoltzmannMachine, visible_statistics


def all_states(units):
    return np.array(list(itertools.product([0, 1], repeat=units)), np.float32)


def machine(visible="bernoulli", components=4, hidden=3, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (components, hidden), "visible_bias": components, "hidden_bias": hidden}
    weights = {name: rng.normal(0, spread, shape).astype(np.float32) for name, shape in shapes.items()}
    gaussian = visible == "gaussian"
    weights["visible_mean"] = rng.normal(0, 1, components) if gaussian else np.zeros(components)
    weights["visible_scale"] = rng.uniform(0.5, 2, components) if gaussian else np.ones(components)
    made = RestrictedBoltzmannMachine(hidden, visible)
    made.set_weights(weights)
    return made


def minus_energies(m, v):
    """-E(v, h), float64 (rows, 2^hidden), term by term, of visible units that are standardised already."""
    h = all_states(m.hidden_units).astype(np.float64)
    v = np.asarray(v, np.float64)
    alone = -np.square(v - m.visible_bias_).sum(1) / 2 if m.visible == "gaussian" else v @ m.visible_bias_
    return alone[:, None] + (h @ m.hidden_bias_)[None] + v @ m.kernel_ @ h.T


def exact_free_energy(m, v):
    return -np.log(np.exp(minus_energies(m, v)).sum(axis=1))


def exact_probabilities(m):
    """Return the probability of each state of Bernoulli visible units."""
    weight = np.exp(-exact_free_energy(m, all_states(len(m.visible_bias_))))
    return weight / weight.sum()


def gaussian_rows(m, rows=5, seed=1):
    """Return rows in the data's units, and standardised by hand."""
    v = np.random.default_rng(seed).normal(0, 1, (rows, len(m.visible_bias_))).astype(np.float32)
    return v * m.visible_scale_ + m.visible_mean_, v


def test_free_energy_of_bernoulli_units_is_the_sum_over_all_hidden_states():
    m, v = machine(), all_states(4)
    assert m.free_energy(v) == pytest.approx(exact_free_energy(m, v), abs=1e-5)


def test_free_energy_of_gaussian_units_is_the_sum_over_all_hidden_states():
    m = machine("gaussian")
    x, v = gaussian_rows(m)
    assert m.free_energy(x) == pytest.approx(exact_free_energy(m, v), abs=1e-4)


def test_free_energy_and_transform_of_large_input_stay_finite():
    m = machine(spread=300.0)
    v = all_states(4)
    assert np.isfinite(m.free_energy(v)).all()
    assert np.isfinite(m.transform(v)).all()
    assert np.isfinite(m.pseudo_likelihood(v, np.random.default_rng(0))).all()


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_transform_is_the_conditional_probability(visible):
    m = machine(visible)
    x, v = gaussian_rows(m) if visible == "gaussian" else (all_states(4), all_states(4))
    joint = np.exp(minus_energies(m, v))
    expected = joint @ all_states(3) / joint.sum(axis=1, keepdims=True)
    assert m.transform(x) == pytest.approx(expected, abs=1e-5)
    assert m.transform(x).dtype == np.float32


def test_reconstruction_of_bernoulli_units():
    m, v = machine(), all_states(4)
    h = 1 / (1 + np.exp(-(v @ m.kernel_ + m.hidden_bias_)))
    assert m.down(m.transform(v)) == pytest.approx(1 / (1 + np.exp(-(h @ m.kernel_.T + m.visible_bias_))), abs=1e-5)


def test_reconstruction_of_gaussian_units_comes_back_in_the_datas_units():
    m = machine("gaussian")
    x, v = gaussian_rows(m)
    h = 1 / (1 + np.exp(-(v @ m.kernel_ + m.hidden_bias_)))
    expected = (h @ m.kernel_.T + m.visible_bias_) * m.visible_scale_ + m.visible_mean_
    assert m.down(m.transform(x)) == pytest.approx(expected, abs=1e-4)


def test_pseudo_likelihood_is_scikit_learns():
    class SameFlips:
        def integers(self, low, high, size):
            return np.random.RandomState(7).randint(low, high, size)

    m, v = machine(components=6), all_states(6)
    peer = BernoulliRBM(n_components=3, random_state=7)
    peer.components_, peer.intercept_hidden_, peer.intercept_visible_ = m.kernel_.T, m.hidden_bias_, m.visible_bias_
    assert m.pseudo_likelihood(v, SameFlips()) == pytest.approx(peer.score_samples(v), abs=1e-4)


def test_pseudo_likelihood_is_the_exact_conditional():
    m, v = machine(components=3), all_states(3)
    component = np.random.default_rng(3).integers(0, 3, len(v))
    p = exact_probabilities(m)
    flipped = v.copy()
    flipped[np.arange(len(v)), component] = 1 - flipped[np.arange(len(v)), component]
    other = p[(flipped @ [4, 2, 1]).astype(int)]
    expected = 3 * np.log(p / (p + other))
    assert m.pseudo_likelihood(v, np.random.default_rng(3)) == pytest.approx(expected, abs=1e-4)


def test_gaussian_pseudo_likelihood_is_a_fine_integral():
    m = machine("gaussian", spread=1.5)
    x, v = gaussian_rows(m, rows=4)
    component = np.random.default_rng(3).integers(0, 4, len(v))
    expected = []
    for row, i in zip(v, component, strict=True):

        def density(value, row=row, i=i):
            changed = row.astype(np.float64)
            changed[i] = value
            return np.exp(-exact_free_energy(m, changed[None])[0] + exact_free_energy(m, row[None])[0])

        whole, _ = quad(density, -25, 25, limit=200)
        expected.append(4 * -np.log(whole))
    assert m.pseudo_likelihood(x, np.random.default_rng(3)) == pytest.approx(np.array(expected), abs=2e-3)


def test_gibbs_sampling_reaches_the_machines_own_distribution():
    m = machine()
    start = np.zeros((20_000, 4), np.float32)
    drawn = m.sample(start, 25, np.random.default_rng(0))
    share = np.bincount((drawn @ [8, 4, 2, 1]).astype(int), minlength=16) / len(drawn)
    assert share == pytest.approx(exact_probabilities(m), abs=0.015)
    assert exact_probabilities(m).max() - exact_probabilities(m).min() > 0.1, "a flat distribution would prove little"


def test_gaussian_gibbs_sampling_reaches_the_machines_own_moments():
    m = machine("gaussian", components=2, hidden=2, spread=0.7)
    drawn = m.sample(np.zeros((40_000, 2), np.float32), 25, np.random.default_rng(0))
    h = all_states(2)
    means = h @ m.kernel_.T + m.visible_bias_  # the marginal is a mixture with these means, unit variance
    log_weight = h @ m.hidden_bias_ + (np.square(means) - np.square(m.visible_bias_)).sum(axis=1) / 2
    weight = np.exp(log_weight) / np.exp(log_weight).sum()
    mean = weight @ means
    variance = 1 + weight @ np.square(means - mean)
    assert drawn.mean(axis=0) == pytest.approx(mean * m.visible_scale_ + m.visible_mean_, abs=0.05)
    assert drawn.var(axis=0) == pytest.approx(variance * m.visible_scale_**2, rel=0.05)


def test_the_same_generator_draws_the_same_samples():
    m = machine()
    one, two = (m.sample(all_states(4), 3, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_chunks_of_rows_change_nothing(visible, monkeypatch):
    m, x = machine(visible), all_states(4)
    whole = m.transform(x), m.free_energy(x), m.down(m.transform(x))
    monkeypatch.setattr(rbm, "CHUNK_BYTES", 5 * 16)
    assert rbm.chunk_rows(4) == 5
    for one, other in zip(whole, (m.transform(x), m.free_energy(x), m.down(m.transform(x))), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_uint8_are_pixels():
    m = machine(components=12)
    photos = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
    assert np.array_equal(m.transform(photos), m.transform(photos.reshape(5, 12).astype(np.float32) / 255))


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_arrays_round_trip(visible, tmp_path):
    m, x = machine(visible), all_states(4)
    np.savez(tmp_path / "m.npz", **m.weights())
    with np.load(tmp_path / "m.npz") as arrays:
        again = RestrictedBoltzmannMachine(m.hidden_units, visible)
        again.set_weights(arrays)
    assert np.array_equal(again.free_energy(x), m.free_energy(x))
    assert np.array_equal(again.down(again.transform(x)), m.down(m.transform(x)))


def test_statistics_in_chunks_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(rbm, "CHUNK_BYTES", 7 * 4 * 3)
    x = np.random.default_rng(0).normal(100, [1, 2, 3], (50, 3)).astype(np.float32)
    mean, deviation = visible_statistics(x, "gaussian")
    assert mean == pytest.approx(x.mean(axis=0, dtype=np.float64), rel=1e-9)
    assert deviation == pytest.approx(x.std(axis=0, dtype=np.float64), rel=1e-6)


def test_first_visible_bias_makes_the_datas_means():
    x = (np.random.default_rng(0).random((400, 3)) < [0.1, 0.5, 0.9]).astype(np.float32)
    x[:, 2] = 1
    m = RestrictedBoltzmannMachine(2)
    m.initialise(x, seed=0)
    assert 1 / (1 + np.exp(-m.visible_bias_)) == pytest.approx(x.mean(axis=0), abs=0.003)
    assert np.isfinite(m.visible_bias_).all()
    assert not m.hidden_bias_.any()


def test_gaussian_units_are_standardised_and_a_constant_one_stays_finite():
    x = np.random.default_rng(0).normal(5, [1, 2, 0], (400, 3)).astype(np.float32)
    m = RestrictedBoltzmannMachine(2, "gaussian")
    m.initialise(x, seed=0)
    assert m.visible_scale_[:2] == pytest.approx(x.std(axis=0)[:2], rel=1e-4)
    assert m.visible_scale_[2] > 0.01
    assert m.visible_mean_ == pytest.approx(x.mean(axis=0), rel=1e-4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.array([[0.0, 1.5]], np.float32), "from 0 to 1.5"),
        (np.array([[-0.5, 1.0]], np.float32), "learner.visible=gaussian"),
        (np.array([[0.5, np.nan]], np.float32), "not finite"),
        (np.zeros((0, 3), np.float32), "(0, 3)"),
    ],
)
def test_data_outside_the_range_of_bernoulli_units_are_refused(data, words):
    with pytest.raises(DatasetError) as caught:
        visible_statistics(data, "bernoulli")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_gaussian_units_refuse_values_that_are_not_finite():
    with pytest.raises(DatasetError, match="not finite"):
        visible_statistics(np.array([[np.inf, 0]], np.float32), "gaussian")


def test_no_hidden_units_are_refused():
    with pytest.raises(ConfigError, match="hidden_units is 0"):
        RestrictedBoltzmannMachine(0).initialise(all_states(2), seed=0)


def test_rows_of_another_width_are_refused():
    with pytest.raises(DatasetError, match="5 components"):
        machine().transform(np.zeros((2, 5), np.float32))
