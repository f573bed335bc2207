"""The machine that prepares photos: its cores, and the versions of the libraries that decode and compute."""

from __future__ import annotations

import importlib.metadata
import os


def worker_count(workers: int | str) -> int:
    """Return the number of decoding threads: ``auto`` is one for each core that this process may use."""
    if workers == "auto":
        usable = getattr(os, "sched_getaffinity", None)
        return len(usable(0)) if usable else os.cpu_count() or 1
    return int(workers)


def software_versions() -> dict[str, str]:
    """Return the versions of the packages that the bytes of a prepared dataset depend on."""
    names = ("wastelens", "numpy", "pandas", "scipy", "scikit-learn", "pillow", "simplejpeg", "opencv-python-headless")
    return {name: package_version(name) for name in names}


def package_version(name: str) -> str:
    """Return the version of an installed package; "checkout" for one that is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "checkout"
