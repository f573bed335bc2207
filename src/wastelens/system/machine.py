"""This machine: its cores, its libraries and their versions."""

from __future__ import annotations

import importlib.metadata
import os

# What the product depends on, whatever the user's shell or notebook has set for other programs.
_FIXED = {
    "KERAS_BACKEND": "tensorflow",
    "TF_USE_LEGACY_KERAS": "0",  # or SHAP gets another Keras than the networks
    "MPLBACKEND": "Agg",  # a notebook hands its own to the commands it starts
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",  # or a run ends before its last metrics are stored
    "MLFLOW_TRUNCATE_LONG_VALUES": "true",  # or a long parameter ends a run
    "MLFLOW_LOCK_MODEL_DEPENDENCIES": "false",  # or logging a model asks a package registry
}
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # each step says where its run is
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # one bar a file says nothing
    # Or MLflow puts the uv.lock of the checkout into each model, and serving tries to build the whole project.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def set_up_libraries() -> None:
    """Quiet the libraries, and set what results depend on; to be called before they are imported.

    Matplotlib forgets the style of the user's ``matplotlibrc``: figures look alike everywhere. Keras' own settings are
    fixed where it is loaded.
    """
    os.environ.update(_FIXED)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import matplotlib as mpl

    mpl.rcdefaults()


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
