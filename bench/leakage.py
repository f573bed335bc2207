"""``python -m bench.leakage``: how much different splits of TACO leak, from its annotations alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.measure import SHARED
from wastelens.config.files import conf_folder
from wastelens.config.prepare import FractionsConfig
from wastelens.data.annotations.coco import read_coco
from wastelens.data.annotations.labels import tabulate
from wastelens.data.annotations.materials import read_mapping
from wastelens.data.prepared.dataset import split_tables
from wastelens.evaluation.controls import ControlInputs, neighbour_scores
from wastelens.evaluation.metrics import macro_average_precision
from wastelens.preparing.split import assign_splits
from wastelens.system.arrays import BoolArray

SEEDS = 10
TEST_PHOTOS = 291
HELD_OUT = (2, 9, 14)
UNSEEN = np.zeros((1, 1, 1, 3), dtype=np.uint8)  # the neighbour control reads no photos


def neighbour_macro_ap(labels: pd.DataFrame, materials: tuple[str, ...], in_test: BoolArray) -> float:
    """Return the macro AP of the neighbour control, with every photo outside the test part in training."""
    split = np.where(in_test, "test", "train")
    tables = split_tables(labels, split, materials)
    scores = neighbour_scores(ControlInputs(tables.train, {"test": tables.test}, UNSEEN))
    return float(macro_average_precision(tables.test.labels, scores["test"]))


def main() -> None:
    """Print the figures quoted in results.md and the README."""
    folder = SHARED / "data" / "taco"
    mapping = read_mapping(conf_folder() / "materials" / "predecessor.csv")
    labels = tabulate(read_coco(folder / "annotations.json"), mapping).labels
    batches = labels["source_file"].str.partition("/")[0].to_numpy(dtype=str)
    present = np.array([(folder / "photos" / file).exists() for file in labels["source_file"]])
    reached = []
    for seed in range(SEEDS):
        chosen = np.random.default_rng(seed).permutation(len(labels))[:TEST_PHOTOS]
        reached.append(neighbour_macro_ap(labels, mapping.materials, np.isin(np.arange(len(labels)), chosen)))
    held_out = neighbour_macro_ap(labels, mapping.materials, np.isin(batches, [f"batch_{n}" for n in HELD_OUT]))
    print(
        f"neighbours, random split of {len(labels):,} photos, {TEST_PHOTOS} in test, {SEEDS} seeds: "
        f"macro AP {np.mean(reached):.3f} ± {np.std(reached, ddof=1):.3f}"
    )
    print(f"neighbours, batches {HELD_OUT} held out: macro AP {held_out:.3f}")
    for name, rows in (("all", np.ones(len(labels), dtype=bool)), ("those present", present)):
        matrix = labels.loc[rows, list(mapping.materials)].to_numpy(dtype=np.uint8)
        found = assign_splits(
            matrix,
            batches[rows],
            mapping.materials,
            FractionsConfig(train=0.7, val=0.15, test=0.15),
            np.random.default_rng(0),
        )
        print(
            f"split by batch, {rows.sum():,} photos ({name}): {found.method}, largest difference "
            f"{100 * found.largest_share_difference:.2f} percentage points"
        )


if __name__ == "__main__":
    main()
