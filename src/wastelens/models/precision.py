"""bfloat16 where the machine multiplies it: half the memory traffic, and on some processors several times the speed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from wastelens.system.console import warn

_PROCESSOR = Path("/proc/cpuinfo")
_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def multiplies_bfloat16() -> bool:
    """Whether a GPU is there, or the processor has instructions for bfloat16."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        words = _PROCESSOR.read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # no Linux
        return False
    return not _FLAGS.isdisjoint(words)


@contextlib.contextmanager
def precision(mixed: bool) -> Iterator[str]:
    """Build layers in here with bfloat16 activations and float32 weights, or all in float32; yields the policy's name.

    Where the machine cannot multiply bfloat16, it says so and goes on in float32 (Micikevicius et al. 2018; bfloat16
    has float32's range, so losses need no scaling).
    """
    import keras

    wanted = mixed
    if mixed and not multiplies_bfloat16():
        warn("mixed_precision=true, but neither a GPU nor this processor multiplies bfloat16: going on in float32.")
        wanted = False
    policy = "mixed_bfloat16" if wanted else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield policy
    finally:
        keras.config.set_dtype_policy(before)
