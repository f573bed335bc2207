"""What there is to prepare photos with: this machine's cores, and the versions of what decodes and computes."""

from __future__ import annotations

import importlib.metadata
import os


def worker_count(workers: int | str) -> int:
    """Threads to decode with: ``auto`` is one a core this process may use."""
    if workers == "auto":
        usable = getattr(os, "sched_getaffinity", None)
        return len(usable(0)) if usable else os.cpu_count() or 1
    return int(workers)


def software_versions() -> dict[str, str]:
    """The versions that a prepared dataset's bytes depend on."""
    names = (
        "wastelens",
        "numpy",
        "pandas",
        "scipy",
        "scikit-learn",
        "pillow",
        "simplejpeg",
        "opencv-python-headless",
    )
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "checkout"
