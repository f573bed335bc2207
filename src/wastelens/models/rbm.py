"""A restricted Boltzmann machine: its weights, and the quantities computed from them.

Energy, for visible units v, hidden units h in {0, 1}, kernel W and biases b, c (Hinton 2010, "A practical guide
to training restricted Boltzmann machines", §2 and §13.2):

    Bernoulli, v in {0, 1}:   E(v, h) = -v·b - h·c - v·W·h
    Gaussian, v standardised: E(v, h) = ½ |v - b|² - h·c - v·W·h

``contrastive_divergence`` trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import numpy as np
from scipy.special import expit, logsumexp

from wastelens.errors import ConfigError, DatasetError, NonFiniteLossError
from wastelens.system.arrays import Array, Float32Array, FloatArray, IndexArray

Visible = Literal["bernoulli", "gaussian"]
ARRAYS = ("kernel", "visible_bias", "hidden_bias", "visible_mean", "visible_scale")

CHUNK_BYTES = 64 * 2**20  # of float32 rows in memory at once
_SCALE_FLOOR = 0.01  # share of the components' root mean square deviation, as that of a constant pixel is 0
_GRID_POINTS = 4000  # standardised pixels range over about -3 to 3; learned ones stay within some hundred steps
_GRID_STEP = 0.5  # after blurring by a unit Gaussian, the trapezoidal rule errs only by exp(-2 (pi / step)²)
_GRID_MARGIN = 8.0  # standard deviations beyond the outermost mean


class Rows(Protocol):
    """Rows of numbers, in memory or on disk: an array, or a memory map, (rows, ...).

    uint8 are pixels in 0-255, which a machine sees as x / 255; anything else is used unchanged.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, rows: slice, /) -> Any: ...


def n_visible(data: Rows) -> int:
    """Return the number of components per row."""
    return int(np.prod(data.shape[1:]))


