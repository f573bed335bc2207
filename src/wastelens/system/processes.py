"""Processes of this machine and others, by names that no other process ever has."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import uuid
from pathlib import Path

import psutil


def name_of(pid: int) -> str:
    """Return the unique name of a process of this machine: no other process ever has it, here or on another machine.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    return f"{_host()}:{pid}:{_started(pid)}"


def name_of_this() -> str:
    """Return the unique name of this process."""
    return name_of(os.getpid())


def _host() -> str:
    """Return a name of this machine since its boot, and of this container on it: a process id is unique there."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8])
        known.append(os.readlink("/proc/self/ns/pid"))
    if len(known) == 1:
        known.append(f"{uuid.getnode():012x}")
    return re.sub(r"[^\w.]+", "-", "-".join(known)).strip("-")


def _started(pid: int) -> int:
    """Return the start time of a process by a clock that nobody sets: ticks since boot; elsewhere seconds since 1970.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, IndexError):
        return int(psutil.Process(pid).create_time())


def is_of_here(name: str) -> bool:
    """Return whether the name is that of a process of this machine, running or not."""
    return name.split(":", maxsplit=1)[0] == _host()


def runs_here(name: str) -> bool:
    """Return whether the process of this machine with this name still runs."""
    _, pid, began = name.split(":")
    try:
        return _started(int(pid)) == int(began) and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
