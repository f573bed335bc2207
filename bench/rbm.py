"""An epoch of contrastive divergence beside scikit-learn's, and beside its unavoidable matrix products."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import Measurement, alternating
from wastelens.config.files import load_config
from wastelens.config.pretrain import PretrainConfig
from wastelens.models.contrastive_divergence import ContrastiveDivergence
from wastelens.models.rbm import RestrictedBoltzmannMachine
from wastelens.system.arrays import Float32Array
from wastelens.training.learners.boltzmann import RbmConfig

ROWS, COMPONENTS, HIDDEN, BATCH = 2000, 4096, 256, 64
EPOCHS = 10
WHAT = f"one CD-1 epoch, {ROWS:,} × {COMPONENTS:,} → {HIDDEN}, batch {BATCH}"


def rows() -> Float32Array:
    """Draw binary pictures of 64 × 64: a few bright discs each, over specks."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    pictures = rng.random((ROWS, 64, 64)) < 0.03
    for number in range(ROWS):
        for _ in range(rng.integers(1, 5)):
            (row, column), radius = rng.integers(0, 64, 2), rng.integers(4, 14)
            pictures[number] |= (y - row) ** 2 + (x - column) ** 2 < radius**2
    return pictures.reshape(ROWS, COMPONENTS).astype(np.float32)


def _config() -> RbmConfig:
    binary = "learner.visible=bernoulli learner.learning_rate=0.05 learner.momentum=0.5"
    settings = f"learner.batch_size={BATCH} learner.hidden_units={HIDDEN} {binary}"
    config = load_config("pretrain", parameters={"method": "rbm"}, settings=settings)
    assert isinstance(config, PretrainConfig)
    assert isinstance(config.learner, RbmConfig)
    return config.learner


def _trained(config: RbmConfig, data: Float32Array, mixed_precision: bool = False) -> RestrictedBoltzmannMachine:
    machine = RestrictedBoltzmannMachine(HIDDEN)
    training = ContrastiveDivergence(machine, config, seed=0, mixed_precision=mixed_precision)
    for number in range(EPOCHS):
        training.epoch(data, number)
    return machine


def _epoch(config: RbmConfig, data: Float32Array, mixed_precision: bool = False) -> Callable[[], object]:
    machine = RestrictedBoltzmannMachine(HIDDEN)
    machine.initialise(data, seed=0)
    training = ContrastiveDivergence(machine, config, seed=0, mixed_precision=mixed_precision)
    training.epoch(data, 0)  # traces the graph
    return lambda: training.epoch(data, training.epochs_done)


def _peer(config: RbmConfig, epochs: int) -> Any:
    from sklearn.neural_network import BernoulliRBM

    rate = config.learning_rate
    return BernoulliRBM(HIDDEN, learning_rate=rate, batch_size=BATCH, n_iter=epochs, random_state=0)


def _pseudo_likelihood(machine: RestrictedBoltzmannMachine, data: Float32Array) -> float:
    """Return nats per row, estimated from ten random components each."""
    rng = np.random.default_rng(0)
    return float(np.mean([machine.pseudo_likelihood(data, rng).mean() for _ in range(10)]))


def _of_peer(peer: Any) -> RestrictedBoltzmannMachine:
    arrays = {
        "kernel": peer.components_.T,
        "visible_bias": peer.intercept_visible_,
        "hidden_bias": peer.intercept_hidden_,
        "visible_mean": np.zeros(COMPONENTS),
        "visible_scale": np.ones(COMPONENTS),
    }
    machine = RestrictedBoltzmannMachine(HIDDEN)
    machine.set_weights(arrays)
    return machine


def _products(data: Float32Array) -> Callable[[], object]:
    """Run only the five matrix products of CD-1 over the same batches, as a TensorFlow graph."""
    import tensorflow as tf

    held = tf.constant(data)
    kernel = tf.Variable(np.random.default_rng(0).normal(0, 0.01, (COMPONENTS, HIDDEN)).astype(np.float32))

    def body(start: Any, keep: Any) -> Any:
        v = held[start : start + BATCH]
        h = tf.matmul(v, kernel)
        v1 = tf.matmul(h, kernel, transpose_b=True)
        h1 = tf.matmul(v1, kernel)
        positive, negative = tf.matmul(v, h, transpose_a=True), tf.matmul(v1, h1, transpose_a=True)
        return start + BATCH, keep + positive[0, 0] + negative[0, 0]

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def products() -> Any:
        return tf.while_loop(lambda start, _: start < ROWS, body, (tf.constant(0), tf.constant(0.0)))[1]

    products()
    return lambda: float(products())


def against_scikit_learn() -> Measurement:
    """Compare the time of an epoch, and the result of ten at the same learning rate."""
    config, data = _config(), rows()
    peer = _peer(config, 1)
    seconds, peers = alternating(4, _epoch(config, data), lambda: peer.fit(data))
    reached = _pseudo_likelihood(_trained(config, data), data)
    peer_reached = _pseudo_likelihood(_of_peer(_peer(config, EPOCHS).fit(data)), data)
    return Measurement(
        f"{WHAT}; pseudo-likelihood after {EPOCHS}",
        f"{seconds:.3f} s; {reached:.0f} nats",
        f"{peers:.3f} s; {peer_reached:.0f} nats (scikit-learn's BernoulliRBM in float32)",
        f"{peers / seconds:.1f}×",
        "≥ 2.5×, pseudo-likelihood no worse",
        peers / seconds >= 2.5 and reached >= peer_reached,
    )


def against_products() -> Measurement:
    """Measure the overhead over the matrix products."""
    data = rows()
    seconds, products = alternating(10, _epoch(_config(), data), _products(data))
    return Measurement(
        WHAT,
        f"{seconds:.3f} s",
        f"{products:.3f} s (its five matrix products alone)",
        f"{seconds / products:.2f}×",
        "≤ 1.6×",
        seconds / products <= 1.6,
    )


def in_bfloat16() -> Measurement:
    """Measure mixed precision; required only where the processor has units for such products."""
    config, data = _config(), rows()
    peer = _peer(config, 1)
    seconds, peers = alternating(4, _epoch(config, data, mixed_precision=True), lambda: peer.fit(data))
    reached, single = (_pseudo_likelihood(_trained(config, data, mixed), data) for mixed in (True, False))
    wanted = _multiplies_bfloat16()
    return Measurement(
        f"{WHAT}, in bfloat16; pseudo-likelihood after {EPOCHS}",
        f"{seconds:.3f} s; {reached:.0f} nats (float32: {single:.0f})",
        f"{peers:.3f} s (scikit-learn's BernoulliRBM in float32)",
        f"{peers / seconds:.1f}×",
        "≥ 4×" if wanted else "≥ 4× with AMX, which this processor lacks",
        peers / seconds >= 4 or not wanted,
    )


def _multiplies_bfloat16() -> bool:
    about = Path("/proc/cpuinfo")
    return platform.system() == "Linux" and about.exists() and "amx_bf16" in about.read_text(encoding="utf-8")


def measure() -> list[Measurement]:
    """Measure all budgets of restricted Boltzmann machines."""
    return [against_scikit_learn(), against_products(), in_bfloat16()]


def main() -> None:
    """Print them alone: ``python -m bench.rbm``."""
    started = time.perf_counter()
    for one in measure():
        print(
            f"{one.what}\n    {one.ours}, peer {one.peer}: {one.ratio} (wanted {one.wanted}): {one.reached}", flush=True
        )
    print(f"measured in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