def chunk_rows(components: int, multiple: int = 1) -> int:
    """Return how many rows of float32 fit into 64 MiB: a multiple of ``multiple``, and at least that."""
    return max(1, CHUNK_BYTES // (4 * components) // multiple) * multiple


def chunks(data: Rows) -> Iterator[tuple[slice, Float32Array]]:
    """Yield slices of rows, and those rows as float32 (rows, n_visible), pixels in [0, 1]; at most 64 MiB at once."""
    size = chunk_rows(n_visible(data))
    for start in range(0, data.shape[0], size):
        rows = slice(start, min(start + size, data.shape[0]))
        yield rows, as_floats(data[rows])


def as_floats(rows: Any) -> Float32Array:
    """Flatten rows (rows, ...) to float32 (rows, n_visible); uint8 0-255 to [0, 1]."""
    flat = np.asarray(rows).reshape(len(rows), -1)
    floats = flat.astype(np.float32, copy=False)
    return floats / np.float32(255) if flat.dtype == np.uint8 else floats


def visible_statistics(data: Rows, visible: Visible) -> tuple[FloatArray, FloatArray]:
    """Return each component's mean and standard deviation, float64 (n_visible,).

    All data are read once, chunk by chunk; values that such visible units cannot represent are refused.

    Raises:
        DatasetError: no rows, numbers that are not finite, or outside [0, 1] for Bernoulli units.
    """
    if len(data.shape) < 2 or data.shape[0] == 0 or n_visible(data) == 0:
        raise DatasetError(
            f"A machine learns from rows (rows, components), not from shape {tuple(data.shape)}: give other data."
        )
    mean = np.zeros(n_visible(data))
    squares = np.zeros_like(mean)
    for rows, x in chunks(data):
        low, high = x.min(), x.max()  # both are NaN if any value is
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DatasetError(f"The data range from {low:g} to {high:g}: leave out or fix rows that are not finite.")
        if visible == "bernoulli" and (low < 0 or high > 1):
            raise DatasetError(
                f"The data range from {low:g} to {high:g}, but Bernoulli visible units from 0 to 1: "
                "scale the data to [0, 1] or set learner.visible=gaussian."
            )
        count, before = len(x), rows.start
        step = x.mean(axis=0, dtype=np.float64) - mean
        squares += count * x.var(axis=0, dtype=np.float64) + step**2 * before * count / (before + count)  # Chan 1979
        mean += step * count / (before + count)
    return mean, np.sqrt(squares / data.shape[0])


class RestrictedBoltzmannMachine:
    """Visible units, hidden units, and a weight between every visible and every hidden unit.

    Attributes:
        hidden_units, visible: as given.
        kernel_: float32 (n_visible, hidden_units).
        visible_bias_: float32 (n_visible,). hidden_bias_: float32 (hidden_units,).
        visible_mean_, visible_scale_: float32 (n_visible,), in the data's units. Gaussian units stand for
            v = (x - mean) / scale with unit variance (Hinton 2010, §13.2); for Bernoulli units 0 and 1: v = x.

    Data x are (rows, ...) of any kind that ``Rows`` describes, and are read in chunks, so that memory does not grow
    with a memory map. Methods raise DatasetError if x has other components than the training data, and AttributeError
    before training.
    """

    kernel_: Float32Array
    visible_bias_: Float32Array
    hidden_bias_: Float32Array
    visible_mean_: Float32Array
    visible_scale_: Float32Array

    def __init__(self, hidden_units: int, visible: Visible = "bernoulli") -> None:
        self.hidden_units = hidden_units
        self.visible = visible

    def initialise(self, data: Rows, seed: int) -> None:
        """Draw initial weights: kernel N(0, 0.01²), b = log(p / (1 - p)) of the data's means (Hinton 2010, §8.1).

        A component that is always 0 or 1 would have an infinite bias, so p counts half an extra row of each value.

        Raises:
            ConfigError: no hidden units.
            DatasetError: see :func:`visible_statistics`.
        """
        if self.hidden_units < 1:
            raise ConfigError(
                f"learner.hidden_units is {self.hidden_units}, but a machine needs at least 1: give 1 or more."
            )
        mean, deviation = visible_statistics(data, self.visible)
        components = len(mean)
        kernel = np.random.default_rng(seed).normal(0, 0.01, (components, self.hidden_units))
        self.kernel_ = kernel.astype(np.float32)
        self.hidden_bias_ = np.zeros(self.hidden_units, np.float32)
        self.visible_bias_ = np.zeros(components, np.float32)
        self.visible_mean_ = np.zeros(components, np.float32)
        self.visible_scale_ = np.ones(components, np.float32)
        if self.visible == "gaussian":
            self.visible_mean_ = mean.astype(np.float32)
            typical = np.sqrt(np.mean(deviation**2))
            floor = _SCALE_FLOOR * typical if typical > 0 else 1.0
            self.visible_scale_ = np.maximum(deviation, floor).astype(np.float32)
        else:
            p = (mean * data.shape[0] + 0.5) / (data.shape[0] + 1)
            self.visible_bias_ = np.log(p / (1 - p)).astype(np.float32)

    def transform(self, x: Rows) -> Float32Array:
        """Return P(h = 1 | v) of each hidden unit: float32 (rows, hidden_units)."""
        return self._by_chunks(x, self.hidden_probabilities, (self.hidden_units,))

    def free_energy(self, x: Rows) -> Float32Array:
        """Return F(v) = -log Σ_h exp(-E(v, h)) in nats, float32 (rows,). Hinton 2010, §16.1."""
        return self._by_chunks(x, self._free_energy, ())

    def pseudo_likelihood(self, x: Rows, rng: np.random.Generator) -> Float32Array:
        """Estimate the log pseudo-likelihood of each row in nats, float32 (rows,), without bias, from one component.

        n_visible · log p(v_i | all others), i drawn at random for each row. Bernoulli: log σ(F(v with 1 - v_i) - F(v)),
        as in scikit-learn's ``BernoulliRBM.score_samples`` (Marlin et al. 2010, §3.3). Gaussian: the log
        density of the standardised v_i, by the trapezoidal rule.
        """
        conditional = self._log_density if self.visible == "gaussian" else self._log_probability

        def estimate(v: Float32Array) -> Float32Array:
            component = rng.integers(0, v.shape[1], len(v))
            scaled: Float32Array = np.float32(v.shape[1]) * conditional(v, component)
            return scaled

        return self._by_chunks(x, estimate, ())

    def sample(self, start: Rows, gibbs_steps: int, rng: np.random.Generator) -> Float32Array:
        """Run Gibbs chains from rows of data: each step draws h given v, then v given h.

        Returns:
            The chains' v, float32 (rows, n_visible), in x's own units; of Bernoulli units 0 or 1.
        """

        def walk(v: Float32Array) -> Float32Array:
            for _ in range(gibbs_steps):
                p = self.hidden_probabilities(v)
                v = self._sample_visible((rng.random(p.shape, np.float32) < p).astype(np.float32), rng)
            return v * self.visible_scale_ + self.visible_mean_

        return self._by_chunks(start, walk, (len(self.visible_bias_),))

    def hidden_probabilities(self, v: Float32Array) -> Float32Array:
        """Return P(h = 1 | v) for visible units v (rows, n_visible), Gaussian ones standardised, all at once."""
        probabilities: Float32Array = expit(v @ self.kernel_ + self.hidden_bias_)
        return probabilities

    def down(self, hidden: Float32Array) -> Float32Array:
        """Return the mean of the visible units given hidden (rows, hidden_units), in the data's units, all at once."""
        mean: Float32Array = self._visible_mean(hidden) * self.visible_scale_ + self.visible_mean_
        return mean

    def weights(self) -> dict[str, Float32Array]:
        """Return all learned arrays by name, for ``numpy.savez``."""
        return {name: getattr(self, f"{name}_") for name in ARRAYS}

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Copy in what :meth:`weights` returned."""
        for name in ARRAYS:
            setattr(self, f"{name}_", np.array(weights[name], np.float32))

    @property
    def fitted(self) -> bool:
        """Whether there are weights."""
        return hasattr(self, "kernel_")

    def forget(self) -> None:
        """Delete the weights."""
        for name in ARRAYS:
            self.__dict__.pop(f"{name}_", None)

    def _by_chunks(
        self, x: Rows, of_visible: Callable[[Float32Array], Float32Array], shape: tuple[int, ...]
    ) -> Float32Array:
        if n_visible(x) != len(self.visible_bias_):
            raise DatasetError(
                f"The rows have {n_visible(x)} components, but the machine learned from {len(self.visible_bias_)}."
            )
        result = np.empty((x.shape[0], *shape), np.float32)
        for rows, chunk in chunks(x):
            result[rows] = of_visible(self._standardised(chunk))
        return result

    def _standardised(self, x: Float32Array) -> Float32Array:
        if self.visible == "bernoulli":
            return x
        return (x - self.visible_mean_) / self.visible_scale_

    def _visible_mean(self, hidden: Float32Array) -> Float32Array:
        mean: Float32Array = hidden @ self.kernel_.T + self.visible_bias_
        return mean if self.visible == "gaussian" else expit(mean)

    def _sample_visible(self, hidden: Float32Array, rng: np.random.Generator) -> Float32Array:
        mean = self._visible_mean(hidden)
        if self.visible == "gaussian":
            return mean + rng.standard_normal(mean.shape, np.float32)
        return (rng.random(mean.shape, np.float32) < mean).astype(np.float32)

    def _free_energy(self, v: Float32Array) -> Float32Array:
        energy: Float32Array = -_softplus(v @ self.kernel_ + self.hidden_bias_).sum(axis=1)
        if self.visible == "gaussian":
            energy += np.square(v - self.visible_bias_).sum(axis=1) / 2
        else:
            energy -= v @ self.visible_bias_
        return energy

    def _log_probability(self, v: Float32Array, component: IndexArray) -> Float32Array:
        """Return log p(v_i | others) of Bernoulli units: a flip moves the hidden input by one row of the kernel."""
        change = 1 - 2 * np.take_along_axis(v, component[:, None], axis=1)
        into_hidden = v @ self.kernel_ + self.hidden_bias_
        flipped = into_hidden + change * self.kernel_[component]
        rise = _softplus(into_hidden).sum(axis=1) - _softplus(flipped).sum(axis=1)
        rise -= change[:, 0] * self.visible_bias_[component]
        return -_softplus(-rise)

    def _log_density(self, v: Float32Array, component: IndexArray) -> Float32Array:
        """Return log p(v_i | others) of Gaussian units: a mixture of 2^hidden Gaussians, normalised by quadrature."""
        values = np.take_along_axis(v, component[:, None], axis=1)
        rest = v @ self.kernel_ + self.hidden_bias_ - values * self.kernel_[component]
        result = np.empty(len(v), np.float32)
        # Bounds that contain nearly all of each component's density, whatever the hidden units.
        low = self.visible_bias_ + np.minimum(self.kernel_, 0).sum(axis=1) - _GRID_MARGIN
        high = self.visible_bias_ + np.maximum(self.kernel_, 0).sum(axis=1) + _GRID_MARGIN
        points = 1 + float(np.ceil((high - low).max() / _GRID_STEP))
        if not points <= _GRID_POINTS:  # nor NaN
            raise NonFiniteLossError(
                "Learning has diverged: a visible unit's weights grew without bound. Lower learner.learning_rate."
            )
        points = int(points)
        size = chunk_rows(self.hidden_units * (points + 1))
        for start in range(0, len(v), size):
            rows = slice(start, start + size)
            i = component[rows]
            grid = low[i, None] + _GRID_STEP * np.arange(points, dtype=np.float32)
            at_grid, here = (self._minus_energy(u, rest[rows], i) for u in (grid, values[rows]))
            result[rows] = here[:, 0] - logsumexp(at_grid, axis=1) - np.log(_GRID_STEP)
        return result

    def _minus_energy(self, values: Float32Array, rest: Float32Array, component: IndexArray) -> Float32Array:
        """Return -F up to a constant per row, for values (rows, points) of one component of each."""
        into_hidden = rest[:, None] + values[:, :, None] * self.kernel_[component][:, None]
        distance = values - self.visible_bias_[component, None]
        energy: Float32Array = _softplus(into_hidden).sum(axis=2) - np.square(distance) / 2
        return energy


def _softplus(x: Float32Array) -> Float32Array:
    """Return log(1 + exp(x)) without overflow."""
    result: Float32Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return result
