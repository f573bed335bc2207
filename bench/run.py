"""Measure every budget beside its peer in one run, for ``make bench``: print the ratios, write them to results.md."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from wastelens.cli import prepare_environment

RESULTS = Path(__file__).with_name("results.md")
BEGIN, END = "<!-- begin: written by make bench -->", "<!-- end: written by make bench -->"


def main() -> None:
    """Run all measurements, print them, and replace the generated part of results.md."""
    prepare_environment()
    from bench import engine, epochs, explanations, features, photos, predictions, rbm, serving, tables
    from bench.measure import Measurement

    parts: list[Callable[[], list[Measurement]]] = [
        tables.measure,
        photos.measure,
        epochs.measure,
        rbm.measure,
        features.measure,
        explanations.measure,
        engine.measure,
        predictions.measure,
        serving.measure,
    ]
    lines = ["| what | ours | peer | ratio | wanted | reached |", "|---|---|---|---|---|---|"]
    for part in parts:
        for one in part():
            reached = "yes" if one.reached else "**no**"
            lines.append(f"| {one.what} | {one.ours} | {one.peer} | {one.ratio} | {one.wanted} | {reached} |")
            print(
                f"{one.what}\n    {one.ours}, peer {one.peer}: {one.ratio} (wanted {one.wanted}): {reached}",
                flush=True,
            )
    lines.append(f"\nOn {platform.machine()}, Python {platform.python_version()}; read the ratios, not the seconds.")
    text = RESULTS.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    RESULTS.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
