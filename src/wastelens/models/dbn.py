"""A stack of restricted Boltzmann machines (Hinton, Osindero & Teh 2006, "A fast learning algorithm for deep belief
nets", §4-5): each learns from the hidden probabilities of the one below. A single machine is a stack of one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from wastelens.config.networks import ContrastiveDivergenceConfig
from wastelens.errors import ConfigError
from wastelens.models.contrastive_divergence import ContrastiveDivergence
from wastelens.models.rbm import ARRAYS, CHUNK_BYTES, RestrictedBoltzmannMachine, Rows, Visible, chunks
from wastelens.system.arrays import Arrays, Float32Array


class DeepBeliefNetwork:
    """A stack of machines.

    Attributes:
        hidden_units: of each layer, from the bottom up.
        visible: the kind of the lowest machine's visible units; all others' are Bernoulli.
        machines: a RestrictedBoltzmannMachine for each layer.

    Data x are as ``rbm.Rows`` describes, and are read in chunks.
    """

    def __init__(self, hidden_units: Sequence[int], visible: Visible = "bernoulli") -> None:
        self.hidden_units = tuple(hidden_units)
        self.visible = visible
        self.machines = tuple(
            RestrictedBoltzmannMachine(units, "bernoulli" if layer else visible)
            for layer, units in enumerate(self.hidden_units)
        )

    def transform(self, x: Rows) -> Float32Array:
        """Return the top machine's hidden probabilities: float32 (rows, hidden_units[-1])."""
        return _up(self.machines, x)

    def reconstruct(self, x: Rows) -> Float32Array:
        """Go all the way up and down by probabilities: float32 (rows, n_visible) in x's units, pixels in [0, 1]."""
        result = np.empty((x.shape[0], len(self.machines[0].visible_bias_)), np.float32)
        for rows, chunk in chunks(x):
            result[rows] = _down(self.machines, self.transform(chunk))
        return result

    def sample(self, start: Rows, gibbs_steps: int, rng: np.random.Generator) -> Float32Array:
        """Draw samples of the model: Gibbs sampling in the top machine, then down by probabilities (§4).

        The chains start at rows of data; the result is float32 (rows, n_visible), in the data's units.
        """
        below, top = self.machines[:-1], self.machines[-1]
        walked = top.sample(_up(below, start) if below else start, gibbs_steps, rng)
        return _down(below, walked)

    def dense_weights(self) -> list[tuple[Float32Array, Float32Array]]:
        """Return kernel and bias of each layer: x ← σ(x · kernel + bias), from the visible vector to the top.

        The visible vector of Gaussian units is standardised by the lowest machine's ``visible_mean_`` and
        ``visible_scale_``.
        """
        return [(machine.kernel_, machine.hidden_bias_) for machine in self.machines]

    def weights(self) -> dict[str, Float32Array]:
        """Return all learned arrays by name (``0_kernel``, ...), for ``numpy.savez``."""
        return {
            f"{layer}_{name}": array
            for layer, machine in enumerate(self.machines)
            for name, array in machine.weights().items()
        }


class LayerwiseTraining:
    """Greedy training of a stack, one epoch per call, which can be interrupted and resumed after any epoch.

    A layer's input is computed once, when the layer starts: float32, in memory up to 64 MiB, otherwise in an unnamed
    temporary file that disappears with this object or the process.

    The network is trained in place, from new random weights. The config's ``epochs`` are each layer's; its ``visible``
    and ``hidden_units`` are ignored. ``mixed_precision`` multiplies in bfloat16; ``folder`` is for the temporary file.

    Attributes:
        layer: trained next, from 0; the number of layers at the end.

    Raises:
        ConfigError: no layers, or one without hidden units. See also ``ContrastiveDivergence``.
    """

    def __init__(
        self,
        network: DeepBeliefNetwork,
        data: Rows,
        config: ContrastiveDivergenceConfig,
        seed: int,
        mixed_precision: bool = False,
        folder: Path | None = None,
    ) -> None:
        if not network.machines or min(network.hidden_units) < 1:
            raise ConfigError(
                f"learner.hidden_units is {list(network.hidden_units)}, but a stack needs at least 1 layer, and each "
                "layer at least 1 hidden unit: give a list such as [256, 256]."
            )
        self.layer = 0
        self._network = network
        self._data = data
        self._config = config
        self._seed = seed
        self._mixed = mixed_precision
        self._folder = folder
        self._seen: Rows | None = None
        self._training: ContrastiveDivergence | None = None
        self._begin(0)

    @property
    def finished(self) -> bool:
        """Whether all layers are trained."""
        return self.layer == len(self._network.machines)

    def epoch(self) -> dict[str, float]:
        """Train the current layer once on all rows; after its last epoch, move on to the next layer.

        Returns:
            reconstruction_error: of this layer; see ``ContrastiveDivergence.epoch``.
        """
        assert self._training is not None, "all layers are trained"
        if self._seen is None:
            # Computed from the data up, so that resuming gives the same bits.
            below = self._network.machines[: self.layer]
            self._seen = _up(below, self._data, room=self._room) if below else self._data
        metrics = self._training.epoch(self._seen, self._training.epochs_done)
        if self._training.epochs_done == self._config.epochs:
            self._begin(self.layer + 1)
        return metrics

    def state(self) -> Arrays:
        """Return the layer, the finished layers' weights, and the state of the current one."""
        finished = [array for machine in self._network.machines[: self.layer] for array in machine.weights().values()]
        current = self._training.state() if self._training and self._training.epochs_done else []
        return [np.array(self.layer), *finished, *current]

    def restore(self, state: Arrays) -> None:
        """Continue from what :meth:`state` returned, as if never interrupted."""
        layer = int(state[0])
        rest = state[1:]
        for machine in self._network.machines[:layer]:
            machine.set_weights(dict(zip(ARRAYS, rest, strict=False)))
            rest = rest[len(ARRAYS) :]
        self._begin(layer)
        if self._training and rest:
            self._training.restore(rest)

    def _begin(self, layer: int) -> None:
        self.layer = layer
        self._seen, self._training = None, None
        if not self.finished:
            machine = self._network.machines[layer]
            machine.forget()
            seed = layer_seed(self._seed, layer)
            self._training = ContrastiveDivergence(machine, self._config, seed, mixed_precision=self._mixed)

    def _room(self, shape: tuple[int, int]) -> Float32Array:
        """Return an array to write to, in memory or on disk."""
        if 4 * shape[0] * shape[1] <= CHUNK_BYTES:
            return np.empty(shape, np.float32)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return np.memmap(file, np.float32, "w+", shape=shape)


def layer_seed(seed: int, layer: int) -> int:
    """Return the seed of a layer's machine; the lowest has the stack's."""
    return seed if layer == 0 else int(np.random.default_rng([seed, layer]).integers(2**31))


def _down(machines: Sequence[RestrictedBoltzmannMachine], hidden: Float32Array) -> Float32Array:
    for machine in reversed(machines):
        hidden = machine.down(hidden)
    return hidden


def _up(
    machines: Sequence[RestrictedBoltzmannMachine],
    x: Rows,
    room: Callable[[tuple[int, int]], Float32Array] = lambda shape: np.empty(shape, np.float32),
) -> Float32Array:
    """Return the last machine's hidden probabilities, computed chunk by chunk through all of them."""
    result = room((x.shape[0], machines[-1].hidden_units))
    for rows, chunk in chunks(x):
        activations = chunk
        for machine in machines:
            activations = machine.transform(activations)
        result[rows] = activations
    return result
