"""``python -m wastelens`` and, for MLproject, ``python src/wastelens``: the latter needs no installation."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        # Started as a folder: Python put the package's inside on the path; its parent is what belongs there.
        sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from wastelens.cli import run

    run()
