"""Loaded by the processes of ``processes:N`` when they start."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C to the coordinator, which ends tasks and processes in order; a terminal sends it to all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
