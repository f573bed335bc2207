"""Measure every budget beside its peer in one run, for ``make bench``: print the ratios, write them to results.md."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from bench.measure import Measurement
from wastelens.cli import prepare_environment

RESULTS = Path(__file__).with_name("results.md")
BEGIN, END = "<!-- begin: written by make bench -->", "<!-- end: written by make bench -->"


def main() -> None:
    """Run all measurements."""
    prepare_environment()
    from bench import engine, epochs, explanations, features, photos, predictions, rbm, serving, tables

    measure_all(
        [
            tables.measure,
            photos.measure,
            epochs.measure,
            rbm.measure,
            features.measure,
            explanations.measure,
            engine.measure,
            predictions.measure,
            serving.measure,
        ],
        RESULTS,
    )


def measure_all(parts: list[Callable[[], list[Measurement]]], results: Path) -> None:
    """Print the measurements of each part, and replace the generated part of a file by all of them so far.

    Where a part fails, the file has those of the parts before it.
    """
    rows: list[str] = []
    for part in parts:
        for one in part():
            reached = "yes" if one.reached else "**no**"
            rows.append(f"| {one.what} | {one.ours} | {one.peer} | {one.ratio} | {one.wanted} | {reached} |")
            print(
                f"{one.what}\n    {one.ours}, peer {one.peer}: {one.ratio} (wanted {one.wanted}): {reached}",
                flush=True,
            )
        _write(rows, results)


def _write(rows: list[str], results: Path) -> None:
    head = ["| what | ours | peer | ratio | wanted | reached |", "|---|---|---|---|---|---|"]
    about = f"On {platform.machine()}, Python {platform.python_version()}; read the ratios, not the seconds."
    text = results.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    written = "\n".join([BEGIN, *head, *rows, "", about, END])
    results.write_text(before + written + after, encoding="utf-8")


if __name__ == "__main__":
    main()
