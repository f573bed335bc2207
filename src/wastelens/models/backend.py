"""Load Keras on TensorFlow, without the pages of C++ notices that it prints before anything can mute them."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from wastelens.system import borrowed


def load_backend() -> None:
    """Import Keras and let TensorFlow look for devices; show what they print to standard error only on failure."""
    if "keras" in sys.modules:
        return
    with _standard_error_held():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")  # it warns about every new network that is traced
        for device in tf.config.list_physical_devices("GPU"):
            # By default TensorFlow takes all of a GPU's memory: a second process would have none.
            tf.config.experimental.set_memory_growth(device, True)
        tf.zeros(1)


def forget_networks() -> None:
    """Release all networks and their graphs, which would pile up in a process that trains one after another."""
    import keras

    borrowed.forget_custom_gradients()
    keras.backend.clear_session(free_memory=True)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether TensorFlow ran out of memory."""
    import tensorflow as tf

    return isinstance(error, tf.errors.ResourceExhaustedError)


@contextlib.contextmanager
def _standard_error_held() -> Iterator[None]:
    """Keep file descriptor 2 in a file; print it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
