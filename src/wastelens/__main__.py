"""Run Wastelens: ``wastelens``, ``python -m wastelens``, or, without an installation, ``python src/wastelens``."""

import sys
from pathlib import Path


def main() -> None:
    """Run the command line; an interrupt while it is still being imported ends in one line, too."""
    try:
        from wastelens.cli import run
    except KeyboardInterrupt:
        sys.exit("wastelens: Interrupted before it began.")
    run()


if __name__ == "__main__":
    if not __package__:
        # Started as a folder: Python put the package itself on the path, where its parent belongs.
        sys.path[0] = str(Path(__file__).resolve().parent.parent)
    main()
