"""Ctrl-C and SIGTERM, remembered: Python drops a KeyboardInterrupt raised in a destructor or a callback."""

from __future__ import annotations

import signal
from types import FrameType


class _Requested:
    ever = False


def listen() -> None:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt, and remember that they came."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Requested.ever = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise a KeyboardInterrupt that Python dropped; long loops call this at every step."""
    if _Requested.ever:
        _Requested.ever = False
        raise KeyboardInterrupt


def request() -> None:
    """Let the next :func:`check` in this process raise KeyboardInterrupt; called from other threads."""
    _Requested.ever = True


def forget() -> None:
    """Forget an interrupt that came before the work that begins now."""
    _Requested.ever = False
