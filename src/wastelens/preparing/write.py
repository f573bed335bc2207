"""Write the files of a prepared dataset, and score the controls that go into them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wastelens.config.prepare import PrepareConfig
from wastelens.data.annotations.layout import COCO
from wastelens.data.annotations.materials import MAPPING_FILE, MaterialMapping, mapping_frame
from wastelens.data.prepared import dataset as prepared
from wastelens.data.prepared.dataset import SplitTables
from wastelens.evaluation.controls import Controls, controls_frame, score_controls
from wastelens.preparing.balance import Oversampled
from wastelens.system.arrays import PhotoArray
from wastelens.system.console import progress_bar
from wastelens.system.files import file_digest


def score_all_controls(tables: list[SplitTables], photos: PhotoArray, seed: int) -> list[tuple[Controls, SplitTables]]:
    """Score the controls, which predict without looking at the litter, for the main split and for each fold."""
    scored = []
    with progress_bar("Scoring controls", len(tables)) as bar:
        for one in tables:
            others = {"val": one.val, "test": one.test}
            scored.append((score_controls(one.train, others, photos=photos, seed=seed), one))
            bar.advance()
    return scored


def tables_from_labels(
    balanced: list[Oversampled], controls: list[tuple[Controls, SplitTables]]
) -> dict[str, pd.DataFrame]:
    """Return the tables that follow from labels and splits; both lists: the main split, then each fold."""
    return {
        prepared.BALANCED: balanced[0].table.frame.drop(columns="photo_index"),
        prepared.CONTROLS: pd.concat(
            [
                controls_frame(scored, {"val": of.val, "test": of.test}).assign(fold=fold)
                for fold, (scored, of) in enumerate(controls)
            ]
        ),
    }


def write_files(
    draft: Path, tables: Mapping[str, pd.DataFrame], mapping: MaterialMapping, manifest: Mapping[str, Any]
) -> None:
    """Write the tables, and last of all the manifest that vouches for them, the photo cache and the outlines.

    Args:
        draft: the folder, with the photo cache and the outlines in it.
        tables: file name → table.
        mapping: the mapping; for COCO its file is copied, as every row of it is used.
        manifest: all of it but the digests.
    """
    for name, frame in tables.items():
        frame.to_csv(draft / name, index=False)
    if manifest.get("layout", COCO) == COCO:
        shutil.copyfile(mapping.path, draft / MAPPING_FILE)
    else:
        mapping_frame(mapping).to_csv(draft / MAPPING_FILE, index=False)
    names = [*tables, MAPPING_FILE, prepared.OUTLINES, manifest["cache"]["file"]]
    complete = {**manifest, "files": {name: file_digest(draft / name) for name in names}}
    complete["digest"] = prepared.manifest_digest(complete)
    prepared.remove_strays(draft, complete)
    (draft / prepared.MANIFEST).write_text(json.dumps(complete, indent=2) + "\n", encoding="utf-8")


def figures_from_labels(
    balanced: list[Oversampled], controls: list[tuple[Controls, SplitTables]], config: PrepareConfig
) -> dict[str, Any]:
    """Return the parts of the manifest that follow from labels and splits, as in :func:`tables_from_labels`."""
    return {
        "balance": {
            "target": config.balance_target,
            "max_copies": config.max_copies,
            "cap_used": balanced[0].max_copies,
            "rows_before": balanced[0].rows_before,
            "rows_after": balanced[0].rows_after,
            "most_copies": balanced[0].most_copies,
        },
        "control_macro_ap": [
            {name: scores["test"] for name, scores in scored.macro_ap.items()} for scored, _ in controls
        ],
    }
