"""Backbones that Keras has: their ImageNet weights are downloaded once, by Keras' own loader."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wastelens.errors import ConfigError
from wastelens.models.backbones import Backbone
from wastelens.system import borrowed
from wastelens.system.text import reason_of

if TYPE_CHECKING:
    from wastelens.system.arrays import Array

PROBE_LIMIT_S = 3.0  # for the name lookup, the connection and the first answer together
SILENCE_LIMIT_S = 60.0  # between two pieces of a download


class KerasApplication(Backbone):
    """A backbone of ``keras.applications``."""

    name: str  # as the user writes it

    @abstractmethod
    def application(self, pixels: Any, *, weights: str | None) -> Any:
        """Return Keras' own model without its top, from preprocessed pixels (batch, side, side, 3) to its last map.

        Args:
            pixels: a Keras tensor.
            weights: None for random ones, or ``imagenet``, which Keras downloads unless its cache has them.
        """

    @abstractmethod
    def imagenet_url(self) -> str:
        """Return the address where Keras gets the ImageNet weights."""

    def build(self, pixels: Any) -> Any:
        """Return the last map of Keras' model."""
        return self.application(pixels, weights=None).output

    def cached_file(self) -> Path:
        """Return where Keras caches the ImageNet weights."""
        home = Path(os.path.expanduser(borrowed.keras_home()))
        if not os.access(home, os.W_OK):  # as keras.utils.get_file does
            home = Path("/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir()) / ".keras"
        return home / "models" / self.imagenet_url().rsplit("/", 1)[1]

    def check_imagenet(self) -> None:
        """Look into Keras' cache, then ask the address."""
        from wastelens.models.weights import stored_layers

        with contextlib.suppress(ConfigError), stored_layers(self.cached_file()):
            return
        if problem := _probe(self.imagenet_url()):
            raise self._unavailable(problem)

    def imagenet_arrays(self) -> dict[str, list[Array]]:
        """Load them by Keras' own loader, which checks the digests of its files."""
        import keras

        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SILENCE_LIMIT_S)  # Keras sets none: a stalled download would hang forever
        try:
            side_px = self.smallest_side_px
            donor = self.application(keras.Input((side_px, side_px, 3)), weights="imagenet")
        except Exception as error:  # Keras raises a bare Exception where a download fails
            raise self._unavailable(reason_of(error)) from None
        finally:
            socket.setdefaulttimeout(before)
        return {layer.name: layer.get_weights() for layer in donor.layers if layer.weights}

    def _unavailable(self, problem: str) -> ConfigError:
        return ConfigError(
            f"The ImageNet weights of {self.name} are not available: {problem}. Give them as a file, weights=FILE "
            f"(download {self.imagenet_url()} elsewhere), or train without them, weights=none freeze=0."
        )


def _probe(url: str) -> str:
    """Return why an address does not answer, in a few words; an empty text if it answers."""
    import urllib.request
    from http.client import HTTPException

    problems: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=PROBE_LIMIT_S):
                problems.append("")
        except (OSError, ValueError, HTTPException) as error:
            problems.append(reason_of(error))

    # In a thread that may be left behind: none of Python's timeouts covers a name lookup.
    thread = threading.Thread(target=ask, daemon=True, name="probe-imagenet-weights")
    thread.start()
    thread.join(PROBE_LIMIT_S)
    return problems[0] if problems else f"no answer within {PROBE_LIMIT_S:g} s"
