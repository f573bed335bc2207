"""Compute in bfloat16 where the hardware supports it: half the memory traffic, and on some processors much faster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from wastelens.system.console import warn

_PROCESSOR = Path("/proc/cpuinfo")
_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def multiplies_bfloat16() -> bool:
    """Return whether there is a GPU, or the processor has instructions for bfloat16."""
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        words = _PROCESSOR.read_text(encoding="utf-8", errors="replace").split()
    except OSError:  # not Linux
        return False
    return not _FLAGS.isdisjoint(words)


@contextlib.contextmanager
def precision(mixed: bool) -> Iterator[str]:
    """Build layers inside with bfloat16 activations and float32 weights, or all in float32; yield the policy's name.

    Without hardware support, warn and use float32 (Micikevicius et al. 2018; bfloat16 has float32's range, so losses
    need no scaling).
    """
    import keras

    wanted = mixed
    if mixed and not multiplies_bfloat16():
        warn(
            "mixed_precision=true, but there is no GPU and this processor has no bfloat16 instructions: using float32."
        )
        wanted = False
    policy = "mixed_bfloat16" if wanted else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield policy
    finally:
        keras.config.set_dtype_policy(before)
