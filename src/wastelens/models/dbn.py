"""A stack of restricted Boltzmann machines (Hinton, Osindero & Teh 2006, "A fast learning algorithm for deep belief
nets", §4-5): each learns from the hidden probabilities of the one below. One machine is a stack of one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wastelens.config.networks import ContrastiveDivergenceConfig
from wastelens.errors import ConfigError
from wastelens.models.contrastive_divergence import Arrays, ContrastiveDivergence
from wastelens.models.rbm import ARRAYS, CHUNK_BYTES, Array, RestrictedBoltzmannMachine, Rows, Visible, chunks

OnLayerEpoch = Callable[[int, int, dict[str, float]], None]


class DeepBeliefNetwork:
    """Machines one upon another.

    Attributes:
        hidden_units: of each layer, from below.
        visible: what the lowest machine's visible units are; all others' are Bernoulli.
        machines: one RestrictedBoltzmannMachine a layer.

    Data x are as described at ``rbm.Rows`` and read in chunks.
    """

    def __init__(self, hidden_units: Sequence[int], visible: Visible = "bernoulli") -> None:
        self.hidden_units = tuple(hidden_units)
        self.visible = visible
        self.machines = tuple(
            RestrictedBoltzmannMachine(units, "bernoulli" if layer else visible)
            for layer, units in enumerate(self.hidden_units)
        )

    def fit(
        self,
        data: Rows,
        config: ContrastiveDivergenceConfig,
        *,
        seed: int,
        mixed_precision: bool = False,
        on_epoch: OnLayerEpoch | None = None,
    ) -> DeepBeliefNetwork:
        """Learn from data, layer by layer, ``config.epochs`` each, from new random weights.

        ``on_epoch`` is called after each with the layer and the epoch in it, from 0, and its metrics. The other
        arguments and the errors are those of ``LayerwiseTraining``.
        """
        training = LayerwiseTraining(self, data, config, seed, mixed_precision=mixed_precision)
        while not training.finished:
            layer, number = training.layer, training.epochs_in_layer
            metrics = training.epoch()
            if on_epoch:
                on_epoch(layer, number, metrics)
        return self

    def transform(self, x: Rows) -> Array:
        """The top machine's hidden probabilities: float32 (rows, hidden_units[-1])."""
        return _up(self.machines, x)

    def reconstruct(self, x: Rows) -> Array:
        """All the way up and down by probabilities: float32 (rows, n_visible) in x's own units, pixels in [0, 1]."""
        result = np.empty((x.shape[0], len(self.visible_mean)), np.float32)
        for rows, chunk in chunks(x):
            result[rows] = self._down(self.transform(chunk))
        return result

    def sample(self, start: Rows, gibbs_steps: int, rng: np.random.Generator) -> Array:
        """What the network takes for data: Gibbs sampling in the top machine, then down by probabilities (§4).

        Args:
            start: rows of data, from which the chains set out.
            gibbs_steps: of each chain.

        Returns:
            float32 (rows, n_visible), in the data's units; a stack of one gives its machine's samples.
        """
        below, top = self.machines[:-1], self.machines[-1]
        walked = top.sample(_up(below, start) if below else start, gibbs_steps, rng)
        for machine in reversed(below):
            walked = machine.down(walked)
        return walked

    def dense_weights(self) -> list[tuple[Array, Array]]:
        """Kernel and bias of each layer: x ← σ(x · kernel + bias), from the visible vector to the top.

        The visible vector of Gaussian units is (x - visible_mean) / visible_scale.
        """
        return [(machine.kernel_, machine.hidden_bias_) for machine in self.machines]

    @property
    def visible_mean(self) -> Array:
        """Of each component of the training data, float32 (n_visible,); 0 for Bernoulli units."""
        return self.machines[0].visible_mean_

    @property
    def visible_scale(self) -> Array:
        """Standard deviation of each component, float32 (n_visible,); 1 for Bernoulli units."""
        return self.machines[0].visible_scale_

    def get_config(self) -> dict[str, Any]:
        """What the constructor takes."""
        return {"hidden_units": list(self.hidden_units), "visible": self.visible}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DeepBeliefNetwork:
        """A network without weights."""
        return cls(**config)

    def weights(self) -> dict[str, Array]:
        """All that was learnt, by name (``0_kernel``, ...), for ``numpy.savez``."""
        return {
            f"{layer}_{name}": array
            for layer, machine in enumerate(self.machines)
            for name, array in machine.weights().items()
        }

    @classmethod
    def from_arrays(cls, config: Mapping[str, Any], weights: Mapping[str, Array]) -> DeepBeliefNetwork:
        """The network that ``get_config()`` and ``weights()`` came from, exactly."""
        network = cls.from_config(config)
        for layer, machine in enumerate(network.machines):
            machine.set_weights({name: weights[f"{layer}_{name}"] for name in ARRAYS})
        return network

    def _down(self, hidden: Array) -> Array:
        for machine in reversed(self.machines):
            hidden = machine.down(hidden)
        return hidden


