"""Contrastive divergence, which trains restricted Boltzmann machines (Hinton 2002; in practice: Hinton 2010).

An epoch is one TensorFlow graph call for each 64 MiB of data. Its five matrix products are unavoidable; the rest is
kept small: probabilities instead of samples for visible units, both halves of the gradient as one product
of joined matrices, momentum in one pass over the kernel, weight decay in one pass every few batches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import ContrastiveDivergenceConfig
from wastelens.errors import NonFiniteLossError
from wastelens.models import rbm
from wastelens.models.rbm import ARRAYS, RestrictedBoltzmannMachine, Rows, n_visible
from wastelens.system.arrays import Arrays

_DECAY_EVERY = 32  # batches
_ACTIVITY_MEMORY = 0.9  # of the hidden units' mean activity, from batch to batch (Hinton 2010, §11)
_SLOTS = ("kernel", "visible_bias", "hidden_bias")


class ContrastiveDivergence:
    """Trains one machine, one epoch per call.

    The gradient of a batch is ⟨v hᵀ⟩ of the data less ⟨v hᵀ⟩ after ``gibbs_steps`` steps of Gibbs sampling that
    start at the data (CD-k) or continue from the previous batch (``persistent``; Tieleman 2008), with probabilities for
    the last hidden units, and for visible ones unless ``sample_visible`` (Hinton 2010, §3). Then, for kernel and
    biases: velocity ← momentum · velocity + gradient; weights ← weights + learning_rate · velocity (§9).

    Weight decay shrinks the kernel by learning_rate · weight_decay / (1 - momentum) per batch, which
    equals decay within the gradient (§10), applied every 32 batches at once. The sparsity target p adds
    sparsity_cost · (p - q) to every hidden unit's input gradient, q being its running mean activity (§11).

    The machine is trained in place; one without weights is initialised from the first data. Of the config, ``epochs``,
    ``side_px`` and ``visible`` are ignored. An epoch's randomness follows from (seed, number). ``mixed_precision``:
    activations and products in bfloat16, weights and their updates in float32.
    """

    def __init__(
        self,
        machine: RestrictedBoltzmannMachine,
        config: ContrastiveDivergenceConfig,
        seed: int,
        mixed_precision: bool = False,
    ) -> None:
        self.machine = machine
        self.epochs_done = 0
        self._config = config
        self._seed = seed
        self._mixed = mixed_precision
        self._graph: _Graph | None = None
        self._held: tuple[Rows, Any] | None = None

    def epoch(self, data: Rows, epoch_number: int) -> dict[str, float]:
        """Train on all rows once, in random order.

        Data beyond 64 MiB are read in chunks of neighbouring rows; the chunks and the rows in each are shuffled.
        Smaller data are read once and kept: do not change an array after passing it; passing another one is fine.

        Returns:
            reconstruction_error: mean squared error per visible component (standardised, of Gaussian units) of the
            batches while they were trained on.

        Raises:
            DatasetError: see ``visible_statistics``; only for a machine without weights.
            NonFiniteLossError: weights that are not finite.
        """
        graph = self._ready(data)
        rng = np.random.default_rng([self._seed, epoch_number])
        size = rbm.chunk_rows(n_visible(data), multiple=self._config.batch_size)
        squared_error = 0.0
        for start in rng.permutation(np.arange(0, data.shape[0], size)):
            rows = self._tensor(data, slice(start, start + size))
            order, key = rng.permutation(rows.shape[0]).astype(np.int32), int(rng.integers(2**62))
            squared_error += graph.train(rows, order, key)
        graph.write_to(self.machine)
        finite = all(np.isfinite(array).all() for array in self.machine.weights().values())
        if not (finite and np.isfinite(squared_error)):
            raise NonFiniteLossError(
                f"The weights are no longer finite after epoch {epoch_number}: "
                f"set a learner.learning_rate below {self._config.learning_rate:g}."
            )
        self.epochs_done = epoch_number + 1
        return {"reconstruction_error": squared_error / (data.shape[0] * n_visible(data))}

    def state(self) -> Arrays:
        """Return all that training needs to continue: epochs done, machine, velocities, activity, chain."""
        assert self._graph is not None, "no epoch trained and nothing restored"
        return [np.array(self.epochs_done), *self.machine.weights().values(), *self._graph.memory()]

    def restore(self, state: Arrays) -> None:
        """Continue from what :meth:`state` returned, weights included, as if never interrupted."""
        self.epochs_done = int(state[0])
        weights, memory = state[1 : 1 + len(ARRAYS)], state[1 + len(ARRAYS) :]
        self.machine.set_weights(dict(zip(ARRAYS, weights, strict=True)))
        self._graph = _Graph(self.machine, self._config, self._seed, self._mixed)
        self._graph.remember(memory)

    def _ready(self, data: Rows) -> _Graph:
        if not self.machine.fitted:
            self.machine.initialise(data, self._seed)
        if self._graph is None:
            self._graph = _Graph(self.machine, self._config, self._seed, self._mixed)
        return self._graph

    def _tensor(self, data: Rows, rows: slice) -> Any:
        """Return rows (rows, n_visible): pixels stay uint8, a quarter of the memory, until they are in a batch."""
        import tensorflow as tf

        if self._held is not None and self._held[0] is data:
            return self._held[1]
        read = data[rows]
        flat = np.asarray(read).reshape(len(read), -1) if read.dtype == np.uint8 else rbm.as_floats(read)
        tensor = tf.convert_to_tensor(flat)
        self._held = (data, tensor) if len(flat) == data.shape[0] else None
        return tensor


class _Graph:
    """The variables of one training, and the graph that updates them."""

    def __init__(
        self, machine: RestrictedBoltzmannMachine, config: ContrastiveDivergenceConfig, seed: int, mixed: bool
    ) -> None:
        import tensorflow as tf

        self._tf = tf
        self._config = config
        self._gaussian = machine.visible == "gaussian"
        self._dtype = tf.bfloat16 if mixed else tf.float32
        self._weights = {name: tf.Variable(machine.weights()[name]) for name in _SLOTS}
        self._velocities = {name: tf.Variable(tf.zeros_like(self._weights[name])) for name in _SLOTS}
        self._mean, self._scale = (tf.constant(machine.weights()[name]) for name in ARRAYS[3:])
        self._activity = tf.Variable(tf.fill([machine.hidden_units], config.sparsity_target))
        particles = config.batch_size if config.persistent else 0
        chain = np.random.default_rng([seed]).integers(0, 2, (particles, machine.hidden_units))
        self._chain = tf.Variable(chain.astype(np.float32))
        self._remembered = [*self._velocities.values(), self._activity, self._chain]
        self._graphs: dict[Any, Any] = {}

    def train(self, rows: Any, order: npt.NDArray[np.int32], key: int) -> float:
        """Pass once over a tensor (rows, n_visible), uint8 or float32; return the sum of squared errors."""
        tf = self._tf
        if rows.dtype not in self._graphs:
            taken = [tf.TensorSpec([None, rows.shape[1]], rows.dtype), tf.TensorSpec([None], tf.int32)]
            function = tf.function(self._pass, input_signature=[*taken, tf.TensorSpec([], tf.int64)], autograph=False)
            self._graphs[rows.dtype] = function
        return float(self._graphs[rows.dtype](rows, order, key))

    def write_to(self, machine: RestrictedBoltzmannMachine) -> None:
        for name in _SLOTS:
            setattr(machine, f"{name}_", self._weights[name].numpy())

    def memory(self) -> Arrays:
        return [variable.numpy() for variable in self._remembered]

    def remember(self, memory: Arrays) -> None:
        for variable, array in zip(self._remembered, memory, strict=True):
            variable.assign(array)

    def _pass(self, rows: Any, order: Any, key: Any) -> Any:
        tf = self._tf
        size = self._config.batch_size
        batches = (tf.size(order) + size - 1) // size

        def body(number: Any, squared_error: Any) -> Any:
            batch = tf.gather(rows, order[number * size : (number + 1) * size])
            squared_error += self._step(batch, key, number)
            self._decay(number, batches)
            return number + 1, squared_error

        # double: a float32 sum over many batches loses what each adds
        start = (tf.constant(0), tf.constant(0.0, tf.float64))
        return tf.while_loop(lambda number, _: number < batches, body, start, parallel_iterations=1)[1]

    def _step(self, batch: Any, key: Any, number: Any) -> Any:
        """Learn from one batch; return its sum of squared errors."""
        tf = self._tf
        kernel, visible_bias, hidden_bias = (tf.cast(self._weights[name], self._dtype) for name in _SLOTS)
        draws = _Draws(tf, key, number, self._config.gibbs_steps)

        def up(v: Any) -> Any:
            return tf.sigmoid(tf.nn.bias_add(tf.matmul(v, kernel), hidden_bias))

        def down(h: Any) -> Any:
            mean = tf.nn.bias_add(tf.matmul(h, kernel, transpose_b=True), visible_bias)
            return mean if self._gaussian else tf.sigmoid(mean)

        x = tf.cast(batch, tf.float32) / 255 if batch.dtype == tf.uint8 else batch
        v = tf.cast((x - self._mean) / self._scale if self._gaussian else x, self._dtype)
        h = up(v)
        mean, v1, h1 = self._negative_phase(h, up, down, draws)
        # the persistent chain does not belong to this batch: rebuilding it costs one more product
        rebuilt = down(draws.binary(h)) if self._config.persistent else mean
        self._learn(v, h, v1, h1)
        return tf.cast(2 * tf.nn.l2_loss(tf.cast(v - rebuilt, tf.float32)), tf.float64)

    def _negative_phase(self, h: Any, up: Any, down: Any, draws: _Draws) -> tuple[Any, Any, Any]:
        """Sample from the batch or chain; return the mean of the last visible units, those units, and hidden ones."""
        tf, config = self._tf, self._config
        sampled = tf.cast(self._chain, self._dtype) if config.persistent else draws.binary(h)
        for _ in range(config.gibbs_steps - 1):
            sampled = draws.binary(up(self._sampled_visible(down(sampled), draws)))
        mean = down(sampled)
        v1 = self._sampled_visible(mean, draws)
        h1 = up(v1)
        if config.persistent:
            self._chain.assign(tf.cast(draws.binary(h1), tf.float32))
        return mean, v1, h1

    def _learn(self, v: Any, h: Any, v1: Any, h1: Any) -> None:
        """Update the weights. Each row's share multiplies the hidden units: there are fewer of them."""
        tf = self._tf
        shares = tf.cast(tf.concat([_even_shares(tf, h, -1.0), _even_shares(tf, h1, 1.0)], 0), self._dtype)
        hidden = tf.concat([self._encouraged(h), h1], 0) * shares
        visible = tf.concat([v, v1], 0)
        self._move("kernel", tf.matmul(visible, hidden, transpose_a=True))
        self._move("visible_bias", tf.matmul(shares, visible, transpose_a=True)[0])
        self._move("hidden_bias", tf.reduce_sum(hidden, 0))

    def _move(self, name: str, minus_gradient: Any) -> None:
        self._tf.raw_ops.ResourceApplyMomentum(
            var=self._weights[name].handle,
            accum=self._velocities[name].handle,
            lr=self._config.learning_rate,
            grad=self._tf.cast(minus_gradient, self._tf.float32),
            momentum=self._config.momentum,
        )

    def _sampled_visible(self, mean: Any, draws: _Draws) -> Any:
        if not self._config.sample_visible:
            return mean
        return draws.normal(mean) if self._gaussian else draws.binary(mean)

    def _encouraged(self, h: Any) -> Any:
        """Shift the hidden probabilities of the data towards the sparsity target."""
        tf, target = self._tf, self._config.sparsity_target
        if target == 0:
            return h
        now = tf.reduce_mean(tf.cast(h, tf.float32), 0)
        activity = self._activity.assign(_ACTIVITY_MEMORY * self._activity + (1 - _ACTIVITY_MEMORY) * now)
        return h + tf.cast(self._config.sparsity_cost * (target - activity), h.dtype)

    def _decay(self, number: Any, batches: Any) -> None:
        """Apply the weight decay of all batches since the last time."""
        tf, config = self._tf, self._config
        if config.weight_decay == 0:
            return
        kept = 1 - config.learning_rate * config.weight_decay / (1 - config.momentum)
        since = number % _DECAY_EVERY + 1
        due = (since == _DECAY_EVERY) | (number + 1 == batches)

        def shrink() -> Any:
            kernel = self._weights["kernel"]
            kernel.assign(kernel * tf.pow(kept, tf.cast(since, tf.float32)))
            return tf.no_op()

        tf.cond(due, shrink, tf.no_op)


def _even_shares(tf: Any, rows: Any, total: float) -> Any:
    """Return equal shares of a total for each row, (rows, 1), float32."""
    count = tf.shape(rows)[0]
    return tf.fill([count, 1], total / tf.cast(count, tf.float32))


class _Draws:
    """Random numbers of one batch, none of them drawn twice: a counter within (key of the chunk's pass, batch)."""

    def __init__(self, tf: Any, key: Any, batch: Any, gibbs_steps: int) -> None:
        self._tf = tf
        self._key = key
        self._next = tf.cast(batch, tf.int64) * (2 * gibbs_steps + 2)

    def binary(self, probabilities: Any) -> Any:
        """Draw 1 with the given probabilities, otherwise 0."""
        tf = self._tf
        uniform = tf.random.stateless_uniform(tf.shape(probabilities), self._seed())
        return tf.cast(uniform < tf.cast(probabilities, tf.float32), probabilities.dtype)

    def normal(self, mean: Any) -> Any:
        """Draw from Gaussians with these means and unit variance."""
        tf = self._tf
        return mean + tf.cast(tf.random.stateless_normal(tf.shape(mean), self._seed()), mean.dtype)

    def _seed(self) -> Any:
        self._next += 1
        return self._tf.stack([self._key, self._next])
