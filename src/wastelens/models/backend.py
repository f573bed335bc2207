"""Keras on TensorFlow: load it without pages of C++ notices, set its precision, release its memory."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from wastelens.errors import ConfigError
from wastelens.system import borrowed
from wastelens.system.console import warn
from wastelens.system.standard_error import standard_error_held
from wastelens.system.text import reason_of

BACKEND = "tensorflow"
EPSILON = 1e-7  # Keras' default
_PROCESSOR = Path("/proc/cpuinfo")
_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def load_backend() -> None:
    """Import Keras and let TensorFlow look for devices; show their output on standard error only on failure.

    Keras' global settings, from the user's ``keras.json`` and from variables, become those that networks here depend
    on.

    Raises:
        ConfigError: Keras refuses the user's settings, or was imported with another backend before.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = BACKEND
        with standard_error_held():
            _import_keras()
            _start_tensorflow()
    _fix_settings()


def _import_keras() -> None:
    try:
        import keras  # noqa: F401
    except ValueError as error:
        raise ConfigError(
            f"Keras cannot read its settings ({reason_of(error)}). Correct or remove ~/.keras/keras.json (or "
            "keras.json in the folder of KERAS_HOME), and the variables KERAS_*."
        ) from None


def _start_tensorflow() -> None:
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # it warns about every new network that is traced
    for device in tf.config.list_physical_devices("GPU"):
        # By default TensorFlow takes all of a GPU's memory: a second process would have none.
        tf.config.experimental.set_memory_growth(device, True)
    tf.zeros(1)


def _fix_settings() -> None:
    """Set what Keras takes from ``keras.json`` and from ``KERAS_*``, and otherwise applies to networks unasked."""
    import keras

    if keras.config.backend() != BACKEND:
        raise ConfigError(f"Keras was imported with backend {keras.config.backend()}: set KERAS_BACKEND={BACKEND}.")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(EPSILON)
    keras.config.set_dtype_policy("float32")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)  # it cuts predictions short, too


def forget_networks() -> None:
    """Release all networks and their graphs, which would pile up in a process that trains one after another."""
    import keras

    borrowed.forget_custom_gradients()
    keras.backend.clear_session(free_memory=True)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether TensorFlow ran out of memory."""
    import tensorflow as tf

    return isinstance(error, tf.errors.ResourceExhaustedError)


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