class LayerwiseTraining:
    """Greedy training of a stack, an epoch a call, that can be stopped and taken up again after any epoch.

    What a layer learns from is computed once, when it starts: float32, in memory up to 64 MiB, otherwise in a
    temporary file that has no name and is gone with this object, or the process.

    Args:
        network: is trained in place, from new random weights.
        data: (rows, ...), see ``rbm.Rows``.
        config: how; ``epochs`` are each layer's. ``visible`` and ``hidden_units`` are the network's own.
        seed: for all; ``layer_seed`` tells the layers'.
        mixed_precision: multiply in bfloat16.
        folder: where the temporary file takes its space.

    Attributes:
        layer: that is trained next, from 0; the number of layers at the end.
        epochs_in_layer: that it has behind it.

    Raises:
        ConfigError: no layers, or one without hidden units. For the rest see ``ContrastiveDivergence``.
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
                f"learner.hidden_units is {list(network.hidden_units)}: a stack needs 1 layer or more, "
                "each of 1 hidden unit or more."
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
    def epochs_in_layer(self) -> int:
        return self._training.epochs_done if self._training else 0

    @property
    def finished(self) -> bool:
        return self.layer == len(self._network.machines)

    def epoch(self) -> dict[str, float]:
        """Train the present layer once on all rows; after its last epoch the next layer is the present one.

        Returns:
            reconstruction_error: of this layer, see ``ContrastiveDivergence.epoch``.
        """
        assert self._training is not None, "nothing left to train"
        if self._seen is None:
            self._seen = self._input()
        metrics = self._training.epoch(self._seen, self._training.epochs_done)
        if self._training.epochs_done == self._config.epochs:
            self._begin(self.layer + 1)
        return metrics

    def state(self) -> Arrays:
        """The layer, the finished layers' weights, and what the present one needs to go on."""
        finished = [array for machine in self._network.machines[: self.layer] for array in machine.weights().values()]
        present = self._training.state() if self._training and self._training.epochs_done else []
        return [np.array(self.layer), *finished, *present]

    def restore(self, state: Arrays) -> None:
        """Go on from what ``state()`` gave, as if undisturbed."""
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

    def _input(self) -> Rows:
        """What the present layer learns from. From the data up each time, so that taking up gives the same bits."""
        below = self._network.machines[: self.layer]
        if not below:
            return self._data
        return _up(below, self._data, room=self._room)

    def _room(self, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """An array to write to, in memory or on disk."""
        if 4 * shape[0] * shape[1] <= CHUNK_BYTES:
            return np.empty(shape, np.float32)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return np.memmap(file, np.float32, "w+", shape=shape)


def layer_seed(seed: int, layer: int) -> int:
    """The seed of a layer's machine; the lowest has the stack's."""
    return seed if layer == 0 else int(np.random.default_rng([seed, layer]).integers(2**31))


def _up(
    machines: Sequence[RestrictedBoltzmannMachine],
    x: Rows,
    room: Callable[[tuple[int, int]], npt.NDArray[np.float32]] = lambda shape: np.empty(shape, np.float32),
) -> Array:
    """Hidden probabilities of the last of some machines, a chunk of x at a time."""
    result = room((x.shape[0], machines[-1].hidden_units))
    for rows, chunk in chunks(x):
        activations = chunk
        for machine in machines:
            activations = machine.transform(activations)
        result[rows] = activations
    return result
