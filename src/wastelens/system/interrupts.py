"""Ctrl-C and SIGTERM, remembered and raised again: Python drops a KeyboardInterrupt raised in a destructor or callback.

Any code may run such a callback at any time: MLflow's database layer, for instance, has weak references that do.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

_AGAIN_S = 0.02  # until the callback that an interrupt was dropped in has ended


class _Requested:
    ever = False


def listen() -> None:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt until it is raised where it is not dropped, and remember it."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _raise_dropped


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Requested.ever = True
    raise KeyboardInterrupt


def _raise_dropped(dropped: Any) -> None:
    """Let an interrupt that Python has dropped come again; report everything else that it drops as usual."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    else:
        sys.__unraisablehook__(dropped)


def check() -> None:
    """Raise a KeyboardInterrupt that was dropped; long loops call this at every step."""
    if _Requested.ever:
        _Requested.ever = False
        raise KeyboardInterrupt


def request() -> None:
    """Let the next :func:`check` in this process raise KeyboardInterrupt; called from other threads."""
    _Requested.ever = True


def forget() -> None:
    """Forget an interrupt that came before the work that begins now."""
    _Requested.ever = False
