"""The files of a prepared dataset say what a loop over its photos finds."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from tests.factories import MATERIALS

from wastelens.data.prepared.dataset import load_prepared
from wastelens.preparing.relabel import relabelled

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module", params=["prepared", "relabelled"])
def folder(request: pytest.FixtureRequest, prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    if request.param == "prepared":
        return base.folder
    return relabelled(base, "predecessor", tmp_path_factory.mktemp("data")).folder


def test_figures_are_those_of_the_labels(folder: Path) -> None:
    manifest, labels = json.loads((folder / "manifest.json").read_text()), pd.read_csv(folder / "labels.csv")
    assert manifest["counts"]["materials"] == {name: sum(labels[name]) for name in MATERIALS}
    parts = [labels[labels["split"] == name] for name in SPLITS]
    shares = {name: [sum(part[name]) / len(part) for part in parts] for name in MATERIALS}
    expected = max(max(of_material) - min(of_material) for of_material in shares.values())
    assert manifest["split"]["largest_share_difference"] == pytest.approx(expected)
    assert manifest["split"]["folds"] == len(manifest["control_macro_ap"]) - 1 == 3
    assert manifest["balance"]["rows_after"] == len(pd.read_csv(folder / "train_balanced.csv"))


def test_folds_and_copies_are_those_of_the_tables(folder: Path) -> None:
    dataset, folds = load_prepared(folder), pd.read_csv(folder / "folds.csv", dtype={"file_name": str})
    assert list(folds) == ["file_name", *(f"{what}_{fold}" for fold in (1, 2, 3) for what in ("fold", "copies"))]
    assert folds["file_name"].tolist() == dataset.frame["file_name"].tolist()
    for fold in (1, 2, 3):
        by_split = {name: getattr(dataset.split(fold), name).file_names for name in SPLITS}
        for name, split, copies in folds[["file_name", f"fold_{fold}", f"copies_{fold}"]].itertuples(index=False):
            assert name in by_split[split]
            assert (copies > 0) == (split == "train")
    assert sum(folds["copies_1"]) > sum(folds["fold_1"] == "train")
