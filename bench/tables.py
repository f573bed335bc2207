"""Tabular budgets: exact oversampling, start of the command line, memory on annotations of 100 times TACO."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import ROOT, SHARED, Measurement, best_of, run_python
from wastelens.config.files import conf_folder
from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.labels import tabulate
from wastelens.data.annotations.materials import read_mapping
from wastelens.data.prepared.tables import TrainTable
from wastelens.data.sample import render_sample
from wastelens.preparing.balance import oversample

READ = """
from pathlib import Path
from wastelens.config.files import conf_folder
from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.labels import tabulate
from wastelens.data.annotations.materials import read_mapping
mapping = read_mapping(conf_folder() / "materials" / "default.csv")
table = tabulate(read_coco(Path({path!r})), mapping)
assert len(table.labels) == {photos}
"""


def annotations(folder: Path) -> Path:
    """Return TACO's real annotations, or the sample's if they are absent."""
    real = SHARED / "data" / "taco" / "annotations.json"
    if real.exists():
        return real
    render_sample(folder / "sample")
    return folder / "sample" / "annotations.json"


def oversampling(path: Path) -> Measurement:
    """Measure exact oversampling with all annotated photos as training rows."""
    mapping = read_mapping(conf_folder() / "materials" / "default.csv")
    train = TrainTable(tabulate(read_coco(path), mapping).labels, mapping.materials)
    seconds = best_of(3, lambda: oversample(train))
    return Measurement(f"exact oversampling, {len(train):,} photos", f"{seconds:.2f} s", "–", "–", "< 1 s", seconds < 1)


def help_start() -> Measurement:
    """Compare ``wastelens --help`` with an empty Python."""
    command = [sys.executable, str(ROOT / "src" / "wastelens"), "--help"]
    ours = best_of(5, lambda: subprocess.run(command, check=True, capture_output=True))
    empty = best_of(5, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    return Measurement(
        "wastelens --help",
        f"{ours:.2f} s",
        f"{empty:.2f} s (python -c pass)",
        f"+{ours - empty:.2f} s",
        "< 1 s over it",
        ours - empty < 1,
    )


def repeated(content: dict[str, Any], times: int, path: Path) -> int:
    """Write ``times`` copies of the annotations, each with its own ids and batches; returns the number of photos."""
    images, objects = content["images"], content["annotations"]
    with path.open("w", encoding="utf-8") as file:
        file.write('{"categories": ' + json.dumps(content["categories"]))
        for key, records in (("images", images), ("annotations", objects)):
            file.write(f', "{key}": [')
            for copy in range(times):
                copies = [json.dumps(_shifted(record, copy, len(images), len(objects))) for record in records]
                file.write((", " if copy else "") + ", ".join(copies))
            file.write("]")
        file.write("}")
    return times * len(images)


def _shifted(record: dict[str, Any], copy: int, images: int, objects: int) -> dict[str, Any]:
    if "file_name" in record:
        return {
            **record,
            "id": record["id"] + copy * images,
            "file_name": f"copy{copy}_{record['file_name']}",
        }
    return {**record, "id": record["id"] + copy * objects, "image_id": record["image_id"] + copy * images}


def memory(path: Path, folder: Path) -> list[Measurement]:
    """Measure peak memory and time of reading and tabulating 10 and 100 times TACO's annotations."""
    content = json.loads(path.read_text())
    seconds, lines = {}, []
    for times in (10, 100):
        big = folder / f"annotations_{times}.json"
        photos = repeated(content, times, big)
        seconds[times], peak_gib = run_python(READ.format(path=str(big), photos=photos))
        size_mb = big.stat().st_size / 1e6
        big.unlink()
        lines.append(
            Measurement(
                f"prepare's tables from {times} × the annotations ({photos:,} photos, {size_mb:.0f} MB)",
                f"{peak_gib:.2f} GiB, {seconds[times]:.1f} s",
                "–" if times == 10 else f"{seconds[10]:.1f} s (10 ×)",
                "–" if times == 10 else f"{seconds[100] / seconds[10]:.1f}× the time for 10 × the data",
                "< 4 GiB, linear time",
                peak_gib < 4 and (times == 10 or seconds[100] <= 12 * seconds[10]),
            )
        )
    return lines


def measure() -> list[Measurement]:
    """Measure all tabular budgets."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = annotations(folder)
        return [oversampling(path), help_start(), *memory(path, folder)]
