"""This machine: its cores, its libraries and their versions."""

from __future__ import annotations

import importlib.metadata
import os


def quiet_libraries() -> None:
    """Quiet the libraries, by environment variables; to be called before they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # each step says where its run is
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar a file says nothing
    # Or MLflow puts the uv.lock of the checkout into each model, and serving tries to build the whole project.
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")


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
