"""Serve the runs with MLflow's pages, and open the table of runs, on a machine with a screen."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
import urllib.request
import webbrowser

import mlflow

from wastelens.tracking.mlflow_tracker import table_address

STORE, ADDRESS = "sqlite:///mlflow.db", "http://127.0.0.1:5000"
_PATIENCE_S = 60


def main() -> int:
    """Run MLflow's server until Ctrl-C; return its exit status."""
    if is_served():
        sys.exit(f"Something is served at {ADDRESS} already. End it first.")
    page = f"{ADDRESS}{table_address(experiment_id())}"
    print(f"The runs: {page}", flush=True)
    server = subprocess.Popen([sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", STORE])
    try:
        if has_screen():
            _open_once_served(page, server)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def is_served() -> bool:
    """Return whether a server answers there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(ADDRESS, timeout=1).close()
    except (OSError, http.client.HTTPException):
        return False
    return True


def experiment_id() -> str:
    """Return the id of the experiment ``wastelens`` of the store here; that of MLflow's first where there is none."""
    found = mlflow.MlflowClient(tracking_uri=STORE).get_experiment_by_name("wastelens")
    return str(found.experiment_id) if found else "0"


def has_screen() -> bool:
    """Return whether a browser with windows can be expected; one in the terminal would take it from the server."""
    return sys.platform in ("darwin", "win32") or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open_once_served(page: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while server.poll() is None and time.monotonic() < deadline:
        if is_served():
            webbrowser.open(page)
            return
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
