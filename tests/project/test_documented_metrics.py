"""docs/metrics.md names every metric and tag that a step logs."""

from __future__ import annotations

import re

import pytest
from tests.factories import config, write_dataset
from tests.memory_tracking import MemoryTracker
from tests.project.running import ROOT

from wastelens.steps import cluster, labels, predict, prepare, pretrain, train

TEXT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
MATERIALS = "plastic|aluminium|paper|glass|other_objects|toxic"
PLACEHOLDERS = {
    "<material>": f"(?:{MATERIALS})",
    "<name>": "(?:random|neighbours|size|colour)",
    "<features>": "(?:learned|pixels|colours)",
    "<method>": "[a-z_]+",
    "<score>": "[a-z_]+",
}
RANDOM = ("", "_random")
SPLIT_SCORES = "At the end, for `val/` and `test/`"


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def named(text: str) -> set[str]:
    """Return the names in backticks."""
    return set(re.findall(r"`([a-z][a-z0-9_/]*(?:<[a-z]+>[a-z0-9_/]*)*)`", text))


def documented(text: str = TEXT) -> re.Pattern[str]:
    """Return a pattern of all names in a text."""
    names = {name for name in named(text) if not name.startswith("cluster/<")}
    names |= {f"cluster/<features>/{score}{end}" for score in named(section("Clusters")) for end in RANDOM}
    names |= {"mlflow.note.content"} & set(re.findall("`(mlflow[a-z.]+)`", text))
    names |= {f"{split}/{name}" for split in ("val", "test") for name in named(section(SPLIT_SCORES))}
    patterns = [re.sub("<[a-z]+>", lambda found: PLACEHOLDERS[found[0]], name) for name in sorted(names)]
    return re.compile("|".join(patterns))


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> MemoryTracker:
    """Return a tracker with a run of each of these steps on a small dataset."""
    root, kept = tmp_path_factory.mktemp("documented"), MemoryTracker()
    write_dataset(root / "litter", side=(48, 48))
    dataset, where = str(root / "litter"), f"data_folder={root / 'data'}"
    prepare.run(config("prepare", f"image_side_px=32 folds=3 {where}", dataset=dataset), kept)
    pretrain.run(config("pretrain", f"learner.epochs=1 learner.widths=[4,8] {where}", dataset=dataset), kept)
    tiny = f"network.widths=[4,8] fit.epochs=1 bootstrap_resamples=100 {where}"
    trained = train.run(config("train", tiny, dataset=dataset), kept)
    chosen = config("cluster", f"k_range=[2,3] draws=5 {where}", dataset=dataset, run_id=trained.run_id)
    cluster.run(chosen, kept)
    doubted = "train.network.widths=[4,8] train.fit.epochs=1"
    labels.run(config("labels", f"{doubted} {where}", dataset=dataset, model="base", shown="3"), kept)
    used = {"model": trained.run_id, "photos": dataset, "output": str(root / "out"), "accept_unproven": "true"}
    predict.run(config("predict", "bootstrap_resamples=100", **used), kept)
    return kept


@pytest.mark.parametrize("kind", ["metrics", "tags"])
def test_every_name_that_is_logged_is_documented(tracker: MemoryTracker, kind: str) -> None:
    known = documented()
    logged = {name for run in tracker.runs for name in getattr(run, kind)}
    assert len(logged) > 20
    assert {name for name in logged if not known.fullmatch(name)} == set()


def test_every_documented_metric_of_prepare_is_logged(tracker: MemoryTracker) -> None:
    told = {
        name for row in section("Preparing").splitlines() for name in named(row.split("|")[1] if "|" in row else "")
    }
    assert len(told) > 10
    metrics = set(tracker.runs[0].metrics)
    assert {name for name in told - {"photos/<material>"} if name not in metrics} == set()


def test_names_that_are_not_documented_are_found() -> None:
    assert documented().fullmatch("photos/glass")
    assert documented().fullmatch("test/ap_glass")
    assert not documented().fullmatch("photos/wood")
    assert not documented(TEXT.replace("balance/most_copies", "")).fullmatch("balance/most_copies")
