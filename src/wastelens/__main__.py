"""Run ``python -m wastelens`` or, for MLproject, ``python src/wastelens``, which needs no installation."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        # Started as a folder: Python put the package itself on the path, where its parent belongs.
        sys.path[0] = str(Path(__file__).resolve().parent.parent)
    try:
        from wastelens.cli import run
    except KeyboardInterrupt:
        sys.exit("wastelens: Interrupted before it began.")
    run()
