"""The step ``labels`` on small data: what it logs, and that its corrections go round through ``prepare``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.factories import MATERIALS, config, write_dataset, write_json
from tests.memory_tracking import MemoryRun, MemoryTracker

from wastelens.data.prepared.dataset import load_prepared
from wastelens.errors import ConfigError
from wastelens.experiment.out_of_fold import check_out_of_fold, parts_of
from wastelens.steps import labels, prepare

TINY = "train.network.widths=[4,8] train.fit.epochs=2 train.fit.batch_size=16"


def doubts_of(root: Path, settings: str = TINY, **parameters: str) -> tuple[MemoryRun, labels.LabelDoubts]:
    tracker = MemoryTracker()
    chosen = config(
        "labels",
        f"data_folder={root / 'data'} {settings}",
        **{"dataset": str(root / "litter"), "model": "base", "shown": "30", **parameters},
    )
    result = labels.run(chosen, tracker)
    return tracker.runs[0], result


@pytest.fixture(scope="module")
def doubted(prepared_folder: Path) -> tuple[MemoryRun, labels.LabelDoubts]:
    return doubts_of(prepared_folder)


def test_every_label_is_in_the_list_once(prepared_folder: Path, doubted: tuple[MemoryRun, labels.LabelDoubts]) -> None:
    run, _ = doubted
    assert run.status == "FINISHED"
    listed = pd.read_csv(run.folder / "labels" / "label_quality.csv")
    frame = pd.read_csv(prepared_folder / "data" / "prepared" / "litter" / "labels.csv").set_index("file_name")
    assert len(listed) == frame.shape[0] * len(MATERIALS)
    assert not listed.duplicated(["file_name", "material"]).any()
    assert listed["quality"].is_monotonic_increasing
    given = [frame.at[name, material] for name, material in zip(listed["file_name"], listed["material"], strict=True)]
    assert listed["label"].tolist() == given
    assert (listed["kind"] == np.where(listed["label"] == 1, "superfluous", "missing")).all()
    confident = np.where(listed["label"] == 1, listed["probability"], 1 - listed["probability"])
    np.testing.assert_allclose(listed["quality"], confident, atol=1e-6)


def test_the_run_says_what_was_found(doubted: tuple[MemoryRun, labels.LabelDoubts]) -> None:
    run, result = doubted
    assert run.tags["step"] == "labels"
    assert run.tags["verdict"].startswith("Estimated to be wrong: ")
    assert run.metrics["labels"] == len(result.found.doubts)
    assert {path.name for path in (run.folder / "labels").iterdir()} == {
        *("index.html", "label_quality.csv", "categories.csv", "near_duplicates.csv", "several_annotators.csv")
    }
    page = (run.folder / "labels" / "index.html").read_text(encoding="utf-8")
    assert page.count("<article") == 30
    assert page.count('class="heat smooth"') == 30
    assert '<ul class="cutouts">' in page


def test_without_evidence_there_is_no_map(prepared_folder: Path) -> None:
    run, _ = doubts_of(prepared_folder, evidence="false", shown="3")
    page = (run.folder / "labels" / "index.html").read_text(encoding="utf-8")
    assert 'class="heat smooth"' not in page
    assert page.count("<article") == 3


@pytest.mark.parametrize("folds", [0, 3])
def test_each_photo_is_held_out_once_and_never_with_its_group(prepared_folder: Path, folds: int) -> None:
    dataset = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    dataset.manifest["split"]["folds"] = folds
    parts = parts_of(dataset, seed=0)
    assert len(parts) == (folds or 5)
    held_out = np.concatenate([part.held_out.photo_index for part in parts])
    assert sorted(held_out.tolist()) == list(range(len(dataset.frame)))
    for part in parts:
        groups = [set(table.groups) for table in (part.train, part.val, part.held_out)]
        assert all(groups)
        assert not groups[0] & groups[1]
        assert not (groups[0] | groups[1]) & groups[2]


def test_an_encoder_that_may_have_seen_the_photos_is_refused(prepared_folder: Path) -> None:
    with pytest.raises(ConfigError, match="pretrained=auto: the encoder may have seen"):
        doubts_of(prepared_folder, "", model="autoencoder")


@pytest.mark.parametrize(("model", "groups", "needed"), [("base", 2, 3), ("probe", 1, 2)])
def test_too_few_groups_to_hold_one_out_are_refused(
    prepared_folder: Path, model: str, groups: int, needed: int
) -> None:
    dataset = load_prepared(prepared_folder / "data" / "prepared" / "litter")
    few = replace(dataset, frame=dataset.frame.assign(group=[str(row % groups) for row in range(len(dataset.frame))]))
    with pytest.raises(
        ConfigError, match=rf"of {groups} groups? .*{model} needs {needed}, so that no photo's own group"
    ):
        check_out_of_fold(config("train", model=model), few)


def test_photos_that_annotators_disagree_about_are_named(tmp_path: Path) -> None:
    content = write_dataset(tmp_path / "litter", side=(48, 48))
    first = content["images"][0]
    content["images"].append({**first, "id": 9_999})
    box = [8.0, 8.0, 24.0, 8.0, 24.0, 20.0, 8.0, 20.0]
    shown = {one["category_id"] for one in content["annotations"] if one["image_id"] == first["id"]}
    other = next(one["id"] for one in content["categories"] if one["id"] not in shown)
    content["annotations"].append(
        {"id": 99_999, "image_id": 9_999, "category_id": other, "segmentation": [box], "iscrowd": 0}
    )
    write_json(tmp_path / "litter" / "annotations.json", content)
    prepare.run(
        config("prepare", f"image_side_px=32 data_folder={tmp_path / 'data'}", dataset=str(tmp_path / "litter")),
        MemoryTracker(),
    )
    run, result = doubts_of(tmp_path)
    (name, what), *more = result.found.several.items()
    assert not more
    assert name == "batch_1_000000.jpg"
    assert f"id {first['id']}: " in what
    assert "id 9999: " + content["categories"][other]["name"] in what
    assert run.metrics["labels/differing_annotators"] == 1
    assert json.dumps(what)[1:10] in json.dumps((run.folder / "labels" / "index.html").read_text(encoding="utf-8"))
